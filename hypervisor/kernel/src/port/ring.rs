//! Ringing: the ports of the root, and the event rings in which the ids of those that rang reach it.
//!
//! Each processor of the root has a ring, and an LP uses the one of its own root processor: the driver there is
//! interrupted at once, and no other LP waits for the ring's lock. A port that finds the ring full is marked in the
//! table of ports; whichever processor of the root reports an empty ring first gets the marked ports.
//!
//! Lock order: a root VP's `synic`, the root's endpoints.

use core::{
    mem::{self, offset_of},
    sync::atomic::Ordering,
};

use hal::{lp, mem::SharedPage};
use model::{doorbell::RingMemory, port::Port};
use tlfs::{PortId, SintIndex, synic::EventRing};

use crate::root::{RootVp, root};

/// Where the ring of the driver's doorbells is in the page of rings.
const RING: usize = SintIndex::DOORBELL.0 as usize * size_of::<EventRing>();

/// A ring in the page that the root shares. The offsets are inside it, so the fallbacks are never used.
struct Memory<'a>(&'a SharedPage);

impl Memory<'_> {
    fn word(index: usize) -> usize {
        RING + offset_of!(EventRing, data) + index * size_of::<u32>()
    }
}

impl RingMemory for Memory<'_> {
    fn entry(&self, index: usize) -> u32 {
        self.0.word_32(Self::word(index)).map_or(u32::MAX, |entry| entry.load(Ordering::Acquire))
    }

    fn set_entry(&mut self, index: usize, port: PortId) {
        self.0.word_32(Self::word(index)).inspect(|entry| entry.store(port.0, Ordering::Release));
    }

    fn set_full(&mut self) {
        let full = self.0.byte_8(RING + offset_of!(EventRing, ring_full));
        full.inspect(|full| full.store(1, Ordering::Release));
    }

    fn mask_signal(&mut self) -> bool {
        let masked = self.0.byte_8(RING + offset_of!(EventRing, signal_masked));
        masked.is_some_and(|masked| masked.swap(1, Ordering::SeqCst) != 0)
    }
}

/// Rings `port`: the root hears of it once or more often, never less.
pub fn ring(port: PortId) {
    let Some(vp) = root().vps.get(lp::this().0 as usize) else { return };
    let mut synic = vp.synic.lock();
    let (ring, page) = synic.event_ring();
    let rung = ring.ring(&mut Memory(page), port);
    if !rung.is_stored {
        // Before the lock of the ring is released: a refill in between would miss the mark.
        let mut endpoints = root().endpoints.lock();
        for known in endpoints.ports.iter_mut().filter(|known| known.id == port) {
            known.is_remembered = true;
        }
    }
    if rung.signal {
        synic.signal_doorbell();
    }
}

/// Puts the marked ports into the ring of `vp`, which its driver found empty.
pub fn refill(vp: &RootVp) {
    let mut synic = vp.synic.lock();
    let (ring, page) = synic.event_ring();
    let mut endpoints = root().endpoints.lock();
    let marked = |port: &mut Port| mem::take(&mut port.is_remembered).then_some(port.id);
    let mut marked = endpoints.ports.iter_mut().filter_map(marked);
    ring.refill(&mut Memory(page), || marked.next());
}
