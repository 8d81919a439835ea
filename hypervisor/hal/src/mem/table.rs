//! Page tables in the long-mode format: the hypervisor's own (APM 2 §5.3) and nested ones, which differ in one bit
//! (APM 2 §15.25.5).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{addr::Hpa, mem::direct};

/// Levels of a table; level 0 maps 4 KiB.
const LEVELS: u8 = 4;
/// Entries of a table.
pub(crate) const ENTRIES: usize = 512;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// Only in nested tables: the walker treats every guest access as a user access.
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// Available to software: the level of a removed entry, kept while it waits for the flush.
const LEVEL_SHIFT: u32 = 52;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page. Reading is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Writing is allowed.
    pub write: bool,
    /// Fetching instructions is allowed.
    pub execute: bool,
}

impl Access {
    /// Read, write and execute.
    pub const ALL: Self = Self { write: true, execute: true };
    /// Only read.
    pub(crate) const READ_ONLY: Self = Self { write: false, execute: false };
    /// Read and write.
    pub(crate) const READ_WRITE: Self = Self { write: true, execute: false };
    /// Read and execute.
    pub(crate) const EXECUTE: Self = Self { write: false, execute: true };
}

/// The sizes of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Large,
    /// 1 GiB.
    Huge,
}

impl PageSize {
    pub(crate) fn level(self) -> u8 {
        self as u8
    }

    pub(crate) fn at(level: u8) -> Self {
        match level {
            0 => Self::Small,
            1 => Self::Large,
            _ => Self::Huge,
        }
    }

    /// How many 4 KiB pages it has.
    pub const fn pages(self) -> u64 {
        1 << (9 * (self as u32))
    }

    /// How many bytes it has.
    pub const fn bytes(self) -> u64 {
        self.pages() << 12
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry(u64);

impl Entry {
    pub(crate) const EMPTY: Self = Self(0);

    /// The entry for a table one level below.
    pub(crate) fn table(table: Hpa) -> Self {
        Self(table.0 | PRESENT | WRITE)
    }

    pub(crate) fn leaf(hpa: Hpa, size: PageSize, access: Access) -> Self {
        let when = |condition: bool, bit: u64| if condition { bit } else { 0 };
        let rights = when(access.write, WRITE) | when(!access.execute, NO_EXECUTE);
        Self(hpa.0 | PRESENT | rights | when(size != PageSize::Small, LARGE))
    }

    /// The same in a nested table.
    pub(super) fn nested(self) -> Self {
        Self(self.0 | USER)
    }

    /// The leaf for part `index` of this leaf of `level`, one level below.
    pub(super) fn part(self, level: u8, index: usize) -> Self {
        let bytes = PageSize::at(level - 1).bytes();
        let bits = if level == 1 { self.0 & !LARGE } else { self.0 };
        Self(bits + index as u64 * bytes)
    }

    pub(crate) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    pub(crate) fn is_leaf(self, level: u8) -> bool {
        level == 0 || self.0 & LARGE != 0
    }

    pub(crate) fn hpa(self) -> Hpa {
        Hpa(self.0 & ADDRESS)
    }

    pub(super) fn access(self) -> Access {
        Access { write: self.0 & WRITE != 0, execute: self.0 & NO_EXECUTE == 0 }
    }

    /// The accessed and the dirty bit.
    fn state(self) -> (bool, bool) {
        (self.0 & ACCESSED != 0, self.0 & DIRTY != 0)
    }

    /// With the accessed and the dirty bit changed, where there is a value for them.
    fn with_state(self, [accessed, dirty]: [Option<bool>; 2]) -> Self {
        let change = |bits: u64, bit: u64, on: Option<bool>| match on {
            Some(true) => bits | bit,
            Some(false) => bits & !bit,
            None => bits,
        };
        Self(change(change(self.0, ACCESSED, accessed), DIRTY, dirty))
    }

    pub(super) fn at_level(self, level: u8) -> Self {
        Self(self.0 & !(0x3ff << LEVEL_SHIFT) | u64::from(level) << LEVEL_SHIFT)
    }

    pub(super) fn level(self) -> u8 {
        (self.0 >> LEVEL_SHIFT) as u8 & 3
    }
}

/// One entry's place in a table.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(super) table: Hpa,
    pub(super) index: usize,
    pub(crate) level: u8,
}

impl Slot {
    fn of(table: Hpa, address: u64, level: u8) -> Self {
        let index = (address >> (12 + 9 * u32::from(level))) as usize % ENTRIES;
        Self { table, index, level }
    }

    /// Goes from the top table towards `address`, as far down as `level`, and stops before if there is no table. Returns
    /// where it stopped, and the entry there.
    pub(crate) fn descend(top: Hpa, address: u64, level: u8) -> (Self, Entry) {
        let mut slot = Self::of(top, address, LEVELS - 1);
        loop {
            let entry = slot.load();
            if slot.level == level || !entry.is_present() || entry.is_leaf(slot.level) {
                return (slot, entry);
            }
            slot = Self::of(entry.hpa(), address, slot.level - 1);
        }
    }

    /// The places in a top table.
    pub(crate) fn of_top(table: Hpa) -> impl Iterator<Item = Self> {
        (0..ENTRIES).map(move |index| Self { table, index, level: LEVELS - 1 })
    }

    fn word(&self) -> &'static AtomicU64 {
        let table = direct::<[AtomicU64; ENTRIES]>(self.table);
        // SAFETY: `table` is an owned frame used only as a table; the processor's walker shares it, hence atomics.
        // A space's lock is held, so that its table is not freed meanwhile; the hypervisor's own are never freed.
        let words = unsafe { &*table };
        &words[self.index % ENTRIES]
    }

    pub(super) fn load(&self) -> Entry {
        Entry(self.word().load(Ordering::Relaxed))
    }

    pub(crate) fn swap(&self, entry: Entry) -> Entry {
        Entry(self.word().swap(entry.0, Ordering::AcqRel))
    }

    /// Changes the accessed and dirty bits, and returns what they were.
    pub(super) fn update_state(&self, update: [Option<bool>; 2]) -> (bool, bool) {
        let change = |bits: u64| Some(Entry(bits).with_state(update).0);
        // The walker sets bits concurrently; the loop of `fetch_update` loses none.
        let (Ok(old) | Err(old)) = self.word().fetch_update(Ordering::AcqRel, Ordering::Relaxed, change);
        Entry(old).state()
    }
}
