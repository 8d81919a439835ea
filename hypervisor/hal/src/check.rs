//! The one form that a rule about input has: what must hold, and the error otherwise.

/// Goes on only if a rule holds.
pub(crate) fn ensure<E>(holds: bool, error: E) -> Result<(), E> {
    if holds { Ok(()) } else { Err(error) }
}
