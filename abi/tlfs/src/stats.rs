//! Statistics pages: whose they are, and which word means what.
//!
//! A page is 512 words of 64 bits. Times are in 100 ns.

use crate::ids::{LpIndex, PartitionId, VpIndex};

wire! {
    /// Input of `MapStatsPage` and `UnmapStatsPage`.
    #[doc(alias = "hv_input_map_stats_page")]
    #[doc(alias = "hv_input_unmap_stats_page")]
    pub struct StatsPageInput: 24 {
        0 => object_type: StatsObjectType,
        4 => padding: u32,
        8 => identity: StatsIdentity,
    }

    /// Input of `MapStatsPage2`.
    #[doc(alias = "hv_input_map_stats_page2")]
    pub struct MapStatsPage2Input: 32 {
        0 => object_type: StatsObjectType,
        4 => padding: u32,
        8 => identity: StatsIdentity,
        /// Page number in the caller.
        24 => map_location: u64,
    }

    /// Output of `MapStatsPage`.
    #[doc(alias = "hv_output_map_stats_page")]
    pub struct MapStatsPageOutput: 8 {
        /// Page number in the caller.
        0 => map_location: u64,
    }

    /// Whose statistics; everything but the area depends on the type.
    #[doc(alias = "hv_stats_object_identity")]
    pub struct StatsIdentity: 16 {
        /// A partition, or a logical processor in the low half.
        0 => object: u64,
        /// Of a virtual processor.
        8 => vp_index: VpIndex,
        12 => flags: u16,
        14 => reserved: u8,
        15 => area: StatsArea,
    }
}

impl StatsIdentity {
    /// As a partition or a virtual processor of it.
    #[must_use]
    pub const fn partition_id(&self) -> PartitionId {
        PartitionId(self.object)
    }

    /// As a logical processor.
    #[must_use]
    pub const fn lp_index(&self) -> LpIndex {
        LpIndex(self.object as u32)
    }
}

