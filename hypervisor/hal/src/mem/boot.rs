//! The hypervisor's own memory: one region carved from the machine at boot, and never more.
//!
//! What is made of it lives for ever (`&'static`), so there is no free. What is left when boot is over becomes
//! part of the pool of the root's page tables ([`seal`]).

use core::sync::atomic::AtomicU32;

use crate::{
    addr::{Hpa, PAGE_SIZE},
    mem::{Frame, NoMemory, PoolId, direct, frame},
    sync::SpinLock,
};

/// A span of physical memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: Hpa,
    /// Its length.
    pub len: u64,
}

impl Span {
    /// No memory.
    pub const EMPTY: Self = Self { start: Hpa(0), len: 0 };

    /// The address behind its last byte.
    pub fn end(&self) -> u64 {
        self.start.0.saturating_add(self.len)
    }

    /// Whether the two have a byte in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start.max(other.start).0 < self.end().min(other.end())
    }
}

/// No usable span is large enough for the hypervisor; holds the bytes that were wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittleMemory(pub u64);

const LARGE: u64 = 2 << 20;
/// The region stays below this, where the first page tables already reach.
const CEILING: u64 = 4 << 30;

static REGION: SpinLock<Span> = SpinLock::new(Span::EMPTY);
static FREE: SpinLock<Span> = SpinLock::new(Span::EMPTY);

/// Carves the region and sets up the frame table.
///
/// `usable` is the machine's memory, `keep` what the loader left in it and the hypervisor still needs, `image`
/// the hypervisor itself, `extra` the bytes wanted beyond the frame table and the root's page tables.
///
/// # Errors
/// No usable span below 4 GiB is large enough.
pub fn init(usable: &[Span], keep: &[Span], image: Span, extra: u64) -> Result<(), TooLittleMemory> {
    let top = usable.iter().map(Span::end).max().unwrap_or(0);
    let frames = top / PAGE_SIZE as u64;
    // A table for each 2 MiB of memory, should every one be split; 1 in 512 more for the level above; and tables
    // for address space beyond memory, where the root finds its devices.
    let tables = (top / LARGE) * 513 / 512 + 1024;
    let want = (frames * 4 + tables * PAGE_SIZE as u64 + extra).next_multiple_of(LARGE);
    let start = place(usable, keep, want).ok_or(TooLittleMemory(want))?;
    let region = Span { start, len: want };
    *REGION.lock() = region;
    *FREE.lock() = region;
    frame::install(slice(frames as usize, |_| AtomicU32::new(0)).ok_or(TooLittleMemory(want))?);
    for span in usable {
        let first = span.start.0.next_multiple_of(PAGE_SIZE as u64);
        let pages = (span.end() / PAGE_SIZE as u64).saturating_sub(first / PAGE_SIZE as u64);
        frame::set(Hpa(first), pages, frame::FREE);
    }
    for span in [region, image] {
        frame::set(span.start, span.len.div_ceil(PAGE_SIZE as u64), frame::OWNED);
    }
    let start = self::frames(tables as usize).ok_or(TooLittleMemory(want))?;
    stock(start, tables);
    Ok(())
}

/// The highest 2 MiB-aligned place for `want` bytes that is usable and overlaps nothing to keep.
fn place(usable: &[Span], keep: &[Span], want: u64) -> Option<Hpa> {
    usable.iter().filter_map(|span| place_in(span, keep, want)).max()
}

fn place_in(span: &Span, keep: &[Span], want: u64) -> Option<Hpa> {
    let mut end = span.end().min(CEILING);
    loop {
        let start = end.checked_sub(want)? & !(LARGE - 1);
        if start < span.start.0 {
            return None;
        }
        let candidate = Span { start: Hpa(start), len: want };
        match keep.iter().find(|kept| kept.overlaps(&candidate)) {
            None => return Some(candidate.start),
            Some(obstacle) => end = obstacle.start.0,
        }
    }
}

/// The hypervisor's region.
pub fn region() -> Span {
    *REGION.lock()
}

/// Takes `count` consecutive frames, zeroed, for ever. Boot only: `None` once sealed or exhausted.
pub fn frames(count: usize) -> Option<Hpa> {
    let bytes = (count * PAGE_SIZE) as u64;
    let mut free = FREE.lock();
    if free.len < bytes {
        return None;
    }
    let start = free.start;
    *free = Span { start: Hpa(start.0 + bytes), len: free.len - bytes };
    // SAFETY: the span is usable memory of the region that was never handed out.
    unsafe { core::ptr::write_bytes(direct::<u8>(start), 0, count * PAGE_SIZE) };
    Some(start)
}

/// Makes a slice of `count` values that lives for ever. Boot only: `None` once sealed or exhausted.
pub fn slice<T>(count: usize, mut make: impl FnMut(usize) -> T) -> Option<&'static mut [T]> {
    try_slice(count, |index| Ok::<T, NoMemory>(make(index))).ok()
}

/// Makes a slice of `count` values that lives for ever. Boot only.
///
/// # Errors
/// Those of `make`, whose earlier values are leaked; and there is no memory left.
pub fn try_slice<T, E: From<NoMemory>>(
    count: usize,
    mut make: impl FnMut(usize) -> Result<T, E>,
) -> Result<&'static mut [T], E> {
    const { assert!(align_of::<T>() <= PAGE_SIZE) };
    let bytes = size_of::<T>().checked_mul(count).ok_or(NoMemory)?;
    let first = direct::<T>(frames(bytes.div_ceil(PAGE_SIZE)).ok_or(NoMemory)?);
    for index in 0..count {
        // SAFETY: `index < count`, for which the frames have room; they are page-aligned and ours alone.
        let place = unsafe { first.add(index) };
        // SAFETY: as above.
        unsafe { place.write(make(index)?) };
    }
    // SAFETY: all `count` values are initialised, and nothing else refers to the frames.
    Ok(unsafe { core::slice::from_raw_parts_mut(first, count) })
}

/// Ends boot: what is left of the region becomes part of the pool of the root's page tables. Returns how many
/// frames that has.
pub fn seal() -> u64 {
    let rest = core::mem::replace(&mut *FREE.lock(), Span::EMPTY);
    stock(rest.start, rest.len / PAGE_SIZE as u64);
    PoolId::BOOT.get().free_pages()
}

/// Puts frames into the pool of the root's page tables.
fn stock(start: Hpa, pages: u64) {
    for page in start.page()..start.page() + pages {
        PoolId::BOOT.get().deposit(Frame::from_owned(Hpa::from_page(page)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, len: u64) -> Span {
        Span { start: Hpa(start), len }
    }

    #[test]
    fn region_is_placed_highest_and_below_four_gib() {
        let usable = [span(0, 0x9f000), span(0x10_0000, 0x7ff0_0000), span(4 << 30, 4 << 30)];
        assert_eq!(place(&usable, &[], 16 << 20), Some(Hpa(0x7f00_0000)));
    }

    #[test]
    fn region_avoids_what_the_loader_left() {
        let usable = [span(0x10_0000, 0x7ff0_0000)];
        let keep = [span(0x7ff0_0000, 0x1000), span(0x7e00_0000, 0x10_0000)];
        assert_eq!(place(&usable, &keep, 16 << 20), Some(Hpa(0x7ee0_0000)));
    }

    #[test]
    fn too_little_memory_is_refused() {
        assert_eq!(place(&[span(0x10_0000, 0x10_0000)], &[], 16 << 20), None);
    }
}
