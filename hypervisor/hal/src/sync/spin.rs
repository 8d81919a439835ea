//! A ticket lock: LPs enter in the order in which they asked.
#![expect(unsafe_code, reason = "the lock hands out the reference that it makes exclusive")]

use core::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicU32, Ordering},
};

/// A value that one LP at a time may use.
#[derive(Debug, Default)]
pub struct SpinLock<T> {
    next: AtomicU32,
    serving: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `value` is reached only through a `Guard`, of which there is one at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

/// Proof of holding a [`SpinLock`]; dropping it lets the next LP in.
#[derive(Debug)]
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> SpinLock<T> {
    /// Returns an open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { next: AtomicU32::new(0), serving: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. Taking a lock that this LP holds never returns.
    pub fn lock(&self) -> Guard<'_, T> {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        // Pairs with the release in `Guard::drop`: what the last holder wrote is visible.
        while self.serving.load(Ordering::Acquire) != ticket {
            core::hint::spin_loop();
        }
        Guard { lock: self }
    }

    /// Takes the lock if nobody holds it or waits for it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let ticket = self.serving.load(Ordering::Acquire);
        self.next
            .compare_exchange(ticket, ticket.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then(|| Guard { lock: self })
    }
}

impl<'a, T> Guard<'a, T> {
    /// Keeps the lock for ever, and returns the value that nobody else can reach any more.
    pub fn leak(this: Self) -> &'a mut T {
        let this = core::mem::ManuallyDrop::new(this);
        // SAFETY: the guard is the only one and is never dropped, so there is no other for as long as `'a`.
        unsafe { &mut *this.lock.value.get() }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one, and lends the value no longer than it lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard is the only one, and is itself borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // Only the holder writes `serving`, so no read-modify-write is needed.
        let ticket = self.lock.serving.load(Ordering::Relaxed);
        self.lock.serving.store(ticket.wrapping_add(1), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::SpinLock;

    #[test]
    fn threads_do_not_lose_increments() {
        let lock = SpinLock::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let seen = *lock.lock();
                        std::thread::yield_now();
                        let mut guard = lock.lock();
                        *guard += 1;
                        assert!(*guard > seen);
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 1500);
    }

    #[test]
    fn a_held_lock_refuses_a_second_holder() {
        let lock = SpinLock::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
    }
}
