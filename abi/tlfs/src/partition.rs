//! Partitions and the system: creation, properties, processors, power.

mod cpuid_feature;
mod feature;
mod system;

pub use cpuid_feature::{CPUID_FEATURES, FeatureWord};
pub use feature::{
    Privileges, ProcessorFeatures0, ProcessorFeatures1, SyntheticFeatures, VmmCapabilities, XsaveFeatures,
};
pub use system::{
    AddLogicalProcessorInput, AddLogicalProcessorOutput, EnterSleepStateInput,
    GetLogicalProcessorRunTimeInput, GetLogicalProcessorRunTimeOutput, GetSystemPropertyInput,
    GetSystemPropertyOutput, NotifyPartitionEventInput, PartitionEvent, PfnRange, ProximityDomainInfo,
    ProximityFlags, SchedulerType, SetSystemPropertyInput, SleepState, SleepStateInfo, SystemProperty,
};

use crate::ids::PartitionId;

wire! {
    /// Input of `CreatePartition`.
    #[doc(alias = "hv_input_create_partition")]
    pub struct CreatePartitionInput: 56 {
        0 => flags: CreationFlags,
        8 => proximity_domain_info: ProximityDomainInfo,
        /// See [`COMPATIBILITY_21_H2`].
        16 => compatibility_version: u32,
        20 => padding: u32,
        /// Features that the partition must not see.
        24 => disabled_processor_features0: ProcessorFeatures0,
        32 => disabled_processor_features1: ProcessorFeatures1,
        40 => disabled_xsave_features: XsaveFeatures,
        48 => isolation_properties: IsolationProperties,
    }

    /// Output of `CreatePartition` and of `GetPartitionId`.
    #[doc(alias = "hv_output_create_partition")]
    pub struct PartitionIdOutput: 8 {
        0 => partition_id: PartitionId,
    }

    /// Input of `InitializePartition`, `FinalizePartition` and `DeletePartition`, commonly fast.
    #[doc(alias = "hv_input_initialize_partition")]
    #[doc(alias = "hv_input_finalize_partition")]
    #[doc(alias = "hv_input_delete_partition")]
    pub struct PartitionIdInput: 8 {
        0 => partition_id: PartitionId,
    }

    /// Input of `GetPartitionProperty`.
    #[doc(alias = "hv_input_get_partition_property")]
    pub struct GetPartitionPropertyInput: 16 {
        0 => partition_id: PartitionId,
        8 => property_code: PropertyCode,
        12 => padding: u32,
    }

    /// Output of `GetPartitionProperty`.
    #[doc(alias = "hv_output_get_partition_property")]
    pub struct GetPartitionPropertyOutput: 8 {
        0 => value: u64,
    }

    /// Input of `SetPartitionProperty`.
    #[doc(alias = "hv_input_set_partition_property")]
    pub struct SetPartitionPropertyInput: 24 {
        0 => partition_id: PartitionId,
        8 => property_code: PropertyCode,
        12 => padding: u32,
        16 => value: u64,
    }

    /// Input of `GetPartitionPropertyEx`. The output is a structure of the property, of at most
    /// [`PROPERTY_EX_MAX_SIZE`] bytes.
    #[doc(alias = "hv_input_get_partition_property_ex")]
    pub struct GetPartitionPropertyExInput: 24 {
        0 => partition_id: PartitionId,
        8 => property_code: PropertyCode,
        12 => padding: u32,
        16 => argument: PropertyArgument,
    }

    /// `PropertyCode::VMM_CAPABILITIES`.
    #[doc(alias = "hv_partition_property_vmm_capabilities")]
    pub struct VmmCapabilitiesProperty: 16 {
        /// Banks that follow: 1.
        0 => bank_count: u16,
        2 => reserved: [u16; 3],
        8 => bank0: VmmCapabilities,
    }

    /// `PropertyCode::BULKHEAD_LOG`: a piece of the hypervisor's log.
    pub struct LogProperty: 2048 {
        /// The argument of the next piece: bytes ever logged up to the end of this one, modulo 2^32.
        0 => next: u32,
        /// Bytes in this piece; none if there are no newer ones.
        4 => len: u32,
        8 => text: [u8; 2040],
    }
}

/// Windows 21H2, the version that Linux asks for: major in bits 15:8, minor in bits 7:0.
#[doc(alias = "HV_COMPATIBILITY_21_H2")]
pub const COMPATIBILITY_21_H2: u32 = 0x0609;
/// Most bytes of an extended property.
#[doc(alias = "HV_PARTITION_PROPERTY_EX_MAX_VAR_SIZE")]
pub const PROPERTY_EX_MAX_SIZE: usize = crate::PAGE_SIZE - size_of::<GetPartitionPropertyExInput>();

bit_word! {
    /// Argument of an extended property: what in the partition it is about.
    #[doc(alias = "hv_partition_property_arg")]
    pub struct PropertyArgument(u64) {
        /// A virtual processor index, or another argument.
        pub argument: u32,
        #[bits(24)]
        pub reserved: u32,
        pub object_type: u8,
    }

    /// How a partition is protected from its parent; zero for none.
    #[doc(alias = "hv_partition_isolation_properties")]
    pub struct IsolationProperties(u64) {
        #[bits(5)]
        pub isolation_type: u8,
        #[bits(2)]
        pub isolation_host_type: u8,
        #[bits(5)]
        pub reserved: u8,
        #[bits(52)]
        pub shared_gpa_boundary_page_number: u64,
    }
}

