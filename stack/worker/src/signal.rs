//! How a device or a processor thread ends the present life of the machine.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io,
};

/// Why the processors stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reset; the machine starts anew.
    Reset,
    /// The machine cannot go on: one line that says why.
    Failed(String),
}

/// A slot for the first [`Outcome`], with an event descriptor that becomes readable when it is filled.
pub struct Signal {
    outcome: Mutex<Option<Outcome>>,
    /// Whether there is one, for those who look often.
    raised: AtomicBool,
    event: OwnedFd,
}

impl Signal {
    /// An empty slot.
    ///
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { outcome: Mutex::new(None), raised: AtomicBool::new(false), event })
    }

    /// Fills the slot; a later outcome is a consequence of the first and is dropped.
    pub fn raise(&self, outcome: Outcome) {
        let mut slot = self.outcome.lock().expect("no holder of this lock panics");
        if slot.is_none() {
            tracing::debug!(?outcome, "machine ends");
            *slot = Some(outcome);
            self.raised.store(true, Ordering::Release);
            notify(&self.event);
        }
    }

    /// Whether there is an outcome.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// The outcome, if there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.lock().expect("no holder of this lock panics").clone()
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// Makes an event descriptor readable. It cannot fail: the counter saturates, and saturated is readable.
pub fn notify(event: &OwnedFd) {
    if let Err(error) = io::write(event, &1u64.to_ne_bytes()) {
        tracing::debug!(%error, "event descriptor is full");
    }
}

/// Takes the notifications of an event descriptor or the expirations of a timer; 0 when there are none.
pub fn drain(event: impl AsFd) -> u64 {
    let mut count = [0; 8];
    match io::read(event, &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_outcome_wins_and_wakes() {
        let signal = Signal::new().unwrap();
        assert_eq!((signal.outcome(), drain(&signal)), (None, 0));
        signal.raise(Outcome::PowerOff);
        signal.raise(Outcome::Reset);
        assert_eq!((signal.outcome(), drain(&signal)), (Some(Outcome::PowerOff), 1));
    }
}
