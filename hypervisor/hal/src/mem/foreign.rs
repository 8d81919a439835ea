//! Memory that another party can write: copied in and out, never referenced.
//!
//! A copy pins the frame for its duration ([`frame::share`]), so a concurrent deposit of the same frame is
//! refused instead of turning the target into a hypervisor object under the copy. The bytes may change while
//! they are read: callers copy first and validate the copy.

use core::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

use crate::{
    addr::{Hpa, PAGE_SIZE},
    check::ensure,
    mem::{
        direct,
        frame::{self, Refusal},
    },
};

/// Frames that stay the root's while this value lives.
struct Pin {
    first: u64,
    end: u64,
}

impl Pin {
    fn new(start: Hpa, len: u64) -> Result<Self, Refusal> {
        let end = start.checked_add(len).ok_or(Refusal::NotMemory)?.0.div_ceil(PAGE_SIZE as u64);
        let mut range = Self { first: start.page(), end: start.page() };
        while range.end < end {
            // What is pinned so far is released with `range`.
            frame::share(Hpa::from_page(range.end))?;
            range.end += 1;
        }
        Ok(range)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        (self.first..self.end).for_each(|page| frame::unshare(Hpa::from_page(page)));
    }
}

/// Whether `len` bytes from `hpa` stay in one frame.
fn in_frame(hpa: Hpa, len: usize) -> Result<(), Refusal> {
    ensure(len <= PAGE_SIZE - hpa.offset(), Refusal::NotMemory)
}

/// Copies bytes out of one frame of the root's memory.
///
/// # Errors
/// The range crosses a frame, or the frame is not the root's.
pub fn read(hpa: Hpa, into: &mut [u8]) -> Result<(), Refusal> {
    in_frame(hpa, into.len())?;
    let _pin = Pin::new(hpa, into.len() as u64)?;
    // SAFETY: the range lies in one frame that is memory and stays root memory while pinned; no reference to it
    // exists, and `into` is ours, so the two do not overlap. A racing writer can only change the bytes' values.
    unsafe { core::ptr::copy_nonoverlapping(direct::<u8>(hpa), into.as_mut_ptr(), into.len()) };
    Ok(())
}

/// Copies bytes into one frame of the root's memory.
///
/// # Errors
/// The range crosses a frame, or the frame is not the root's.
pub fn write(hpa: Hpa, from: &[u8]) -> Result<(), Refusal> {
    in_frame(hpa, from.len())?;
    let _pin = Pin::new(hpa, from.len() as u64)?;
    // SAFETY: as in `read`, with the direction reversed.
    unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), direct::<u8>(hpa), from.len()) };
    Ok(())
}

/// Reads a value. See [`read`].
///
/// # Errors
/// As [`read`].
pub fn read_value<T: FromBytes + IntoBytes>(hpa: Hpa) -> Result<T, Refusal> {
    let mut value = T::new_zeroed();
    read(hpa, value.as_mut_bytes())?;
    Ok(value)
}

/// Sets bits of an aligned quadword of the root's memory if it still has the value `expected` (a guest's page
/// table entry, whose accessed and dirty bits race with the guest). Returns whether it had.
///
/// # Errors
/// `hpa` is not aligned to 8, or the frame is not the root's.
pub fn set_bits(hpa: Hpa, expected: u64, bits: u64) -> Result<bool, Refusal> {
    ensure(hpa.0 & 7 == 0, Refusal::NotMemory)?;
    let _pin = Pin::new(hpa, 8)?;
    // SAFETY: aligned, inside one frame that stays root memory while pinned; an atomic may be shared with writers.
    let word = unsafe { AtomicU64::from_ptr(direct::<u64>(hpa)) };
    Ok(word.compare_exchange(expected, expected | bits, Ordering::SeqCst, Ordering::Relaxed).is_ok())
}

/// Copies a range of the root's memory to another, which may overlap it.
///
/// # Errors
/// One of the ranges is not the root's throughout; nothing is copied.
pub fn copy(from: Hpa, to: Hpa, len: u64) -> Result<(), Refusal> {
    let _source = Pin::new(from, len)?;
    let _target = Pin::new(to, len)?;
    // SAFETY: both ranges are root memory while pinned, and all memory is mapped; overlap is allowed.
    unsafe { core::ptr::copy(direct::<u8>(from), direct::<u8>(to), len as usize) };
    Ok(())
}

/// Fills a range of the root's memory with zeros.
///
/// # Errors
/// The range is not the root's throughout; nothing is written.
pub fn zero(at: Hpa, len: u64) -> Result<(), Refusal> {
    let _target = Pin::new(at, len)?;
    // SAFETY: as in `copy`.
    unsafe { core::ptr::write_bytes(direct::<u8>(at), 0, len as usize) };
    Ok(())
}
