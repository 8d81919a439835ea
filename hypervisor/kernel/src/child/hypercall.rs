//! Hypercalls of a child: flushes, interrupts, messages.
//!
//! The page that the hypercall MSR places holds the instruction.

use core::sync::atomic::Ordering;

use hal::virt::{Event, lps};
use model::{call::CallSpec, vpset::VpSet};
use tlfs::{
    CallCode, HvStatus, VpIndex,
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
    hypercall::{Buffers, Call, Outcome, Row, Undone, execute, message, row},
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
fn child_table<'a>(code: CallCode) -> Option<Row<ChildCpu<'a>>> {
    use Privileges as P;
    match code {
        CallCode::SEND_SYNTHETIC_CLUSTER_IPI => row(SEND_IPI, P::NONE, send_ipi),
        CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE => row(FLUSH_SPACE, P::NONE, flush),
        CallCode::FLUSH_VIRTUAL_ADDRESS_LIST => row(FLUSH_LIST, P::NONE, flush),
        CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX => row(FLUSH_SPACE_EX, P::NONE, flush_ex),
        CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX => row(FLUSH_LIST_EX, P::NONE, flush_ex),
        CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX => row(SEND_IPI_EX, P::NONE, send_ipi_ex),
        CallCode::NOTIFY_LONG_SPIN_WAIT => row(NOTIFY_LONG_SPIN_WAIT, P::NONE, notify_long_spin_wait),
        CallCode::POST_MESSAGE => row(message::POST, P::POST_MESSAGES, message::post),
        CallCode::SIGNAL_EVENT => row(message::SIGNAL, P::SIGNAL_EVENTS, message::signal),
        CallCode::GET_VP_INDEX_FROM_APIC_ID => {
            row(GET_VP_INDEX, P::ACCESS_VP_INDEX, get_vp_index_from_apic_id)
        }
        _ => None,
    }
}

/// `HvCallSendSyntheticClusterIpi`.
const SEND_IPI: CallSpec = CallSpec::simple(size_of::<SendIpiInput>(), 0);

/// Interrupts VPs 0 to 63 by mask.
fn send_ipi(cpu: &mut ChildCpu, call: &mut Call) -> Outcome {
    let input: SendIpiInput = call.header()?;
    let vector = ipi_vector(input.vector, input.target_vtl)?;
    ipi::send_to_set(cpu.vp, &Targets::from_mask(input.processor_mask), vector);
    Ok(())
}

/// `HvCallSendSyntheticClusterIpiEx`.
const SEND_IPI_EX: CallSpec = CallSpec::simple(size_of::<SendIpiExInput>(), 0).variable();

/// Interrupts the VPs of a set.
fn send_ipi_ex(cpu: &mut ChildCpu, call: &mut Call) -> Outcome {
    let input: SendIpiExInput = call.header()?;
    let vector = ipi_vector(input.vector, input.target_vtl)?;
    ipi::send_to_set(cpu.vp, &sparse(input.vp_set, call.variable())?, vector);
    Ok(())
}

fn ipi_vector(vector: u32, vtl: InputVtl) -> Result<u8, HvStatus> {
    let valid = u8::try_from(vector).ok().filter(|&vector| vector >= FIRST_VALID_VECTOR);
    valid.filter(|_| vtl.target_vtl() == 0).ok_or(HvStatus::INVALID_PARAMETER)
}

/// The VPs of a set in the input.
fn sparse(head: VpSetHeader, banks: &[u8]) -> Result<Targets, HvStatus> {
    let (banks, _) = banks.as_chunks::<8>();
    let bank = |position: usize| banks.get(position).map_or(0, |bytes| u64::from_le_bytes(*bytes));
    Ok(match VpSet::parse(head, banks.len(), bank)? {
        VpSet::All => Targets::ALL,
        VpSet::Sparse(members) => {
            let mut targets = Targets::NONE;
            members.for_each(|index| targets.insert(index));
            targets
        }
    })
}

/// `HvCallFlushVirtualAddressSpace`.
const FLUSH_SPACE: CallSpec = CallSpec::simple(size_of::<FlushVirtualAddressInput>(), 0);
/// `HvCallFlushVirtualAddressList`.
const FLUSH_LIST: CallSpec = CallSpec::rep(size_of::<FlushVirtualAddressInput>(), size_of::<GvaRange>(), 0);

/// Refuses flags that have no meaning. A list of addresses names global mappings, too.
fn check_flags(flags: FlushFlags, call: &Call) -> Outcome {
    let is_list = !call.reps().is_empty();
    let not_for_lists = if is_list { FlushFlags::NON_GLOBAL_MAPPINGS_ONLY } else { FlushFlags::NONE };
    let allowed = FlushFlags::NAMED.without(not_for_lists);
    if flags.without(allowed) == FlushFlags::NONE { Ok(()) } else { Err(HvStatus::INVALID_PARAMETER) }
}

/// Flushes VPs 0 to 63 by mask, or all.
fn flush(cpu: &mut ChildCpu, call: &mut Call) -> Outcome {
    let input: FlushVirtualAddressInput = call.header()?;
    check_flags(input.flags, call)?;
    let all = input.flags.contains(FlushFlags::ALL_PROCESSORS);
    flush_targets(cpu, &if all { Targets::ALL } else { Targets::from_mask(input.processor_mask) });
    call.set_done(call.reps().end);
    Ok(())
}

/// `HvCallFlushVirtualAddressSpaceEx`.
const FLUSH_SPACE_EX: CallSpec = CallSpec::simple(size_of::<FlushVirtualAddressExInput>(), 0).variable();
/// `HvCallFlushVirtualAddressListEx`.
const FLUSH_LIST_EX: CallSpec =
    CallSpec::rep(size_of::<FlushVirtualAddressExInput>(), size_of::<GvaRange>(), 0).variable();

/// Flushes the VPs of a set, or all.
fn flush_ex(cpu: &mut ChildCpu, call: &mut Call) -> Outcome {
    let input: FlushVirtualAddressExInput = call.header()?;
    check_flags(input.flags, call)?;
    let all = input.flags.contains(FlushFlags::ALL_PROCESSORS);
    flush_targets(cpu, &if all { Targets::ALL } else { sparse(input.vp_set, call.variable())? });
    call.set_done(call.reps().end);
    Ok(())
}

/// Drops all cached translations of the VPs: a new ASID costs less than many INVLPGA on another processor. Those
/// that run are first all told, so that they leave their guests at the same time, and then waited for.
fn flush_targets(cpu: &mut ChildCpu, targets: &Targets) {
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
}

/// `HvCallNotifyLongSpinWait`: the number of spins.
const NOTIFY_LONG_SPIN_WAIT: CallSpec = CallSpec::simple(8, 0);

fn notify_long_spin_wait(cpu: &mut ChildCpu, _: &mut Call) -> Outcome {
    count(&cpu.vp.counters.long_spins);
    Ok(())
}

/// `HvCallGetVpIndexFromApicId`.
const GET_VP_INDEX: CallSpec =
    CallSpec::rep(size_of::<GetVpIndexFromApicIdInput>(), size_of::<ApicId>(), size_of::<VpIndex>());

/// Translates APIC ids, which are indices here.
fn get_vp_index_from_apic_id(cpu: &mut ChildCpu, call: &mut Call) -> Outcome {
    let input: GetVpIndexFromApicIdInput = call.header()?;
    let own = [tlfs::PartitionId::SELF, cpu.vp.partition.id];
    if !own.contains(&input.partition_id) {
        return Err(HvStatus::ACCESS_DENIED);
    }
    for rep in call.batch() {
        let index = VpIndex(call.element::<ApicId>(rep)?.apic_id);
        cpu.vp.partition.vp(index).map_err(|_| HvStatus::INVALID_PARAMETER)?;
        call.set_output_element(rep, &index);
        call.set_done(rep + 1);
    }
    Ok(())
}
