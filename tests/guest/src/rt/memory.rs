//! Memory that others may change: pages to share with the hypervisor, device registers, and the machine's RAM.
//!
//! Physical and virtual addresses are the same below 4 GiB.

use core::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Pages that cases may take in one boot.
const POOL: usize = 512;

/// A page of memory, as words.
#[repr(C, align(4096))]
pub(crate) struct Page([AtomicU64; 512]);

static PAGES: [Page; POOL] = [const { Page([const { AtomicU64::new(0) }; 512]) }; POOL];
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Page {
    /// A zeroed page that nobody else has.
    ///
    /// # Panics
    /// There is none left.
    pub(crate) fn take() -> &'static Self {
        let page = &PAGES[TAKEN.fetch_add(1, Relaxed)];
        page.fill(0);
        page
    }

    /// Its address.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }

    /// Reads word `index`.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.0[index].load(SeqCst)
    }

    /// Writes word `index`.
    pub(crate) fn set(&self, index: usize, value: u64) {
        self.0[index].store(value, SeqCst);
    }

    /// Word `index`.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }

    /// Writes every word.
    pub(crate) fn fill(&self, value: u64) {
        self.0.iter().for_each(|word| word.store(value, SeqCst));
    }

    /// Writes words from the start on.
    pub(crate) fn put(&self, words: &[u64]) {
        for (to, from) in self.0.iter().zip(words) {
            to.store(*from, SeqCst);
        }
    }

    /// Whether every word has this value.
    pub(crate) fn is_all(&self, value: u64) -> bool {
        self.0.iter().all(|word| word.load(SeqCst) == value)
    }
}

/// A device's register below 4 GiB.
pub(super) fn device(address: u64) -> &'static AtomicU32 {
    // SAFETY: devices are outside all memory of Rust's, and answer to aligned 32-bit accesses.
    unsafe { AtomicU32::from_ptr(core::ptr::with_exposed_provenance_mut(address as usize)) }
}

unsafe extern "C" {
    static image_end: u8;
}

/// First address behind the image, its stacks and its pages.
pub(crate) fn free_start() -> u64 {
    (&raw const image_end).addr() as u64
}

/// A word of RAM behind the image.
///
/// # Panics
/// The address is none, or not below 3 GiB, to which the start-up code maps RAM.
pub(crate) fn ram(address: u64) -> &'static AtomicU64 {
    assert!(
        (free_start()..3 << 30).contains(&address) && address.is_multiple_of(8),
        "{address:#x} is no free RAM"
    );
    // SAFETY: nothing of Rust's lies there, and callers take addresses from the memory map.
    unsafe { AtomicU64::from_ptr(core::ptr::with_exposed_provenance_mut(address as usize)) }
}

/// Copies `bytes` to `address` below 1 MiB or behind the image.
///
/// # Panics
/// The address is neither.
pub(super) fn copy_to(address: u64, bytes: &[u8]) {
    let is_low = address >= PAGE && address + (bytes.len() as u64) < 0x9_f000;
    assert!(is_low || address >= free_start(), "{address:#x} is not free");
    // SAFETY: nothing of Rust's lies there.
    unsafe {
        core::ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            core::ptr::with_exposed_provenance_mut(address as usize),
            bytes.len(),
        );
    }
}

/// Reads a value that the loader left at `address`.
pub(super) fn loaded<T: Copy>(address: u64) -> T {
    // SAFETY: the caller follows the loader's structures, whose fields are numbers.
    unsafe { core::ptr::read_unaligned(core::ptr::with_exposed_provenance(address as usize)) }
}

/// The page at an address that [`Page::address`] gave.
///
/// # Panics
/// It is none of the pages.
pub(crate) fn shared(address: u64) -> &'static Page {
    let index = (address - PAGES[0].address()) / PAGE;
    &PAGES[index as usize]
}

/// Writes eight bytes, the first four of them below `border`.
pub(crate) fn across(border: u64, value: u64) {
    copy_to(border - 4, &value.to_le_bytes());
}

/// Reads eight bytes, the first four of them below `border`.
pub(crate) fn read_across(border: u64) -> u64 {
    loaded(border - 4)
}

/// Copies `bytes` to free RAM, and gives them there.
pub(crate) fn place(address: u64, bytes: &[u8]) -> &'static [u8] {
    copy_to(address, bytes);
    // SAFETY: the bytes were just put there, in RAM that is nobody's.
    unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address as usize), bytes.len()) }
}
