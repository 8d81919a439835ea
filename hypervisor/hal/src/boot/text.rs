//! Room for the loader's text.

use crate::boot::BootError;

/// Hands out parts of a buffer that lives for ever.
pub(super) struct TextRoom {
    free: &'static mut [u8],
}

impl TextRoom {
    pub(super) fn new(free: &'static mut [u8]) -> Self {
        Self { free }
    }

    /// Copies bytes up to the first zero. What is not ASCII becomes a question mark.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn copy(&mut self, bytes: impl Iterator<Item = u8>) -> Result<&'static str, BootError> {
        let mut len = 0;
        for byte in bytes.take_while(|&byte| byte != 0) {
            *self.free.get_mut(len).ok_or(BootError::TooMuch)? = if byte.is_ascii() { byte } else { b'?' };
            len += 1;
        }
        let (text, rest) = core::mem::take(&mut self.free).split_at_mut(len);
        self.free = rest;
        str::from_utf8(text).map_err(|_| BootError::Malformed)
    }
}

#[cfg(test)]
pub(super) fn test_room(bytes: usize) -> TextRoom {
    TextRoom::new(std::vec![0; bytes].leak())
}

#[cfg(test)]
mod tests {
    use super::{BootError, test_room};

    #[test]
    fn text_ends_at_a_zero_and_is_ascii() {
        let mut room = test_room(16);
        assert_eq!(room.copy(b"a\xffb\0c".iter().copied()), Ok("a?b"));
        assert_eq!(room.copy(b"next".iter().copied()), Ok("next"));
        assert_eq!(room.copy([b'x'; 10].into_iter()), Err(BootError::TooMuch));
    }
}
