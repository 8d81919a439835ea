//! Model-specific registers (APM 2 appendix A).
//!
//! Reading and writing is for `hal` alone; the numbers are public, because a partition names them too.
#![expect(unsafe_code, reason = "RDMSR and WRMSR")]

use core::arch::asm;

/// APIC base address and mode.
pub const APIC_BASE: u32 = 0x1b;
/// First MSR of the x2APIC register space.
pub const X2APIC_FIRST: u32 = 0x800;
/// Last MSR of the x2APIC register space.
pub const X2APIC_LAST: u32 = 0x8ff;
/// Extended feature enables.
pub const EFER: u32 = 0xc000_0080;
/// SYSCALL targets.
pub const STAR: u32 = 0xc000_0081;
/// 64-bit SYSCALL entry.
pub const LSTAR: u32 = 0xc000_0082;
/// Compatibility-mode SYSCALL entry.
pub const CSTAR: u32 = 0xc000_0083;
/// SYSCALL flag mask.
pub const SFMASK: u32 = 0xc000_0084;
/// FS base.
pub const FS_BASE: u32 = 0xc000_0100;
/// GS base.
pub const GS_BASE: u32 = 0xc000_0101;
/// What SWAPGS swaps in.
pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// Auxiliary time-stamp counter value.
pub const TSC_AUX: u32 = 0xc000_0103;
/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Time-stamp counter adjustment (Intel).
pub const TSC_ADJUST: u32 = 0x3b;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// MTRR capabilities.
pub const MTRR_CAP: u32 = 0xfe;
/// MTRR default type and enables.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER entry.
pub const SYSENTER_EIP: u32 = 0x176;
/// Debug control.
pub const DEBUGCTL: u32 = 0x1d9;
/// Supervisor shadow-stack and extended-state bits.
pub const XSS: u32 = 0xda0;
/// SVM control (AMD).
pub const VM_CR: u32 = 0xc001_0114;
/// Physical address of the host save area (AMD).
pub const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Reads an MSR that the processor has; one that it lacks is a fatal exception.
pub(crate) fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDMSR touches no memory, and no MSR the crate reads has a side effect.
    unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR that the processor has.
///
/// # Safety
/// The value keeps the premises of the crate: whatever the register governs (addresses, modes, segment bases)
/// stays valid for the running code.
pub(crate) unsafe fn wrmsr(number: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: the caller's contract. Memory is clobbered, since the register may govern what memory means.
    unsafe { asm!("wrmsr", in("ecx") number, in("eax") low, in("edx") high, options(nostack)) };
}
