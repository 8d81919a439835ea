//! Hypervisor frames that the root can reach: message pages, state pages, statistics.
//!
//! The hypervisor owns the frame, so it cannot be deposited or mapped into a child; the root maps it too, so it is
//! foreign memory all the same: touched only by volatile and atomic accesses, never referenced.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::{
    addr::{Gpa, Hpa, PAGE_SIZE},
    mem::{
        Frame, PoolId, Space, boot, direct,
        space::{Access, MapError, PageSize},
    },
};

/// A frame of the hypervisor's that the root's space maps at the same address.
pub struct SharedPage {
    hpa: Hpa,
    /// Where the frame goes when the page is taken back, and out of which space.
    home: Option<(PoolId, &'static Space)>,
}

impl SharedPage {
    /// A page that lives for ever. Boot only.
    ///
    /// # Errors
    /// The boot reserve is exhausted.
    pub fn permanent(root: &Space) -> Result<Self, MapError> {
        let hpa = boot::frames(1).ok_or(MapError::NoMemory)?;
        root.map(Gpa(hpa.0), &[hpa], PageSize::Small, Access::ALL).1?;
        Ok(Self { hpa, home: None })
    }

    /// A zeroed page in a frame of `pool`, which returns there when the page is dropped.
    ///
    /// # Errors
    /// The pool is empty, or the root's space has no table to spare.
    pub fn new(pool: PoolId, root: &'static Space) -> Result<Self, MapError> {
        let frame = pool.get().take_zeroed()?;
        let hpa = frame.hpa();
        let page = Self { hpa, home: Some((pool, root)) };
        root.map(Gpa(hpa.0), &[hpa], PageSize::Small, Access::ALL).1?;
        Ok(page)
    }

    /// Where the page is, for the root and for us.
    pub fn hpa(&self) -> Hpa {
        self.hpa
    }

    fn byte(&self, offset: usize) -> Option<*mut u8> {
        // SAFETY: the offset stays inside the page.
        (offset < PAGE_SIZE).then(|| unsafe { direct::<u8>(self.hpa).add(offset) })
    }

    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let place = self.byte(offset).filter(|_| offset.is_multiple_of(8))?.cast();
        // SAFETY: aligned, inside a frame that this value owns; atomics may be shared with the root.
        Some(unsafe { AtomicU64::from_ptr(place) })
    }

    /// The 32-bit word at `offset`, to be used as an atomic that the root uses too. `None` when misaligned or out
    /// of the page.
    pub fn word_32(&self, offset: usize) -> Option<&AtomicU32> {
        let place = self.byte(offset).filter(|_| offset.is_multiple_of(4))?.cast();
        // SAFETY: as in `word`.
        Some(unsafe { AtomicU32::from_ptr(place) })
    }

    /// The byte at `offset`, likewise.
    pub fn byte_8(&self, offset: usize) -> Option<&AtomicU8> {
        let place = self.byte(offset)?;
        // SAFETY: as in `word`.
        Some(unsafe { AtomicU8::from_ptr(place) })
    }

    /// Writes bytes at `offset`; what does not fit the page is cut off. Aligned quadwords are written whole.
    pub fn write(&self, offset: usize, from: &[u8]) {
        let (words, rest) = from.as_chunks::<8>();
        for (index, bytes) in words.iter().enumerate() {
            match self.word(offset + index * 8) {
                Some(word) => word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed),
                None => self.write_bytes(offset + index * 8, bytes),
            }
        }
        self.write_bytes(offset + words.len() * 8, rest);
    }

    fn write_bytes(&self, offset: usize, from: &[u8]) {
        for (index, &byte) in from.iter().enumerate() {
            self.byte_8(offset + index).inspect(|b| b.store(byte, Ordering::Relaxed));
        }
    }

    /// Reads bytes at `offset`; beyond the page the buffer stays as it is.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        for (index, byte) in into.iter_mut().enumerate() {
            self.byte_8(offset + index).inspect(|b| *byte = b.load(Ordering::Relaxed));
        }
    }

    /// Reads the quadword at an aligned `offset`; 0 beyond the page.
    pub fn read_u64(&self, offset: usize) -> u64 {
        self.word(offset).map_or(0, |w| w.load(Ordering::Relaxed))
    }

    /// Writes the quadword at an aligned `offset`.
    pub fn write_u64(&self, offset: usize, value: u64) {
        self.word(offset).inspect(|w| w.store(value, Ordering::Relaxed));
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        if let Some((pool, root)) = self.home {
            // Unmapping an existing 4 KiB entry needs no table, so it cannot fail.
            let _ = root.unmap(Gpa(self.hpa.0), 1, PageSize::Small);
            pool.get().put(Frame::from_owned(self.hpa));
        }
    }
}
