//! The sending side of a ring.

use std::sync::atomic::{Ordering, fence};

use super::{
    FEATURE_PENDING_SEND, FEATURES, INTERRUPT_MASK, Outgoing, PENDING_SEND_BYTES, READ_INDEX, RingError,
    RingPages, Signal, TRAILER_BYTES, WRITE_INDEX,
};
use crate::memory::Memory;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a packet that did not fit has to be sent again"]
pub enum Sent {
    /// It is in the ring, and the guest sees it after [`Sender::publish`].
    Yes,
    /// There is no room. A guest that can will signal when there is.
    Full,
}

/// Puts packets into a ring. Its state is plain: a copy of it goes on where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pages: RingPages,
    /// Where the next packet goes.
    write: u32,
    /// The write index that the guest knows.
    published: u32,
    /// Whether the header says that this side waits for room.
    waiting: bool,
    scratch: Vec<u8>,
}

impl Sender {
    /// A sender that goes on at the header's write index.
    ///
    /// # Errors
    /// The header is not RAM, or the index is impossible.
    pub fn new(memory: &dyn Memory, pages: RingPages) -> Result<Self, RingError> {
        let write = pages.index(memory, WRITE_INDEX)?;
        // The guest sets the bit too (Linux: `hv_ringbuffer_init`); the rest of the word is nobody's.
        pages.store(memory, FEATURES, FEATURE_PENDING_SEND, Ordering::Release)?;
        pages.store(memory, PENDING_SEND_BYTES, 0, Ordering::Release)?;
        Ok(Self { pages, write, published: write, waiting: false, scratch: Vec::new() })
    }

    /// Puts a packet behind those that are there.
    ///
    /// # Errors
    /// The ring is broken, or too small for this packet at all.
    pub fn send(&mut self, memory: &dyn Memory, packet: &Outgoing<'_>) -> Result<Sent, RingError> {
        let mut bytes = std::mem::take(&mut self.scratch);
        let result = match packet.encode(&mut bytes) {
            Some(()) => self.put(memory, &mut bytes),
            None => Err(RingError::TooLarge { packet: u32::MAX }),
        };
        self.scratch = bytes;
        result
    }

    fn put(&mut self, memory: &dyn Memory, packet: &mut Vec<u8>) -> Result<Sent, RingError> {
        // The trailer: 32 bits of 0, and the packet's own index (Linux: `hv_ringbuffer_write`).
        packet.extend((u64::from(self.write) << 32).to_le_bytes());
        let bytes = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if bytes >= self.pages.data_bytes() {
            return Err(RingError::TooLarge { packet: bytes - TRAILER_BYTES });
        }
        if self.free(memory)? <= bytes {
            self.pages.store(memory, PENDING_SEND_BYTES, bytes, Ordering::Release)?;
            self.waiting = true;
            // Pairs with the guest's fence between its store of the read index and its load of the pending
            // size: it sees the size, or this sees the room.
            fence(Ordering::SeqCst);
            if self.free(memory)? <= bytes {
                return Ok(Sent::Full);
            }
        }
        if self.waiting {
            self.pages.store(memory, PENDING_SEND_BYTES, 0, Ordering::Release)?;
            self.waiting = false;
        }
        self.pages.copy_in(memory, self.write, packet)?;
        self.write = self.pages.advance(self.write, bytes);
        Ok(Sent::Yes)
    }

    /// Lets the guest see all packets sent so far, and says whether it has to be told.
    ///
    /// # Errors
    /// The ring is broken; the channel has to be closed.
    pub fn publish(&mut self, memory: &dyn Memory) -> Result<Signal, RingError> {
        if self.write == self.published {
            return Ok(Signal::NotNeeded);
        }
        let before = self.published;
        // Pairs with the guest's acquiring load of the write index: it sees whole packets.
        self.pages.store(memory, WRITE_INDEX, self.write, Ordering::Release)?;
        self.published = self.write;
        // Pairs with the guest's fence between its store of the mask and its look at the write index.
        fence(Ordering::SeqCst);
        if self.pages.load(memory, INTERRUPT_MASK, Ordering::Acquire)? != 0 {
            return Ok(Signal::NotNeeded);
        }
        // A guest that had read all there was may have gone to sleep.
        if self.pages.index(memory, READ_INDEX)? == before {
            Ok(Signal::Needed)
        } else {
            Ok(Signal::NotNeeded)
        }
    }

    fn free(&self, memory: &dyn Memory) -> Result<u32, RingError> {
        let read = self.pages.index(memory, READ_INDEX)?;
        Ok(self.pages.data_bytes() - self.pages.distance(read, self.write))
    }
}
