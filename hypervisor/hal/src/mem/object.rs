//! Objects in deposited frames: one object, one frame, returned to its pool when the last user is gone.

use core::{
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use crate::{
    addr::PAGE_SIZE,
    mem::{Frame, NoMemory, PoolId, direct, physical},
};

#[repr(C)]
struct Counted<T> {
    value: T,
    pool: PoolId,
    users: AtomicU32,
}

/// A shared value that owns the frame it lives in: an `Arc` without a heap.
pub struct PageArc<T>(NonNull<Counted<T>>);

// SAFETY: as for `Arc`: the value is shared between threads and dropped on any of them.
unsafe impl<T: Send + Sync> Send for PageArc<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for PageArc<T> {}

impl<T> PageArc<T> {
    const FITS: () = assert!(size_of::<Counted<T>>() <= PAGE_SIZE && align_of::<Counted<T>>() <= PAGE_SIZE);

    /// Puts `value` into a frame of `pool`, with one user.
    ///
    /// # Errors
    /// The pool is empty; `value` is dropped.
    pub fn new(pool: PoolId, value: T) -> Result<Self, NoMemory> {
        let () = Self::FITS;
        let frame = pool.get().take()?;
        let place = direct::<Counted<T>>(frame.hpa());
        // SAFETY: the frame is owned, page-aligned and large enough (`FITS`).
        unsafe { place.write(Counted { value, pool, users: AtomicU32::new(1) }) };
        // SAFETY: the direct map has no address 0.
        Ok(Self(unsafe { NonNull::new_unchecked(place) }))
    }

    fn counted(&self) -> &Counted<T> {
        // SAFETY: the value lives while any `PageArc` to it does.
        unsafe { self.0.as_ref() }
    }

    /// How many users there are; a snapshot that others may change.
    pub fn users(&self) -> u32 {
        self.counted().users.load(Ordering::Acquire)
    }
}

impl<T> Clone for PageArc<T> {
    fn clone(&self) -> Self {
        // Relaxed: a new user is made from an existing one, which keeps the value alive.
        self.counted().users.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Deref for PageArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.counted().value
    }
}

impl<T> Drop for PageArc<T> {
    fn drop(&mut self) {
        // Release pairs with the Acquire fence of the last user: all uses come before the drop.
        if self.counted().users.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let pool = self.counted().pool;
        // SAFETY: this was the last user, so the value is dropped exactly once.
        unsafe { self.0.as_ptr().drop_in_place() };
        pool.get().put(Frame::from_owned(physical(self.0.as_ptr())));
    }
}

/// A value that owns the frame it lives in: the only user of a shared one.
pub struct PageBox<T>(PageArc<T>);

impl<T> PageBox<T> {
    /// Puts `value` into a frame of `pool`.
    ///
    /// # Errors
    /// The pool is empty; `value` is dropped.
    pub fn new(pool: PoolId, value: T) -> Result<Self, NoMemory> {
        PageArc::new(pool, value).map(Self)
    }
}

impl<T> Deref for PageBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for PageBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the value is valid, and nobody else uses it: the `PageArc` within is never cloned, and `self` is
        // borrowed exclusively.
        &mut unsafe { self.0.0.as_mut() }.value
    }
}
