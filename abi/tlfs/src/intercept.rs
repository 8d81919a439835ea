//! Payloads of intercept messages, which tell the parent what a child's processor did.
//!
//! Linux's header has only the ones that its kernel reads; the others are those of the bindings that the
//! root's virtual machine monitors use.

use crate::{
    ids::VpIndex,
    register::{RegisterName, RegisterValue, SegmentRegister},
    vp::CacheType,
};

wire! {
    /// The head of most intercept messages: where the processor was.
    ///
    /// RIP is that of the intercepting instruction; who completes it adds the instruction length.
    #[doc(alias = "hv_x64_intercept_message_header")]
    pub struct InterceptHeader: 40 {
        0 => vp_index: VpIndex,
        4 => instruction: InstructionInfo,
        5 => access_type: InterceptAccess,
        6 => execution_state: ExecutionState,
        8 => cs: SegmentRegister,
        24 => rip: u64,
        32 => rflags: u64,
    }

    /// `MessageType::UNMAPPED_GPA` and `GPA_INTERCEPT`.
    #[doc(alias = "hv_x64_memory_intercept_message")]
    pub struct MemoryIntercept: 80 {
        0 => header: InterceptHeader,
        40 => cache_type: CacheType,
        44 => instruction_byte_count: u8,
        45 => access_info: MemoryAccessInfo,
        46 => tpr_priority: u8,
        47 => reserved: u8,
        /// In bytes, not pages.
        48 => guest_virtual_address: u64,
        /// In bytes, not pages.
        56 => guest_physical_address: u64,
        64 => instruction_bytes: [u8; 16],
    }

    /// `MessageType::X64_IO_PORT_INTERCEPT`.
    #[doc(alias = "hv_x64_io_port_intercept_message")]
    pub struct IoPortIntercept: 128 {
        0 => header: InterceptHeader,
        40 => port_number: u16,
        42 => access_info: IoPortAccessInfo,
        43 => instruction_byte_count: u8,
        44 => reserved: u32,
        48 => rax: u64,
        56 => instruction_bytes: [u8; 16],
        72 => ds: SegmentRegister,
        88 => es: SegmentRegister,
        104 => rcx: u64,
        112 => rsi: u64,
        120 => rdi: u64,
    }

    /// `MessageType::X64_MSR_INTERCEPT`.
    #[doc(alias = "hv_x64_msr_intercept_message")]
    pub struct MsrIntercept: 64 {
        0 => header: InterceptHeader,
        40 => msr_number: u32,
        44 => reserved: u32,
        48 => rdx: u64,
        56 => rax: u64,
    }

    /// `MessageType::X64_CPUID_INTERCEPT`.
    #[doc(alias = "hv_x64_cpuid_intercept_message")]
    pub struct CpuidIntercept: 104 {
        0 => header: InterceptHeader,
        40 => rax: u64,
        48 => rcx: u64,
        56 => rdx: u64,
        64 => rbx: u64,
        /// What the hypervisor would have returned.
        72 => default_result_rax: u64,
        80 => default_result_rcx: u64,
        88 => default_result_rdx: u64,
        96 => default_result_rbx: u64,
    }

    /// `MessageType::X64_EXCEPTION_INTERCEPT`.
    #[doc(alias = "hv_x64_exception_intercept_message")]
    pub struct ExceptionIntercept: 240 {
        0 => header: InterceptHeader,
        40 => exception_vector: u16,
        42 => exception_info: ExceptionInfo,
        43 => instruction_byte_count: u8,
        44 => error_code: u32,
        /// CR2 of a page fault, DR6 of a debug exception.
        48 => exception_parameter: u64,
        56 => reserved: u64,
        64 => instruction_bytes: [u8; 16],
        80 => ds: SegmentRegister,
        96 => ss: SegmentRegister,
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        112 => gp: [u64; 16],
    }

    /// `MessageType::HYPERCALL_INTERCEPT`.
    #[doc(alias = "hv_x64_hypercall_intercept_message")]
    pub struct HypercallIntercept: 200 {
        0 => header: InterceptHeader,
        40 => rax: u64,
        48 => rbx: u64,
        56 => rcx: u64,
        64 => rdx: u64,
        72 => r8: u64,
        80 => rsi: u64,
        88 => rdi: u64,
        /// XMM0 to XMM5, low half first.
        96 => xmm: [[u64; 2]; 6],
        /// Bit 0: the partition is isolated.
        192 => isolated: u32,
        196 => reserved: u32,
    }

    /// `MessageType::REGISTER_INTERCEPT`.
    #[doc(alias = "hv_x64_register_intercept_message")]
    pub struct RegisterIntercept: 64 {
        0 => header: InterceptHeader,
        /// Bit 0: the value moves to or from memory.
        40 => flags: u8,
        41 => reserved8: u8,
        42 => reserved16: u16,
        44 => register_name: RegisterName,
        /// The value, or the address or register that it moves to or from.
        48 => access_info: RegisterValue,
    }

    /// `MessageType::UNRECOVERABLE_EXCEPTION` (a triple fault) and `X64_HALT`: the head alone.
    #[doc(alias = "hv_x64_unrecoverable_exception_message")]
    #[doc(alias = "hv_x64_halt_message")]
    pub struct HeaderIntercept: 40 {
        0 => header: InterceptHeader,
    }

    /// `MessageType::INVALID_VP_REGISTER_VALUE`.
    #[doc(alias = "hv_x64_invalid_vp_register_message")]
    pub struct InvalidVpRegister: 8 {
        0 => vp_index: VpIndex,
        4 => reserved: u32,
    }

    /// `MessageType::UNSUPPORTED_FEATURE`.
    #[doc(alias = "hv_x64_unsupported_feature_message")]
    pub struct UnsupportedFeature: 16 {
        0 => vp_index: VpIndex,
        4 => feature_code: UnsupportedFeatureCode,
        8 => feature_parameter: u64,
    }

    /// `MessageType::X64_APIC_EOI`.
    #[doc(alias = "hv_x64_apic_eoi_message")]
    pub struct ApicEoi: 8 {
        0 => vp_index: VpIndex,
        4 => interrupt_vector: u32,
    }

    /// `MessageType::X64_INTERRUPTION_DELIVERABLE`.
    #[doc(alias = "hv_x64_interruption_deliverable_message")]
    pub struct InterruptionDeliverable: 48 {
        0 => header: InterceptHeader,
        /// An `InterruptionType`: an interrupt or an NMI.
        40 => deliverable_type: u32,
        44 => reserved: u32,
    }

    /// `MessageType::SYNIC_SINT_DELIVERABLE`.
    #[doc(alias = "hv_x64_sint_deliverable_message")]
    pub struct SintDeliverable: 48 {
        0 => header: InterceptHeader,
        /// A bit for each source whose message slot is free.
        40 => deliverable_sints: u16,
        42 => reserved1: u16,
        44 => reserved2: u32,
    }

    /// `MessageType::X64_SIPI_INTERCEPT`.
    #[doc(alias = "hv_x64_sipi_intercept_message")]
    pub struct SipiIntercept: 48 {
        0 => header: InterceptHeader,
        40 => target_vp_index: VpIndex,
        44 => interrupt_vector: u32,
    }

    /// `MessageType::OPAQUE_INTERCEPT`: the intercept page of this processor holds the message.
    #[doc(alias = "hv_opaque_intercept_message")]
    pub struct OpaqueIntercept: 4 {
        0 => vp_index: VpIndex,
    }
}

