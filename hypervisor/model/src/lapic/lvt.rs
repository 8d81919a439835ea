//! The local vector table: what the APIC's own interrupt sources deliver.

use super::{Delivery, Lapic, Mode, Trigger};

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
/// Timer modes, bits 18:17 of the timer's entry.
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 1 << 18;

/// Delivery status and remote IRR: always read as zero, since delivery takes no time here.
const READ_ONLY: u32 = 1 << 12;
const READ_ONLY_LINT: u32 = READ_ONLY | 1 << 14;

const TIMER: usize = 0;
const ERROR: usize = 5;
/// Entries, from the timer's to the error's, in register order (0x32 to 0x37). There is no CMCI entry.
pub(super) const ENTRIES: usize = 6;

/// A pin or unit that interrupts through the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Thermal = 1,
    PerfMon = 2,
    Lint0 = 3,
    Lint1 = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(u32);

impl Entry {
    pub(super) fn vector(self) -> u8 {
        self.0 as u8
    }

    pub(super) fn masked(self) -> bool {
        self.0 & MASKED != 0
    }

    pub(super) fn periodic(self) -> bool {
        self.0 & PERIODIC != 0
    }

    pub(super) fn tsc_deadline(self) -> bool {
        self.0 & TSC_DEADLINE != 0
    }

    fn trigger(self) -> Trigger {
        if self.0 & LEVEL != 0 { Trigger::Level } else { Trigger::Edge }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lvt(pub(super) [u32; ENTRIES]);

impl Lvt {
    pub(super) const RESET: Self = Self([MASKED; ENTRIES]);

    /// Bits of entry `index` that hold what is written to them; nothing for an entry that does not exist.
    fn stored(index: usize, tsc_deadline: bool) -> u32 {
        match index {
            TIMER if tsc_deadline => MASKED | PERIODIC | TSC_DEADLINE | 0xff,
            TIMER => MASKED | PERIODIC | 0xff,
            1 | 2 => MASKED | 0x7ff,
            3 | 4 => MASKED | LEVEL | 1 << 13 | 0x7ff,
            ERROR => MASKED | 0xff,
            _ => 0,
        }
    }

    /// Bits of entry `index` that may be written in x2APIC mode.
    pub(super) fn writable(index: usize, tsc_deadline: bool) -> u32 {
        Self::stored(index, tsc_deadline) | if matches!(index, 3 | 4) { READ_ONLY_LINT } else { READ_ONLY }
    }

    pub(super) fn timer(&self) -> Entry {
        Entry(self.0[TIMER])
    }

    pub(super) fn error(&self) -> Entry {
        Entry(self.0[ERROR])
    }

    /// Register `index`; entries that do not exist read as zero.
    pub(super) fn register(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// Stores what entry `index` can hold of `value`. Both mode bits of the timer set is a reserved mode: it keeps the
    /// TSC deadline, so that exactly one mode is ever in force.
    pub(super) fn set_register(&mut self, index: usize, value: u32, tsc_deadline: bool) {
        if let Some(entry) = self.0.get_mut(index) {
            *entry = value & Self::stored(index, tsc_deadline);
            if index == TIMER && *entry & TSC_DEADLINE != 0 {
                *entry &= !PERIODIC;
            }
        }
    }

    pub(super) fn mask_all(&mut self) {
        self.0 = self.0.map(|entry| entry | MASKED);
    }
}

impl Lapic {
    /// The table's `source` fires. A fixed interrupt goes to the IRR; anything else is returned for the caller to
    /// deliver to this VP (TLFS `HvX64InterruptTypeLocalInt0`, `LocalInt1`). With the APIC disabled the pins are the
    /// processor's own INTR and NMI (SDM "Enabling or Disabling the Local APIC").
    pub fn deliver_lvt(&mut self, source: Source) -> Option<Delivery> {
        if self.mode == Mode::Disabled {
            return match source {
                Source::Lint0 => Some(Delivery::ExtInt),
                Source::Lint1 => Some(Delivery::Nmi),
                Source::Thermal | Source::PerfMon => None,
            };
        }
        let index = source as usize;
        let entry = Entry(self.lvt.register(index));
        if entry.masked() {
            return None;
        }
        if source == Source::PerfMon {
            // The counter overflow masks its own entry until the handler clears it.
            self.lvt.0[index] |= MASKED;
        }
        match Delivery::from_bits(entry.0 >> 8)? {
            Delivery::Fixed => {
                let trigger = if source == Source::Lint0 { entry.trigger() } else { Trigger::Edge };
                self.request(entry.vector(), trigger);
                None
            }
            Delivery::LowestPriority | Delivery::Sipi => None,
            other => Some(other),
        }
    }
}
