//! Interrupts that one processor sends to others, or the parent to its child: to whom they go, and how they arrive.
//!
//! A VP's APIC id is its index. No two local APICs are locked at once.

use model::{
    ensure,
    lapic::{Delivery, Destination, Effect, Ipi, Mode, Source, Target, Trigger},
};
use tlfs::{
    HvStatus, VpIndex,
    intercept::ApicEoi,
    msr::FIRST_VALID_VECTOR,
    synic::MessageType,
    vp::{InterruptControl, InterruptType},
};

use super::{ChildCpu, Next, RESUME};
use crate::{
    partition::{MAX_VPS, Partition, VpRef},
    vp::{Vp, request},
};

/// An MSI's destination has 8 bits, of which all set are every APIC.
const MSI_BROADCAST: u32 = 0xff;

impl ChildCpu<'_> {
    /// Does what a write to the local APIC asks for.
    #[inline]
    pub(super) fn apic_effect(&mut self, effect: Effect) -> Next {
        // The write may have ended the interrupt of a message, which asks for the next (TLFS
        // inter-partition-communication).
        self.ctx.messages_wait |= self.ctx.extra.timers.is_waiting();
        match effect {
            Effect::Ipi(ipi) => send(self.vp, ipi),
            Effect::LevelEoi(vector) => {
                let message = ApicEoi { vp_index: self.vp.index, interrupt_vector: vector.into() };
                return self.report(MessageType::X64_APIC_EOI, &message);
            }
            // The dispatch loop looks at both before the next entry.
            Effect::None => {}
        }
        RESUME
    }
}

/// Sends `ipi` from `vp`.
pub fn send(vp: &VpRef, ipi: Ipi) {
    let partition = &*vp.partition;
    if let Target::Destination(destination) = ipi.target {
        return deliver_to(partition, Some(vp.index), destination, ipi.delivery, ipi.vector, Trigger::Edge);
    }
    Targets::ALL.each(partition, |target| {
        if target.index != vp.index || ipi.target == Target::AllIncludingSelf {
            deliver(target, Some(vp.index), ipi.delivery, ipi.vector, Trigger::Edge);
        }
    });
}

