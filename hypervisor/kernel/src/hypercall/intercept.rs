//! Calls by which the parent sees, or decides, what a child's instructions do: intercepts and CPUID results.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::virt::Vcpu;
use model::ensure;
use tlfs::{
    CallCode, HvStatus,
    vp::{
        CpuidLeafInfo, CpuidResult, CpuidResultParameters, CpuidValuesFlags, GetVpCpuidValuesInput,
        InstallInterceptInput, InterceptAccessMask, InterceptType, MsrResultParameters,
        RegisterInterceptResultInput,
    },
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Call, Outcome, registers::context, vp};
use crate::{child::cpuid, partition, root::RootCpu};

/// What the parent of a partition wants to see, beyond what it sees of every child: ports and memory that is not
/// mapped.
#[derive(Default)]
pub struct Intercepts {
    /// Exceptions, a bit for each vector.
    exceptions: AtomicU32,
    /// Accesses to MSRs that the hypervisor does not know, as [`InterceptAccessMask`].
    msrs: AtomicU32,
    /// Messages and events on connections that the hypervisor does not know.
    hypercalls: AtomicBool,
    /// CPUID leaves, each with [`LEAF_USED`].
    leaves: [AtomicU64; 8],
    /// Whether any was ever installed: most children have none, and CPUID is to be quick.
    has_leaves: AtomicBool,
}

const LEAF_USED: u64 = 1 << 32;

impl Intercepts {
    /// Whether CPUID with `leaf` goes to the parent.
    pub fn has_leaf(&self, leaf: u32) -> bool {
        let is_it = |place: &AtomicU64| place.load(Ordering::Relaxed) == u64::from(leaf) | LEAF_USED;
        self.has_leaves.load(Ordering::Relaxed) && self.leaves.iter().any(is_it)
    }

    /// Whether an access to an MSR that the hypervisor does not know goes to the parent.
    pub fn has_msr(&self, write: bool) -> bool {
        let access = if write { InterceptAccessMask::WRITE } else { InterceptAccessMask::READ };
        InterceptAccessMask(self.msrs.load(Ordering::Relaxed)).contains(access)
    }

    /// Whether a message or an event on a connection that the hypervisor does not know goes to the parent.
    pub fn has_hypercalls(&self) -> bool {
        self.hypercalls.load(Ordering::Relaxed)
    }

    /// Makes the exceptions leave the guest, of a VP that was just created or is not being dispatched.
    pub fn apply(&self, vcpu: &mut Vcpu) {
        let wanted = self.exceptions.load(Ordering::Relaxed);
        (0..32).for_each(|vector| vcpu.exit_on_exception(vector, wanted >> vector & 1 != 0));
    }

    fn set_leaf(&self, leaf: u64, on: bool) -> Outcome {
        self.has_leaves.fetch_or(on, Ordering::Relaxed);
        let (from, to) = if on { (0, leaf | LEAF_USED) } else { (leaf | LEAF_USED, 0) };
        if on && self.has_leaf(leaf as u32) {
            return Ok(());
        }
        let change = |place: &AtomicU64| {
            place.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if self.leaves.iter().any(change) || !on { Ok(()) } else { Err(HvStatus::INSUFFICIENT_BUFFERS) }
    }
}

/// `HvCallInstallIntercept`: installs an intercept, or removes it (no access). Every port and every page that is not
/// mapped goes to the parent anyway, so those are accepted as long as they are to be seen.
pub fn install(_: &mut RootCpu, input: InstallInterceptInput) -> Outcome {
    use InterceptAccessMask as Access;
    let partition = partition::find_for(input.partition_id, CallCode::INSTALL_INTERCEPT)?;
    let (access, intercepts) = (input.access_type, &partition.intercepts);
    ensure(Access::NAMED.contains(access), HvStatus::INVALID_PARAMETER)?;
    let on = access != Access::NONE;
    match input.intercept_type {
        InterceptType::X64_IO_PORT | InterceptType::X64_IO_PORT_RANGE | InterceptType::MMIO if on => Ok(()),
        InterceptType::X64_MSR if !access.contains(Access::EXECUTE) => {
            intercepts.msrs.store(access.0, Ordering::Relaxed);
            Ok(())
        }
        InterceptType::HYPERCALL if Access::EXECUTE.contains(access) => {
            intercepts.hypercalls.store(on, Ordering::Relaxed);
            Ok(())
        }
        InterceptType::X64_CPUID if Access::EXECUTE.contains(access) => {
            intercepts.set_leaf(input.parameter & u64::from(u32::MAX), on)
        }
        InterceptType::EXCEPTION if Access::EXECUTE.contains(access) => {
            let bit = exception_bit(input.parameter).ok_or(HvStatus::INVALID_PARAMETER)?;
            if on {
                intercepts.exceptions.fetch_or(bit, Ordering::Relaxed);
            } else {
                intercepts.exceptions.fetch_and(!bit, Ordering::Relaxed);
            }
            let mut result = Ok(());
            partition.for_each_vp(|vp| match context(vp) {
                Ok(mut ctx) => partition.intercepts.apply(&mut ctx.vcpu),
                Err(status) => result = Err(status),
            });
            result
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// The NMI is no exception, though it has a vector among them.
fn exception_bit(parameter: u64) -> Option<u32> {
    const NMI: u64 = 2;
    // The vector has 16 bits of the parameter.
    let vector = parameter & 0xffff;
    1u32.checked_shl(vector as u32).filter(|_| vector != NMI)
}

/// The input of `HvCallRegisterInterceptResult`, with the longest parameters that it can have.
#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RegisterResult {
    input: RegisterInterceptResultInput,
    cpuid: CpuidResultParameters,
}

/// `HvCallRegisterInterceptResult`: sets what CPUID returns on a VP. What an unknown MSR does is a property of the
/// whole partition, so that a result for a single MSR is accepted only if it is the same.
pub fn register_result(_: &mut RootCpu, RegisterResult { input, cpuid }: RegisterResult) -> Outcome {
    let (partition, vp) = vp::find(input.partition_id, input.vp_index, CallCode::REGISTER_INTERCEPT_RESULT)?;
    match input.intercept_type {
        InterceptType::X64_CPUID => context(&vp)?.extra.overrides.register(cpuid),
        InterceptType::X64_MSR => {
            let msr = MsrResultParameters::read_from_prefix(cpuid.as_bytes());
            let (MsrResultParameters { action, .. }, _) = msr.map_err(|_| HvStatus::INVALID_PARAMETER)?;
            let is_same =
                u64::from(action.0) == partition.properties.unimplemented_msr.load(Ordering::Relaxed);
            ensure(is_same, HvStatus::FEATURE_UNAVAILABLE)
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// `HvCallGetVpCpuidValues`: returns what CPUID returns on a VP, with or without the registered results.
pub fn cpuid_values(
    _: &mut RootCpu,
    input: GetVpCpuidValuesInput,
    call: &mut Call<CpuidLeafInfo, CpuidResult>,
) -> Outcome {
    ensure(CpuidValuesFlags::NAMED.contains(input.flags), HvStatus::INVALID_PARAMETER)?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::GET_VP_CPUID_VALUES)?;
    let with_registered = input.flags.contains(CpuidValuesFlags::APPLY_REGISTERED_VALUES);
    let ctx = context(&vp)?;
    call.each(|_, asked| Ok(cpuid::values(&vp, &ctx, asked.eax, asked.ecx, with_registered)))
}
