//! I/O ports, and the devices of the board that are reached by them: console and power.

use core::{arch::asm, fmt};

/// COM1.
pub(crate) const SERIAL: u16 = 0x3f8;
/// ACPI PM timer, which runs at 3,579,545 Hz and has at least 24 bits.
pub(crate) const PM_TIMER: u16 = 0x608;
/// ACPI PM1a control block.
const PM_CONTROL: u16 = 0x604;
/// Sleep enable with the sleep type of S5: of our board, then of QEMU's.
const POWER_OFF: [u16; 2] = [1 << 13 | 5 << 10, 1 << 13];

/// Writes a byte.
pub(crate) fn out8(port: u16, value: u8) {
    // SAFETY: the devices of this machine do not reach memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
}

/// Masks the 8259s, which firmware may have left open.
pub(super) fn silence_legacy_interrupts() {
    out8(0x21, 0xff);
    out8(0xa1, 0xff);
}

/// Writes a word.
pub(crate) fn out16(port: u16, value: u16) {
    // SAFETY: as for `out8`.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
}

/// Reads a byte.
pub(crate) fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Reads a double word.
pub(crate) fn in32(port: u16) -> u32 {
    let value;
    // SAFETY: as for `out8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Writes `bytes` to a port by one REP OUTSB.
pub(crate) fn out_string(port: u16, bytes: &[u8]) {
    // SAFETY: the instruction reads the slice and nothing else.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _,
            options(readonly, nostack, preserves_flags));
    };
}

/// The serial console. Its device takes every byte at once.
pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for byte in s.bytes() {
            out8(SERIAL, byte);
        }
        Ok(())
    }
}

/// Switches the machine off.
pub(crate) fn power_off() -> ! {
    for value in POWER_OFF {
        out16(PM_CONTROL, value);
    }
    loop {
        super::cpu::disable_interrupts();
        super::cpu::halt();
    }
}
