//! Virtual processors: creation, registers, state, dispatch, injected interrupts.

mod intercept;
mod page;
mod start;

pub use intercept::{
    CpuidLeafInfo, CpuidResult, CpuidResultParameters, CpuidValuesFlags, GetVpCpuidValuesInput,
    InstallInterceptInput, InterceptAccessMask, InterceptType, MsrResultParameters,
    RegisterInterceptResultInput, UnimplementedMsrAction,
};
pub use page::{InterruptVectors, LocalApicState, RegisterClasses, VpRegisterPage};
pub use start::{ApicId, GetVpIndexFromApicIdInput, InitialVpContext, StartVirtualProcessorInput};

use crate::{
    ids::{PartitionId, VpIndex},
    partition::ProximityDomainInfo,
    register::RegisterName,
};

wire! {
    /// Input of `CreateVp`.
    #[doc(alias = "hv_create_vp")]
    pub struct CreateVpInput: 40 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => padding: [u8; 3],
        /// 0 for any.
        15 => subnode_type: u8,
        16 => subnode_id: u64,
        24 => proximity_domain_info: ProximityDomainInfo,
        /// Of a processor of the root: its logical processor.
        32 => flags: u64,
    }

    /// Input of `DeleteVp`, commonly fast.
    #[doc(alias = "hv_input_delete_vp")]
    pub struct DeleteVpInput: 16 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => reserved: u32,
    }

    /// Header of `GetVpRegisters` and `SetVpRegisters`. Each repetition of the former adds a
    /// [`RegisterName`] and outputs a [`crate::register::RegisterValue`]; each of the latter adds a
    /// [`crate::register::RegisterAssoc`].
    #[doc(alias = "hv_input_get_vp_registers")]
    #[doc(alias = "hv_input_set_vp_registers")]
    pub struct VpRegistersInput: 16 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => input_vtl: InputVtl,
        13 => padding: [u8; 3],
    }

    /// Input of `MapVpStatePage`.
    #[doc(alias = "hv_input_map_vp_state_page")]
    pub struct MapVpStatePageInput: 24 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => page_type: VpStatePageType,
        14 => input_vtl: InputVtl,
        /// Bit 0: the caller chooses the page.
        15 => flags: u8,
        /// Page number in the caller.
        16 => requested_map_location: u64,
    }

    /// Output of `MapVpStatePage`.
    #[doc(alias = "hv_output_map_vp_state_page")]
    pub struct MapVpStatePageOutput: 8 {
        /// Page number in the caller.
        0 => map_location: u64,
    }

    /// Input of `UnmapVpStatePage`.
    #[doc(alias = "hv_input_unmap_vp_state_page")]
    pub struct UnmapVpStatePageInput: 16 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => page_type: VpStatePageType,
        14 => input_vtl: InputVtl,
        15 => reserved: u8,
    }

    /// Header of `GetVpState` and `SetVpState`. The variable header holds page numbers in the caller if
    /// the type has [`VpStateType::BY_PAGE`], else, of the latter call, the state itself.
    #[doc(alias = "hv_input_get_vp_state")]
    #[doc(alias = "hv_input_set_vp_state")]
    pub struct VpStateInput: 40 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => input_vtl: InputVtl,
        13 => reserved: [u8; 3],
        16 => state_type: VpStateType,
        20 => reserved1: u32,
        24 => xsave_flags: u64,
        /// The states of XCR0 and IA32_XSS to transfer.
        32 => xsave_states: u64,
    }

    /// Input of `DispatchVp`.
    #[doc(alias = "hv_input_dispatch_vp")]
    pub struct DispatchVpInput: 32 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => flags: DispatchFlags,
        /// In 100 ns; Linux passes 0.
        16 => time_slice: u64,
        24 => spec_ctrl: u64,
    }

    /// Output of `DispatchVp`.
    #[doc(alias = "hv_output_dispatch_vp")]
    pub struct DispatchVpOutput: 8 {
        0 => state: DispatchState,
        4 => event: DispatchEvent,
    }

    /// Input of `AssertVirtualInterrupt`.
    #[doc(alias = "hv_input_assert_virtual_interrupt")]
    pub struct AssertVirtualInterruptInput: 32 {
        0 => partition_id: PartitionId,
        8 => control: InterruptControl,
        /// An APIC identifier, physical or logical.
        16 => destination: u64,
        24 => vector: u32,
        28 => target_vtl: InputVtl,
        29 => reserved: [u8; 3],
    }

    /// Input of `ClearVirtualInterrupt`, commonly fast.
    pub struct ClearVirtualInterruptInput: 8 {
        0 => partition_id: PartitionId,
    }

    /// Input of `TranslateVirtualAddress`.
    #[doc(alias = "hv_input_translate_virtual_address")]
    pub struct TranslateVirtualAddressInput: 32 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => padding: u32,
        16 => control_flags: TranslateFlags,
        /// Guest virtual page number.
        24 => gva_page: u64,
    }

    /// Output of `TranslateVirtualAddress`.
    #[doc(alias = "hv_output_translate_virtual_address")]
    pub struct TranslateVirtualAddressOutput: 16 {
        0 => result_code: TranslateResultCode,
        /// A [`CacheType`] in bits 7:0; bit 8: the page is an overlay.
        4 => attributes: u32,
        /// Guest physical page number.
        8 => gpa_page: u64,
    }
}

