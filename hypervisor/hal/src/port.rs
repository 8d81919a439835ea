//! The I/O port space.
#![expect(unsafe_code, reason = "IN and OUT")]

use core::arch::asm;

/// Reads one byte from `port`.
pub(crate) fn inb(port: u16) -> u8 {
    let value;
    // SAFETY: IN touches no memory; the crate reads only registers whose reading it knows the effect of.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes one byte to `port`.
pub(crate) fn outb(port: u16, value: u8) {
    // SAFETY: OUT touches no memory; no device the crate writes to is set up for DMA.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads two bytes from `port`.
pub(crate) fn inw(port: u16) -> u16 {
    let value;
    // SAFETY: as in `inb`.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes two bytes to `port`.
pub(crate) fn outw(port: u16, value: u16) {
    // SAFETY: as in `outb`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads four bytes from `port`.
pub(crate) fn inl(port: u16) -> u32 {
    let value;
    // SAFETY: as in `inb`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}
