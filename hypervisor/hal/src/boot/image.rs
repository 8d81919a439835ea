//! The hypervisor's image: where the linker put its parts (`kernel/linker.ld`), and the physical memory behind.
#![expect(unsafe_code, reason = "the linker's symbols are external")]

use core::ops::Range;

use crate::addr::Hpa;

/// What the linker adds to a physical address of the image.
pub(crate) const KERNEL_VMA: u64 = 0xffff_ffff_8000_0000;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static boot_stack_bottom: u8;
    static boot_stack_top: u8;
}

fn range(start: *const u8, end: *const u8) -> Range<u64> {
    start.addr() as u64..end.addr() as u64
}

/// Executable code.
pub(crate) fn text() -> Range<u64> {
    range(&raw const __text_start, &raw const __text_end)
}

/// Constants; what comes after them is data.
pub(crate) fn rodata() -> Range<u64> {
    range(&raw const __text_end, &raw const __rodata_end)
}

/// Data, its zeros included.
pub(crate) fn data() -> Range<u64> {
    range(&raw const __rodata_end, &raw const __image_end)
}

/// The whole image, from the code that runs before paging to the end of the zeros.
pub(crate) fn all() -> Range<u64> {
    range(&raw const __image_start, &raw const __image_end)
}

/// Returns the physical address behind an address in the image.
pub(crate) fn physical(address: u64) -> Hpa {
    Hpa(address - KERNEL_VMA)
}

/// The stack that boot begins on.
pub(crate) fn boot_stack() -> Range<u64> {
    range(&raw const boot_stack_bottom, &raw const boot_stack_top)
}
