//! Where the stacks of the LPs are, with a page that nothing maps below each.
//!
//! An overflow faults on that page; pushing the fault's frame faults again, and the double fault is reported on
//! a stack of its own.

use core::ops::Range;

use crate::{
    addr::PAGE_SIZE,
    boot::paging::AddressSpace,
    lp::{self, LpIndex},
    mem::{
        boot,
        space::{Access, PageSize},
    },
};

const BASE: u64 = 0xffff_ff00_0000_0000;
const PAGE: u64 = PAGE_SIZE as u64;
/// A power of two that holds the stacks and their guards.
const SLOT_PAGES: u64 = 16;
/// First page and number of pages of each stack in a slot; the pages between them are guards.
const MAIN: (u64, u64) = (1, 8);
const NMI: (u64, u64) = (10, 1);
const FATAL: (u64, u64) = (12, 4);

/// The addresses of an LP's stacks.
pub(crate) struct Stacks {
    /// Just above the stack that code runs on.
    pub(crate) main_top: u64,
    /// Just above the stack of the NMI handler.
    pub(crate) nmi_top: u64,
    /// Just above the stack of exceptions that must not trust the current one.
    pub(crate) fatal_top: u64,
}

const fn slot(lp: LpIndex) -> u64 {
    BASE + lp.0 as u64 * SLOT_PAGES * PAGE
}

/// Returns the stacks of `lp`.
pub(crate) fn of(lp: LpIndex) -> Stacks {
    let top = |(first, pages): (u64, u64)| slot(lp) + (first + pages) * PAGE;
    Stacks { main_top: top(MAIN), nmi_top: top(NMI), fatal_top: top(FATAL) }
}

/// Returns the stack that `address` lies in, or in the guard of.
pub(crate) fn around(address: u64) -> Option<Range<u64>> {
    let page = address.checked_sub(BASE)? / PAGE;
    let lp = LpIndex(u32::try_from(page / SLOT_PAGES).ok().filter(|&lp| lp < lp::count())?);
    let holds = |&(first, pages): &(u64, u64)| (first - 1..first + pages).contains(&(page % SLOT_PAGES));
    let (first, pages) = [MAIN, NMI, FATAL].into_iter().find(holds)?;
    let start = slot(lp) + first * PAGE;
    Some(start..start + pages * PAGE)
}

/// Gives every LP its stacks.
pub(crate) fn map_all(space: &AddressSpace, lps: u32) {
    for lp in (0..lps).map(LpIndex) {
        for (first, pages) in [MAIN, NMI, FATAL] {
            let frames = boot::frames(pages as usize).expect("the boot reserve holds the LPs' stacks");
            let start = slot(lp) + first * PAGE;
            space.map(start, frames, pages * PAGE, Access::READ_WRITE, PageSize::Small);
        }
    }
}

/// The boot reserve's bytes that an LP's stacks take, with the tables that map them.
pub(crate) const BYTES_PER_LP: u64 = (SLOT_PAGES + 1) * PAGE;
