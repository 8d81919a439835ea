//! A cell that boot sets once and everyone reads afterwards.
#![expect(unsafe_code, reason = "the cell lends a value whose initialisation the state proves")]

use core::{
    cell::UnsafeCell,
    mem::MaybeUninit,
    sync::atomic::{AtomicU8, Ordering},
};

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const SET: u8 = 2;

/// A value that is absent until it is set, and then never changes.
#[derive(Debug)]
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one LP that moved the state from EMPTY to BUSY, and shared only when SET.
unsafe impl<T: Send + Sync> Sync for Once<T> {}

impl<T> Once<T> {
    /// Returns an empty cell.
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// Sets the value, or gives it back where one is set already or being set.
    pub fn set(&self, value: T) -> Result<&T, T> {
        let claim = self.state.compare_exchange(EMPTY, BUSY, Ordering::Acquire, Ordering::Relaxed);
        if claim.is_err() {
            return Err(value);
        }
        // SAFETY: this LP alone moved the state to BUSY, and nobody reads before SET.
        let value = unsafe { &mut *self.value.get() }.write(value);
        // Pairs with the acquire in `get`.
        self.state.store(SET, Ordering::Release);
        Ok(value)
    }

    /// Returns the value, which `make` makes where none is set; waits for an LP that is setting it.
    pub fn call_once(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        // Where another LP sets it first, that value is the one.
        drop(self.set(make()));
        loop {
            match self.get() {
                Some(value) => return value,
                None => core::hint::spin_loop(),
            }
        }
    }

    /// Returns the value, if it is set.
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) != SET {
            return None;
        }
        // SAFETY: SET is final, and from then on the value is only shared.
        let value = unsafe { &*self.value.get() };
        // SAFETY: the value was written before the state became SET.
        Some(unsafe { value.assume_init_ref() })
    }
}

#[cfg(test)]
mod tests {
    use super::Once;

    #[test]
    fn the_first_value_stays() {
        let once = Once::new();
        assert_eq!(once.get(), None);
        assert_eq!(once.set(1), Ok(&1));
        assert_eq!(once.set(2), Err(2));
        assert_eq!(once.get(), Some(&1));
        assert_eq!(once.call_once(|| 3), &1);
    }

    #[test]
    fn all_callers_get_the_one_value() {
        let once = &Once::new();
        std::thread::scope(|scope| {
            let callers = [1, 2, 3].map(|value| scope.spawn(move || *once.call_once(|| value)));
            let seen = callers.map(|caller| caller.join().unwrap());
            assert_eq!(seen, [*once.get().unwrap(); 3]);
        });
    }
}