/// Carries out `HvCallAssertVirtualInterrupt`. An interrupt that no APIC accepts is lost, as on a machine.
///
/// # Errors
/// `INVALID_PARAMETER`: the type is unknown here, or the vector is not one of 16 to 255.
pub fn assert(
    partition: &Partition,
    control: InterruptControl,
    destination: u64,
    vector: u32,
) -> Result<(), HvStatus> {
    let id = u32::try_from(destination).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    let destination = destination_of(partition, id, control.logical_destination_mode());
    let trigger = if control.level_triggered() { Trigger::Level } else { Trigger::Edge };
    let delivery = match InterruptType(control.interrupt_type()) {
        InterruptType::FIXED => Delivery::Fixed,
        InterruptType::LOWEST_PRIORITY => Delivery::LowestPriority,
        InterruptType::NMI => Delivery::Nmi,
        InterruptType::INIT => Delivery::Init,
        InterruptType::SIPI => Delivery::Sipi,
        InterruptType::EXT_INT => Delivery::ExtInt,
        InterruptType::LOCAL_INT0 => return assert_pin(partition, destination, Source::Lint0),
        InterruptType::LOCAL_INT1 => return assert_pin(partition, destination, Source::Lint1),
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    let vector = u8::try_from(vector).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    let has_vector = matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
    ensure(!has_vector || vector >= FIRST_VALID_VECTOR, HvStatus::INVALID_PARAMETER)?;
    deliver_to(partition, None, destination, delivery, vector, trigger);
    Ok(())
}

/// What the parent means by `id`: 8 bits of an MSI or I/O APIC entry, or an APIC id that needs more.
fn destination_of(partition: &Partition, id: u32, logical: bool) -> Destination {
    if id == MSI_BROADCAST && partition.vp(VpIndex(id)).is_err() {
        return Destination::Broadcast;
    }
    Destination::from_x2apic(id, logical)
}

/// Raises a pin of the local APICs that `destination` names.
fn assert_pin(partition: &Partition, destination: Destination, pin: Source) -> Result<(), HvStatus> {
    each_match(partition, destination, |target| {
        let other = target.lapic.lock().deliver_lvt(pin);
        match other {
            Some(delivery) => deliver(target, None, delivery, 0, Trigger::Edge),
            None => target.wake(),
        }
    });
    Ok(())
}

fn deliver_to(
    partition: &Partition,
    sender: Option<VpIndex>,
    destination: Destination,
    delivery: Delivery,
    vector: u8,
    trigger: Trigger,
) {
    if delivery == Delivery::LowestPriority {
        if let Some(target) = lowest_priority(partition, destination) {
            deliver(&target, sender, Delivery::Fixed, vector, trigger);
        }
    } else {
        each_match(partition, destination, |target| deliver(target, sender, delivery, vector, trigger));
    }
}

/// Calls `each` with the VPs that `destination` names.
#[inline]
fn each_match(partition: &Partition, destination: Destination, mut each: impl FnMut(&VpRef)) {
    match destination {
        Destination::Physical(id) => {
            if let Ok(target) = partition.vp(VpIndex(id)) {
                each(&target);
            }
        }
        _ => Targets::ALL.each(partition, |target| {
            let matches = target.lapic.lock().matches(destination);
            if matches {
                each(target);
            }
        }),
    }
}

/// The VP with the lowest priority among those named; the first of several.
fn lowest_priority(partition: &Partition, destination: Destination) -> Option<VpRef> {
    let mut best: Option<(u8, VpRef)> = None;
    each_match(partition, destination, |target| {
        let priority = target.lapic.lock().ppr();
        if best.as_ref().is_none_or(|(lowest, _)| priority < *lowest) {
            best = Some((priority, target.clone()));
        }
    });
    best.map(|(_, vp)| vp)
}

/// Delivers an interrupt to one VP. `sender` looks at its own APIC before it goes on, and needs no wake-up.
#[inline]
fn deliver(target: &Vp, sender: Option<VpIndex>, delivery: Delivery, vector: u8, trigger: Trigger) {
    let asked = match delivery {
        Delivery::Fixed | Delivery::LowestPriority => {
            let accepted = target.lapic.lock().request(vector, trigger);
            if accepted && sender != Some(target.index) {
                target.wake();
            }
            return;
        }
        Delivery::Nmi => request::NMI,
        Delivery::Init => request::INIT,
        Delivery::Sipi => request::STARTUP | u32::from(vector) << request::VECTOR_SHIFT,
        // The local APIC passes it on as it is (SDM 3A §11.5.1, ExtINT).
        Delivery::ExtInt => return target.set_external(Some(vector)),
        // There is no system management mode.
        Delivery::Smi => return,
    };
    let hears = target.lapic.lock().mode() != Mode::Disabled;
    if hears {
        target.request(asked);
    }
}

/// Sends a fixed interrupt from `vp` to the VPs in `set`.
pub(super) fn send_to_set(vp: &VpRef, set: &Targets, vector: u8) {
    set.each(&vp.partition, |target| deliver(target, Some(vp.index), Delivery::Fixed, vector, Trigger::Edge));
}

const WORDS: usize = MAX_VPS.div_ceil(64);

/// VPs of a partition, by index; those that do not exist do not matter.
#[derive(Clone, Copy)]
pub(super) struct Targets([u64; WORDS]);

impl Targets {
    pub(super) const NONE: Self = Self([0; WORDS]);
    pub(super) const ALL: Self = Self([u64::MAX; WORDS]);

    /// The first 64, by a mask.
    pub(super) fn from_mask(mask: u64) -> Self {
        let mut set = Self::NONE;
        set.0[0] = mask;
        set
    }

    pub(super) fn insert(&mut self, index: VpIndex) {
        if let Some(word) = self.0.get_mut(index.0 as usize / 64) {
            *word |= 1 << (index.0 % 64);
        }
    }

    /// Calls `each` with the members that exist.
    #[inline]
    pub(super) fn each(&self, partition: &Partition, mut each: impl FnMut(&VpRef)) {
        // Indices are nearly always dense, so that all are found long before the last possible index.
        let mut left = partition.vp_count();
        for (base, word) in (0..).step_by(64).zip(self.0) {
            let mut bits = word;
            while bits != 0 && left != 0 {
                let index = VpIndex(base + bits.trailing_zeros());
                bits &= bits - 1;
                if let Ok(vp) = partition.vp(index) {
                    left -= 1;
                    each(&vp);
                }
            }
        }
    }
}
