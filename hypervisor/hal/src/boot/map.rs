//! The firmware's memory map.

use crate::{
    addr::Hpa,
    list::{Full, List},
};

/// Most ranges of a memory map.
pub(super) const MAX_RANGES: usize = 128;

/// What memory is for, by ACPI's number (ACPI 6.5 table 15.9), which boot protocols and guests use too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryKind(pub u32);

impl MemoryKind {
    /// Ordinary memory.
    pub const USABLE: Self = Self(1);
    /// Not to be touched.
    pub const RESERVED: Self = Self(2);
    /// ACPI tables; usable once they are consumed.
    pub const ACPI_RECLAIMABLE: Self = Self(3);
    /// Memory that firmware keeps through sleep.
    pub const ACPI_NVS: Self = Self(4);
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
        let mut map = MemoryMap::default();
        for (start, len, kind) in
            [(0x3000, 0x1000, 1), (0, 0x1000, 1), (0x1000, 0x1000, 1), (0x2000, 0x1000, 2)]
        {
            map.add(range(start, len, MemoryKind(kind))).unwrap();
        }
        let expected = [
            range(0, 0x2000, MemoryKind::USABLE),
            range(0x2000, 0x1000, MemoryKind::RESERVED),
            range(0x3000, 0x1000, MemoryKind::USABLE),
        ];
        assert_eq!(map.iter().copied().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn empty_and_wrapping_ranges_are_dropped() {
        let mut map = MemoryMap::default();
        map.add(range(0x1000, 0, MemoryKind::USABLE)).unwrap();
        map.add(range(u64::MAX, 2, MemoryKind::USABLE)).unwrap();
        assert_eq!(map.iter().count(), 0);
    }

    #[test]
    fn memory_that_two_ranges_claim_is_not_covered() {
        let mut map = MemoryMap::default();
        map.add(range(0, 0x10000, MemoryKind::USABLE)).unwrap();
        map.add(range(0x8000, 0x1000, MemoryKind::RESERVED)).unwrap();
        assert!(map.covers(Hpa(0x7000), 0x1000, MemoryKind::USABLE));
        assert!(!map.covers(Hpa(0x8000), 0x1000, MemoryKind::USABLE));
        assert!(!map.covers(Hpa(0xf800), 0x1000, MemoryKind::USABLE));
        assert!(!map.covers(Hpa(u64::MAX), 0x1000, MemoryKind::USABLE));
    }

    #[test]
    fn too_many_ranges_are_refused() {
        let mut map = MemoryMap::default();
        for index in 0..MAX_RANGES as u64 {
            map.add(range(index * 0x2000, 0x1000, MemoryKind::USABLE)).unwrap();
        }
        assert_eq!(map.add(range(1 << 40, 0x1000, MemoryKind::USABLE)), Err(Full));
    }
}
