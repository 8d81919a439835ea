//! The formats of the tables and the steps of the walk.

use super::{Access, CR0_CD, GuestMemory, PageFault, Paging, Privilege, Rights, Translation, WalkError};
use crate::ensure;

pub(super) const PRESENT: u64 = 1 << 0;
pub(super) const WRITABLE: u64 = 1 << 1;
pub(super) const USER: u64 = 1 << 2;
pub(super) const WRITE_THROUGH: u64 = 1 << 3;
pub(super) const CACHE_DISABLE: u64 = 1 << 4;
pub(super) const ACCESSED: u64 = 1 << 5;
pub(super) const DIRTY: u64 = 1 << 6;
/// In an entry above the last level: this maps a page.
pub(super) const LARGE: u64 = 1 << 7;
/// The PAT bit of a 4 KiB page, which is where larger pages have [`LARGE`].
pub(super) const PAT_SMALL: u64 = 1 << 7;
pub(super) const PAT_LARGE: u64 = 1 << 12;
pub(super) const NO_EXECUTE: u64 = 1 << 63;

pub(super) const CR0_WP: u64 = 1 << 16;
pub(super) const CR0_PG: u64 = 1 << 31;
pub(super) const CR4_PSE: u64 = 1 << 4;
pub(super) const CR4_PAE: u64 = 1 << 5;
pub(super) const CR4_LA57: u64 = 1 << 12;
pub(super) const CR4_SMEP: u64 = 1 << 20;
pub(super) const CR4_SMAP: u64 = 1 << 21;
pub(super) const EFER_LMA: u64 = 1 << 10;
pub(super) const EFER_NXE: u64 = 1 << 11;

/// How often an entry may change between its reading and the setting of its accessed bit.
const MAX_RACES: u32 = 8;

/// The form of the tables. The number is that of their levels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Two levels of 4-byte entries.
    Legacy = 2,
    /// Three levels of 8-byte entries, the first of which has 4 entries without rights.
    Pae = 3,
    /// Four levels.
    Long = 4,
    /// Five levels.
    Long57 = 5,
}

impl Format {
    const fn of(paging: &Paging) -> Option<Self> {
        if paging.cr0 & CR0_PG == 0 {
            None
        } else if paging.efer & EFER_LMA != 0 {
            Some(if paging.cr4 & CR4_LA57 != 0 { Self::Long57 } else { Self::Long })
        } else if paging.cr4 & CR4_PAE != 0 {
            Some(Self::Pae)
        } else {
            Some(Self::Legacy)
        }
    }

    /// The lowest address bit that selects an entry on `level`, where 1 is the last.
    const fn shift(self, level: u8) -> u8 {
        let index_bits = if matches!(self, Self::Legacy) { 10 } else { 9 };
        12 + index_bits * (level - 1)
    }
}

impl Rights {
    pub(super) const ALL: Self = Self { writable: true, user: true, executable: true };

    const fn and(self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & WRITABLE != 0,
            user: self.user && entry & USER != 0,
            executable: self.executable && entry & NO_EXECUTE == 0,
        }
    }
}

/// The walk of one address.
pub(super) struct Walk<'a, M> {
    memory: &'a M,
    paging: &'a Paging,
    format: Format,
    gva: u64,
    access: Access,
}

impl<'a, M: GuestMemory> Walk<'a, M> {
    /// The walk for an address, or `None` if paging is off.
    pub(super) fn new(memory: &'a M, paging: &'a Paging, gva: u64, access: Access) -> Option<Self> {
        Some(Self { memory, paging, format: Format::of(paging)?, gva, access })
    }

    pub(super) fn run(&self) -> Result<Translation, WalkError> {
        self.check_range()?;
        let mut table = self.root();
        let mut rights = Rights::ALL;
        let mut level = self.format as u8;
        loop {
            let entry;
            (entry, rights) = self.step(level, table, rights)?;
            // The last level always ends in a page or an error.
            if self.is_leaf(level, entry) {
                return Ok(self.page(level, entry, rights));
            }
            table = entry & self.address_mask();
            level -= 1;
        }
    }

