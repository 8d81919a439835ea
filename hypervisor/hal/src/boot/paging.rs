//! The hypervisor's own page tables (APM 2 §5.3): the image, each part with no more rights than it needs; all
//! memory at [`DIRECT_MAP_BASE`]; and the LPs' stacks. Nothing is mapped in the lower half.
//!
//! Nothing is writable and executable: code is read-only in the direct map too.
#![expect(unsafe_code, reason = "page tables are written through the direct map")]

use core::ops::Range;

use crate::{
    addr::Hpa,
    boot::{MemoryKind, MemoryMap, image},
    cpu::{self, register},
    mem::{
        DIRECT_MAP_BASE, boot, direct,
        table::{Access, ENTRIES, Entry, PageSize, Slot},
    },
};

const MIB: u64 = 1 << 20;
/// The direct map reaches this at least, as it does from the first instruction in 64-bit mode on.
pub(crate) const FOUR_GIB: u64 = 4 << 30;

/// A tree of page tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressSpace {
    root: Hpa,
}

impl AddressSpace {
    /// Makes a tree that maps nothing.
    fn new() -> Self {
        Self { root: new_table() }
    }

    /// Returns the tree in use.
    pub(crate) fn current() -> Self {
        Self { root: Hpa(register::cr3()).align_down() }
    }

    /// Maps `len` bytes that are mapped nowhere yet, with pages of `largest` at most. All are multiples of the page
    /// size. Boot only.
    pub(crate) fn map(&self, at: u64, hpa: Hpa, len: u64, access: Access, largest: PageSize) {
        let mut done = 0;
        while done < len {
            let (at, hpa) = (at + done, Hpa(hpa.0 + done));
            let fits =
                |size: &PageSize| (at | hpa.0).is_multiple_of(size.bytes()) && len - done >= size.bytes();
            let size = (0..=largest.level()).rev().map(PageSize::at).find(fits);
            let size = size.expect("mappings are of whole pages");
            self.slot(at, size.level()).swap(Entry::leaf(hpa, size, access));
            done += size.bytes();
        }
    }

    /// Unmaps everything below the hypervisor's half. Other LPs may keep translations until they load CR3.
    pub(crate) fn clear_lower_half(&self) {
        for slot in Slot::of_top(self.root).take(ENTRIES / 2) {
            slot.swap(Entry::EMPTY);
        }
        self.load();
    }

    /// Makes this the tree in use.
    fn load(&self) {
        // SAFETY: every tree of this module maps the image, the direct map and, once they are in use, the stacks.
        unsafe { register::write_cr3(self.root.0) };
    }

    /// The place for `at` in the table of that level, with the tables above it made.
    fn slot(&self, at: u64, level: u8) -> Slot {
        loop {
            let (slot, entry) = Slot::descend(self.root, at, level);
            assert!(!entry.is_present(), "a mapping is made once");
            if slot.level == level {
                return slot;
            }
            slot.swap(Entry::table(new_table()));
        }
    }
}

fn new_table() -> Hpa {
    boot::frames(1).expect("the boot reserve holds the hypervisor's page tables")
}

/// Makes the final address space and goes over to it.
pub(crate) fn build(memory: &MemoryMap) -> AddressSpace {
    let space = AddressSpace::new();
    let parts = [
        (image::text(), Access::EXECUTE),
        (image::rodata(), Access::READ_ONLY),
        (image::data(), Access::READ_WRITE),
    ];
    for (part, access) in parts {
        space.map(part.start, image::physical(part.start), part.end - part.start, access, PageSize::Small);
    }
    map_low_memory(&space);
    let largest = if cpu::has_gigabyte_pages() { PageSize::Huge } else { PageSize::Large };
    for range in memory.iter().filter(|range| is_memory(range.kind)) {
        let start = range.start.align_down().0.max(FOUR_GIB);
        let end = range.end().0.next_multiple_of(1 << 12).max(start);
        map_direct(&space, start..end, Access::READ_WRITE, largest);
    }
    space.load();
    space
}

/// The direct map's first 4 GiB. Memory types change within the first megabyte, where large pages are therefore
/// not used (SDM 3A §12.11.9), and elsewhere on borders of 2 MiB at most.
fn map_low_memory(space: &AddressSpace) {
    let read_only = image::physical(image::text().start).0..image::physical(image::rodata().end).0;
    for (range, access, largest) in [
        (0..MIB, Access::READ_WRITE, PageSize::Small),
        (MIB..read_only.start, Access::READ_WRITE, PageSize::Large),
        (read_only.clone(), Access::READ_ONLY, PageSize::Large),
        (read_only.end..FOUR_GIB, Access::READ_WRITE, PageSize::Large),
    ] {
        map_direct(space, range, access, largest);
    }
}

fn map_direct(space: &AddressSpace, range: Range<u64>, access: Access, largest: PageSize) {
    space.map(DIRECT_MAP_BASE + range.start, Hpa(range.start), range.end - range.start, access, largest);
}

/// Whether there is memory that somebody may want to read or write.
fn is_memory(kind: MemoryKind) -> bool {
    matches!(kind, MemoryKind::USABLE | MemoryKind::ACPI_RECLAIMABLE | MemoryKind::ACPI_NVS)
}

/// Copies physical memory below 4 GiB, which is mapped at any time; `None` above. For what the loader and the
/// firmware left, which nobody writes any more.
pub(crate) fn read_low(start: Hpa, into: &mut [u8]) -> Option<()> {
    if start.checked_add(into.len() as u64)?.0 > FOUR_GIB {
        return None;
    }
    // SAFETY: the bytes are mapped, and `into` is not among what is read: no loader or firmware data is lent out.
    unsafe { core::ptr::copy_nonoverlapping(direct::<u8>(start), into.as_mut_ptr(), into.len()) };
    Some(())
}

/// The bytes of page tables that [`build`] takes at most.
pub(crate) fn reserve_bytes(memory: &MemoryMap) -> u64 {
    // Without 1 GiB pages each GiB takes a table of 2 MiB pages; the image and borders take a few tables more.
    let memory = memory.iter().filter(|range| is_memory(range.kind));
    let tables: u64 = memory.map(|range| (range.len >> 30) + 8).sum();
    (tables + 64) << 12
}