flag_set! {
    /// Flags of `CreatePartition` (`TLFS datatypes/hv_partition_creation_flags`).
    pub struct CreationFlags(u64) {
        SMT_ENABLED_GUEST = 1 << 0,
        NESTED_VIRTUALIZATION_CAPABLE = 1 << 1,
        GPA_SUPER_PAGES_ENABLED = 1 << 4,
        EXO_PARTITION = 1 << 8,
        VTL1_OVERRIDE = 1 << 9,
        VTL2_OVERRIDE = 1 << 10,
        LAPIC_ENABLED = 1 << 13,
        ENABLE_PERFMON_PMU = 1 << 15,
        ENABLE_PERFMON_LBR = 1 << 16,
        INTERCEPT_MESSAGE_PAGE_ENABLED = 1 << 19,
        HYPERCALL_DOORBELL_PAGE_ENABLED = 1 << 20,
        X2APIC_CAPABLE = 1 << 22,
    }
}

open_enum! {
    /// A property of a partition (`TLFS datatypes/hv_partition_property_code`).
    #[doc(alias = "hv_partition_property_code")]
    pub struct PropertyCode(u32) {
        /// [`Privileges`].
        PRIVILEGE_FLAGS = 0x0001_0000,
        /// [`SyntheticFeatures`]; may be set only before the partition is initialized.
        SYNTHETIC_PROC_FEATURES = 0x0001_0001,
        SUSPEND = 0x0002_0000,
        CPU_RESERVE = 0x0002_0001,
        CPU_CAP = 0x0002_0002,
        CPU_WEIGHT = 0x0002_0003,
        CPU_GROUP_ID = 0x0002_0004,
        INTEGRATED_SCHEDULER_ENABLED = 0x0002_0005,
        /// Stops reference time and synthetic timers while 1.
        TIME_FREEZE = 0x0003_0003,
        /// In 100 ns.
        REFERENCE_TIME = 0x0003_0005,
        VIRTUAL_TLB_PAGE_COUNT = 0x0005_0000,
        VSM_CONFIG = 0x0005_0001,
        ZERO_MEMORY_ON_RESET = 0x0005_0002,
        PROCESSORS_PER_SOCKET = 0x0005_0003,
        NESTED_TLB_SIZE = 0x0005_0004,
        GPA_PAGE_ACCESS_TRACKING = 0x0005_0005,
        VSM_PERMISSIONS_DIRTY_SINCE_LAST_QUERY = 0x0005_0006,
        ISOLATION_STATE = 0x0005_000c,
        ISOLATION_CONTROL = 0x0005_000d,
        ALLOCATION_ID = 0x0005_000e,
        MONITORING_ID = 0x0005_000f,
        IMPLEMENTED_PHYSICAL_ADDRESS_BITS = 0x0005_0010,
        NON_ARCHITECTURAL_CORE_SHARING = 0x0005_0011,
        HYPERCALL_DOORBELL_PAGE = 0x0005_0012,
        ISOLATION_POLICY = 0x0005_0014,
        /// [`crate::vp::UnimplementedMsrAction`].
        UNIMPLEMENTED_MSR_ACTION = 0x0005_0017,
        SEV_VMGEXIT_OFFLOADS = 0x0005_0022,
        PARTITION_DIAG_BUFFER_CONFIG = 0x0005_0026,
        PROCESSOR_VENDOR = 0x0006_0000,
        /// [`XsaveFeatures`].
        PROCESSOR_XSAVE_FEATURES = 0x0006_0002,
        PROCESSOR_CL_FLUSH_SIZE = 0x0006_0003,
        ENLIGHTENMENT_MODIFICATIONS = 0x0006_0004,
        COMPATIBILITY_VERSION = 0x0006_0005,
        PHYSICAL_ADDRESS_WIDTH = 0x0006_0006,
        /// The states that XCR0 may enable.
        XSAVE_STATES = 0x0006_0007,
        /// In bytes, of the XSAVE state of `GetVpState`.
        MAX_XSAVE_DATA_SIZE = 0x0006_0008,
        /// In hertz.
        PROCESSOR_CLOCK_FREQUENCY = 0x0006_0009,
        /// [`ProcessorFeatures0`].
        PROCESSOR_FEATURES0 = 0x0006_000a,
        /// [`ProcessorFeatures1`].
        PROCESSOR_FEATURES1 = 0x0006_000b,
        GUEST_OS_ID = 0x0007_0000,
        PROCESSOR_VIRTUALIZATION_FEATURES = 0x0008_0000,
        /// [`VmmCapabilitiesProperty`], by the extended call only.
        VMM_CAPABILITIES = 0x0009_0007,
        VP_SCHEDULING_AFFINITY_SET = 0x1000_1000,
        /// Ours, by the extended call only: [`LogProperty`], from the byte that the argument names or the oldest there is.
        BULKHEAD_LOG = 0xb000_0000,
    }

    /// The value of `PropertyCode::PROCESSOR_VENDOR`.
    pub struct ProcessorVendor(u64) {
        AMD = 0,
        INTEL = 1,
        HYGON = 2,
    }
}
