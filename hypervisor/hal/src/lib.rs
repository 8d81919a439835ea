//! The machine: everything that knows the processor manuals, and the only unsafe code of the hypervisor.
//!
//! `hal` knows nothing of the TLFS. It brings every logical processor (LP) from the loader's state to Rust,
//! and gives the rest of the hypervisor the processor as values and safe calls. It is compiled for the
//! freestanding target; on a host only its pure parts do anything, so that they can be tested there.
//!
//! Premises: interrupts are disabled (IF = 0) in all hypervisor code but inside [`apic::take_interrupt`]
//! and a wait for a kick (`virt/halt.rs`); the GS base points at the LP's own block whenever GIF is 1; x87 and vector
//! registers always belong to a guest.

#![no_std]
#![warn(missing_docs)]
#![cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "the assembly that enters this is left out on a host")
)]

#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod addr;
pub mod apic;
pub mod boot;
mod check;
pub mod cpu;
pub mod crash;
pub mod list;
pub mod log;
pub mod lp;
#[expect(unsafe_code, reason = "frames are handed out, and copied to and from, by address")]
pub mod mem;
mod pic;
mod port;
mod serial;
pub mod sync;
pub mod time;
pub mod trap;
#[cfg(target_os = "none")]
#[expect(unsafe_code, reason = "the instructions and control blocks of virtualization")]
pub mod virt;
