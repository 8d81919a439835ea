//! The rules of the TLFS as pure state machines.
//!
//! Nothing here touches a machine: time, memory and interrupts come in as arguments or small traits, so that every
//! rule runs under `cargo test`. No input of a partition makes it panic.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod check;

pub mod call;
pub mod cpuid;
pub mod doorbell;
pub mod insn;
pub mod intercept;
pub mod lapic;
pub mod lifecycle;
pub mod port;
pub mod reftime;
pub mod stimer;
pub mod synic;
pub mod vpset;
pub mod walk;
pub mod xsave;

pub use check::ensure;
