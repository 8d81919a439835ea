//! Hypercalls of a child: flushes, interrupts, messages.
//!
//! The page that the hypercall MSR places holds the instruction.

use core::sync::atomic::Ordering;

use hal::virt::{Event, lps};
use model::{ensure, vpset};
use tlfs::{
    CallCode, HvStatus, PartitionId, VpIndex,
    memory::{FlushFlags, FlushVirtualAddressExInput, FlushVirtualAddressInput, GvaRange},
    msr::{FIRST_VALID_VECTOR, HypercallMsr},
    partition::Privileges,
    synic::{SendIpiExInput, SendIpiInput},
    vp::{ApicId, GetVpIndexFromApicIdInput, InputVtl},
    vpset::VpSetHeader,
};

use super::{
    ChildCpu, Ended, Next, RESUME, count, end,
    ipi::{self, Targets},
    synthetic::shows_hypervisor,
};
use crate::{
    hypercall::{Answer, Buffers, Call, Outcome, Request, Undone, execute, message},
    partition::Partition,
    vp::request,
};

impl ChildCpu<'_> {
    /// Carries out the hypercall instruction that exited.
    pub(super) fn hypercall(&mut self, buffers: &mut Buffers) -> Next {
        let vcpu = &mut self.ctx.vcpu;
        let page = self.vp.partition.msrs.hypercall.load(Ordering::Relaxed);
        let is_ready = HypercallMsr::from_bits(page).enable() && shows_hypervisor(&self.vp.partition);
        if vcpu.privilege() != 0 || !vcpu.is_protected() || !is_ready {
            vcpu.inject(Event::UNDEFINED);
            return RESUME;
        }
        match execute(self, buffers, child_table) {
            Err(Undone::Unmapped(unmapped)) => self.need(unmapped),
            Err(Undone::Deferred) => self.report_hypercall(),
            // Whoever holds the lock may be a VP that waits for this LP.
            Ok(CallCode::NOTIFY_LONG_SPIN_WAIT) => end(Ended::Ready),
            Ok(_) => RESUME,
        }
    }
}

/// The calls of a child.
fn child_table(call: Request<ChildCpu>) -> Answer {
    use CallCode as C;
    use Privileges as P;
    match call.code() {
        C::SEND_SYNTHETIC_CLUSTER_IPI => call.simple(P::NONE, send_ipi),
        C::FLUSH_VIRTUAL_ADDRESS_SPACE => call.simple(P::NONE, flush_space),
        C::FLUSH_VIRTUAL_ADDRESS_LIST => call.rep(P::NONE, flush_list),
        C::FLUSH_VIRTUAL_ADDRESS_SPACE_EX => call.variable(P::NONE, flush_space_ex),
        C::FLUSH_VIRTUAL_ADDRESS_LIST_EX => call.variable_rep(P::NONE, flush_list_ex),
        C::SEND_SYNTHETIC_CLUSTER_IPI_EX => call.variable(P::NONE, send_ipi_ex),
        C::NOTIFY_LONG_SPIN_WAIT => call.simple(P::NONE, notify_long_spin_wait),
        C::POST_MESSAGE => call.simple(P::POST_MESSAGES, message::post),
        C::SIGNAL_EVENT => call.simple(P::SIGNAL_EVENTS, message::signal),
        C::GET_VP_INDEX_FROM_APIC_ID => call.rep(P::ACCESS_VP_INDEX, get_vp_index_from_apic_id),
        _ => call.unknown(),
    }
}

/// `HvCallSendSyntheticClusterIpi`: interrupts VPs 0 to 63 by mask.
fn send_ipi(cpu: &mut ChildCpu, input: SendIpiInput) -> Outcome {
    let vector = ipi_vector(input.vector, input.target_vtl)?;
    ipi::send_to_set(cpu.vp, &Targets::from_mask(input.processor_mask), vector);
    Ok(())
}

/// `HvCallSendSyntheticClusterIpiEx`: interrupts the VPs of a set.
fn send_ipi_ex(cpu: &mut ChildCpu, input: SendIpiExInput, call: &Call) -> Outcome {
    let vector = ipi_vector(input.vector, input.target_vtl)?;
    ipi::send_to_set(cpu.vp, &sparse(input.vp_set, call.variable())?, vector);
    Ok(())
}

