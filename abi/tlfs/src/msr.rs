//! Synthetic model specific registers: numbers, contents, and the pages that they place.

use crate::partition::Privileges;

/// Identity of the guest; zero disables the hypercall page. Contents: [`GuestOsId`].
pub const GUEST_OS_ID: u32 = 0x4000_0000;
/// Contents: [`HypercallMsr`].
pub const HYPERCALL: u32 = 0x4000_0001;
/// Read only.
pub const VP_INDEX: u32 = 0x4000_0002;
/// Writing bit 0 resets the machine.
pub const RESET: u32 = 0x4000_0003;
/// Time that the processor ran, in 100 ns. Read only.
pub const VP_RUNTIME: u32 = 0x4000_0010;
/// Partition reference time, in 100 ns. Read only.
pub const TIME_REF_COUNT: u32 = 0x4000_0020;
/// Contents: [`OverlayPageMsr`]; page: [`ReferenceTscPage`].
pub const REFERENCE_TSC: u32 = 0x4000_0021;
/// In hertz. Read only.
pub const TSC_FREQUENCY: u32 = 0x4000_0022;
/// In hertz. Read only.
pub const APIC_FREQUENCY: u32 = 0x4000_0023;
/// Non-privileged instruction execution prevention.
pub const NPIEP_CONFIG: u32 = 0x4000_0040;
/// Write only.
pub const EOI: u32 = 0x4000_0070;
/// ICR high in the high half, ICR low in the low half.
pub const ICR: u32 = 0x4000_0071;
/// Task priority.
pub const TPR: u32 = 0x4000_0072;
/// Contents: [`OverlayPageMsr`]; page: [`VpAssistPage`].
pub const VP_ASSIST_PAGE: u32 = 0x4000_0073;
/// Contents: [`Scontrol`].
pub const SCONTROL: u32 = 0x4000_0080;
/// Read only; [`SYNIC_VERSION`].
pub const SVERSION: u32 = 0x4000_0081;
/// Event flags page. Contents: [`OverlayPageMsr`].
pub const SIEFP: u32 = 0x4000_0082;
/// Message page. Contents: [`OverlayPageMsr`].
pub const SIMP: u32 = 0x4000_0083;
/// Any write ends a message: the next one pending may take the slot.
pub const EOM: u32 = 0x4000_0084;
/// Event ring page of the root. Contents: [`OverlayPageMsr`].
pub const SIRBP: u32 = 0x4000_0085;
/// The first interrupt source of 16. Contents: [`Sint`].
pub const SINT0: u32 = 0x4000_0090;
/// The last interrupt source.
pub const SINT15: u32 = 0x4000_009f;
/// The first of four pairs, configuration and count. Contents: [`StimerConfig`].
pub const STIMER0_CONFIG: u32 = 0x4000_00b0;
/// Expiration or period, in 100 ns.
pub const STIMER0_COUNT: u32 = 0x4000_00b1;
/// The last of the four pairs.
pub const STIMER3_CONFIG: u32 = 0x4000_00b6;
/// The last of the four pairs.
pub const STIMER3_COUNT: u32 = 0x4000_00b7;
/// The first of nine power state MSRs.
pub const POWER_STATE_TRIGGER_C1: u32 = 0x4000_00c1;
/// A read idles the processor until an interrupt.
pub const GUEST_IDLE: u32 = 0x4000_00f0;
/// The first of five parameters of a guest crash.
pub const CRASH_P0: u32 = 0x4000_0100;
/// The last of the five.
pub const CRASH_P4: u32 = 0x4000_0104;
/// Contents: [`CrashControl`].
pub const CRASH_CTL: u32 = 0x4000_0105;
/// Contents: [`ReenlightenmentControl`].
pub const REENLIGHTENMENT_CONTROL: u32 = 0x4000_0106;
/// Bit 0: emulate the TSC after migration.
pub const TSC_EMULATION_CONTROL: u32 = 0x4000_0107;
/// Bit 0: emulation is in progress.
pub const TSC_EMULATION_STATUS: u32 = 0x4000_0108;
/// Contents: [`StimeUnhaltedTimerConfig`].
pub const STIME_UNHALTED_TIMER_CONFIG: u32 = 0x4000_0114;
/// Period, in 100 ns.
pub const STIME_UNHALTED_TIMER_COUNT: u32 = 0x4000_0115;
/// Bit 0: expose the invariant TSC.
pub const TSC_INVARIANT_CONTROL: u32 = 0x4000_0118;
/// Added to the numbers of the interrupt controller's MSRs to address the hypervisor below.
pub const NESTED_OFFSET: u32 = 0x1000;