    /// The address must be one that the mode can express. Beyond 32 bits, TLFS 2.0A §12.4.4 asks for "not present".
    fn check_range(&self) -> Result<(), WalkError> {
        let unused = match self.format {
            Format::Legacy | Format::Pae if self.gva >> 32 != 0 => return Err(self.fault(0)),
            Format::Legacy | Format::Pae => return Ok(()),
            Format::Long => 16,
            Format::Long57 => 7,
        };
        let extended = (self.gva << unused).cast_signed() >> unused;
        ensure(extended == self.gva.cast_signed(), WalkError::NonCanonical)
    }

    fn root(&self) -> u64 {
        match self.format {
            Format::Legacy => self.paging.cr3 & 0xffff_f000,
            Format::Pae => self.paging.cr3 & 0xffff_ffe0,
            Format::Long | Format::Long57 => self.paging.cr3 & self.address_mask(),
        }
    }

    /// The bits of an 8-byte entry that hold an address.
    fn address_mask(&self) -> u64 {
        let bits = u32::from(self.paging.physical_bits.clamp(32, 52));
        (u64::MAX >> (64 - bits)) & !0xfff
    }

    fn fault(&self, cause: u32) -> WalkError {
        let has_fetch = self.paging.efer & EFER_NXE != 0 && self.format != Format::Legacy
            || self.paging.cr4 & CR4_SMEP != 0;
        let flags = [
            (PageFault::WRITE, self.access.write),
            (PageFault::USER, self.access.privilege == Privilege::User),
            (PageFault::FETCH, self.access.execute && has_fetch),
        ];
        let code = flags.into_iter().filter(|(_, is_set)| *is_set).fold(cause, |code, (flag, _)| code | flag);
        WalkError::PageFault(PageFault(code))
    }

    /// Reads the entry of `level`, judges it, and marks it accessed. Returns it, and the rights that are left.
    fn step(&self, level: u8, table: u64, above: Rights) -> Result<(u64, Rights), WalkError> {
        for _ in 0..MAX_RACES {
            let slot = self.slot(level, table)?;
            let entry = slot.entry;
            ensure(entry & PRESENT != 0, self.fault(0))?;
            let is_clear = entry & self.reserved(level, entry) == 0;
            ensure(is_clear, self.fault(PageFault::PRESENT | PageFault::RESERVED))?;
            let has_rights = self.format != Format::Pae || level < 3;
            let rights = if has_rights { above.and(entry) } else { above };
            let is_leaf = self.is_leaf(level, entry);
            if is_leaf {
                self.check_rights(rights)?;
            }
            let dirty = if is_leaf && self.access.write { DIRTY } else { 0 };
            if self.access.set_bits && has_rights && !self.mark(&slot, ACCESSED | dirty)? {
                continue;
            }
            return Ok((entry, rights));
        }
        Err(self.fault(0))
    }

    /// Sets bits of an entry that lack; returns false if the entry has changed.
    fn mark(&self, slot: &Slot, bits: u64) -> Result<bool, WalkError> {
        if slot.entry & bits == bits {
            return Ok(true);
        }
        let bits = bits << slot.shift;
        self.memory
            .set_bits(slot.gpa, slot.raw, bits)
            .map_err(|error| WalkError::Gpa { gpa: slot.gpa, error })
    }

    fn slot(&self, level: u8, table: u64) -> Result<Slot, WalkError> {
        let index = self.gva >> self.format.shift(level);
        let (address, is_short) = match self.format {
            Format::Legacy => (table + (index & 0x3ff) * 4, true),
            _ => (table + (index & 0x1ff) * 8, false),
        };
        let gpa = address & !7;
        let raw = self.memory.read_u64(gpa).map_err(|error| WalkError::Gpa { gpa, error })?;
        let shift = (address & 4) as u8 * 8;
        let entry = if is_short { raw >> shift & 0xffff_ffff } else { raw };
        Ok(Slot { gpa, raw, shift, entry })
    }

