//! The guest's memory, as something to copy from and to.
//!
//! The guest's processors write it at any time. No reference to it is ever handed out: data is copied, and the
//! words that two sides use to agree are atomics. The implementation for `vm-memory` does volatile copies and
//! atomic accesses on the mapping; nothing here needs `unsafe`.

use std::{fmt, sync::atomic::Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, bitmap::Bitmap};

/// An access named guest-physical addresses that are not RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotRam {
    /// First address of the access.
    pub gpa: u64,
}

impl fmt::Display for NotRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} is not the guest's RAM", self.gpa)
    }
}

/// Guest-physical memory. All lengths are in bytes.
///
/// A copy is not atomic as a whole: the guest may change the bytes meanwhile, and what was read twice may differ.
pub trait Memory: Send + Sync {
    /// Copies from the guest.
    ///
    /// # Errors
    /// A byte lies outside of the RAM; `into` then holds anything.
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam>;

    /// Copies to the guest.
    ///
    /// # Errors
    /// A byte lies outside of the RAM; a part may have been written.
    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam>;

    /// Loads an aligned 32-bit word at once.
    ///
    /// # Errors
    /// The word lies outside of the RAM or is not aligned.
    fn load(&self, gpa: u64, order: Ordering) -> Result<u32, NotRam>;

    /// Stores an aligned 32-bit word at once.
    ///
    /// # Errors
    /// The word lies outside of the RAM or is not aligned.
    fn store(&self, gpa: u64, value: u32, order: Ordering) -> Result<(), NotRam>;

    /// Whether all of the range is RAM.
    fn is_ram(&self, gpa: u64, bytes: u64) -> bool;
}

impl<B: Bitmap + Send + Sync + 'static> Memory for GuestMemoryMmap<B> {
    fn read(&self, gpa: u64, into: &mut [u8]) -> Result<(), NotRam> {
        self.read_slice(into, GuestAddress(gpa)).map_err(|_| NotRam { gpa })
    }

    fn write(&self, gpa: u64, from: &[u8]) -> Result<(), NotRam> {
        self.write_slice(from, GuestAddress(gpa)).map_err(|_| NotRam { gpa })
    }

    fn load(&self, gpa: u64, order: Ordering) -> Result<u32, NotRam> {
        Bytes::load(self, GuestAddress(gpa), order).map_err(|_| NotRam { gpa })
    }

    fn store(&self, gpa: u64, value: u32, order: Ordering) -> Result<(), NotRam> {
        Bytes::store(self, value, GuestAddress(gpa), order).map_err(|_| NotRam { gpa })
    }

    fn is_ram(&self, gpa: u64, bytes: u64) -> bool {
        usize::try_from(bytes).is_ok_and(|bytes| self.check_range(GuestAddress(gpa), bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_outside_of_ram_and_unaligned_words_fail() {
        let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0x1000), 0x1000)]).unwrap();
        let memory: &dyn Memory = &ram;
        assert_eq!(memory.write(0x1ffc, &[1, 2, 3, 4]), Ok(()));
        assert_eq!(memory.load(0x1ffc, Ordering::Acquire), Ok(0x0403_0201));
        assert_eq!(memory.load(0x1ffd, Ordering::Acquire), Err(NotRam { gpa: 0x1ffd }));
        assert_eq!(memory.load(0x1001, Ordering::Acquire), Err(NotRam { gpa: 0x1001 }));
        assert_eq!(memory.store(0x2000, 0, Ordering::Release), Err(NotRam { gpa: 0x2000 }));
        assert_eq!(memory.read(0x1ffe, &mut [0; 4]), Err(NotRam { gpa: 0x1ffe }));
        assert_eq!(memory.read(u64::MAX, &mut [0; 4]), Err(NotRam { gpa: u64::MAX }));
        assert!(memory.is_ram(0x1000, 0x1000) && !memory.is_ram(0x1000, 0x1001));
        assert!(!memory.is_ram(u64::MAX, 2) && !memory.is_ram(0, u64::MAX));
    }
}
