//! CPUID of the root.

use hal::{
    cpu,
    virt::{RAX, RBX, RCX, RDX, Register, Vcpu},
};
use model::cpuid::{self, Mirrored, Profile};
use tlfs::vp::CpuidResult;

/// Carries out the CPUID that exited.
pub(super) fn access(vcpu: &mut Vcpu) {
    let (leaf, subleaf) = (vcpu.gprs()[RAX] as u32, vcpu.gprs()[RCX] as u32);
    let mirrored = Mirrored::new(vcpu.get(Register::Cr4), true);
    set_result(vcpu, cpuid::root(&Profile::ROOT, mirrored, leaf, subleaf, host));
}

/// CPUID of the processor itself.
pub fn host(leaf: u32, subleaf: u32) -> CpuidResult {
    let cpu::CpuidResult { eax, ebx, ecx, edx } = cpu::cpuid(leaf, subleaf);
    CpuidResult { eax, ebx, ecx, edx }
}

/// Puts a result into the registers and goes on behind the instruction.
pub fn set_result(vcpu: &mut Vcpu, result: CpuidResult) {
    let gprs = vcpu.gprs_mut();
    gprs[RAX] = u64::from(result.eax);
    gprs[RBX] = u64::from(result.ebx);
    gprs[RCX] = u64::from(result.ecx);
    gprs[RDX] = u64::from(result.edx);
    vcpu.skip_instruction(2);
}
