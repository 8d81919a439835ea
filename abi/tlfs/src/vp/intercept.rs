//! What of a child's execution intercepts to the parent, and which results are preset.

use crate::ids::{PartitionId, VpIndex};

wire! {
    /// Input of `InstallIntercept`.
    #[doc(alias = "hv_input_install_intercept")]
    pub struct InstallInterceptInput: 24 {
        0 => partition_id: PartitionId,
        8 => access_type: InterceptAccessMask,
        12 => intercept_type: InterceptType,
        /// A port, a CPUID leaf, an APIC write mask, an MSR or an exception vector, by type; of a port
        /// range the first port in bits 15:0 and the last in bits 31:16.
        #[doc(alias = "hv_intercept_parameters")]
        16 => parameter: u64,
    }

    /// Header of `RegisterInterceptResult`, followed by the parameters of the type:
    /// [`CpuidResultParameters`] or [`MsrResultParameters`].
    #[doc(alias = "hv_input_register_intercept_result")]
    pub struct RegisterInterceptResultInput: 16 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => intercept_type: InterceptType,
    }

    /// What CPUID shall return. A set mask bit replaces the bit of the default.
    ///
    /// The layout is that of the callers' bindings; the specification omits the leaf.
    #[doc(alias = "hv_register_x64_cpuid_result_parameters")]
    pub struct CpuidResultParameters: 44 {
        0 => leaf: u32,
        4 => subleaf: u32,
        /// Else the result holds for every subleaf.
        8 => subleaf_specific: u8,
        /// Else the result holds only where the hypervisor has no value of its own.
        9 => always_override: u8,
        10 => padding: u16,
        12 => eax: u32,
        16 => eax_mask: u32,
        20 => ebx: u32,
        24 => ebx_mask: u32,
        28 => ecx: u32,
        32 => ecx_mask: u32,
        36 => edx: u32,
        40 => edx_mask: u32,
    }

    /// What access to an unimplemented MSR shall do.
    #[doc(alias = "hv_register_x64_msr_result_parameters")]
    pub struct MsrResultParameters: 12 {
        0 => msr_index: u32,
        4 => access_type: InterceptAccessMask,
        8 => action: UnimplementedMsrAction,
    }

    /// Header of `GetVpCpuidValues`; each repetition adds a [`CpuidLeafInfo`] and outputs a [`CpuidResult`].
    #[doc(alias = "hv_input_get_vp_cpuid_values")]
    pub struct GetVpCpuidValuesInput: 24 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => flags: CpuidValuesFlags,
        16 => reserved: u32,
        20 => padding: u32,
    }

    /// What to ask CPUID.
    #[doc(alias = "hv_cpuid_leaf_info")]
    pub struct CpuidLeafInfo: 24 {
        0 => eax: u32,
        4 => ecx: u32,
        8 => xfem: u64,
        16 => xss: u64,
    }

    /// What CPUID answers.
    #[doc(alias = "hv_output_get_vp_cpuid_values")]
    pub struct CpuidResult: 16 {
        0 => eax: u32,
        4 => ebx: u32,
        8 => ecx: u32,
        12 => edx: u32,
    }
}

flag_set! {
    /// Accesses that intercept.
    #[doc(alias = "HV_INTERCEPT_ACCESS_TYPE_MASK")]
    pub struct InterceptAccessMask(u32) {
        READ = 1 << 0,
        WRITE = 1 << 1,
        EXECUTE = 1 << 2,
    }

    /// How CPUID values are made.
    #[doc(alias = "hv_get_vp_cpuid_values_flags")]
    pub struct CpuidValuesFlags(u32) {
        USE_VP_XFEM_XSS = 1 << 0,
        APPLY_REGISTERED_VALUES = 1 << 1,
    }
}

open_enum! {
    /// What intercepts (`TLFS datatypes/hv_intercept_type`).
    #[doc(alias = "hv_intercept_type")]
    pub struct InterceptType(u32) {
        X64_IO_PORT = 0x0,
        X64_MSR = 0x1,
        X64_CPUID = 0x2,
        EXCEPTION = 0x3,
        MMIO = 0x5,
        X64_GLOBAL_CPUID = 0x6,
        X64_APIC_SMI = 0x7,
        HYPERCALL = 0x8,
        X64_APIC_INIT_SIPI = 0x9,
        MC_UPDATE_PATCH_LEVEL_MSR_READ = 0xa,
        X64_APIC_WRITE = 0xb,
        X64_MSR_INDEX = 0xc,
        UNKNOWN_SYNIC_CONNECTION = 0xd,
        X64_APIC_EOI = 0xe,
        RETARGET_INTERRUPT_WITH_UNKNOWN_DEVICE_ID = 0xf,
        X64_EXCEPTION_TRAP = 0x10,
        X64_IO_PORT_RANGE = 0x11,
        INVALID = 0xffff_ffff,
    }

    /// What access to an unimplemented MSR does.
    #[doc(alias = "HV_UNIMPLEMENTED_MSR_ACTION")]
    pub struct UnimplementedMsrAction(u32) {
        FAULT = 0,
        IGNORE_WRITE_READ_ZERO = 1,
    }
}
