//! Guest RAM: anonymous memory of this process, given to the partition as it is.

use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::layout::{ACPI_TABLES, FOUR_GIB, HIGH_MEMORY, LOW_RAM_END, MMIO_HOLE};

/// The RAM of one machine. The kernel gives it pages as they are touched, and takes them back with the
/// process.
pub type GuestRam = GuestMemoryMmap<()>;

/// What a range of guest-physical addresses is, with the numbers of the E820 map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Usable RAM.
    Ram = 1,
    /// Not to be touched.
    Reserved = 2,
    /// ACPI tables, usable once they have been read.
    AcpiData = 3,
}

/// One entry of the map that the guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is.
    pub kind: RangeKind,
}

/// Where `bytes` of RAM lie: start and length of one or two ranges around the hole below 4 GiB.
pub fn ram_ranges(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(MMIO_HOLE);
    let mut ranges = vec![(0, low)];
    if bytes > low {
        ranges.push((FOUR_GIB, bytes - low));
    }
    ranges
}

/// Reserves address space for `bytes` of guest RAM.
///
/// # Errors
///
/// When the host refuses, with its reason.
pub fn allocate(bytes: u64) -> Result<GuestRam, String> {
    let ranges: Result<Vec<_>, _> = ram_ranges(bytes)
        .into_iter()
        .map(|(start, len)| usize::try_from(len).map(|len| (GuestAddress(start), len)))
        .collect();
    let ranges = ranges.map_err(|error| error.to_string())?;
    GuestRam::from_ranges(&ranges).map_err(|error| error.to_string())
}

/// The map of a machine with `bytes` of RAM, in the order of addresses.
pub fn map(bytes: u64) -> Vec<MemoryRange> {
    let range = |start: u64, end: u64, kind| MemoryRange { start, len: end - start, kind };
    let mut map = vec![
        range(0, LOW_RAM_END, RangeKind::Ram),
        range(LOW_RAM_END, 0xa_0000, RangeKind::Reserved),
        range(ACPI_TABLES, HIGH_MEMORY, RangeKind::AcpiData),
        range(HIGH_MEMORY, bytes.min(MMIO_HOLE), RangeKind::Ram),
    ];
    map.extend(
        ram_ranges(bytes).into_iter().skip(1).map(|(start, len)| range(start, start + len, RangeKind::Ram)),
    );
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn ram_goes_around_the_hole_without_losing_any() {
        assert_eq!(ram_ranges(GIB), [(0, GIB)]);
        assert_eq!(ram_ranges(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(ram_ranges(5 * GIB), [(0, 3 * GIB), (4 * GIB, 2 * GIB)]);
    }

    #[test]
    fn map_is_ordered_and_does_not_overlap() {
        for gib in [1, 3, 8] {
            let map = map(gib * GIB);
            assert!(map.windows(2).all(|pair| pair[0].start + pair[0].len <= pair[1].start), "{map:?}");
        }
    }
}