    /// Whether an entry maps a page.
    fn is_leaf(&self, level: u8, entry: u64) -> bool {
        level == 1 || self.is_large(level, entry)
    }

    /// Whether an entry above the last level maps a page. Where the bit is reserved, it was refused before.
    fn is_large(&self, level: u8, entry: u64) -> bool {
        let has_pse = self.format != Format::Legacy || self.paging.cr4 & CR4_PSE != 0;
        let is_directory_pointer = self.format == Format::Pae && level == 3;
        entry & LARGE != 0 && has_pse && !is_directory_pointer
    }

    /// The bits that must be zero in an entry (APM 2 §5.2 and §5.3; SDM 3 §4.3 to §4.5 where it is stricter).
    fn reserved(&self, level: u8, entry: u64) -> u64 {
        let is_large = level > 1 && self.is_large(level, entry);
        if self.format == Format::Legacy {
            // PSE-36: bits 20:13 are address bits 39:32, as far as the partition has them (APM 2 §5.2.2).
            let extra = u32::from(self.paging.physical_bits.clamp(32, 40)) - 32;
            return if is_large { 0x003f_e000 & !(((1 << extra) - 1) << 13) } else { 0 };
        }
        let beyond = 0x000f_ffff_ffff_f000 & !self.address_mask();
        let no_execute = if self.paging.efer & EFER_NXE == 0 { NO_EXECUTE } else { 0 };
        let pae = if self.format == Format::Pae { 0x7ff0_0000_0000_0000 } else { 0 };
        let shape = match level {
            3 if self.format == Format::Pae => NO_EXECUTE | 0x1e6,
            4.. => LARGE,
            3 if is_large && !self.paging.has_1g_pages => LARGE,
            2 | 3 if is_large => ((1 << self.format.shift(level)) - 1) & !0x1fff,
            _ => 0,
        };
        beyond | no_execute | pae | shape
    }

    fn check_rights(&self, rights: Rights) -> Result<(), WalkError> {
        let Access { read, write, execute, privilege, .. } = self.access;
        let is_data = read || write;
        let (cr0, cr4) = (self.paging.cr0, self.paging.cr4);
        let is_denied = match privilege {
            Privilege::User => (is_data || execute) && !rights.user || write && !rights.writable,
            _ => write && !rights.writable && cr0 & CR0_WP != 0,
        };
        let is_smep = matches!(privilege, Privilege::Supervisor | Privilege::SupervisorWithoutSmap)
            && cr4 & CR4_SMEP != 0;
        let is_smap = privilege == Privilege::Supervisor && cr4 & CR4_SMAP != 0;
        let is_guarded = rights.user && (execute && is_smep || is_data && is_smap);
        let is_allowed = !is_denied && !is_guarded && (!execute || rights.executable);
        ensure(is_allowed, self.fault(PageFault::PRESENT))
    }

    fn page(&self, level: u8, entry: u64, rights: Rights) -> Translation {
        let offset_mask = (1_u64 << self.format.shift(level)) - 1;
        let mut base = entry & self.address_mask() & !offset_mask;
        let pat = if level == 1 { PAT_SMALL } else { PAT_LARGE };
        if self.format == Format::Legacy && level == 2 {
            base |= (entry & 0x001f_e000) << 19;
        }
        let index = [(WRITE_THROUGH, 1), (CACHE_DISABLE, 2), (pat, 4)];
        Translation {
            gpa: base | self.gva & offset_mask,
            page_size: offset_mask + 1,
            rights,
            pat_index: index.into_iter().map(|(bit, value)| if entry & bit != 0 { value } else { 0 }).sum(),
            is_cache_disabled: self.paging.cr0 & CR0_CD != 0,
        }
    }
}

/// An entry as it was read.
struct Slot {
    /// Where the 8 bytes around it are.
    gpa: u64,
    raw: u64,
    /// Its place in them, in bits.
    shift: u8,
    entry: u64,
}
