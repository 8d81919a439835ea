//! Page tables: a window of 512 small pages that cases map as they like, far above all other memory.

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use super::{
    cpu::{self, attempt},
    memory::Page,
    percpu::Fault,
};

/// Present.
pub(crate) const PRESENT: u64 = 1 << 0;
/// Writable.
pub(crate) const WRITABLE: u64 = 1 << 1;
/// For user mode.
pub(crate) const USER: u64 = 1 << 2;
/// The processor has accessed the page.
pub(crate) const ACCESSED: u64 = 1 << 5;
/// The processor has written the page.
pub(crate) const DIRTY: u64 = 1 << 6;
/// Survives a load of CR3.
pub(crate) const GLOBAL: u64 = 1 << 8;
/// Not for execution.
pub(crate) const NO_EXECUTE: u64 = 1 << 63;

/// Address of the window: the second entry of the top table.
const WINDOW: u64 = 1 << 39;

unsafe extern "C" {
    static boot_pml4: [AtomicU64; 512];
}

/// The window's page table.
pub(crate) struct Window {
    table: &'static Page,
}

impl Window {
    /// Makes the window. All processors share it.
    pub(crate) fn new() -> Self {
        let [upper, middle, table] = [Page::take(), Page::take(), Page::take()];
        let link = |to: &Page| to.address() | PRESENT | WRITABLE | USER;
        middle.set(0, link(table));
        upper.set(0, link(middle));
        // SAFETY: the table is that of the start-up code, which does not change it any more.
        let top = unsafe { &boot_pml4 };
        top[1].store(link(upper), SeqCst);
        flush();
        Self { table }
    }

    /// The address of page `slot`.
    pub(crate) fn address(slot: usize) -> u64 {
        WINDOW + slot as u64 * super::memory::PAGE
    }

    /// Writes the entry of page `slot`, and flushes nothing.
    pub(crate) fn set(&self, slot: usize, entry: u64) {
        self.table.set(slot, entry);
    }

    /// The entry of page `slot`, in which the processor sets bits.
    pub(crate) fn get(&self, slot: usize) -> u64 {
        self.table.get(slot)
    }

    /// Maps page `slot` to `page`, writable, with more `flags`.
    pub(crate) fn map(&self, slot: usize, page: &Page, flags: u64) {
        self.set(slot, page.address() | PRESENT | WRITABLE | flags);
    }
}

/// Reads a word by a virtual address that may fault.
pub(crate) fn peek(address: u64) -> Result<u64, Fault> {
    let mut value = 0_u64;
    attempt!("mov {value}, [{address}]"; address = in(reg) address, value = inout(reg) value, options(nostack))?;
    Ok(value)
}

/// Writes a word by a virtual address of the window, or of memory that the case owns.
pub(crate) fn poke(address: u64, value: u64) -> Result<(), Fault> {
    attempt!("mov [{address}], {value}"; address = in(reg) address, value = in(reg) value, options(nostack))
}

/// INVLPG.
pub(crate) fn invalidate(address: u64) {
    // SAFETY: costs time only.
    unsafe { asm!("invlpg [{}]", in(reg) address, options(nostack, preserves_flags)) };
}

/// Flushes all translations but the global ones.
pub(crate) fn flush() {
    // Writing what is there faults never.
    let _ = cpu::set_cr3(cpu::cr3());
}

/// Jumps to an address that must fault.
pub(crate) fn execute(address: u64) -> Result<(), Fault> {
    attempt!("call {address}"; address = in(reg) address)
}

/// Writes a double word by a virtual address of a device.
pub(crate) fn poke_32(address: u64, value: u32) -> Result<(), Fault> {
    attempt!("mov [{address}], {value:e}"; address = in(reg) address, value = in(reg) value, options(nostack))
}