/// The value of [`SVERSION`].
#[doc(alias = "HV_SYNIC_VERSION_1")]
pub const SYNIC_VERSION: u64 = 1;
/// The lowest vector that a [`Sint`] or a direct timer may name.
#[doc(alias = "HV_SYNIC_FIRST_VALID_VECTOR")]
pub const FIRST_VALID_VECTOR: u8 = 16;
/// Synthetic timers of one virtual processor.
#[doc(alias = "HV_SYNIC_STIMER_COUNT")]
pub const STIMER_COUNT: usize = 4;

bit_word! {
    /// [`GUEST_OS_ID`] of an open source system; a proprietary one has `open_source` clear and fields of
    /// its own in the low half.
    #[doc(alias = "HV_LINUX_VENDOR_ID")]
    pub struct GuestOsId(u64) {
        pub build: u16,
        pub version: u32,
        pub os_id: u8,
        #[bits(7)]
        pub os_type: u8,
        pub open_source: bool,
    }

    /// [`HYPERCALL`].
    #[doc(alias = "hv_x64_msr_hypercall_contents")]
    pub struct HypercallMsr(u64) {
        pub enable: bool,
        /// Further writes fault until the processor is reset.
        pub locked: bool,
        #[bits(10)]
        pub reserved: u16,
        /// Of the hypercall page.
        #[bits(52)]
        pub gpa_page_number: u64,
    }

    /// The MSRs that place one page: [`REFERENCE_TSC`], [`VP_ASSIST_PAGE`], [`SIEFP`], [`SIMP`], [`SIRBP`].
    #[doc(alias = "hv_reference_tsc_msr")]
    #[doc(alias = "hv_vp_assist_msr_contents")]
    #[doc(alias = "hv_synic_simp")]
    #[doc(alias = "hv_synic_siefp")]
    #[doc(alias = "hv_synic_sirbp")]
    pub struct OverlayPageMsr(u64) {
        pub enable: bool,
        #[bits(11)]
        pub preserved: u16,
        #[bits(52)]
        pub gpa_page_number: u64,
    }

    /// [`SCONTROL`].
    #[doc(alias = "hv_synic_scontrol")]
    pub struct Scontrol(u64) {
        pub enable: bool,
        #[bits(63)]
        pub preserved: u64,
    }

    /// [`SINT0`] to [`SINT15`]; masked after reset, see [`Sint::RESET`].
    #[doc(alias = "hv_synic_sint")]
    pub struct Sint(u64) {
        pub vector: u8,
        pub reserved1: u8,
        pub masked: bool,
        pub auto_eoi: bool,
        /// The guest polls: no interrupt is raised.
        pub polling: bool,
        /// Deliver as a `SYNIC_SINT_INTERCEPT` message to source 0 instead of by an interrupt.
        pub as_intercept: bool,
        pub proxy: bool,
        #[bits(43)]
        pub reserved2: u64,
    }

    /// [`STIMER0_CONFIG`] and its peers.
    #[doc(alias = "hv_stimer_config")]
    pub struct StimerConfig(u64) {
        pub enabled: bool,
        pub periodic: bool,
        pub lazy: bool,
        /// A write to the count enables the timer.
        pub auto_enable: bool,
        /// In direct mode.
        pub apic_vector: u8,
        /// Assert `apic_vector` instead of posting a message to `sint`.
        pub direct_mode: bool,
        #[bits(3)]
        pub reserved0: u8,
        #[bits(4)]
        pub sint: u8,
        #[bits(44)]
        pub reserved1: u64,
    }

    /// [`STIME_UNHALTED_TIMER_CONFIG`].
    pub struct StimeUnhaltedTimerConfig(u64) {
        /// 2 for an NMI, else at least [`FIRST_VALID_VECTOR`].
        pub vector: u8,
        pub enabled: bool,
        #[bits(55)]
        pub reserved: u64,
    }

    /// [`CRASH_CTL`]. Reading it tells what is supported.
    #[doc(alias = "HV_CRASH_CTL_REG_CONTENTS")]
    pub struct CrashControl(u64) {
        #[bits(58)]
        pub reserved: u64,
        #[bits(3)]
        pub pre_os_id: u8,
        pub no_crash_dump: bool,
        /// P3 is the address and P4 the length of a message.
        pub crash_message: bool,
        pub crash_notify: bool,
    }

    /// [`REENLIGHTENMENT_CONTROL`].
    #[doc(alias = "hv_reenlightenment_control")]
    pub struct ReenlightenmentControl(u64) {
        pub vector: u8,
        pub reserved1: u8,
        pub enabled: bool,
        #[bits(15)]
        pub reserved2: u16,
        pub target_vp: u32,
    }
}

