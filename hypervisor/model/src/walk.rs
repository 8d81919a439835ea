//! A walk of a guest's own page tables, from a guest virtual to a guest physical address (APM 2 chapter 5).
//!
//! It serves HvCallTranslateVirtualAddress and the instruction fetch of an emulated access. It never follows what the
//! processor may have cached, and the tables may change under it: each entry is read once and judged as read.
//! Protection keys and shadow stacks are not evaluated, because no child is offered them.

mod tables;
#[cfg(test)]
mod tests;

use tables::Walk;
use tlfs::vp::{CacheType, TranslateFlags, TranslateResultCode};

const CR0_CD: u64 = 1 << 30;
const RFLAGS_AC: u64 = 1 << 18;

/// Guest physical memory as the walk needs it. Addresses are multiples of 8.
pub trait GuestMemory {
    /// Reads 8 bytes atomically.
    ///
    /// # Errors
    /// The partition cannot read there.
    fn read_u64(&self, gpa: u64) -> Result<u64, GpaError>;

    /// Sets `bits` in one atomic step if the 8 bytes still are `expected`, and returns whether they were.
    ///
    /// # Errors
    /// The partition cannot write there.
    fn set_bits(&self, gpa: u64, expected: u64, bits: u64) -> Result<bool, GpaError>;
}

/// Why the partition cannot access a guest physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpaError {
    /// Nothing is mapped there.
    Unmapped,
    /// The mapping is not readable.
    NoReadAccess,
    /// The mapping is not writable.
    NoWriteAccess,
}

/// The control state that decides how addresses are translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paging {
    /// CR0: PG, WP and CD.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4: PSE, PAE, LA57, SMEP and SMAP.
    pub cr4: u64,
    /// EFER: LMA and NXE.
    pub efer: u64,
    /// The number of physical address bits the partition sees, 32 to 52 (CPUID 0x80000008).
    pub physical_bits: u8,
    /// Whether the partition sees 1 GiB pages (CPUID 0x80000001 EDX bit 26).
    pub has_1g_pages: bool,
}

/// The access to be checked. With none of the three kinds, only the presence and form of entries are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Data is read.
    pub read: bool,
    /// Data is written.
    pub write: bool,
    /// An instruction is fetched.
    pub execute: bool,
    /// The rules that apply to the one who accesses.
    pub privilege: Privilege,
    /// Set accessed and dirty bits on the way. Those set before a failure stay set.
    pub set_bits: bool,
}

/// Whose access it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Privilege {
    /// CPL 3.
    User,
    /// CPL 0 to 2, under SMEP and SMAP where CR4 enables them.
    #[default]
    Supervisor,
    /// CPL 0 to 2 with RFLAGS.AC set: SMAP does not apply.
    SupervisorWithoutSmap,
    /// A supervisor to whom neither SMEP nor SMAP applies.
    Exempt,
}

impl Access {
    /// The access that a caller of HvCallTranslateVirtualAddress describes, for a VP in the given state.
    ///
    /// TLFS 2.0A explains the exemption as CPL 0, the current text as no check of the access mode. The latter
    /// counts here, since a VMM which asks for it reads descriptor tables and the like, to which SMAP never applies.
    #[must_use]
    pub fn from_flags(flags: TranslateFlags, cpl: u8, rflags: u64) -> Self {
        let has = |flag| flags.contains(flag);
        let is_user = if has(TranslateFlags::SUPERVISOR_ACCESS) { false } else { cpl == 3 };
        let is_smap_off = rflags & RFLAGS_AC != 0 && !has(TranslateFlags::ENFORCE_SMAP);
        let privilege = if has(TranslateFlags::PRIVILEGE_EXEMPT) {
            Privilege::Exempt
        } else if is_user || has(TranslateFlags::USER_ACCESS) {
            Privilege::User
        } else if is_smap_off || has(TranslateFlags::OVERRIDE_SMAP) {
            Privilege::SupervisorWithoutSmap
        } else {
            Privilege::Supervisor
        };
        Self {
            read: has(TranslateFlags::VALIDATE_READ),
            write: has(TranslateFlags::VALIDATE_WRITE),
            execute: has(TranslateFlags::VALIDATE_EXECUTE),
            privilege,
            set_bits: has(TranslateFlags::SET_PAGE_TABLE_BITS),
        }
    }
}

