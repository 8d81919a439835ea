//! x87, SSE and AVX registers, as images of the XSAVE area (SDM 1 "Managing State Using the XSAVE Feature Set").
//!
//! The compiler uses none of these registers, so whatever a case loads stays until it is saved.

use core::arch::asm;

use super::{
    cpu::{self, attempt},
    memory::Page,
    percpu::Fault,
};

const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_OSXSAVE: u64 = 1 << 18;
const LEAF_1_ECX_XSAVE: u32 = 1 << 26;
const AVX: u64 = 1 << 2;
/// Word of the header that tells which components an image holds.
const HELD: usize = 512 / 8;

/// Enables what the processor has, on this processor. Returns the components, or `None` without XSAVE.
pub(crate) fn enable() -> Option<u64> {
    let mut cr4 = cpu::cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT;
    let has_xsave = cpu::cpuid(1, 0).ecx & LEAF_1_ECX_XSAVE != 0;
    if has_xsave {
        cr4 |= CR4_OSXSAVE;
    }
    cpu::set_cr4(cr4).ok()?;
    if !has_xsave {
        return None;
    }
    let components = u64::from(cpu::cpuid(0xd, 0).eax) & 7;
    set_xcr0(components).ok().map(|()| components)
}

/// XSETBV of register 0.
pub(crate) fn set_xcr0(value: u64) -> Result<(), Fault> {
    attempt!("xsetbv"; in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack))
}

/// XGETBV of register 0.
pub(crate) fn xcr0() -> Result<u64, Fault> {
    let (mut low, mut high) = (0_u64, 0_u64);
    attempt!("xgetbv"; in("ecx") 0, inout("rax") low, inout("rdx") high, options(nostack))?;
    Ok(high << 32 | low & 0xffff_ffff)
}

/// An image whose registers all differ from each other, and from those of another seed.
pub(crate) fn image(components: u64, seed: u64) -> &'static Page {
    let page = Page::take();
    let pattern = |index: usize| (seed << 32 | index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Control and status words: default x87, tag all valid; MXCSR with a rounding mode that depends on the seed.
    page.set(0, 0xff_0000_037f);
    page.set(3, 0x1f80 | (seed & 3) << 13);
    for register in 0..8 {
        page.set(4 + register * 2, pattern(register) | 1 << 63);
        page.set(5 + register * 2, 0x3fff + register as u64);
    }
    for word in 20..52 {
        page.set(word, pattern(word));
    }
    page.set(HELD, components);
    if components & AVX != 0 {
        let start = cpu::cpuid(0xd, 2).ebx as usize / 8;
        for word in start..start + 32 {
            page.set(word, pattern(word));
        }
    }
    page
}

/// Loads the components of an image.
pub(crate) fn load(image: &Page, components: u64) -> Result<(), Fault> {
    attempt!("xrstor64 [{image}]"; image = in(reg) image.address(), in("eax") components as u32, in("edx") 0, options(nostack))
}

/// Saves the components to an image.
pub(crate) fn save(image: &Page, components: u64) -> Result<(), Fault> {
    attempt!("xsave64 [{image}]"; image = in(reg) image.address(), in("eax") components as u32, in("edx") 0, options(nostack))
}

/// The first word in which the registers of two images differ, if any.
pub(crate) fn difference(one: &Page, other: &Page, components: u64) -> Option<usize> {
    let avx = cpu::cpuid(0xd, 2).ebx as usize / 8;
    let avx = if components & AVX != 0 { avx..avx + 32 } else { 0..0 };
    // The high half of word 3 is the mask of MXCSR, which only the processor knows.
    let mxcsr = |page: &Page| page.get(3) & 0xffff_ffff;
    if mxcsr(one) != mxcsr(other) {
        return Some(3);
    }
    (4..52).chain(avx).find(|&word| one.get(word) != other.get(word))
}

/// The quotient of two numbers by SSE2, rounded to the nearest integer.
pub(crate) fn divide(dividend: u64, divisor: u64) -> u64 {
    let quotient;
    // SAFETY: uses registers that the compiler does not.
    unsafe {
        asm!("cvtsi2sd xmm0, {a}", "cvtsi2sd xmm1, {b}", "divsd xmm0, xmm1", "cvtsd2si {q}, xmm0",
            a = in(reg) dividend, b = in(reg) divisor, q = out(reg) quotient, options(nomem, nostack));
    };
    quotient
}