open_enum! {
    /// What statistics are about.
    #[doc(alias = "hv_stats_object_type")]
    pub struct StatsObjectType(u32) {
        HYPERVISOR = 0x0000_0001,
        LOGICAL_PROCESSOR = 0x0000_0002,
        PARTITION = 0x0001_0001,
        VP = 0x0001_0002,
    }

    /// Who may see them.
    #[doc(alias = "hv_stats_area_type")]
    pub struct StatsArea(u8) {
        SELF = 0,
        PARENT = 1,
        INTERNAL = 2,
    }

    /// Words of the hypervisor's page.
    pub struct HypervisorCounter(u16) {
        /// Linux maps the page of so many processors.
        LOGICAL_PROCESSORS = 1,
        PARTITIONS = 2,
        TOTAL_PAGES = 3,
        VIRTUAL_PROCESSORS = 4,
        MONITORED_NOTIFICATIONS = 5,
        MODERN_STANDBY_ENTRIES = 6,
        PLATFORM_IDLE_TRANSITIONS = 7,
        HYPERVISOR_STARTUP_COST = 8,
        IO_SPACE_PAGES = 10,
        NON_ESSENTIAL_PAGES_FOR_DUMP = 11,
        SUBSUMED_PAGES = 12,
    }

    /// Words of a logical processor's page.
    pub struct LpCounter(u16) {
        GLOBAL_TIME = 1,
        TOTAL_RUN_TIME = 2,
        HYPERVISOR_RUN_TIME = 3,
        HARDWARE_INTERRUPTS = 4,
        CONTEXT_SWITCHES = 5,
        INTER_PROCESSOR_INTERRUPTS = 6,
        SCHEDULER_INTERRUPTS = 7,
        TIMER_INTERRUPTS = 8,
        INTER_PROCESSOR_INTERRUPTS_SENT = 9,
        PROCESSOR_HALTS = 10,
        CONTEXT_SWITCH_TIME = 12,
        ROOT_VP_INDEX = 19,
        GLOBAL_TSC_COUNT = 21,
        ACTIVE_TSC_COUNT = 22,
        PROXIMITY_DOMAIN_ID = 28,
    }

    /// Words of a partition's page.
    pub struct PartitionCounter(u16) {
        VIRTUAL_PROCESSORS = 1,
        TLB_SIZE = 3,
        ADDRESS_SPACES = 4,
        DEPOSITED_PAGES = 5,
        GPA_PAGES = 6,
        GPA_SPACE_MODIFICATIONS = 7,
        VIRTUAL_TLB_FLUSH_ENTRIES = 8,
        RECOMMENDED_TLB_SIZE = 9,
        GPA_PAGES_4K = 10,
        GPA_PAGES_2M = 11,
        GPA_PAGES_1G = 12,
        DEVICE_PAGES_4K = 14,
        DEVICE_PAGES_2M = 15,
        DEVICE_PAGES_1G = 16,
        ATTACHED_DEVICES = 18,
        DEVICE_INTERRUPT_MAPPINGS = 19,
        PARTITION_ID = 26,
        PAGES_SHATTERED = 31,
        PAGES_RECOMBINED = 32,
    }

    /// Words of a virtual processor's page.
    pub struct VpCounter(u16) {
        TOTAL_RUN_TIME = 1,
        HYPERVISOR_RUN_TIME = 2,
        REMOTE_NODE_RUN_TIME = 3,
        NORMALIZED_RUN_TIME = 4,
        IDEAL_CPU = 5,
        HYPERCALLS_COUNT = 7,
        HYPERCALLS_TIME = 8,
        PAGE_INVALIDATIONS_COUNT = 9,
        PAGE_INVALIDATIONS_TIME = 10,
        CONTROL_REGISTER_ACCESSES_COUNT = 11,
        CONTROL_REGISTER_ACCESSES_TIME = 12,
        IO_INSTRUCTIONS_COUNT = 13,
        IO_INSTRUCTIONS_TIME = 14,
        HLT_INSTRUCTIONS_COUNT = 15,
        HLT_INSTRUCTIONS_TIME = 16,
        MWAIT_INSTRUCTIONS_COUNT = 17,
        MWAIT_INSTRUCTIONS_TIME = 18,
        CPUID_INSTRUCTIONS_COUNT = 19,
        CPUID_INSTRUCTIONS_TIME = 20,
        MSR_ACCESSES_COUNT = 21,
        MSR_ACCESSES_TIME = 22,
        OTHER_INTERCEPTS_COUNT = 23,
        OTHER_INTERCEPTS_TIME = 24,
        EXTERNAL_INTERRUPTS_COUNT = 25,
        EXTERNAL_INTERRUPTS_TIME = 26,
        PENDING_INTERRUPTS_COUNT = 27,
        PENDING_INTERRUPTS_TIME = 28,
        EMULATED_INSTRUCTIONS_COUNT = 29,
        EMULATED_INSTRUCTIONS_TIME = 30,
        DEBUG_REGISTER_ACCESSES_COUNT = 31,
        DEBUG_REGISTER_ACCESSES_TIME = 32,
        PAGE_FAULT_INTERCEPTS_COUNT = 33,
        PAGE_FAULT_INTERCEPTS_TIME = 34,
        IO_INTERCEPT_MESSAGES = 40,
        MEMORY_INTERCEPT_MESSAGES = 41,
        APIC_EOI_ACCESSES = 42,
        OTHER_MESSAGES = 43,
        LOGICAL_PROCESSOR_MIGRATIONS = 45,
        SYNTHETIC_INTERRUPTS = 58,
        VIRTUAL_INTERRUPTS = 59,
        APIC_IPIS_SENT = 60,
        APIC_SELF_IPIS_SENT = 61,
        GPA_SPACE_HYPERCALLS = 62,
        LOGICAL_PROCESSOR_HYPERCALLS = 63,
        LONG_SPIN_WAIT_HYPERCALLS = 64,
        OTHER_HYPERCALLS = 65,
        SYNTHETIC_INTERRUPT_HYPERCALLS = 66,
        VIRTUAL_INTERRUPT_HYPERCALLS = 67,
        VIRTUAL_MMU_HYPERCALLS = 68,
        VIRTUAL_PROCESSOR_HYPERCALLS = 69,
        HARDWARE_INTERRUPTS = 70,
        NESTED_PAGE_FAULT_INTERCEPTS_COUNT = 71,
        NESTED_PAGE_FAULT_INTERCEPTS_TIME = 72,
        LOGICAL_PROCESSOR_DISPATCHES = 74,
        WAITING_FOR_CPU_TIME = 75,
        EXTENDED_HYPERCALLS = 76,
        /// Linux defers waking the dispatching thread while it is not zero.
        ROOT_DISPATCH_THREAD_BLOCKED = 202,
    }
}

/// Words of a page.
pub const STATS_PAGE_WORDS: usize = crate::PAGE_SIZE / 8;
