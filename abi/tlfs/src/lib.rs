#![no_std]
#![forbid(unsafe_code)]
//! The public Microsoft hypervisor interface as data: numbers, bit words and wire layouts, no logic.
//!
//! One file per topic of the specification. Names are the specification's; the name that Linux gives
//! the same thing is kept as `doc(alias)`, so a search for `hv_input_create_vp` lands here.
//!
//! Four forms, each made by one macro of `form.rs`, so that none can lose its checks:
//! * a *wire structure* states its size and the offset of every field, and both are asserted when
//!   compiled. It has no implicit padding, is valid for every byte pattern, and has `ZEROED`;
//! * an *open enumeration* is a number that may also hold values unknown here;
//! * a *flag set* is a word of independent bits;
//! * a *bit word* is a word of fields; its reserved bits are named, so that they can be checked.
//!
//! Unions of the specification are raw words with one typed view per meaning. A repeated or variable
//! part follows its header structure in memory; the header's documentation names the element.

#[macro_use]
mod form;

pub mod call;
pub mod cpuid;
pub mod device;
pub mod ids;
pub mod intercept;
pub mod memory;
pub mod msr;
pub mod partition;
pub mod port;
pub mod register;
pub mod stats;
pub mod status;
pub mod synic;
pub mod vp;
pub mod vpset;

pub use call::{CallCode, HypercallInput, HypercallOutput};
pub use ids::{ConnectionId, LpIndex, PartitionId, PortId, SintIndex, VpIndex};
pub use register::{RegisterName, RegisterValue};
pub use status::HvStatus;

/// Bytes in a page; every page number of the interface counts these (`TLFS datatypes/hv_gpa_page_number`).
pub const PAGE_SIZE: usize = 4096;
/// `log2` of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Pages in a large page, which [`memory::MapGpaFlags::LARGE_PAGE`] maps in one repetition.
pub const LARGE_PAGE_PAGES: u64 = 512;
/// Duration of one tick of the partition reference time, in nanoseconds.
pub const REFERENCE_TICK_NS: u64 = 100;
