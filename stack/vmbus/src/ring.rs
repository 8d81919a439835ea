//! The two rings of a channel.
//!
//! A channel's memory is one GPADL. Its first part is the ring from guest to host, the rest the ring from host
//! to guest; each is a header page and then data, used as a circle of bytes. The header, by Linux
//! `include/linux/hyperv.h: struct hv_ring_buffer` (all words of 32 bits, little endian):
//!
//! | at | who writes | what |
//! |---|---|---|
//! | 0 | sender | write index: where the next packet goes, in bytes from the start of the data |
//! | 4 | receiver | read index: where the next packet is read |
//! | 8 | receiver | interrupt mask: not 0 while the receiver looks by itself and wants no signal |
//! | 12 | sender | pending send size: how much room the sender waits for, in bytes; 0 when it does not wait |
//! | 64 | sender | feature bits; bit 0: the sender uses the pending send size |
//!
//! Equal indices mean an empty ring, so a ring is never filled to the last byte. A packet is a descriptor,
//! headers, payload, padding to 8 bytes, and a trailer of 8 bytes that holds the packet's own index.
//!
//! **Who signals when** (Linux `drivers/hv/ring_buffer.c: hv_signal_on_write, hv_pkt_iter_close`):
//!
//! * A sender signals when the ring was empty at the time that it published, unless the mask is set.
//! * A receiver signals when it made enough room for a sender that waits, and there was not enough before.
//!
//! Both are a store of one's own word and then a load of the other side's, which the processor may exchange;
//! a full fence stands between them on both sides:
//!
//! | sender | receiver |
//! |---|---|
//! | stores packets, releases write index | loads packets, releases read index |
//! | fence | stores mask 0, fence |
//! | loads mask, then read index | acquires write index again |
//!
//! The receiver has released the index of all that it took before it clears the mask.
//!
//! Either the sender sees the mask cleared, or the receiver sees the packets.
//!
//! **Trust.** This side's own index of each ring lives in this process; the copy in the header is for the guest
//! to read. The other side's index is checked each time. What is wrong is a [`RingError`], after which
//! the channel is to be withdrawn ([`crate::server::Server::revoke`]): its rings say nothing reliable any more. One call reads at most one packet, so a guest that sends for ever cannot hold the caller.

mod packet;
mod pages;
mod receive;
mod send;

use std::fmt;

pub use self::{
    packet::{Kind, Outgoing, Packet, TransferRange},
    pages::RingPages,
    receive::Receiver,
    send::{Sender, Sent},
};
use crate::{
    memory::{Memory, NotRam},
    ranges::{BadRange, Ranges},
};

const WRITE_INDEX: u64 = 0;
const READ_INDEX: u64 = 4;
const INTERRUPT_MASK: u64 = 8;
const PENDING_SEND_BYTES: u64 = 12;
const FEATURES: u64 = 64;
/// The sender of the ring uses the pending send size.
const FEATURE_PENDING_SEND: u32 = 1;
/// The packet's index, in the high half of 64 bits, after each packet.
const TRAILER_BYTES: u32 = 8;
/// Indices and lengths of packets are multiples of this.
const ALIGNMENT: u32 = 8;

/// Whether the other side has to be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a signal that is not sent is a hang"]
pub enum Signal {
    /// It may be waiting for what happened.
    Needed,
    /// It sees by itself, or does not care.
    NotNeeded,
}

/// Why a ring cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// It is not in RAM.
    Memory(NotRam),
    /// The GPADL cannot hold two rings that are split there, in pages.
    Layout {
        /// The first page of the second ring.
        split: u32,
    },
    /// An index is outside of the ring or not aligned.
    Index(u32),
    /// There are bytes, but not enough for a packet.
    Truncated {
        /// How many bytes there are.
        available: u32,
    },
    /// A packet's lengths contradict each other, the ring, or the most that the receiver takes.
    Lengths {
        /// Offset of the payload in bytes.
        payload: u32,
        /// Length of the packet in bytes.
        packet: u32,
    },
    /// A kind of packet that nobody sends here.
    Kind(u16),
    /// The ranges of a packet are wrong.
    Ranges(BadRange),
    /// A packet of ours is larger than the ring can ever take.
    TooLarge {
        /// Its size in bytes.
        packet: u32,
    },
}

impl From<NotRam> for RingError {
    fn from(error: NotRam) -> Self {
        Self::Memory(error)
    }
}

impl From<BadRange> for RingError {
    fn from(error: BadRange) -> Self {
        Self::Ranges(error)
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "the ring is broken: {error}"),
            Self::Layout { split } => {
                write!(f, "there is no room for two rings that are split at page {split}")
            }
            Self::Index(index) => write!(f, "the ring's index {index:#x} is impossible"),
            Self::Truncated { available } => write!(f, "{available} bytes in the ring are no packet"),
            Self::Lengths { payload, packet } => {
                write!(f, "a packet of {packet} bytes with its payload at {payload} is impossible")
            }
            Self::Kind(kind) => write!(f, "a packet has the unknown kind {kind:#x}"),
            Self::Ranges(error) => write!(f, "a packet's ranges are wrong: {error}"),
            Self::TooLarge { packet } => write!(f, "a packet of {packet} bytes never fits into the ring"),
        }
    }
}

/// Both rings of an open channel, from the host's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rings {
    /// What the guest sends.
    pub incoming: Receiver,
    /// What the guest receives.
    pub outgoing: Sender,
}

impl Rings {
    /// The rings in `gpadl`, the second of which begins at page `split`. Packets of the guest may have
    /// `max_packet` bytes with their descriptor and headers.
    ///
    /// # Errors
    /// The GPADL is not one range of whole pages with room for both, or not RAM; an index is impossible.
    pub fn open(memory: &dyn Memory, gpadl: &Ranges, split: u32, max_packet: u32) -> Result<Self, RingError> {
        let layout = RingError::Layout { split };
        let pages = gpadl.whole_pages().ok_or(layout)?;
        let (upstream, downstream) = pages.split_at_checked(split as usize).ok_or(layout)?;
        let upstream = RingPages::new(upstream).ok_or(layout)?;
        let downstream = RingPages::new(downstream).ok_or(layout)?;
        Ok(Self {
            incoming: Receiver::new(memory, upstream, max_packet)?,
            outgoing: Sender::new(memory, downstream)?,
        })
    }
}