bit_word! {
    /// The trust level that a call is about.
    #[doc(alias = "hv_input_vtl")]
    pub struct InputVtl(u8) {
        #[bits(4)]
        pub target_vtl: u8,
        /// Else the level of the caller.
        pub use_target_vtl: bool,
        #[bits(3)]
        pub reserved: u8,
    }

    /// How an interrupt is delivered (`TLFS datatypes/hv_interrupt_control`).
    #[doc(alias = "hv_interrupt_control")]
    pub struct InterruptControl(u64) {
        /// One of [`InterruptType`].
        pub interrupt_type: u32,
        pub level_triggered: bool,
        pub logical_destination_mode: bool,
        #[bits(30)]
        pub reserved: u32,
    }
}

flag_set! {
    /// Flags of `DispatchVp`.
    pub struct DispatchFlags(u32) {
        CLEAR_INTERCEPT_SUSPEND = 0x1,
        ENABLE_CALLER_INTERRUPTS = 0x2,
        SET_CALLER_SPEC_CTRL = 0x4,
        SKIP_VP_SPEC_FLUSH = 0x8,
        SKIP_CALLER_SPEC_FLUSH = 0x10,
        SKIP_CALLER_USER_SPEC_FLUSH = 0x20,
        /// Inject the vectors of the register page.
        SCAN_INTERRUPT_INJECTION = 0x40,
    }

    /// What access to translate for (`TLFS datatypes/hv_translate_gva_control_flags`). Bits 63:56 hold
    /// an [`InputVtl`].
    pub struct TranslateFlags(u64) {
        VALIDATE_READ = 0x1,
        VALIDATE_WRITE = 0x2,
        VALIDATE_EXECUTE = 0x4,
        PRIVILEGE_EXEMPT = 0x8,
        SET_PAGE_TABLE_BITS = 0x10,
        TLB_FLUSH_INHIBIT = 0x20,
        SUPERVISOR_ACCESS = 0x40,
        USER_ACCESS = 0x80,
        ENFORCE_SMAP = 0x100,
        OVERRIDE_SMAP = 0x200,
        SHADOW_STACK = 0x400,
    }
}

open_enum! {
    /// A page of state shared with the root.
    #[doc(alias = "hv_vp_state_page_type")]
    pub struct VpStatePageType(u16) {
        REGISTERS = 0,
        INTERCEPT_MESSAGE = 1,
        GHCB = 2,
    }

    /// A kind of state of `GetVpState` and `SetVpState`.
    #[doc(alias = "hv_get_set_vp_state_type")]
    pub struct VpStateType(u32) {
        /// [`LocalApicState`].
        #[doc(alias = "HV_GET_SET_VP_STATE_LAPIC_STATE")]
        LOCAL_APIC = 0x8000_0000,
        /// The XSAVE area.
        XSAVE = 0x8000_0001,
        /// The message page.
        SIM_PAGE = 0x8000_0002,
        /// The event flags page.
        SIEF_PAGE = 0x8000_0003,
        /// [`crate::synic::SyntheticTimersState`].
        SYNTHETIC_TIMERS = 4,
    }

    /// Whether a dispatched processor can go on.
    #[doc(alias = "hv_vp_dispatch_state")]
    pub struct DispatchState(u32) {
        INVALID = 0,
        /// It waits; a scheduler message tells when that ends.
        BLOCKED = 1,
        READY = 2,
    }

    /// Why a dispatch returned.
    #[doc(alias = "hv_vp_dispatch_event")]
    pub struct DispatchEvent(u32) {
        /// None to report: dispatch again, or wait if blocked.
        INVALID = 0,
        SUSPEND = 1,
        /// The intercept message page holds a message.
        INTERCEPT = 2,
    }

    /// A delivery mode of the local APIC.
    #[doc(alias = "hv_interrupt_type")]
    pub struct InterruptType(u32) {
        FIXED = 0,
        LOWEST_PRIORITY = 1,
        SMI = 2,
        REMOTE_READ = 3,
        NMI = 4,
        INIT = 5,
        SIPI = 6,
        EXT_INT = 7,
        LOCAL_INT0 = 8,
        LOCAL_INT1 = 9,
    }

    /// How a translation ended.
    #[doc(alias = "HV_TRANSLATE_GVA_RESULT_CODE")]
    pub struct TranslateResultCode(u32) {
        SUCCESS = 0,
        PAGE_NOT_PRESENT = 1,
        PRIVILEGE_VIOLATION = 2,
        INVALID_PAGE_TABLE_FLAGS = 3,
        GPA_UNMAPPED = 4,
        GPA_NO_READ_ACCESS = 5,
        GPA_NO_WRITE_ACCESS = 6,
        GPA_ILLEGAL_OVERLAY_ACCESS = 7,
        INTERCEPT = 8,
        GPA_UNACCEPTED = 9,
    }

    /// A memory type, encoded as in the MTRRs and PAT.
    #[doc(alias = "HV_CACHE_TYPE")]
    pub struct CacheType(u32) {
        UNCACHED = 0,
        WRITE_COMBINING = 1,
        WRITE_THROUGH = 4,
        WRITE_PROTECTED = 5,
        WRITE_BACK = 6,
    }
}

impl VpStateType {
    /// The state is exchanged in pages of the caller, not in the input and output pages.
    #[doc(alias = "HV_GET_SET_VP_STATE_TYPE_PFN")]
    pub const BY_PAGE: u32 = 1 << 31;
}

/// Names that fit in the input page of `GetVpRegisters`, if its output page may hold as many values.
pub const GET_REGISTERS_MAX_REPS: usize = crate::PAGE_SIZE / size_of::<crate::register::RegisterValue>();
/// Elements that fit in the input page of `SetVpRegisters`.
pub const SET_REGISTERS_MAX_REPS: usize =
    (crate::PAGE_SIZE - size_of::<VpRegistersInput>()) / size_of::<crate::register::RegisterAssoc>();
/// Size of one repetition's input of `GetVpRegisters`, in bytes.
pub const REGISTER_NAME_SIZE: usize = size_of::<RegisterName>();
