//! Waiting for other LPs, and for boot: a lock and a cell that is set once.
//!
//! Hypervisor code runs with interrupts disabled and is never preempted, so a lock is held for as long as its
//! code takes and no longer. The NMI handler takes no lock.

mod once;
mod spin;

pub use once::Once;
pub use spin::{Guard, SpinLock};
