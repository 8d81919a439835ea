//! The hypervisor's own page tables (APM 2 §5.3): the image, each part with no more rights than it needs; all
//! memory at [`DIRECT_MAP_BASE`]; and the LPs' stacks. Nothing is mapped in the lower half.
//!
//! Nothing is writable and executable: code is read-only in the direct map too.
#![expect(unsafe_code, reason = "page tables are written through the direct map")]

use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    addr::Hpa,
    boot::{MemoryKind, MemoryMap, image},
    cpu::{self, register},
    mem::{DIRECT_MAP_BASE, boot, direct},
};

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: u64 = 512;
const ROOT_LEVEL: u32 = 4;

const MIB: u64 = 1 << 20;
/// The direct map reaches this at least, as it does from the first instruction in 64-bit mode on.
pub(crate) const FOUR_GIB: u64 = 4 << 30;

/// What code may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    ReadOnly,
    ReadWrite,
    Execute,
}

/// The largest page that a mapping may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Largest {
    Page4K = 1,
    Page2M = 2,
    Page1G = 3,
}

impl Access {
    fn bits(self) -> u64 {
        match self {
            Self::ReadOnly => PRESENT | NO_EXECUTE,
            Self::ReadWrite => PRESENT | WRITABLE | NO_EXECUTE,
            Self::Execute => PRESENT,
        }
    }
}

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
        Self { root: Hpa(register::cr3() & ADDRESS) }
    }

    /// Maps `len` bytes that are mapped nowhere yet. All are multiples of the page size. Boot only.
    pub(crate) fn map(&self, at: u64, hpa: Hpa, len: u64, access: Access, largest: Largest) {
        let mut done = 0;
        while done < len {
            let (at, hpa) = (at + done, hpa.0 + done);
            let fits = |&level: &u32| (at | hpa).is_multiple_of(span(level)) && len - done >= span(level);
            let level = (1..=largest as u32).rev().find(fits).expect("mappings are of whole pages");
            let large = if level > 1 { LARGE } else { 0 };
            self.entry(at, level).store(hpa | access.bits() | large, Ordering::Relaxed);
            done += span(level);
        }
    }

    /// Unmaps everything below the hypervisor's half. Other LPs may keep translations until they load CR3.
    pub(crate) fn clear_lower_half(&self) {
        for index in 0..ENTRIES / 2 {
            entry_of(self.root, index).store(0, Ordering::Relaxed);
        }
        self.load();
    }

    /// Makes this the tree in use.
    fn load(&self) {
        // SAFETY: every tree of this module maps the image, the direct map and, once they are in use, the stacks.
        unsafe { register::write_cr3(self.root.0) };
    }

    /// The entry for `at` in the table of that level, with the tables above it made.
    fn entry(&self, at: u64, level: u32) -> &'static AtomicU64 {
        let mut table = self.root;
        for above in (level + 1..=ROOT_LEVEL).rev() {
            let entry = entry_of(table, at / span(above) % ENTRIES);
            let mut value = entry.load(Ordering::Relaxed);
            assert!(value & LARGE == 0, "a mapping is made once");
            if value & PRESENT == 0 {
                value = new_table().0 | PRESENT | WRITABLE;
                entry.store(value, Ordering::Relaxed);
            }
            table = Hpa(value & ADDRESS);
        }
        entry_of(table, at / span(level) % ENTRIES)
    }
}

/// The bytes that an entry of a table of that level maps.
fn span(level: u32) -> u64 {
    1 << (3 + 9 * level)
}

fn new_table() -> Hpa {
    boot::frames(1).expect("the boot reserve holds the hypervisor's page tables")
}

fn entry_of(table: Hpa, index: u64) -> &'static AtomicU64 {
    let entry = direct::<u64>(Hpa(table.0 + index * 8));
    // SAFETY: page tables are frames of the boot reserve, which are never freed; the processor reads them as it
    // reads any memory, and nobody else has a reference that is not atomic.
    unsafe { AtomicU64::from_ptr(entry) }
}

/// Makes the final address space and goes over to it.
pub(crate) fn build(memory: &MemoryMap) -> AddressSpace {
    let space = AddressSpace::new();
    let parts = [
        (image::text(), Access::Execute),
        (image::rodata(), Access::ReadOnly),
        (image::data(), Access::ReadWrite),
    ];
    for (part, access) in parts {
        space.map(part.start, image::physical(part.start), part.end - part.start, access, Largest::Page4K);
    }
    map_low_memory(&space);
    let largest = if cpu::has_gigabyte_pages() { Largest::Page1G } else { Largest::Page2M };
    for range in memory.iter().filter(|range| is_memory(range.kind)) {
        let start = range.start.align_down().0.max(FOUR_GIB);
        let end = range.end().0.next_multiple_of(1 << 12).max(start);
        map_direct(&space, start..end, Access::ReadWrite, largest);
    }
    space.load();
    space
}

/// The direct map's first 4 GiB. Memory types change within the first megabyte, where large pages are therefore
/// not used (SDM 3A §12.11.9), and elsewhere on borders of 2 MiB at most.
fn map_low_memory(space: &AddressSpace) {
    let read_only = image::physical(image::text().start).0..image::physical(image::rodata().end).0;
    for (range, access, largest) in [
        (0..MIB, Access::ReadWrite, Largest::Page4K),
        (MIB..read_only.start, Access::ReadWrite, Largest::Page2M),
        (read_only.clone(), Access::ReadOnly, Largest::Page2M),
        (read_only.end..FOUR_GIB, Access::ReadWrite, Largest::Page2M),
    ] {
        map_direct(space, range, access, largest);
    }
}

fn map_direct(space: &AddressSpace, range: Range<u64>, access: Access, largest: Largest) {
    space.map(DIRECT_MAP_BASE + range.start, Hpa(range.start), range.end - range.start, access, largest);
}

/// Whether there is memory that somebody may want to read or write.
fn is_memory(kind: MemoryKind) -> bool {
    matches!(kind, MemoryKind::Usable | MemoryKind::AcpiReclaimable | MemoryKind::AcpiNvs)
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
