//! The processor: what it is, its clock, and its registers.

pub mod msr;
pub(crate) mod register;
pub(crate) mod segment;

mod identify;

pub use identify::*;

/// Returns the time-stamp counter. Not ordered with the instructions around it.
pub fn tsc() -> u64 {
    register::rdtsc()
}

/// Tells the processor that this is a spin-wait loop.
pub fn pause() {
    core::hint::spin_loop();
}
