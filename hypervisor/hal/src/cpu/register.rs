//! Control, debug and extended control registers (APM 2 §3.1, §11.5, §13.1).
#![expect(unsafe_code, reason = "the instructions that read and write them")]

use core::arch::asm;

/// CR4: machine-check exception enable.
pub(crate) const CR4_MCE: u64 = 1 << 6;
/// CR4: FXSAVE and XSAVE include the vector registers.
pub(crate) const CR4_OSFXSR: u64 = 1 << 9;
/// CR4: unmasked vector exceptions raise #XM.
pub(crate) const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4: XSAVE and XSETBV are available.
pub(crate) const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4: user pages are not executed in supervisor mode.
pub(crate) const CR4_SMEP: u64 = 1 << 20;

macro_rules! read {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        pub(crate) fn $name() -> u64 {
            let value;
            // SAFETY: reading the register has no effect.
            unsafe { asm!(concat!("mov {}, ", $register), out(reg) value, options(nomem, nostack, preserves_flags)) };
            value
        }
    };
}

macro_rules! write {
    ($(#[$doc:meta])* $name:ident, $register:literal) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The value keeps everything the running code uses mapped, enabled and unchanged.
        pub(crate) unsafe fn $name(value: u64) {
            // SAFETY: the caller's contract.
            unsafe { asm!(concat!("mov ", $register, ", {}"), in(reg) value, options(nostack, preserves_flags)) };
        }
    };
}

read!(/// Reads CR2, the address of the last page fault.
    cr2, "cr2");
read!(/// Reads CR3.
    cr3, "cr3");
read!(/// Reads CR4.
    cr4, "cr4");
write!(/// Writes CR3, and so flushes the translations of this address space.
    write_cr3, "cr3");
write!(/// Writes CR4.
    write_cr4, "cr4");
/// Reads the four breakpoint addresses.
pub(crate) fn breakpoints() -> [u64; 4] {
    let mut dr = [0; 4];
    // SAFETY: reading DR0 to DR3 has no effect.
    unsafe {
        asm!(
            "mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) dr[0], out(reg) dr[1], out(reg) dr[2], out(reg) dr[3],
            options(nomem, nostack, preserves_flags),
        );
    }
    dr
}

/// Writes the four breakpoint addresses.
///
/// # Safety
/// DR7 enables none of them for the running code.
pub(crate) unsafe fn write_breakpoints(dr: [u64; 4]) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!(
            "mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) dr[0], in(reg) dr[1], in(reg) dr[2], in(reg) dr[3],
            options(nostack, preserves_flags),
        );
    }
}

/// Reads the time-stamp counter.
pub(crate) fn rdtsc() -> u64 {
    // SAFETY: RDTSC only reads; CR4.TSD does not apply at CPL 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Reads XCR0. The processor must have XSAVE.
pub(crate) fn xgetbv() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading XCR0 has no effect; every LP sets CR4.OSXSAVE where there is XSAVE.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes XCR0.
///
/// # Safety
/// The processor has XSAVE, and `value` is a combination it accepts.
pub(crate) unsafe fn xsetbv(value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's contract; hypervisor code uses none of the state that XCR0 governs.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nomem, nostack)) };
}