impl Sint {
    /// The value after reset.
    pub const RESET: Self = Self::new().with_masked(true);
}

wire! {
    /// The page of [`REFERENCE_TSC`]: time in 100 ns = (TSC × scale ≫ 64) + offset.
    ///
    /// The rest of the page is zero.
    #[doc(alias = "ms_hyperv_tsc_page")]
    pub struct ReferenceTscPage: 24 {
        /// Changes with every update; see [`ReferenceTscPage::SEQUENCE_INVALID`].
        0 => sequence: u32,
        4 => reserved: u32,
        8 => scale: u64,
        16 => offset: i64,
    }

    /// The page of [`VP_ASSIST_PAGE`]; the rest of the page is zero.
    #[doc(alias = "hv_vp_assist_page")]
    pub struct VpAssistPage: 624 {
        /// Bit 0: the guest may skip the EOI; it clears the bit when it does.
        0 => apic_assist: u32,
        4 => reserved1: u32,
        8 => vtl_entry_reason: u32,
        12 => vtl_reserved: u32,
        16 => vtl_return_rax: u64,
        24 => vtl_return_rcx: u64,
        32 => nested_enlightenments_control: u64,
        40 => enlighten_vm_entry: u8,
        41 => reserved2: [u8; 7],
        48 => current_nested_vmcs: u64,
        56 => synthetic_time_unhalted_timer_expired: u8,
        57 => reserved3: [u8; 7],
        64 => virtualization_fault_information: [u8; 40],
        104 => reserved4: u64,
        112 => intercept_message: [u8; 256],
        368 => vtl_return_actions: [u8; 256],
    }
}

impl ReferenceTscPage {
    /// The page must not be used: read [`TIME_REF_COUNT`] instead.
    pub const SEQUENCE_INVALID: u32 = 0;
}

/// What a partition may do that it has the MSR (`TLFS datatypes/HV_PARTITION_PRIVILEGE_MASK`). `None`: that depends on
/// a feature, not on a privilege.
#[must_use]
pub const fn privilege(number: u32) -> Option<Privileges> {
    type P = Privileges;
    Some(match number {
        EOI | ICR | TPR | VP_ASSIST_PAGE => P::ACCESS_INTR_CTRL_REGS,
        STIMER0_CONFIG..=STIMER3_COUNT => P::ACCESS_SYNTHETIC_TIMER_REGS,
        SCONTROL..=SINT15 => P::ACCESS_SYNIC_REGS,
        GUEST_IDLE => P::ACCESS_GUEST_IDLE_REG,
        TIME_REF_COUNT => P::ACCESS_PARTITION_REFERENCE_COUNTER,
        REFERENCE_TSC => P::ACCESS_PARTITION_REFERENCE_TSC,
        GUEST_OS_ID | HYPERCALL => P::ACCESS_HYPERCALL_MSRS,
        VP_INDEX => P::ACCESS_VP_INDEX,
        RESET => P::ACCESS_RESET_REG,
        VP_RUNTIME => P::ACCESS_VP_RUN_TIME_REG,
        TSC_FREQUENCY | APIC_FREQUENCY => P::ACCESS_FREQUENCY_REGS,
        _ => return None,
    })
}
