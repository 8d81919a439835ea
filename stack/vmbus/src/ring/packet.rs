//! Packets of a ring (Linux `include/linux/hyperv.h: vmpacket_descriptor` and what follows it).

use super::{ALIGNMENT, RingError};
use crate::ranges::{BadRange, Ranges};

/// Length of the descriptor in bytes: kind, offset and length (in units of 8 bytes), flags, transaction.
pub(super) const DESCRIPTOR_BYTES: u32 = 16;
/// Length of the header of ranges behind the descriptor, in bytes.
const RANGES_HEADER_BYTES: usize = 8;
/// The flag that asks for a completion (`VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED`).
const COMPLETION_REQUESTED: u16 = 1;

const INBAND: u16 = 6;
const TRANSFER_PAGES: u16 = 7;
const GPA_DIRECT: u16 = 9;
const COMPLETION: u16 = 11;

/// What a packet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Payload only.
    #[default]
    Inband,
    /// Payload, and ranges of the guest's memory for data ([`Packet::ranges`]).
    GpaDirect,
    /// Payload, and pieces of a buffer that was agreed on before ([`Packet::pieces`]).
    TransferPages {
        /// The name of that buffer.
        set: u16,
    },
    /// The answer to a packet with the same transaction.
    Completion,
}

/// A piece of a buffer that both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferRange {
    /// Length in bytes.
    pub bytes: u32,
    /// Offset in bytes into the buffer.
    pub offset: u32,
}

/// A packet that was taken out of a ring: a copy, which the guest cannot change. It is meant to be used for many
/// packets one after the other, so that its allocations are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    pub(super) bytes: Vec<u8>,
    payload_at: usize,
    kind: Kind,
    transaction: u64,
    completion_requested: bool,
    ranges: Ranges,
    pieces: Vec<TransferRange>,
}

impl Packet {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The guest's name for the request, which a completion repeats.
    pub fn transaction(&self) -> u64 {
        self.transaction
    }

    /// Whether the guest waits for a completion.
    pub fn wants_completion(&self) -> bool {
        self.completion_requested
    }

    /// The payload with its padding.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// The ranges of a GPA-direct packet; none of any other.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The pieces of a transfer-page packet; none of any other.
    pub fn pieces(&self) -> &[TransferRange] {
        &self.pieces
    }

    /// Takes the packet in `bytes` apart, whose descriptor has been checked for its lengths.
    pub(super) fn parse(&mut self, descriptor: &Descriptor) -> Result<(), RingError> {
        self.payload_at = descriptor.payload_at as usize;
        self.transaction = descriptor.transaction;
        self.completion_requested = descriptor.flags & COMPLETION_REQUESTED != 0;
        self.ranges.clear();
        self.pieces.clear();
        self.kind = match descriptor.kind {
            INBAND => Kind::Inband,
            COMPLETION => Kind::Completion,
            GPA_DIRECT => {
                let (header, values) = self.ranges_header()?;
                let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
                let values = words(values);
                self.ranges.read(count, values.into_iter())?;
                Kind::GpaDirect
            }
            TRANSFER_PAGES => {
                let (header, values) = self.ranges_header()?;
                let set = u16::from_le_bytes([header[0], header[1]]);
                let count = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
                let pieces: Vec<_> = words(values).into_iter().map(TransferRange::from_wire).collect();
                if u32::try_from(pieces.len()) != Ok(count) {
                    return Err(BadRange::Short.into());
                }
                self.pieces = pieces;
                Kind::TransferPages { set }
            }
            other => return Err(RingError::Kind(other)),
        };
        Ok(())
    }

    /// What lies between descriptor and payload: 8 bytes that say how many ranges there are, and the ranges.
    fn ranges_header(&self) -> Result<(&[u8; RANGES_HEADER_BYTES], &[u8]), RingError> {
        let all = &self.bytes[DESCRIPTOR_BYTES as usize..self.payload_at];
        all.split_first_chunk().ok_or(RingError::Ranges(BadRange::Short))
    }
}