/// What page tables allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Every level allows writing.
    pub writable: bool,
    /// Every level allows user accesses.
    pub user: bool,
    /// No level forbids execution.
    pub executable: bool,
}

/// A successful translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest physical address.
    pub gpa: u64,
    /// The size of the page in bytes. Without paging, 4 KiB.
    pub page_size: u64,
    /// What all levels agree on.
    pub rights: Rights,
    /// The entry of the page attribute table that gives the cache type (APM 2 §7.8.2).
    pub pat_index: u8,
    is_cache_disabled: bool,
}

impl Translation {
    /// The cache type that results from IA32_PAT. Memory types are numbered alike, but the PAT has "UC-" (7) as well.
    #[must_use]
    pub const fn cache_type(&self, pat: u64) -> CacheType {
        let kind = (pat >> (self.pat_index as u32 * 8)) as u32 & 7;
        if self.is_cache_disabled || kind == 7 { CacheType::UNCACHED } else { CacheType(kind) }
    }
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// The page-fault error code the processor would push (APM 2 §8.4.2).
    PageFault(PageFault),
    /// The address is not canonical; the processor would raise #GP or #SS.
    NonCanonical,
    /// An entry cannot be accessed.
    Gpa {
        /// The address of the entry, rounded down to 8 bytes.
        gpa: u64,
        /// What is wrong there.
        error: GpaError,
    },
}

impl WalkError {
    /// The result code, and the guest physical address that goes with it (TLFS 2.0A §12.4.4).
    #[must_use]
    pub const fn result(self) -> (TranslateResultCode, Option<u64>) {
        match self {
            Self::PageFault(PageFault(code)) if code & PageFault::RESERVED != 0 => {
                (TranslateResultCode::INVALID_PAGE_TABLE_FLAGS, None)
            }
            Self::PageFault(PageFault(code)) if code & PageFault::PRESENT != 0 => {
                (TranslateResultCode::PRIVILEGE_VIOLATION, None)
            }
            Self::PageFault(_) | Self::NonCanonical => (TranslateResultCode::PAGE_NOT_PRESENT, None),
            Self::Gpa { gpa, error: GpaError::Unmapped } => (TranslateResultCode::GPA_UNMAPPED, Some(gpa)),
            Self::Gpa { gpa, error: GpaError::NoReadAccess } => {
                (TranslateResultCode::GPA_NO_READ_ACCESS, Some(gpa))
            }
            Self::Gpa { gpa, error: GpaError::NoWriteAccess } => {
                (TranslateResultCode::GPA_NO_WRITE_ACCESS, Some(gpa))
            }
        }
    }
}

/// A page-fault error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageFault(pub u32);

impl PageFault {
    /// The page was present, and a right was missing or an entry was malformed.
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made at CPL 3.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was an instruction fetch.
    pub const FETCH: u32 = 1 << 4;
}

/// Translates `gva` for the given access.
///
/// # Errors
/// See [`WalkError`].
pub fn translate<M: GuestMemory>(
    memory: &M,
    paging: &Paging,
    gva: u64,
    access: Access,
) -> Result<Translation, WalkError> {
    match Walk::new(memory, paging, gva, access) {
        Some(walk) => walk.run(),
        None => Ok(identity(paging, gva)),
    }
}

/// Without paging, every address translates (TLFS 2.0A §12.4.4). Such a processor has 32-bit addresses.
const fn identity(paging: &Paging, gva: u64) -> Translation {
    Translation {
        gpa: gva & 0xffff_ffff,
        page_size: 4096,
        rights: Rights::ALL,
        pat_index: 0,
        is_cache_disabled: paging.cr0 & CR0_CD != 0,
    }
}
