//! Model-specific registers, with the fault as a value.

use super::{cpu::attempt, percpu::Fault};

/// APIC base address and mode.
pub(crate) const APIC_BASE: u32 = 0x1b;
/// MTRR capabilities.
pub(crate) const MTRR_CAP: u32 = 0xfe;
/// The first variable MTRR's base.
pub(crate) const MTRR_BASE_0: u32 = 0x200;
/// Page attribute table.
pub(crate) const PAT: u32 = 0x277;
/// Default memory type, and the enables of the MTRRs.
pub(crate) const MTRR_DEFAULT: u32 = 0x2ff;
/// The APIC timer's deadline.
pub(crate) const TSC_DEADLINE: u32 = 0x6e0;
/// First x2APIC register.
pub(crate) const X2APIC: u32 = 0x800;
/// Extended features.
pub(crate) const EFER: u32 = 0xc000_0080;
/// SYSCALL targets.
pub(crate) const STAR: u32 = 0xc000_0081;
/// 64-bit SYSCALL entry.
pub(crate) const LSTAR: u32 = 0xc000_0082;
/// SYSCALL flag mask.
pub(crate) const SFMASK: u32 = 0xc000_0084;
/// FS base.
pub(crate) const FS_BASE: u32 = 0xc000_0100;
/// GS base, which belongs to `percpu`.
pub(crate) const GS_BASE: u32 = 0xc000_0101;
/// What SWAPGS swaps in.
pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
/// What RDTSCP gives besides the counter.
pub(crate) const TSC_AUX: u32 = 0xc000_0103;
/// SYSENTER code segment; the stack pointer and the entry follow.
pub(crate) const SYSENTER_CS: u32 = 0x174;
/// Physical address of the host's save area (AMD).
pub(crate) const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Reads `number`, or gives the fault that it raises.
pub(crate) fn try_read(number: u32) -> Result<u64, Fault> {
    let (mut low, mut high) = (0_u64, 0_u64);
    attempt!("rdmsr"; in("ecx") number, inout("rax") low, inout("rdx") high, options(nostack))?;
    Ok(high << 32 | low & 0xffff_ffff)
}

/// Writes `number`, or gives the fault that it raises.
pub(crate) fn try_write(number: u32, value: u64) -> Result<(), Fault> {
    attempt!("wrmsr"; in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
}

/// Reads a register that has to exist.
#[track_caller]
pub(crate) fn read(number: u32) -> u64 {
    match try_read(number) {
        Ok(value) => value,
        Err(fault) => panic!("reading MSR {number:#x} raised {fault}"),
    }
}

/// Writes a register that has to take the value.
#[track_caller]
pub(crate) fn write(number: u32, value: u64) {
    if let Err(fault) = try_write(number, value) {
        panic!("writing {value:#x} to MSR {number:#x} raised {fault}");
    }
}