bit_word! {
    /// Length of the instruction, and CR8.
    pub struct InstructionInfo(u8) {
        /// In bytes; 0 if not known.
        #[bits(4)]
        pub length: u8,
        #[bits(4)]
        pub cr8: u8,
    }

    /// What the processor was doing.
    #[doc(alias = "hv_x64_vp_execution_state")]
    pub struct ExecutionState(u16) {
        #[bits(2)]
        pub cpl: u8,
        pub cr0_pe: bool,
        pub cr0_am: bool,
        pub efer_lma: bool,
        pub debug_active: bool,
        pub interruption_pending: bool,
        #[bits(4)]
        pub vtl: u8,
        pub enclave_mode: bool,
        pub interrupt_shadow: bool,
        pub virtualization_fault_active: bool,
        #[bits(2)]
        pub reserved: u8,
    }

    /// What is known of a memory access.
    #[doc(alias = "hv_x64_memory_access_info")]
    pub struct MemoryAccessInfo(u8) {
        pub gva_valid: bool,
        /// The virtual address maps to the physical one.
        pub gva_gpa_valid: bool,
        pub hypercall_output_pending: bool,
        pub tlb_locked_no_overlay: bool,
        #[bits(4)]
        pub reserved: u8,
    }

    /// What is known of an access to a port.
    #[doc(alias = "hv_x64_io_port_access_info")]
    pub struct IoPortAccessInfo(u8) {
        /// 1, 2 or 4 bytes.
        #[bits(3)]
        pub access_size: u8,
        pub string_op: bool,
        pub rep_prefix: bool,
        #[bits(3)]
        pub reserved: u8,
    }

    /// What is known of an exception.
    #[doc(alias = "hv_x64_exception_info")]
    pub struct ExceptionInfo(u8) {
        pub error_code_valid: bool,
        pub software_exception: bool,
        #[bits(6)]
        pub reserved: u8,
    }
}

open_enum! {
    /// The access that intercepted.
    #[doc(alias = "hv_intercept_access_type")]
    pub struct InterceptAccess(u8) {
        READ = 0,
        WRITE = 1,
        EXECUTE = 2,
    }

    /// A feature that the hypervisor does not virtualize.
    #[doc(alias = "HV_UNSUPPORTED_FEATURE_CODE")]
    pub struct UnsupportedFeatureCode(u32) {
        INTERCEPT = 1,
        TASK_SWITCH_TSS = 2,
    }
}
