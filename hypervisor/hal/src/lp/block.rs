//! The block of an LP: what its stubs reach through GS, and the tables the processor walks.
#![expect(unsafe_code, reason = "the block becomes the LP's GS base")]

use core::sync::atomic::{AtomicBool, AtomicU32};

use crate::{
    cpu::{self, msr, register, segment::Segments},
    lp::{LpIndex, stack},
    mem::boot,
    sync::Once,
    trap,
};

/// An LP's own block; the GS base points at it.
#[repr(C, align(128))]
pub(crate) struct Block {
    /// The LP's number.
    pub(crate) index: u32,
    /// Its x2APIC id.
    pub(crate) apic_id: u32,
    /// The vector of the interrupt that was taken last, 0 once it is consumed.
    pub(crate) taken: AtomicU32,
    /// How many NMIs it took.
    pub(crate) nmi_count: AtomicU32,
    /// Whether it reached Rust.
    pub(crate) online: AtomicBool,
    segments: Segments,
}

static BLOCKS: Once<&'static [Block]> = Once::new();

/// All blocks; none before [`create`].
pub(crate) fn blocks() -> &'static [Block] {
    BLOCKS.get().copied().unwrap_or_default()
}

/// Makes the blocks of `count` LPs from their x2APIC ids. Boot only.
pub(crate) fn create(count: usize, mut apic_ids: impl Iterator<Item = u32>) {
    let block = |index| {
        let stacks = stack::of(LpIndex(index as u32));
        let apic_id = apic_ids.next().expect("there is an id for each LP");
        Block::new(index as u32, apic_id, stacks.nmi_top, stacks.fatal_top)
    };
    let blocks: &'static [Block] = boot::slice(count, block).expect("the boot reserve holds the LPs' blocks");
    assert!(BLOCKS.set(blocks).is_ok(), "blocks are made once");
}

impl Block {
    /// Returns a block whose NMIs and fatal exceptions use the given stacks.
    pub(crate) const fn new(index: u32, apic_id: u32, nmi_top: u64, fatal_top: u64) -> Self {
        Self {
            index,
            apic_id,
            taken: AtomicU32::new(0),
            nmi_count: AtomicU32::new(0),
            online: AtomicBool::new(false),
            segments: Segments::new(nmi_top, fatal_top),
        }
    }

    /// Makes this the block of the running LP, and sets its control registers. Each block is installed once.
    pub(crate) fn install(&'static self) {
        self.segments.load();
        self.own();
        trap::load();
        let mut cr4 = register::cr4() | register::CR4_MCE | register::CR4_OSFXSR | register::CR4_OSXMMEXCPT;
        if cpu::has_xsave() {
            cr4 |= register::CR4_OSXSAVE;
        }
        if cpu::has_smep() {
            cr4 |= register::CR4_SMEP;
        }
        // SAFETY: the bits enable exceptions that have a handler, and instructions; no user page is mapped.
        unsafe { register::write_cr4(cr4) };
    }

    /// Points GS at this block.
    pub(crate) fn own(&'static self) {
        let base = core::ptr::from_ref(self).addr() as u64;
        // SAFETY: nothing but the block is reached through GS.
        unsafe { msr::wrmsr(msr::GS_BASE, base) };
    }
}
