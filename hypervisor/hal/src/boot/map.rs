//! The firmware's memory map.

use crate::{
    addr::Hpa,
    list::{Full, List},
};

/// Most ranges of a memory map.
pub(super) const MAX_RANGES: usize = 128;

/// What memory is for, with ACPI's numbers (ACPI 6.5 table 15.9), which both boot protocols use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryKind {
    /// Ordinary memory.
    Usable,
    /// Not to be touched.
    #[default]
    Reserved,
    /// ACPI tables; usable once they are consumed.
    AcpiReclaimable,
    /// Memory that firmware keeps through sleep.
    AcpiNvs,
    /// Memory with errors.
    Unusable,
    /// Any other number.
    Other(u32),
}

impl From<u32> for MemoryKind {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            2 => Self::Reserved,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Unusable,
            other => Self::Other(other),
        }
    }
}

impl MemoryKind {
    /// Returns ACPI's number, as a guest's own memory map wants it.
    pub const fn number(self) -> u32 {
        match self {
            Self::Usable => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
            Self::AcpiNvs => 4,
            Self::Unusable => 5,
            Self::Other(number) => number,
        }
    }
}

/// A range of the physical address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryRange {
    /// Its first byte.
    pub start: Hpa,
    /// Its length in bytes.
    pub len: u64,
    /// What it is for.
    pub kind: MemoryKind,
}

impl MemoryRange {
    /// Returns the byte after the range.
    pub fn end(&self) -> Hpa {
        Hpa(self.start.0.saturating_add(self.len))
    }
}

/// Ranges in ascending order of their start; neighbours of one kind are one range.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    ranges: List<MemoryRange, MAX_RANGES>,
}

impl MemoryMap {
    /// Returns an empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the ranges in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = &MemoryRange> {
        self.ranges.iter()
    }

    /// Returns the ranges of one kind in ascending order.
    pub fn of_kind(&self, kind: MemoryKind) -> impl Iterator<Item = &MemoryRange> {
        self.iter().filter(move |range| range.kind == kind)
    }

    /// Adds a range. One that is empty, or passes 2^64, says nothing and is dropped.
    ///
    /// # Errors
    /// The map is full.
    pub fn add(&mut self, range: MemoryRange) -> Result<(), Full> {
        if range.len == 0 || range.start.checked_add(range.len).is_none() {
            return Ok(());
        }
        let index = self.ranges.partition_point(|other| other.start <= range.start);
        if let Some(before) = index.checked_sub(1).and_then(|index| self.ranges.get_mut(index))
            && before.kind == range.kind
            && before.end() == range.start
        {
            before.len += range.len;
            return Ok(());
        }
        self.ranges.insert(index, range)
    }

    /// Whether all of `len` bytes from `start` lie in one range of that kind, and in no other range.
    pub fn covers(&self, start: Hpa, len: u64, kind: MemoryKind) -> bool {
        let Some(end) = start.checked_add(len) else { return false };
        let mut touching = self.ranges.iter().filter(|range| range.start < end && start < range.end());
        let inside = |range: &MemoryRange| range.kind == kind && range.start <= start && end <= range.end();
        touching.next().is_some_and(inside) && touching.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{MAX_RANGES, MemoryKind, MemoryMap, MemoryRange};
    use crate::{addr::Hpa, list::Full};

    fn range(start: u64, len: u64, kind: MemoryKind) -> MemoryRange {
        MemoryRange { start: Hpa(start), len, kind }
    }

    #[test]
    fn ranges_are_sorted_and_neighbours_of_a_kind_are_joined() {
        let mut map = MemoryMap::new();
        for (start, len, kind) in
            [(0x3000, 0x1000, 1), (0, 0x1000, 1), (0x1000, 0x1000, 1), (0x2000, 0x1000, 2)]
        {
            map.add(range(start, len, MemoryKind::from(kind))).unwrap();
        }
        let expected = [
            range(0, 0x2000, MemoryKind::Usable),
            range(0x2000, 0x1000, MemoryKind::Reserved),
            range(0x3000, 0x1000, MemoryKind::Usable),
        ];
        assert_eq!(map.iter().copied().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn empty_and_wrapping_ranges_are_dropped() {
        let mut map = MemoryMap::new();
        map.add(range(0x1000, 0, MemoryKind::Usable)).unwrap();
        map.add(range(u64::MAX, 2, MemoryKind::Usable)).unwrap();
        assert_eq!(map.iter().count(), 0);
    }

    #[test]
    fn memory_that_two_ranges_claim_is_not_covered() {
        let mut map = MemoryMap::new();
        map.add(range(0, 0x10000, MemoryKind::Usable)).unwrap();
        map.add(range(0x8000, 0x1000, MemoryKind::Reserved)).unwrap();
        assert!(map.covers(Hpa(0x7000), 0x1000, MemoryKind::Usable));
        assert!(!map.covers(Hpa(0x8000), 0x1000, MemoryKind::Usable));
        assert!(!map.covers(Hpa(0xf800), 0x1000, MemoryKind::Usable));
        assert!(!map.covers(Hpa(u64::MAX), 0x1000, MemoryKind::Usable));
    }

    #[test]
    fn too_many_ranges_are_refused() {
        let mut map = MemoryMap::new();
        for index in 0..MAX_RANGES as u64 {
            map.add(range(index * 0x2000, 0x1000, MemoryKind::Usable)).unwrap();
        }
        assert_eq!(map.add(range(1 << 40, 0x1000, MemoryKind::Usable)), Err(Full));
    }
}
