//! x87, vector and other extended state of a guest (APM 1 §11, APM 2 §11.5).
//!
//! The hypervisor is compiled without floating point, so the registers always hold some guest's state. They are
//! exchanged only when a processor turns from one guest to another, in the standard (not compacted) form.

use core::arch::asm;

use crate::{
    addr::{Hpa, PAGE_SIZE},
    cpu::{self, register},
    mem::{Frame, NoMemory, PoolId, boot, direct},
};

/// The largest XSAVE area of a child: what one frame holds.
pub const XSAVE_BYTES: usize = PAGE_SIZE;
const X87: u64 = 1;
const MXCSR_DEFAULT: u32 = 0x1f80;
const MXCSR_OFFSET: u64 = 24;
const HEADER: usize = 512;

/// Extended state of one virtual processor.
pub(super) struct ExtendedState {
    area: Hpa,
    bytes: usize,
    pool: Option<PoolId>,
    /// The components that the area has room for.
    components: u64,
    /// The guest's XCR0 while it does not run.
    pub(super) xcr0: u64,
}

impl ExtendedState {
    /// For the root, which may use all that the processor has. Boot only.
    pub(super) fn for_root() -> Result<Self, NoMemory> {
        let bytes = cpu::xsave_area_bytes();
        let area = boot::frames(bytes.div_ceil(PAGE_SIZE)).ok_or(NoMemory)?;
        let mut state = Self { area, bytes, pool: None, components: supported_for(bytes), xcr0: X87 };
        state.reset();
        Ok(state)
    }

    /// For a child, in one frame of `pool`.
    pub(super) fn new(pool: PoolId) -> Result<Self, NoMemory> {
        let area = pool.get().take_zeroed()?.hpa();
        let bytes = cpu::xsave_area_bytes().min(XSAVE_BYTES);
        let mut state = Self { area, bytes, pool: Some(pool), components: supported(), xcr0: X87 };
        state.reset();
        Ok(state)
    }

    /// The state after RESET: every component in its initial configuration.
    pub(super) fn reset(&mut self) {
        // SAFETY: the area is owned by `self` and at least one frame long.
        unsafe { core::ptr::write_bytes(direct::<u8>(self.area), 0, self.bytes) };
        let mxcsr = direct::<u32>(Hpa(self.area.0 + MXCSR_OFFSET));
        // SAFETY: as above; the offset lies in the legacy region and is aligned.
        unsafe { mxcsr.write(MXCSR_DEFAULT) };
        self.xcr0 = X87;
    }

    /// The saved area's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: owned, initialised memory of that length; the borrow of `self` keeps writers away.
        unsafe { core::slice::from_raw_parts(direct::<u8>(self.area), self.bytes) }
    }

    /// Replaces the saved area. What the processor would refuse is cleared, so that loading it cannot fault.
    pub(super) fn set_bytes(&mut self, from: &[u8]) {
        let len = from.len().min(self.bytes);
        // SAFETY: owned memory of `self.bytes` bytes, borrowed exclusively.
        let area = unsafe { core::slice::from_raw_parts_mut(direct::<u8>(self.area), self.bytes) };
        for (to, byte) in area.iter_mut().zip(from.iter().take(len)) {
            *to = *byte;
        }
        let (legacy, rest) = area.split_at_mut(HEADER);
        if let Some(mxcsr) = legacy.get_mut(MXCSR_OFFSET as usize + 2..MXCSR_OFFSET as usize + 4) {
            mxcsr.fill(0);
        }
        if let Some((header, _)) = rest.split_first_chunk_mut::<64>() {
            let allowed = supported().to_le_bytes();
            header.iter_mut().zip(allowed).for_each(|(byte, mask)| *byte &= mask);
            header.iter_mut().skip(8).for_each(|byte| *byte = 0);
        }
    }

    /// Moves the processor's state here; the processor keeps undefined state until the next [`Self::load`].
    pub(super) fn save(&mut self) {
        self.xcr0 = register::xgetbv();
        set_xcr0(self.xcr0, self.components);
        // SAFETY: the area is owned, aligned to a page, and as long as the components of XCR0 need.
        unsafe {
            asm!("xsave64 [{}]", in(reg) direct::<u8>(self.area), in("eax") u32::MAX, in("edx") u32::MAX,
                options(nostack, preserves_flags));
        }
    }

    /// Loads the state into the processor.
    pub(super) fn load(&self) {
        set_xcr0(register::xgetbv(), self.components);
        // SAFETY: as in `save`; the area holds a valid image, by `reset`, `save` or `set_bytes`.
        unsafe {
            asm!("xrstor64 [{}]", in(reg) direct::<u8>(self.area), in("eax") u32::MAX, in("edx") u32::MAX,
                options(nostack, preserves_flags, readonly));
        }
        set_xcr0(self.components, self.xcr0);
    }
}

impl Drop for ExtendedState {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            pool.get().put(Frame::from_owned(self.area));
        }
    }
}

fn set_xcr0(now: u64, wanted: u64) {
    if now != wanted {
        // SAFETY: `wanted` is a subset of what CPUID offers, or was accepted from the guest by `is_valid_xcr0`.
        unsafe { register::xsetbv(wanted) };
    }
}

/// The components that a child may enable: those whose area fits a frame.
pub(super) fn supported() -> u64 {
    supported_for(XSAVE_BYTES)
}

fn supported_for(bytes: usize) -> u64 {
    let leaf = cpu::cpuid(0xd, 0);
    let all = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    if leaf.ecx as usize <= bytes { all } else { all & 7 }
}

/// Whether a guest may set XCR0 to `value`.
pub(super) fn is_valid_xcr0(value: u64) -> bool {
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 7 << 5;
    value & X87 != 0
        && value & !supported() == 0
        && (value & AVX == 0 || value & SSE != 0)
        && (value & AVX512 == 0 || value & (AVX512 | AVX) == AVX512 | AVX)
}