fn ipi_vector(vector: u32, vtl: InputVtl) -> Result<u8, HvStatus> {
    let valid = u8::try_from(vector).ok().filter(|&vector| vector >= FIRST_VALID_VECTOR);
    valid.filter(|_| vtl.target_vtl() == 0).ok_or(HvStatus::INVALID_PARAMETER)
}

/// The VPs of a set in the input.
fn sparse(head: VpSetHeader, banks: &[u8]) -> Outcome<Targets> {
    let Some(members) = vpset::members(head, banks)? else { return Ok(Targets::ALL) };
    let mut targets = Targets::NONE;
    members.for_each(|index| targets.insert(index));
    Ok(targets)
}

/// `HvCallFlushVirtualAddressSpace`: flushes VPs 0 to 63 by mask, or all.
fn flush_space(cpu: &mut ChildCpu, input: FlushVirtualAddressInput) -> Outcome {
    flush(cpu, input.flags, FlushFlags::NAMED, || Ok(Targets::from_mask(input.processor_mask)))
}

/// `HvCallFlushVirtualAddressList`: the same.
fn flush_list(cpu: &mut ChildCpu, input: FlushVirtualAddressInput, call: &mut Call<GvaRange>) -> Outcome {
    flush(cpu, input.flags, LIST_FLAGS, || Ok(Targets::from_mask(input.processor_mask)))?;
    call.finish()
}

/// `HvCallFlushVirtualAddressSpaceEx`: flushes the VPs of a set, or all.
fn flush_space_ex(cpu: &mut ChildCpu, input: FlushVirtualAddressExInput, call: &Call) -> Outcome {
    flush(cpu, input.flags, FlushFlags::NAMED, || sparse(input.vp_set, call.variable()))
}

/// `HvCallFlushVirtualAddressListEx`: the same.
fn flush_list_ex(
    cpu: &mut ChildCpu,
    input: FlushVirtualAddressExInput,
    call: &mut Call<GvaRange>,
) -> Outcome {
    flush(cpu, input.flags, LIST_FLAGS, || sparse(input.vp_set, call.variable()))?;
    call.finish()
}

/// A list of addresses names global mappings, too.
const LIST_FLAGS: FlushFlags = FlushFlags::NAMED.without(FlushFlags::NON_GLOBAL_MAPPINGS_ONLY);

/// Drops all cached translations of the VPs: a new ASID costs less than many INVLPGA on another processor. Those
/// that run are first all told, so that they leave their guests at the same time, and then waited for.
fn flush(
    cpu: &mut ChildCpu,
    flags: FlushFlags,
    allowed: FlushFlags,
    named: impl FnOnce() -> Outcome<Targets>,
) -> Outcome {
    ensure(allowed.contains(flags), HvStatus::INVALID_PARAMETER)?;
    let targets = if flags.contains(FlushFlags::ALL_PROCESSORS) { Targets::ALL } else { named()? };
    let own = cpu.vp.index;
    let partition: &Partition = &cpu.vp.partition;
    let mut waits = Targets::NONE;
    targets.each(partition, |vp| {
        if vp.index == own {
            cpu.ctx.vcpu.flush_translations();
        } else if vp.lp().is_some() {
            vp.request(request::FLUSH);
            waits.insert(vp.index);
        } else {
            vp.flush_translations();
        }
    });
    waits.each(partition, |vp| {
        // A request that was taken is obeyed before the VP enters its guest again.
        if let Some(lp) = vp.lp().filter(|_| vp.has_requests()) {
            lps::evict(lp);
        }
    });
    Ok(())
}

/// `HvCallNotifyLongSpinWait`.
fn notify_long_spin_wait(cpu: &mut ChildCpu, _spins: u64) -> Outcome {
    count(&cpu.vp.counters.long_spins);
    Ok(())
}

/// `HvCallGetVpIndexFromApicId`: translates APIC ids, which are indices here.
fn get_vp_index_from_apic_id(
    cpu: &mut ChildCpu,
    input: GetVpIndexFromApicIdInput,
    call: &mut Call<ApicId, VpIndex>,
) -> Outcome {
    let partition = &cpu.vp.partition;
    ensure([PartitionId::SELF, partition.id].contains(&input.partition_id), HvStatus::ACCESS_DENIED)?;
    call.each(|_, ApicId { apic_id }| {
        partition.vp(VpIndex(apic_id)).map_err(|_| HvStatus::INVALID_PARAMETER)?;
        Ok(VpIndex(apic_id))
    })
}
