//! CPUID (APM 3 appendix E; SDM 2A CPUID).

pub use core::arch::x86_64::CpuidResult;

/// Who made the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// AMD, or Hygon, which is AMD's design.
    Amd,
    /// Intel.
    Intel,
    /// Anybody else.
    Other,
}

/// Returns a leaf of CPUID. A leaf the processor lacks is what the processor makes of it.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    core::arch::x86_64::__cpuid_count(leaf, subleaf)
}

/// Returns an extended leaf, or zeros where the processor lacks it.
fn extended(leaf: u32) -> CpuidResult {
    const NONE: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
    if cpuid(0x8000_0000, 0).eax >= leaf { cpuid(leaf, 0) } else { NONE }
}

/// Returns who made the processor.
pub fn vendor() -> Vendor {
    let CpuidResult { ebx, ecx, edx, .. } = cpuid(0, 0);
    match [ebx, edx, ecx].map(u32::to_le_bytes).as_flattened() {
        b"AuthenticAMD" | b"HygonGenuine" => Vendor::Amd,
        b"GenuineIntel" => Vendor::Intel,
        _ => Vendor::Other,
    }
}

/// Whether the processor has SVM (it may be disabled by firmware: VM_CR.SVMDIS).
pub fn has_svm() -> bool {
    extended(0x8000_0001).ecx & 1 << 2 != 0
}

/// Whether SVM has nested paging.
pub fn has_npt() -> bool {
    has_svm() && extended(0x8000_000a).edx & 1 != 0
}

/// Whether the local APIC has the x2APIC mode.
pub fn has_x2apic() -> bool {
    cpuid(1, 0).ecx & 1 << 21 != 0
}

/// Whether page tables may hold 1 GiB pages.
pub fn has_gigabyte_pages() -> bool {
    extended(0x8000_0001).edx & 1 << 26 != 0
}

/// Whether the processor has XSAVE and XCR0.
pub fn has_xsave() -> bool {
    cpuid(1, 0).ecx & 1 << 26 != 0
}

/// Whether the processor can refuse to execute user pages in supervisor mode.
pub(crate) fn has_smep() -> bool {
    cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1 << 7 != 0
}

/// Returns the bytes an XSAVE area needs with every state component the processor has, at least the 512 of
/// FXSAVE.
pub fn xsave_area_bytes() -> usize {
    if has_xsave() { cpuid(0xd, 0).ecx as usize } else { 512 }
}

/// Returns the width of a physical address, in bits.
pub fn physical_address_bits() -> u32 {
    match extended(0x8000_0008).eax & 0xff {
        0 => 36,
        bits => bits,
    }
}

/// Whether QEMU emulates the processor in software.
pub fn is_emulated() -> bool {
    let CpuidResult { ebx, ecx, edx, .. } = cpuid(0x4000_0000, 0);
    cpuid(1, 0).ecx >> 31 != 0 && [ebx, ecx, edx].map(u32::to_le_bytes).as_flattened() == b"TCGTCGTCGTCG"
}
