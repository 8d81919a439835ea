//! The receiving side of a ring.

use std::sync::atomic::{Ordering, fence};

use super::{
    FEATURE_PENDING_SEND, FEATURES, INTERRUPT_MASK, PENDING_SEND_BYTES, Packet, READ_INDEX, RingError,
    RingPages, Signal, TRAILER_BYTES, WRITE_INDEX,
    packet::{DESCRIPTOR_BYTES, Descriptor},
};
use crate::memory::Memory;

/// Takes packets out of a ring. Its state is plain: a copy of it goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pages: RingPages,
    max_packet: u32,
    /// Where the next packet is read.
    read: u32,
    /// The read index that the guest knows.
    published: u32,
    /// The guest's write index when it was last loaded.
    write: u32,
}

impl Receiver {
    /// A receiver that goes on at the header's read index, and lets the guest signal.
    ///
    /// # Errors
    /// The header is not RAM, or the index is impossible.
    pub fn new(memory: &dyn Memory, pages: RingPages, max_packet: u32) -> Result<Self, RingError> {
        let read = pages.index(memory, READ_INDEX)?;
        pages.store(memory, INTERRUPT_MASK, 0, Ordering::Release)?;
        Ok(Self { pages, max_packet, read, published: read, write: read })
    }

    /// Takes the next packet, if there is one. The guest gets the room back with [`Receiver::publish`], which
    /// may follow after many packets. The caller limits how many it takes in a row: the guest can send as fast
    /// as they are taken.
    ///
    /// # Errors
    /// The ring or the packet is broken; the channel has to be closed.
    pub fn next(&mut self, memory: &dyn Memory, packet: &mut Packet) -> Result<bool, RingError> {
        if self.read == self.write {
            self.write = self.pages.index(memory, WRITE_INDEX)?;
        }
        let available = self.pages.distance(self.read, self.write);
        if available == 0 {
            return Ok(false);
        }
        if available < DESCRIPTOR_BYTES + TRAILER_BYTES {
            return Err(RingError::Truncated { available });
        }
        // The descriptor is copied once and decides; the guest may change the one in the ring.
        let mut raw = [0; DESCRIPTOR_BYTES as usize];
        self.pages.copy_out(memory, self.read, &mut raw)?;
        let descriptor = Descriptor::read(&raw);
        let Descriptor { payload_at: payload, packet_bytes: bytes, .. } = descriptor;
        let fits = bytes <= self.max_packet && bytes <= available - TRAILER_BYTES;
        if !fits || payload < DESCRIPTOR_BYTES || payload > bytes {
            return Err(RingError::Lengths { payload, packet: bytes });
        }
        packet.bytes.resize(bytes as usize, 0);
        let (head, rest) = packet.bytes.split_at_mut(raw.len());
        head.copy_from_slice(&raw);
        self.pages.copy_out(memory, self.pages.advance(self.read, DESCRIPTOR_BYTES), rest)?;
        packet.parse(&descriptor)?;
        self.read = self.pages.advance(self.read, bytes + TRAILER_BYTES);
        Ok(true)
    }

    /// Gives the room of all packets taken so far back to the guest, and says whether it waits for it.
    ///
    /// # Errors
    /// The ring is broken; the channel has to be closed.
    pub fn publish(&mut self, memory: &dyn Memory) -> Result<Signal, RingError> {
        if self.read == self.published {
            return Ok(Signal::NotNeeded);
        }
        let freed = self.pages.distance(self.published, self.read);
        // Pairs with the guest's load of the read index: the packets have been copied before it can overwrite
        // them.
        self.pages.store(memory, READ_INDEX, self.read, Ordering::Release)?;
        self.published = self.read;
        if self.pages.load(memory, FEATURES, Ordering::Relaxed)? & FEATURE_PENDING_SEND == 0 {
            return Ok(Signal::NotNeeded);
        }
        // Pairs with the guest's fence between its store of the pending size and its load of the read index.
        fence(Ordering::SeqCst);
        let pending = self.pages.load(memory, PENDING_SEND_BYTES, Ordering::Acquire)?;
        if pending == 0 {
            return Ok(Signal::NotNeeded);
        }
        let write = self.pages.index(memory, WRITE_INDEX)?;
        let free = self.pages.data_bytes() - self.pages.distance(self.read, write);
        let before = free.saturating_sub(freed);
        // A ring is never filled to the last byte, so room for exactly the pending size is not enough.
        if before <= pending && free > pending { Ok(Signal::Needed) } else { Ok(Signal::NotNeeded) }
    }

    /// Tells the guest that it need not signal packets: they are looked for.
    ///
    /// # Errors
    /// The header is not RAM.
    pub fn mask(&self, memory: &dyn Memory) -> Result<(), RingError> {
        self.pages.store(memory, INTERRUPT_MASK, 1, Ordering::Release)?;
        Ok(())
    }

    /// Lets the guest signal again. Returns whether packets came meanwhile, of which it may have said nothing:
    /// then the caller takes them first, or comes back by itself.
    ///
    /// All that was taken has been [published](Self::publish) before: a guest signals only a ring that was empty to its
    /// eyes, so an old read index would keep it silent about a packet that comes after this has looked.
    ///
    /// # Errors
    /// The ring is broken; the channel has to be closed.
    pub fn unmask(&mut self, memory: &dyn Memory) -> Result<bool, RingError> {
        debug_assert_eq!(self.read, self.published, "what was taken is published first");
        self.pages.store(memory, INTERRUPT_MASK, 0, Ordering::Release)?;
        // Pairs with the guest's fence between its store of the write index and its load of the mask.
        fence(Ordering::SeqCst);
        self.write = self.pages.index(memory, WRITE_INDEX)?;
        Ok(self.write != self.read)
    }
}
