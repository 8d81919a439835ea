//! The bits of a nested page-table entry (APM 2 §5.3 and §15.25.5).

use crate::addr::Hpa;

/// Levels of the nested table; level 0 maps 4 KiB.
pub const LEVELS: u8 = 4;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// The walker treats every guest access as a user access.
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// Available to software: the level of a removed entry, kept while it waits for the flush.
const LEVEL_SHIFT: u32 = 52;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a guest may do with a page. Reading is always allowed.
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
    pub(super) fn level(self) -> u8 {
        self as u8
    }

    pub(super) fn at(level: u8) -> Self {
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(u64);

impl Entry {
    pub(super) const EMPTY: Self = Self(0);

    pub(super) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    pub(super) fn table(table: Hpa) -> Self {
        Self(table.0 | PRESENT | WRITE | USER)
    }

    pub(super) fn leaf(hpa: Hpa, size: PageSize, access: Access) -> Self {
        let mut bits = hpa.0 | PRESENT | USER;
        if access.write {
            bits |= WRITE;
        }
        if !access.execute {
            bits |= NO_EXECUTE;
        }
        if size != PageSize::Small {
            bits |= LARGE;
        }
        Self(bits)
    }

    /// The leaf for part `index` of this leaf of `level`, one level below.
    pub(super) fn part(self, level: u8, index: usize) -> Self {
        let bytes = PageSize::at(level - 1).bytes();
        let bits = if level == 1 { self.0 & !LARGE } else { self.0 };
        Self(bits + index as u64 * bytes)
    }

    pub(super) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    pub(super) fn is_leaf(self, level: u8) -> bool {
        level == 0 || self.0 & LARGE != 0
    }

    pub(super) fn hpa(self) -> Hpa {
        Hpa(self.0 & ADDRESS)
    }

    pub(super) fn access(self) -> Access {
        Access { write: self.0 & WRITE != 0, execute: self.0 & NO_EXECUTE == 0 }
    }

    pub(super) fn is_accessed(self) -> bool {
        self.0 & ACCESSED != 0
    }

    pub(super) fn is_dirty(self) -> bool {
        self.0 & DIRTY != 0
    }

    pub(super) fn set_accessed(&mut self, on: bool) {
        self.0 = if on { self.0 | ACCESSED } else { self.0 & !ACCESSED };
    }

    pub(super) fn set_dirty(&mut self, on: bool) {
        self.0 = if on { self.0 | DIRTY } else { self.0 & !DIRTY };
    }

    pub(super) fn at_level(self, level: u8) -> Self {
        Self(self.0 & !(0x3ff << LEVEL_SHIFT) | u64::from(level) << LEVEL_SHIFT)
    }

    pub(super) fn level(self) -> u8 {
        (self.0 >> LEVEL_SHIFT) as u8 & 3
    }
}
