//! The memory of one ring: a header page and a circle of data pages.

use std::sync::atomic::Ordering;

use super::{ALIGNMENT, RingError};
use crate::{
    PAGE_BYTES,
    memory::{Memory, NotRam},
};

/// The most pages of a ring. 16 MiB are 64 times what Linux's network driver takes, and keep indices far from
/// the end of 32 bits.
const MAX_PAGES: usize = 4096;

/// Where a ring lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingPages {
    header_gpa: u64,
    /// Page frame numbers of the data.
    pages: Vec<u64>,
    data_bytes: u32,
}

impl RingPages {
    /// A ring in these pages: the header and at least one page of data, or `None`.
    pub fn new(pages: &[u64]) -> Option<Self> {
        let (header, data) = pages.split_first()?;
        if data.is_empty() || data.len() > MAX_PAGES {
            return None;
        }
        let data_bytes = u32::try_from(data.len()).ok()? * PAGE_BYTES;
        Some(Self { header_gpa: header * u64::from(PAGE_BYTES), pages: data.to_vec(), data_bytes })
    }

    /// Length of the circle.
    pub fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    pub(super) fn load(&self, memory: &dyn Memory, at: u64, order: Ordering) -> Result<u32, NotRam> {
        memory.load(self.header_gpa + at, order)
    }

    pub(super) fn store(
        &self,
        memory: &dyn Memory,
        at: u64,
        value: u32,
        order: Ordering,
    ) -> Result<(), NotRam> {
        memory.store(self.header_gpa + at, value, order)
    }

    /// An index of the header, with `Acquire`: what the other side wrote before it is visible after it.
    pub(super) fn index(&self, memory: &dyn Memory, at: u64) -> Result<u32, RingError> {
        let index = self.load(memory, at, Ordering::Acquire)?;
        if index < self.data_bytes && index.is_multiple_of(ALIGNMENT) {
            Ok(index)
        } else {
            Err(RingError::Index(index))
        }
    }

    /// How far it is from one index forward to the other.
    pub(super) fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { self.data_bytes - from + to }
    }

    /// The index `bytes` after this one; both are below the length of the circle.
    pub(super) fn advance(&self, index: u32, bytes: u32) -> u32 {
        let next = index + bytes;
        if next >= self.data_bytes { next - self.data_bytes } else { next }
    }

    /// Copies out of the circle from `index` on.
    pub(super) fn copy_out(&self, memory: &dyn Memory, index: u32, into: &mut [u8]) -> Result<(), NotRam> {
        let (mut at, mut rest) = (index, into);
        while !rest.is_empty() {
            let (gpa, room) = self.place(at);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            memory.read(gpa, now)?;
            at = self.advance_by(at, now.len());
            rest = later;
        }
        Ok(())
    }

    /// Copies into the circle from `index` on.
    pub(super) fn copy_in(&self, memory: &dyn Memory, index: u32, from: &[u8]) -> Result<(), NotRam> {
        let (mut at, mut rest) = (index, from);
        while !rest.is_empty() {
            let (gpa, room) = self.place(at);
            let (now, later) = rest.split_at(room.min(rest.len()));
            memory.write(gpa, now)?;
            at = self.advance_by(at, now.len());
            rest = later;
        }
        Ok(())
    }

    fn advance_by(&self, index: u32, bytes: usize) -> u32 {
        // A piece is within a page.
        self.advance(index, u32::try_from(bytes).unwrap_or(PAGE_BYTES))
    }

    /// Where an index is in guest memory, and how many bytes follow there in the same page.
    fn place(&self, index: u32) -> (u64, usize) {
        let within = index % PAGE_BYTES;
        let page = self.pages[(index / PAGE_BYTES) as usize];
        (page * u64::from(PAGE_BYTES) + u64::from(within), (PAGE_BYTES - within) as usize)
    }
}