impl TransferRange {
    fn from_wire(value: u64) -> Self {
        let [b0, b1, b2, b3, o0, o1, o2, o3] = value.to_le_bytes();
        Self { bytes: u32::from_le_bytes([b0, b1, b2, b3]), offset: u32::from_le_bytes([o0, o1, o2, o3]) }
    }

    fn to_wire(self) -> [u8; 8] {
        (u64::from(self.bytes) | u64::from(self.offset) << 32).to_le_bytes()
    }
}

/// Whole 64-bit words of `bytes`; headers have a multiple of 8 bytes.
fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// The descriptor of a packet, with lengths in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    kind: u16,
    pub(super) payload_at: u32,
    pub(super) packet_bytes: u32,
    flags: u16,
    transaction: u64,
}

impl Descriptor {
    pub(super) fn read(raw: &[u8; DESCRIPTOR_BYTES as usize]) -> Self {
        let [k0, k1, o0, o1, l0, l1, f0, f1, transaction @ ..] = *raw;
        Self {
            kind: u16::from_le_bytes([k0, k1]),
            payload_at: u32::from(u16::from_le_bytes([o0, o1])) * ALIGNMENT,
            packet_bytes: u32::from(u16::from_le_bytes([l0, l1])) * ALIGNMENT,
            flags: u16::from_le_bytes([f0, f1]),
            transaction: u64::from_le_bytes(transaction),
        }
    }
}

/// A packet for the guest.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    kind: u16,
    transaction: u64,
    flags: u16,
    set: u16,
    pieces: &'a [TransferRange],
    payload: &'a [u8],
}

impl<'a> Outgoing<'a> {
    /// A message that nobody answers.
    pub fn message(transaction: u64, payload: &'a [u8]) -> Self {
        Self { kind: INBAND, transaction, flags: 0, set: 0, pieces: &[], payload }
    }

    /// The answer to the guest's packet with this transaction.
    pub fn completion(transaction: u64, payload: &'a [u8]) -> Self {
        Self { kind: COMPLETION, ..Self::message(transaction, payload) }
    }

    /// A message about pieces of the agreed buffer `set`.
    pub fn transfer_pages(
        transaction: u64,
        set: u16,
        pieces: &'a [TransferRange],
        payload: &'a [u8],
    ) -> Self {
        Self { kind: TRANSFER_PAGES, set, pieces, ..Self::message(transaction, payload) }
    }

    /// The same, and the guest is to complete it.
    pub fn with_completion(self) -> Self {
        Self { flags: self.flags | COMPLETION_REQUESTED, ..self }
    }

    /// The packet as it lies in the ring, padding included, or `None` if its lengths do not fit their fields.
    pub(super) fn encode(&self, into: &mut Vec<u8>) -> Option<()> {
        into.clear();
        let header = match self.kind {
            TRANSFER_PAGES => RANGES_HEADER_BYTES + 8 * self.pieces.len(),
            _ => 0,
        };
        let payload_at = DESCRIPTOR_BYTES as usize + header;
        let packet = (payload_at + self.payload.len()).next_multiple_of(ALIGNMENT as usize);
        into.extend(self.kind.to_le_bytes());
        into.extend(u16::try_from(payload_at / ALIGNMENT as usize).ok()?.to_le_bytes());
        into.extend(u16::try_from(packet / ALIGNMENT as usize).ok()?.to_le_bytes());
        into.extend(self.flags.to_le_bytes());
        into.extend(self.transaction.to_le_bytes());
        if self.kind == TRANSFER_PAGES {
            into.extend(self.set.to_le_bytes());
            // The sender does not own the set; one byte is reserved.
            into.extend([0, 0]);
            into.extend(u32::try_from(self.pieces.len()).ok()?.to_le_bytes());
            into.extend(self.pieces.iter().flat_map(|piece| piece.to_wire()));
        }
        into.extend(self.payload);
        into.resize(packet, 0);
        Some(())
    }
}
