//! Physical memory: who owns each frame, and the only ways to touch it.
//!
//! Three kinds of memory exist. *Hypervisor* frames hold our own typed objects; they come from the boot reserve
//! or from deposits and are in no partition's reach. *Root* frames belong to the root partition; they may be
//! mapped into children, and are read and written here only by copying ([`foreign`]). Everything else (devices,
//! firmware, holes) is never touched by the hypervisor.
//!
//! The frame table ([`frame`]) is the arbiter: a frame changes kind only through it, so a page that a child can
//! reach, or that a copy is under way to, cannot become a hypervisor frame.

pub mod boot;
pub mod foreign;
pub mod frame;
pub mod object;
pub mod pool;
pub mod shared;
pub mod space;
pub(crate) mod table;

pub use frame::Frame;
pub use object::{PageArc, PageBox};
pub use pool::{NoMemory, Pool, PoolId};
pub use shared::SharedPage;
pub use space::Space;

use crate::addr::Hpa;

/// Where all physical memory is mapped in the hypervisor's address space.
pub const DIRECT_MAP_BASE: u64 = 0xffff_8000_0000_0000;

/// Where physical address 0 is mapped.
#[cfg(not(test))]
fn base() -> u64 {
    DIRECT_MAP_BASE
}

#[cfg(test)]
use tests::base;

/// The direct-map address of `hpa`. Making the pointer is safe; using it needs a reason.
pub(crate) fn direct<T>(hpa: Hpa) -> *mut T {
    core::ptr::with_exposed_provenance_mut((base() + hpa.0) as usize)
}

/// The physical address behind a direct-map pointer.
pub(crate) fn physical<T: ?Sized>(pointer: *const T) -> Hpa {
    Hpa((pointer.cast::<u8>().expose_provenance() as u64).wrapping_sub(base()))
}

#[cfg(test)]
mod tests;
