//! A list of bounded length, for what is counted only at boot and must not need a heap.

use core::ops::{Deref, DerefMut};

/// Up to `N` values in place. Dereferences to a slice.
#[derive(Clone, Copy, Debug)]
pub struct List<T, const N: usize> {
    items: [T; N],
    len: usize,
}

/// The list holds as many values as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// Inserts `value` before the item at `index`, or at the end where there is none.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), Full> {
        let index = index.min(self.len);
        let tail = self.items.get_mut(index..=self.len).ok_or(Full)?;
        tail.rotate_right(1);
        tail[0] = value;
        self.len += 1;
        Ok(())
    }

    /// Appends `value`.
    pub fn push(&mut self, value: T) -> Result<(), Full> {
        self.insert(self.len, value)
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self { items: [T::default(); N], len: 0 }
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T, const N: usize> DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::{Full, List};

    #[test]
    fn a_full_list_refuses_and_keeps_its_items() {
        let mut list = List::<u8, 2>::default();
        assert_eq!((list.push(2), list.insert(0, 1), list.push(3)), (Ok(()), Ok(()), Err(Full)));
        assert_eq!(&*list, &[1, 2]);
    }
}
