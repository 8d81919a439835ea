//! The frame table: one atomic word for each 4 KiB frame of memory, saying whose it is.
//!
//! Invariant: a frame is `OWNED` if and only if exactly one [`Frame`] value (or the object built from it) exists.
//! A root frame counts the reasons why it must stay a root frame: child mappings and copies under way.
//!
//! | event | word |
//! |---|---|
//! | deposit: [`claim`] | 0 → `OWNED`, refused at any other value |
//! | child mapping or pin: [`share`] | n → n + 1, refused at `OWNED` and `ABSENT` |
//! | unmapping or unpin: [`unshare`] | n → n - 1 |
//! | withdrawal: [`Frame::release`] | `OWNED` → 0, after the frame was zeroed |

use core::sync::atomic::{AtomicU32, Ordering};

use crate::{
    addr::{Hpa, PAGE_SIZE},
    mem::direct,
    sync::Once,
};

/// The hypervisor owns the frame.
pub(crate) const OWNED: u32 = u32::MAX;
/// A frame of the root that nothing shares.
pub(crate) const FREE: u32 = 0;
/// Not memory: a device, a hole, or firmware's.
const ABSENT: u32 = u32::MAX - 1;
/// More shares than this are refused, far from overflow.
const MAX_SHARES: u32 = u32::MAX / 2;

static TABLE: Once<&'static [AtomicU32]> = Once::new();

/// Why a frame did not change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No memory is at this address.
    NotMemory,
    /// The hypervisor owns the frame already.
    Owned,
    /// A child maps the frame, or a copy from or to it is under way.
    Shared,
}

/// One 4 KiB frame that the hypervisor owns. Dropping it leaks the frame: give it to a pool or release it.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Frame(Hpa);

impl Frame {
    /// The caller answers for the frame being owned by the hypervisor, and by nothing else in it.
    pub(crate) fn from_owned(hpa: Hpa) -> Self {
        Self(hpa)
    }

    /// Where the frame is.
    pub fn hpa(&self) -> Hpa {
        self.0
    }

    /// Fills the frame with zeros.
    pub fn clear(&mut self) {
        // SAFETY: the frame is owned (type invariant), so nobody else reads or writes its 4 KiB.
        unsafe { core::ptr::write_bytes(direct::<u8>(self.0), 0, PAGE_SIZE) };
    }

    /// Gives the frame back to the root, zeroed so that nothing of ours leaks.
    pub fn release(mut self) -> Hpa {
        self.clear();
        word(self.0).inspect(|w| w.store(0, Ordering::Release));
        self.0
    }
}

fn word(hpa: Hpa) -> Option<&'static AtomicU32> {
    TABLE.get()?.get(usize::try_from(hpa.page()).ok()?)
}

/// Installs the table. `words` starts as all `ABSENT` and is filled by [`set`].
pub(crate) fn install(words: &'static mut [AtomicU32]) {
    for word in words.iter_mut() {
        *word.get_mut() = ABSENT;
    }
    let first = TABLE.set(words).is_ok();
    assert!(first, "the frame table is installed once");
}

/// Marks `pages` frames from `start` as [`OWNED`] or [`FREE`]. Boot only.
pub(crate) fn set(start: Hpa, pages: u64, value: u32) {
    for page in start.page()..start.page() + pages {
        word(Hpa::from_page(page)).inspect(|w| w.store(value, Ordering::Relaxed));
    }
}

/// Takes a root frame for the hypervisor. The caller must still take it out of the root's reach before use:
/// only [`crate::mem::space`] calls this, and does.
pub(crate) fn claim(hpa: Hpa) -> Result<(), Refusal> {
    let word = word(hpa).ok_or(Refusal::NotMemory)?;
    match word.compare_exchange(0, OWNED, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(()),
        Err(OWNED) => Err(Refusal::Owned),
        Err(ABSENT) => Err(Refusal::NotMemory),
        Err(_) => Err(Refusal::Shared),
    }
}

/// Adds a reason for `hpa` to stay a root frame.
pub(crate) fn share(hpa: Hpa) -> Result<(), Refusal> {
    let word = word(hpa).ok_or(Refusal::NotMemory)?;
    word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < MAX_SHARES).then(|| n + 1))
        .map(|_| ())
        .map_err(|n| if n == OWNED { Refusal::Owned } else { Refusal::NotMemory })
}

/// Takes back what [`share`] added.
pub(crate) fn unshare(hpa: Hpa) {
    if let Some(word) = word(hpa) {
        word.fetch_sub(1, Ordering::Release);
    }
}

/// Whether the root owns the frame at `hpa`.
pub fn is_root(hpa: Hpa) -> bool {
    word(hpa).is_some_and(|w| w.load(Ordering::Acquire) <= MAX_SHARES)
}

/// Whether the hypervisor owns the frame at `hpa`.
pub fn is_owned(hpa: Hpa) -> bool {
    word(hpa).is_some_and(|w| w.load(Ordering::Acquire) == OWNED)
}
