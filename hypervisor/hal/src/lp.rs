//! Logical processors: which one this is, how many there are, and storage for each.
//!
//! Each LP has a [`Block`] that its GS base points at, its own stacks, and its slot in every [`PerLp`]. The LP
//! that boots is number 0; the others follow in the order of the MADT.
#![expect(unsafe_code, reason = "one instruction reads the LP's own block")]

mod block;
mod per;
pub(crate) mod stack;
mod start;

pub(crate) use block::*;
pub use per::PerLp;
pub use start::{release, start_all};

/// The number of a logical processor, from 0 to [`count`] - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LpIndex(pub u32);

/// Returns the number of logical processors. It is fixed before the kernel starts.
pub fn count() -> u32 {
    block::blocks().len() as u32
}

/// Returns the LP that executes this.
#[inline]
pub fn this() -> LpIndex {
    if cfg!(not(target_os = "none")) {
        // What runs on a host is a test, without blocks.
        return LpIndex(0);
    }
    let index: u32;
    // SAFETY: the GS base points at this LP's block, whose number never changes.
    unsafe {
        core::arch::asm!(
            "mov {:e}, gs:[{}]", out(reg) index, const core::mem::offset_of!(Block, index),
            options(nomem, nostack, preserves_flags),
        );
    }
    LpIndex(index)
}

/// Returns the x2APIC id of an LP, or nothing where there is no such LP.
pub fn apic_id(lp: LpIndex) -> Option<u32> {
    block::blocks().get(lp.0 as usize).map(|block| block.apic_id)
}

/// Returns every LP's number.
pub fn all() -> impl Iterator<Item = LpIndex> {
    (0..count()).map(LpIndex)
}
