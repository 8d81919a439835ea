//! Registers that can be used while the VP runs: those of its local APIC, its SynIC and its partition, and the two
//! by which the root ends the use of a VP.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::{time, virt::lps};
use model::{
    lapic::{Lapic, Mode},
    reftime::TscScale,
    synic::Effect,
};
use tlfs::{
    HvStatus, cpuid,
    msr::{self, CrashControl},
    register::{DeliverabilityNotifications, RegisterName, RegisterValue, Suspend},
};

use crate::{
    child::refresh_reference_tsc,
    partition::{Partition, VpRef},
    vp::{guest_tsc, request},
};

/// Reads a register; `None` if it needs the VP's context, or does not exist.
pub fn get_shared(vp: &VpRef, name: RegisterName) -> Option<RegisterValue> {
    use RegisterName as N;
    let value = match name {
        N::EXPLICIT_SUSPEND => Suspend::new().with_suspended(vp.is_explicitly_suspended()).into_bits(),
        N::DISPATCH_SUSPEND => {
            Suspend::new().with_suspended(vp.dispatch_suspended.load(Ordering::SeqCst)).into_bits()
        }
        N::VP_ROOT_SIGNAL_COUNT => vp.root_signals.load(Ordering::SeqCst),
        N::DELIVERABILITY_NOTIFICATIONS => 0,
        N::HYPERVISOR_VERSION => return Some(leaf(&vp.partition, cpuid::VERSION)),
        N(0x200..=0x207) => return Some(leaf(&vp.partition, cpuid::FEATURES + (name.0 & 7))),
        N::PROCESSOR_CLOCK_FREQUENCY | N::INTERRUPT_CLOCK_FREQUENCY => time::tsc_hz(),
        N::GUEST_CRASH_CTL => CrashControl::new().with_crash_notify(true).into_bits(),
        N::CR8 | N::INTERMEDIATE_CR8 => u64::from(vp.lapic.lock().cr8()),
        N::APIC_BASE => vp.lapic.lock().base(),
        N::INITIAL_APIC_ID | N::APIC_ID => u64::from(vp.lapic.lock().id()),
        N::TSC => guest_tsc(),
        N::TIME_REF_COUNT => vp.partition.clock.lock().at(guest_tsc()),
        N::VP_RUNTIME => {
            let ticks = vp.counters.run_ticks.load(Ordering::Relaxed);
            TscScale::from_hz(time::tsc_hz()).units(ticks)
        }
        N::VP_INDEX => u64::from(vp.index.0),
        _ => match (stored(&vp.partition, name), synic_msr(name)) {
            (Some(place), _) => place.load(Ordering::Relaxed),
            (None, Some(number)) => vp.synic.lock().read_msr(number).ok()?,
            (None, None) => return None,
        },
    };
    Some(value.into())
}

/// Writes a register; `None` if it needs the VP's context, is only to be read, or does not exist.
pub fn set_shared(vp: &VpRef, name: RegisterName, value: RegisterValue) -> Option<Result<(), HvStatus>> {
    use RegisterName as N;
    let value = value.as_u64();
    Some(match name {
        N::EXPLICIT_SUSPEND => {
            vp.set_explicitly_suspended(Suspend::from_bits(value).suspended());
            Ok(())
        }
        N::DISPATCH_SUSPEND => {
            suspend_dispatch(vp, Suspend::from_bits(value).suspended());
            Ok(())
        }
        // With the local APIC and the SynIC in the hypervisor there is nothing of which the parent needs to know
        // when it can be delivered.
        N::DELIVERABILITY_NOTIFICATIONS if value == DeliverabilityNotifications::new().into_bits() => Ok(()),
        N::DELIVERABILITY_NOTIFICATIONS => Err(HvStatus::INVALID_PARAMETER),
        N::CR8 | N::INTERMEDIATE_CR8 => {
            vp.lapic.lock().set_cr8(value).map_err(|_| HvStatus::INVALID_REGISTER_VALUE)
        }
        N::APIC_BASE => set_apic_base(&mut vp.lapic.lock(), value),
        // All VPs see the machine's counter, whatever a virtual machine monitor wants it to begin with.
        N::TSC => Ok(()),
        _ => match (stored(&vp.partition, name), synic_msr(name)) {
            (Some(place), _) => {
                place.store(value, Ordering::Relaxed);
                if name == N::REFERENCE_TSC {
                    refresh_reference_tsc(&vp.partition);
                }
                Ok(())
            }
            (None, Some(number)) => set_synic(vp, number, value),
            (None, None) => return None,
        },
    })
}

/// Registers of the partition that are only storage.
fn stored(partition: &Partition, name: RegisterName) -> Option<&AtomicU64> {
    let msrs = &partition.msrs;
    match name {
        RegisterName::GUEST_OS_ID => Some(&msrs.guest_os_id),
        RegisterName::HYPERCALL => Some(&msrs.hypercall),
        RegisterName::REFERENCE_TSC => Some(&msrs.reference_tsc),
        RegisterName(0x210..=0x214) => msrs.crash.get((name.0 & 0xf) as usize),
        _ => None,
    }
}

/// The MSR of a register of the SynIC.
fn synic_msr(name: RegisterName) -> Option<u32> {
    name.msr().filter(|number| (msr::SCONTROL..=msr::SINT15).contains(number))
}

/// What CPUID says of the hypervisor, as one register (TLFS 6.0b §3.4).
fn leaf(partition: &Partition, number: u32) -> RegisterValue {
    let leaf = partition.profile.lock().leaf(number);
    let pair = |low, high| u64::from(low) | u64::from(high) << 32;
    RegisterValue { low: pair(leaf.eax, leaf.ebx), high: pair(leaf.ecx, leaf.edx) }
}

/// A suspended VP leaves its LP, and sends the root no more signals; one that waits goes on waiting.
fn suspend_dispatch(vp: &VpRef, suspended: bool) {
    vp.dispatch_suspended.store(suspended, Ordering::SeqCst);
    if !suspended {
        vp.wake();
    } else if let Some(lp) = vp.lp() {
        lps::kick(lp);
    }
}

/// The parent may change the APIC's mode to any other, as a reset of the virtual machine does.
fn set_apic_base(lapic: &mut Lapic, value: u64) -> Result<(), HvStatus> {
    const ENABLE: u64 = 1 << 11;
    const X2APIC: u64 = 1 << 10;
    if lapic.mode() != Mode::XApic && lapic.set_base(value).is_err() {
        for way in [value & !(ENABLE | X2APIC), value & !X2APIC | ENABLE] {
            lapic.set_base(way).map_err(|_| HvStatus::INVALID_REGISTER_VALUE)?;
        }
    }
    lapic.set_base(value).map_err(|_| HvStatus::INVALID_REGISTER_VALUE)
}

fn set_synic(vp: &VpRef, number: u32, value: u64) -> Result<(), HvStatus> {
    let effect = vp.synic.lock().write_msr(number, value).map_err(|_| HvStatus::INVALID_REGISTER_VALUE)?;
    if effect != Effect::None {
        vp.request(request::MESSAGE);
    }
    Ok(())
}
