//! The guest's side of a ring, after Linux `drivers/hv/ring_buffer.c`, written apart from the code under test.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const PAGE: u64 = 4096;

pub const INBAND: u16 = 6;
pub const GPA_DIRECT: u16 = 9;
pub const COMPLETION: u16 = 11;

/// One direction, seen by the guest.
pub struct GuestRing {
    pub memory: GuestMemoryMmap,
    /// Page frame numbers, header first.
    pub pages: Vec<u64>,
    read: u32,
}

/// A packet as the guest reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub kind: u16,
    pub flags: u16,
    pub transaction: u64,
    /// Between descriptor and payload.
    pub header: Vec<u8>,
    pub payload: Vec<u8>,
}

#[allow(dead_code, reason = "each test crate uses its part")]
impl GuestRing {
    /// Initializes the header, as `hv_ringbuffer_init` does.
    pub fn new(memory: &GuestMemoryMmap, pages: &[u64]) -> Self {
        let ring = Self { memory: memory.clone(), pages: pages.to_vec(), read: 0 };
        for at in [0, 4, 8, 12] {
            ring.set(at, 0);
        }
        ring.set(64, 1);
        ring
    }

    pub fn data_bytes(&self) -> u32 {
        u32::try_from((self.pages.len() as u64 - 1) * PAGE).unwrap()
    }

    pub fn get(&self, at: u64) -> u32 {
        self.memory.load(GuestAddress(self.pages[0] * PAGE + at), Ordering::SeqCst).unwrap()
    }

    pub fn set(&self, at: u64, value: u32) {
        self.memory.store(value, GuestAddress(self.pages[0] * PAGE + at), Ordering::SeqCst).unwrap();
    }

    /// Where the bytes from `index` on lie, page by page.
    fn pieces(&self, index: u32, len: usize) -> Vec<(GuestAddress, usize)> {
        let (mut at, mut left, mut pieces) = (u64::from(index), len, Vec::new());
        while left > 0 {
            at %= u64::from(self.data_bytes());
            let page = self.pages[1 + usize::try_from(at / PAGE).unwrap()];
            let here = left.min(usize::try_from(PAGE - at % PAGE).unwrap());
            pieces.push((GuestAddress(page * PAGE + at % PAGE), here));
            at += here as u64;
            left -= here;
        }
        pieces
    }

    pub fn poke(&self, index: u32, bytes: &[u8]) {
        let mut done = 0;
        for (address, len) in self.pieces(index, bytes.len()) {
            self.memory.write_slice(&bytes[done..done + len], address).unwrap();
            done += len;
        }
    }

    pub fn peek(&self, index: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let mut done = 0;
        for (address, len) in self.pieces(index, bytes.len()) {
            self.memory.read_slice(&mut bytes[done..done + len], address).unwrap();
            done += len;
        }
        bytes
    }

    fn room(&self) -> u32 {
        let (write, read) = (self.get(0), self.get(4));
        if write >= read { self.data_bytes() - (write - read) } else { read - write }
    }

    /// `hv_ringbuffer_write`: whether the host has to be signalled, or `None` if there is no room.
    pub fn write(&self, packet: &[u8]) -> Option<bool> {
        let total = u32::try_from(packet.len()).unwrap() + 8;
        if self.room() <= total {
            return None;
        }
        let old = self.get(0);
        self.poke(old, packet);
        self.poke(old + total - 8, &(u64::from(old) << 32).to_le_bytes());
        self.set(0, (old + total) % self.data_bytes());
        Some(self.get(8) == 0 && self.get(4) == old)
    }

    /// `hv_pkt_iter_first` and `__hv_pkt_iter_next`.
    pub fn read(&mut self) -> Option<Received> {
        if self.get(0) == self.read {
            return None;
        }
        let descriptor = self.peek(self.read, 16);
        let word = |at: usize| u16::from_le_bytes([descriptor[at], descriptor[at + 1]]);
        let (offset, len) = (u32::from(word(2)) * 8, u32::from(word(4)) * 8);
        let bytes = self.peek(self.read, len + 8);
        let trailer = u64::from_le_bytes(bytes[len as usize..].try_into().unwrap());
        assert_eq!(trailer, u64::from(self.read) << 32, "the trailer holds the packet's index");
        self.read = (self.read + len + 8) % self.data_bytes();
        Some(Received {
            kind: word(0),
            flags: word(6),
            transaction: u64::from_le_bytes(bytes[8..16].try_into().unwrap()),
            header: bytes[16..offset as usize].to_vec(),
            payload: bytes[offset as usize..len as usize].to_vec(),
        })
    }

    /// `hv_pkt_iter_close`: gives the room back; whether the host has to be signalled.
    pub fn close_read(&mut self) -> bool {
        let start = self.get(4);
        self.set(4, self.read);
        if self.get(64) & 1 == 0 || self.get(12) == 0 {
            return false;
        }
        let freed = (self.data_bytes() + self.read - start) % self.data_bytes();
        let (free, pending) = (self.room(), self.get(12));
        free - freed <= pending && free > pending
    }
}

/// A packet of the guest without its trailer.
pub fn packet(kind: u16, flags: u16, transaction: u64, header: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = 16 + header.len();
    let len = (offset + payload.len()).next_multiple_of(8);
    let mut bytes = Vec::new();
    bytes.extend(kind.to_le_bytes());
    bytes.extend(u16::try_from(offset / 8).unwrap().to_le_bytes());
    bytes.extend(u16::try_from(len / 8).unwrap().to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(transaction.to_le_bytes());
    bytes.extend(header);
    bytes.extend(payload);
    bytes.resize(len, 0);
    bytes
}

/// The header of a GPA-direct packet with one range.
#[allow(dead_code, reason = "each test crate uses its part")]
pub fn gpa_direct(bytes: u32, offset: u32, pages: &[u64]) -> Vec<u8> {
    let mut header = vec![0; 4];
    header.extend(1u32.to_le_bytes());
    header.extend(bytes.to_le_bytes());
    header.extend(offset.to_le_bytes());
    header.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    header
}
