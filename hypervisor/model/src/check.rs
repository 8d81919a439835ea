//! The one form that a rule about input has: what must hold, and the error otherwise.

/// Goes on only if a rule holds: `ensure(count <= max, HvStatus::INVALID_PARAMETER)?`.
///
/// # Errors
/// `error`, if it does not.
pub fn ensure<E>(holds: bool, error: E) -> Result<(), E> {
    if holds { Ok(()) } else { Err(error) }
}
