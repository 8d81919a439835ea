//! The I/O APIC (82093AA), as far as a case needs it.

use core::sync::atomic::Ordering::Relaxed;

use super::memory;

const BASE: u64 = 0xfec0_0000;
const DATA: u64 = BASE + 0x10;
const ENTRIES: u32 = 0x10;

/// Level-triggered, in an entry.
pub(crate) const LEVEL: u64 = 1 << 15;
/// Masked, in an entry.
pub(crate) const MASKED: u64 = 1 << 16;
/// Remote IRR in an entry: accepted, and not ended yet.
pub(crate) const REMOTE_IRR: u64 = 1 << 14;

fn read(register: u32) -> u32 {
    memory::device(BASE).store(register, Relaxed);
    memory::device(DATA).load(Relaxed)
}

fn write(register: u32, value: u32) {
    memory::device(BASE).store(register, Relaxed);
    memory::device(DATA).store(value, Relaxed);
}

/// The redirection entry of a pin.
pub(crate) fn entry(pin: u32) -> u64 {
    u64::from(read(ENTRIES + 2 * pin)) | u64::from(read(ENTRIES + 2 * pin + 1)) << 32
}

/// Sets the redirection entry of a pin.
pub(crate) fn set_entry(pin: u32, value: u64) {
    write(ENTRIES + 2 * pin, MASKED as u32);
    write(ENTRIES + 2 * pin + 1, (value >> 32) as u32);
    write(ENTRIES + 2 * pin, value as u32);
}
