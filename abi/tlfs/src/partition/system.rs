//! Calls about the whole system: properties, logical processors, events and sleep.

use crate::ids::LpIndex;

wire! {
    /// A proximity domain and how binding it is.
    #[doc(alias = "hv_proximity_domain_info")]
    pub struct ProximityDomainInfo: 8 {
        0 => domain_id: u32,
        4 => flags: ProximityFlags,
    }

    /// Input of `GetSystemProperty`.
    #[doc(alias = "hv_input_get_system_property")]
    pub struct GetSystemPropertyInput: 16 {
        0 => property_id: SystemProperty,
        4 => reserved: u32,
        8 => argument: u64,
    }

    /// Output of `GetSystemProperty`: a [`SchedulerType`], a [`PfnRange`] or a number.
    #[doc(alias = "hv_output_get_system_property")]
    pub struct GetSystemPropertyOutput: 8 {
        0 => value: u64,
    }

    /// The value of `SystemProperty::SLEEP_STATE`, at the start of the set call's data.
    #[doc(alias = "hv_sleep_state_info")]
    pub struct SleepStateInfo: 8 {
        0 => sleep_state: SleepState,
        /// SLP_TYP for PM1a_CNT.
        4 => pm1a_slp_typ: u8,
        /// SLP_TYP for PM1b_CNT.
        5 => pm1b_slp_typ: u8,
        6 => reserved: u16,
    }

    /// Input of `SetSystemProperty`, with the only value that Linux sets.
    #[doc(alias = "hv_input_set_system_property")]
    pub struct SetSystemPropertyInput: 72 {
        0 => property_id: SystemProperty,
        4 => reserved: u32,
        8 => sleep_state_info: SleepStateInfo,
        16 => reserved_data: [u64; 7],
    }

    /// Input of `EnterSleepState`, which does not return if it succeeds.
    #[doc(alias = "hv_input_enter_sleep_state")]
    pub struct EnterSleepStateInput: 4 {
        0 => sleep_state: SleepState,
    }

    /// Input of `GetLogicalProcessorRunTime`.
    #[doc(alias = "hv_input_get_logical_processor_run_time")]
    pub struct GetLogicalProcessorRunTimeInput: 4 {
        0 => lp_index: LpIndex,
    }

    /// Output of `GetLogicalProcessorRunTime`, in 100 ns.
    #[doc(alias = "hv_output_get_logical_processor_run_time")]
    pub struct GetLogicalProcessorRunTimeOutput: 32 {
        0 => global_time: u64,
        8 => local_run_time: u64,
        16 => reserved: u64,
        24 => hypervisor_time: u64,
    }

    /// Input of `AddLogicalProcessor`.
    #[doc(alias = "hv_input_add_logical_processor")]
    pub struct AddLogicalProcessorInput: 16 {
        0 => lp_index: LpIndex,
        4 => apic_id: u32,
        8 => proximity_domain_info: ProximityDomainInfo,
    }

    /// Output of `AddLogicalProcessor`: how starting it went.
    #[doc(alias = "hv_lp_startup_status")]
    #[doc(alias = "hv_output_add_logical_processor")]
    pub struct AddLogicalProcessorOutput: 56 {
        0 => hv_status: u64,
        8 => substatus: [u64; 6],
    }

    /// Input of `NotifyPartitionEvent`.
    #[doc(alias = "hv_input_notify_partition_event")]
    pub struct NotifyPartitionEventInput: 8 {
        0 => event: PartitionEvent,
        /// Of a crash: what the root is about to do.
        4 => crashdump_action: u32,
    }
}

bit_word! {
    /// How binding a proximity domain is.
    #[doc(alias = "hv_proximity_domain_flags")]
    pub struct ProximityFlags(u32) {
        pub preferred: bool,
        #[bits(30)]
        pub reserved: u32,
        /// The domain is meant; else any will do.
        pub valid: bool,
    }

    /// A run of pages, as `SystemProperty::CRASH_DUMP_AREA` returns it.
    #[doc(alias = "hv_pfn_range")]
    pub struct PfnRange(u64) {
        #[bits(40)]
        pub base_page: u64,
        #[bits(24)]
        pub additional_pages: u32,
    }
}

open_enum! {
    /// A property of the system.
    #[doc(alias = "hv_system_property")]
    pub struct SystemProperty(u32) {
        SLEEP_STATE = 3,
        SCHEDULER_TYPE = 15,
        DYNAMIC_PROCESSOR_FEATURE = 21,
        CRASH_DUMP_AREA = 47,
    }

    /// Who schedules virtual processors.
    #[doc(alias = "hv_scheduler_type")]
    pub struct SchedulerType(u32) {
        /// Classic, without SMT.
        LP = 1,
        /// Classic, with SMT.
        LP_SMT = 2,
        CORE_SMT = 3,
        /// The root, by `DispatchVp`.
        ROOT = 4,
    }

    /// A sleep state of ACPI.
    #[doc(alias = "hv_sleep_state")]
    pub struct SleepState(u32) {
        S1 = 1,
        S2 = 2,
        S3 = 3,
        S4 = 4,
        S5 = 5,
        /// Refuse registrations from here on.
        LOCK = 6,
    }

    /// An event that the root reports.
    #[doc(alias = "hv_partition_event")]
    pub struct PartitionEvent(u32) {
        ROOT_CRASHDUMP = 2,
        ALL_LOGICAL_PROCESSORS_STARTED = 4,
    }
}
