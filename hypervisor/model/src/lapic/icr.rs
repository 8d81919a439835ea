//! Interrupt commands: from the ICR to an [`Ipi`], and whom a destination names.

use super::{DFR_FLAT, ESR_SEND_ILLEGAL_VECTOR, Effect, Lapic, Mode, Trigger};

/// Bits of the ICR's lower half that hold what is written: all but the reserved ones and the delivery status.
pub(super) const ICR_STORED: u32 = 0x000c_cfff;
/// Delivery status: gone in x2APIC mode, where processors still let software write it.
pub(super) const ICR_STATUS: u32 = 1 << 12;
const ICR_LOGICAL: u32 = 1 << 11;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_LEVEL: u32 = 1 << 15;

const X2APIC_BROADCAST: u32 = u32::MAX;
const XAPIC_BROADCAST: u8 = u8::MAX;

/// How an interrupt arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Fixed,
    LowestPriority,
    Smi,
    Nmi,
    Init,
    Sipi,
    /// Only from the local vector table: the vector comes from outside the APIC.
    ExtInt,
}

impl Delivery {
    /// From the three bits of an ICR, LVT entry or MSI; the one reserved encoding is `None`.
    pub fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Sipi,
            7 => Self::ExtInt,
            _ => return None,
        })
    }
}

/// Which APICs an interrupt names, free of the sender's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The APIC with this id.
    Physical(u32),
    /// The APICs whose logical id matches, by the rule of their own mode.
    Logical(u32),
    /// Every APIC.
    Broadcast,
}

impl Destination {
    /// An 8-bit destination: an ICR in xAPIC mode or an MSI address.
    pub fn from_xapic(id: u8, logical: bool) -> Self {
        match id {
            XAPIC_BROADCAST => Self::Broadcast,
            id if logical => Self::Logical(id.into()),
            id => Self::Physical(id.into()),
        }
    }

    /// A 32-bit destination: an ICR in x2APIC mode.
    pub fn from_x2apic(id: u32, logical: bool) -> Self {
        match id {
            X2APIC_BROADCAST => Self::Broadcast,
            id if logical => Self::Logical(id),
            id => Self::Physical(id),
        }
    }
}

/// Receivers of an [`Ipi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those that [`Lapic::matches`].
    Destination(Destination),
    /// All VPs of the partition, the sender too.
    AllIncludingSelf,
    /// All VPs of the partition but the sender.
    AllExcludingSelf,
}

/// An interrupt command for the caller to carry out. Always edge-triggered and asserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipi {
    pub delivery: Delivery,
    /// Fixed and lowest priority: the vector, 16 or above. SIPI: the page to start at. Otherwise of no meaning.
    pub vector: u8,
    pub target: Target,
}

impl Lapic {
    /// Whether `destination` names this APIC. A disabled APIC hears nothing.
    pub fn matches(&self, destination: Destination) -> bool {
        match (self.mode, destination) {
            (Mode::Disabled, _) => false,
            (_, Destination::Broadcast) => true,
            (_, Destination::Physical(id)) => id == self.id,
            (Mode::XApic, Destination::Logical(id)) => {
                u8::try_from(id).is_ok_and(|id| self.matches_xapic_logical(id))
            }
            (Mode::X2Apic, Destination::Logical(id)) => {
                let own = x2apic_ldr(self.id);
                id >> 16 == own >> 16 && id & own & 0xffff != 0
            }
        }
    }

    /// The flat and the cluster model; DFR values that name neither match nothing.
    fn matches_xapic_logical(&self, id: u8) -> bool {
        let own = (self.ldr >> 24) as u8;
        match self.dfr {
            DFR_FLAT => id & own != 0,
            dfr if dfr >> 28 == 0 => id >> 4 == own >> 4 && id & own & 0xf != 0,
            _ => false,
        }
    }

    /// Carries out the command in the ICR. Combinations the SDM calls invalid ("Valid Combinations for the Local APIC's
    /// Interrupt Command Register") do nothing, nor does the INIT level de-assert, which today's processors ignore.
    pub(super) fn send(&mut self) -> Effect {
        let low = self.icr_low;
        let logical = low & ICR_LOGICAL != 0;
        let Some(delivery) = Delivery::from_bits(low >> 8) else { return Effect::None };
        let vector = low as u8;
        let has_vector = matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
        if has_vector && vector < 16 {
            self.error(ESR_SEND_ILLEGAL_VECTOR);
            return Effect::None;
        }
        let deassert = low & (ICR_LEVEL | ICR_ASSERT) == ICR_LEVEL;
        if delivery == Delivery::ExtInt || (delivery == Delivery::Init && deassert) {
            return Effect::None;
        }
        let target = match (low >> 18 & 3, delivery) {
            (0, _) if self.mode == Mode::X2Apic => {
                Target::Destination(Destination::from_x2apic(self.icr_high, logical))
            }
            (0, _) => Target::Destination(Destination::from_xapic((self.icr_high >> 24) as u8, logical)),
            (1, Delivery::Fixed) => {
                self.request(vector, Trigger::Edge);
                return Effect::None;
            }
            (2, Delivery::Fixed) => Target::AllIncludingSelf,
            (3, _) => Target::AllExcludingSelf,
            _ => return Effect::None,
        };
        Effect::Ipi(Ipi { delivery, vector, target })
    }

    /// The SELF IPI register of x2APIC mode.
    pub(super) fn send_self(&mut self, vector: u8) {
        if vector < 16 {
            self.error(ESR_SEND_ILLEGAL_VECTOR);
        } else {
            self.request(vector, Trigger::Edge);
        }
    }
}

/// The logical id in x2APIC mode: cluster of 16 in the upper half, one bit in the lower (SDM "Deriving Logical x2APIC
/// ID from the Local x2APIC ID").
pub(super) fn x2apic_ldr(id: u32) -> u32 {
    (id >> 4) << 16 | 1 << (id & 0xf)
}
