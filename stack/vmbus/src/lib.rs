//! The host side of VMBus, the channel bus between a partition and the root's device back ends.
//!
//! Two halves, neither of which does any I/O:
//!
//! * [`server`] is the control plane: versions, offers, GPADLs, opening and closing. It takes the messages that
//!   the guest posts and speaks to the world through one trait, [`server::Host`].
//! * [`ring`] is the data plane: the two rings of a channel in guest memory, their packets, and the rules of
//!   when a side must be signalled.
//!
//! The guest's memory is reached through [`memory::Memory`] alone: bounds-checked copies and atomics, never a
//! reference. Whatever the guest writes is taken once, checked, and then used; a guest that breaks the
//! protocol loses the channel or the connection concerned, with a reason for the log.
//!
//! The protocol has no public specification. What is said here was learned from Linux's `drivers/hv` and
//! `include/linux/hyperv.h`, whose drivers are the other side, and from OpenVMM's server; where both are silent,
//! the place says what was chosen.

pub mod guid;
pub mod memory;
pub mod protocol;
pub mod ranges;
pub mod ring;
pub mod server;

/// The unit of all page counts and page frame numbers of this protocol, in bytes, whatever the guest's own page
/// size is (`HV_HYP_PAGE_SIZE`).
pub const PAGE_BYTES: u32 = 4096;
