//! CPUID of a child.

use core::sync::atomic::Ordering;

use hal::virt::{RAX, RBX, RCX, RDX, Register};
use model::{
    cpuid::{Child, Mirrored},
    lapic::Mode,
};
use tlfs::{
    intercept::{CpuidIntercept, InterceptAccess},
    synic::MessageType,
    vp::CpuidResult,
};

use super::{ChildCpu, Next, count, synthetic::shows_hypervisor};
use crate::{
    root::cpuid::{host, set_result},
    vp::{Context, Vp},
};

impl ChildCpu<'_> {
    /// Carries out the CPUID that exited. `false`: the parent wants to see it.
    pub(super) fn answers_cpuid(&mut self) -> bool {
        let gprs = self.ctx.vcpu.gprs();
        let (leaf, subleaf) = (gprs[RAX] as u32, gprs[RCX] as u32);
        if self.vp.partition.intercepts.has_leaf(leaf) {
            return false;
        }
        count(&self.vp.counters.cpuid);
        let result = values(self.vp, self.ctx, leaf, subleaf, true);
        set_result(&mut self.ctx.vcpu, result);
        true
    }

    /// Reports the CPUID that exited to the parent.
    pub(super) fn report_cpuid(&mut self) -> Next {
        let gprs = self.ctx.vcpu.gprs();
        let [rax, rbx, rcx, rdx] = [RAX, RBX, RCX, RDX].map(|number| gprs[number]);
        let own = values(self.vp, self.ctx, rax as u32, rcx as u32, true);
        let message = CpuidIntercept {
            header: self.header(InterceptAccess::EXECUTE, 2),
            rax,
            rbx,
            rcx,
            rdx,
            default_result_rax: own.eax.into(),
            default_result_rbx: own.ebx.into(),
            default_result_rcx: own.ecx.into(),
            default_result_rdx: own.edx.into(),
        };
        self.report(MessageType::X64_CPUID_INTERCEPT, &message)
    }
}

/// What CPUID returns to a VP: with what its parent registered, or by itself.
///
/// The sizes in leaf 0xD are those for the XCR0 in force on this LP, which is the VP's while it is dispatched.
pub fn values(vp: &Vp, ctx: &Context, leaf: u32, subleaf: u32, with_overrides: bool) -> CpuidResult {
    let partition = &vp.partition;
    let has_apic = leaf == 1 && vp.lapic.lock().mode() != Mode::Disabled;
    let profile = partition.profile.lock();
    let per_socket = partition.properties.processors_per_socket.load(Ordering::Relaxed);
    let all = partition.vp_count();
    let child = Child {
        profile: Some(&*profile).filter(|_| shows_hypervisor(partition)),
        allowed: &partition.allowed,
        processors: u32::try_from(per_socket).ok().filter(|&n| n != 0).unwrap_or(all),
        apic_id: vp.index.0,
        mirrored: Mirrored::new(ctx.vcpu.get(Register::Cr4), has_apic),
        overrides: Some(&ctx.extra.overrides).filter(|_| with_overrides),
    };
    child.cpuid(leaf, subleaf, host)
}
