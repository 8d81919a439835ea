//! The few things for which `mshv-ioctls` has no safe form.
#![expect(unsafe_code, reason = "unions of the bindings, and memory that the bindings map but never unmap")]

use std::ptr::NonNull;

use mshv_bindings::{HV_PAGE_SIZE, hv_message, hv_register_value, hv_translate_gva_result};
use mshv_ioctls::VcpuFd;
use rustix::mm::{Advice, madvise, munmap};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

use crate::memory::GuestRam;

/// The payload of a message as words; what they mean depends on the message's type.
pub fn payload(message: &hv_message) -> [u64; 30] {
    // SAFETY: The union has one field, an array of integers, for which every pattern of bits is a value.
    unsafe { message.u.payload }
}

/// A virtual processor that gives its register page back. `VcpuFd` maps that page and leaves it mapped when
/// dropped; the mapping alone would keep the partition alive until the process ends.
pub struct OwnedVcpu(VcpuFd);

impl OwnedVcpu {
    /// Takes over the processor.
    pub fn new(vcpu: VcpuFd) -> Self {
        Self(vcpu)
    }
}

impl std::ops::Deref for OwnedVcpu {
    type Target = VcpuFd;

    fn deref(&self) -> &VcpuFd {
        &self.0
    }
}

impl Drop for OwnedVcpu {
    fn drop(&mut self) {
        let Some(page) = self.0.get_vp_reg_page().and_then(|page| NonNull::new(page.0)) else { return };
        // SAFETY: `VcpuFd` has mapped exactly this page, and nobody can use it after this: `self` owns the
        // only handle and is being dropped.
        if let Err(error) = unsafe { munmap(page.as_ptr().cast(), HV_PAGE_SIZE) } {
            tracing::warn!(%error, "register page stays mapped");
        }
    }
}

/// Asks the host to back guest RAM by large pages, so that the partition's tables are short. A host that
/// cannot is only slower.
pub fn prefer_large_pages(ram: &GuestRam) {
    for region in ram.iter() {
        let Ok(start) = region.get_host_address(MemoryRegionAddress(0)) else { continue };
        let Ok(len) = usize::try_from(region.len()) else { continue };
        // SAFETY: The range is a mapping of this process that `ram` keeps, and this advice changes no
        // content.
        if let Err(error) = unsafe { madvise(start.cast(), len, Advice::LinuxHugepage) } {
            tracing::debug!(%error, "no large pages");
        }
    }
}

/// Whether a translation has succeeded (`HV_TRANSLATE_GVA_SUCCESS` is 0).
pub fn translated(result: &hv_translate_gva_result) -> bool {
    // SAFETY: Both fields of the union are plain integers of the same eight bytes.
    let bits = unsafe { result.as_uint64 };
    bits & 0xffff_ffff == 0
}

/// The value of a register of 64 bits.
pub fn word(value: &hv_register_value) -> u64 {
    // SAFETY: All fields of the union are plain integers, and this one is its first eight bytes.
    unsafe { value.reg64 }
}
