//! Doorbells: writes of a child that signal a port of the root, and the event ring that carries the port's id there.
//!
//! The ring has one producer, the hypervisor, which serializes its own use of an [`EventRing`]; the consumer is the
//! root, which takes entries while we look. A port that finds the ring full is remembered by the caller (one bit in
//! the port will do, since a doorbell rung twice before it is heard is rung once) and put in later.
//!
//! Source: TLFS datatypes/HV_CONNECTION_INFO for the trigger; the ring is not in the TLFS, and is what
//! `Linux mshv_synic.c:synic_event_ring_get_queued_port` consumes.

use crate::ensure;
use tlfs::{
    HvStatus, PAGE_SIZE, PortId,
    port::{DoorbellConnectionInfo, DoorbellFlags, DoorbellSize},
    synic::EVENT_RING_ENTRIES,
};

/// Which write rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    gpa: u64,
    /// In bytes; `None` for any.
    size: Option<u8>,
    value: Option<u64>,
}

impl Doorbell {
    /// Takes the trigger of a connection.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an unknown size or reserved flags, and if the write would cross a page.
    pub fn new(info: &DoorbellConnectionInfo) -> Result<Self, HvStatus> {
        let DoorbellConnectionInfo { gpa, trigger_value, flags } = *info;
        let size = match DoorbellSize(flags.trigger_size()) {
            DoorbellSize::ANY => None,
            DoorbellSize(code @ 1..=4) => Some(1 << (code - 1)),
            _ => return Err(HvStatus::INVALID_PARAMETER),
        };
        let known =
            DoorbellFlags::new().with_trigger_size(flags.trigger_size()).with_any_value(flags.any_value());
        let is_inside = gpa as usize % PAGE_SIZE + usize::from(size.unwrap_or(1)) <= PAGE_SIZE;
        ensure(flags == known && is_inside, HvStatus::INVALID_PARAMETER)?;
        Ok(Self { gpa, size, value: (!flags.any_value()).then_some(trigger_value) })
    }

    /// The address that is watched, in bytes.
    pub const fn gpa(&self) -> u64 {
        self.gpa
    }

    /// Whether a write of the low `bytes` bytes of `value` to `gpa` rings.
    pub fn rings(&self, gpa: u64, bytes: u8, value: u64) -> bool {
        let mask = if bytes >= 8 { u64::MAX } else { (1 << (bytes * 8)) - 1 };
        gpa == self.gpa
            && self.size.is_none_or(|size| size == bytes)
            && self.value.is_none_or(|trigger| trigger & mask == value & mask)
    }
}

/// The memory of one event ring (`tlfs::synic::EventRing`), which the root reads and writes meanwhile.
pub trait RingMemory {
    /// Loads an entry (acquire).
    fn entry(&self, index: usize) -> u32;
    /// Stores an entry (release).
    fn set_entry(&mut self, index: usize, port: PortId);
    /// Stores 1 to `ring_full` (release).
    fn set_full(&mut self);
    /// Exchanges `signal_masked` for 1, a full fence, and returns whether it was set before.
    fn mask_signal(&mut self) -> bool;
}

/// What became of a port that rang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Rung {
    /// It is in the ring; if not, the caller remembers it for [`EventRing::refill`].
    pub is_stored: bool,
    /// The ring's SINT is to be signalled.
    pub signal: bool,
}

/// The producer's side of an event ring.
#[derive(Clone, Debug, Default)]
pub struct EventRing {
    head: usize,
    /// Ports are remembered, until the consumer reports the ring empty.
    is_full: bool,
}

impl EventRing {
    /// A ring whose first entry is the next one, which it is when the root's processor has come up: Linux starts
    /// there each time it prepares a processor.
    pub const fn new() -> Self {
        Self { head: 0, is_full: false }
    }

    /// Puts a port in the ring. Its id must not be zero, which marks an empty entry.
    ///
    /// When the ring becomes full, the SINT is signalled whether masked or not: the consumer may have looked at
    /// `ring_full` just before, and does not look again after it has unmasked the signal.
    pub fn ring(&mut self, memory: &mut impl RingMemory, port: PortId) -> Rung {
        if !self.is_full && self.store(memory, port) {
            return Rung { is_stored: true, signal: !memory.mask_signal() };
        }
        let was_full = core::mem::replace(&mut self.is_full, true);
        if !was_full {
            memory.set_full();
            memory.mask_signal();
        }
        Rung { is_stored: false, signal: !was_full }
    }

    /// Puts remembered ports in the ring, which the consumer has found empty (`HvCallNotifyPortRingEmpty`). `next`
    /// forgets and returns a port. The consumer goes on by itself, and reports again if not all fitted.
    pub fn refill(&mut self, memory: &mut impl RingMemory, mut next: impl FnMut() -> Option<PortId>) {
        self.is_full = false;
        for _ in 0..EVENT_RING_ENTRIES {
            if memory.entry(self.head) != 0 {
                break;
            }
            match next() {
                Some(port) => self.store(memory, port),
                None => return,
            };
        }
        self.is_full = true;
        memory.set_full();
    }

    fn store(&mut self, memory: &mut impl RingMemory, port: PortId) -> bool {
        let is_free = memory.entry(self.head) == 0;
        if is_free {
            memory.set_entry(self.head, port);
            self.head = (self.head + 1) % EVENT_RING_ENTRIES;
        }
        is_free
    }
}

#[cfg(test)]
mod tests;
