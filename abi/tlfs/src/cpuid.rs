//! CPUID leaves of the hypervisor range (`TLFS feature-discovery`).

/// Leaf 1 ECX: a hypervisor is present.
pub const HYPERVISOR_PRESENT: u32 = 1 << 31;

/// Highest leaf in EAX, vendor signature in EBX, ECX, EDX.
pub const VENDOR_AND_MAX_FUNCTION: u32 = 0x4000_0000;
/// Interface signature in EAX.
pub const INTERFACE: u32 = 0x4000_0001;
/// Build number in EAX, [`Version`] in EBX.
pub const VERSION: u32 = 0x4000_0002;
/// [`crate::partition::Privileges`] in EAX (low) and EBX (high), [`FeaturesEcx`], [`FeaturesEdx`].
pub const FEATURES: u32 = 0x4000_0003;
/// [`Hints`] in EAX, spins before `NotifyLongSpinWait` in EBX.
pub const ENLIGHTENMENT_INFO: u32 = 0x4000_0004;
/// Most virtual processors in EAX, logical processors in EBX, remapped vectors in ECX.
pub const IMPLEMENTATION_LIMITS: u32 = 0x4000_0005;
/// [`HardwareFeatures`] in EAX.
pub const HARDWARE_FEATURES: u32 = 0x4000_0006;
/// Processor management, for the root.
pub const CPU_MANAGEMENT_FEATURES: u32 = 0x4000_0007;
/// Shared virtual memory features.
pub const SVM_FEATURES: u32 = 0x4000_0008;
/// What is offered to a hypervisor inside the partition.
pub const NESTED_HYPERVISOR_FEATURES: u32 = 0x4000_0009;
/// [`NestedFeatures`] in EAX.
pub const NESTED_VIRTUALIZATION_FEATURES: u32 = 0x4000_000a;
/// Isolation of the partition.
pub const ISOLATION_CONFIGURATION: u32 = 0x4000_000c;
/// Signature of the virtualization stack in EAX.
pub const STACK_INTERFACE: u32 = 0x4000_0081;
/// [`StackProperties`] in EAX.
pub const STACK_PROPERTIES: u32 = 0x4000_0082;
/// Extensions of Bulkhead (`docs/adr/0010-guest-to-host-signals.md`): [`EXTENSIONS_SIGNATURE`] in EAX, [`Extensions`] in
/// EBX, [`crate::port::EVENT_DOORBELLS`] in ECX (low) and EDX (high).
pub const EXTENSIONS: u32 = 0x4000_00f0;

/// Lowest value of [`VENDOR_AND_MAX_FUNCTION`] EAX that Linux accepts.
#[doc(alias = "HYPERV_CPUID_MIN")]
pub const MAX_FUNCTION_MIN: u32 = 0x4000_0005;
/// Highest value of [`VENDOR_AND_MAX_FUNCTION`] EAX that Linux accepts.
#[doc(alias = "HYPERV_CPUID_MAX")]
pub const MAX_FUNCTION_MAX: u32 = 0x4000_ffff;
/// `Microsoft Hv` in EBX, ECX, EDX.
pub const VENDOR_SIGNATURE: [u32; 3] = [0x7263_694d, 0x666f_736f, 0x7648_2074];
/// `Hv#1`.
pub const INTERFACE_SIGNATURE: u32 = 0x3123_7648;
/// `VS#1`.
#[doc(alias = "HYPERV_VS_INTERFACE_EAX_SIGNATURE")]
pub const STACK_SIGNATURE: u32 = 0x3123_5356;
/// `BkHd`.
pub const EXTENSIONS_SIGNATURE: u32 = u32::from_le_bytes(*b"BkHd");
/// Leaf 4 EBX: never notify of long spins.
pub const NEVER_NOTIFY_LONG_SPIN: u32 = u32::MAX;

bit_word! {
    /// Leaf 2 EBX.
    pub struct Version(u32) {
        pub minor: u16,
        pub major: u16,
    }
}

flag_set! {
    /// Leaf 3 ECX.
    pub struct FeaturesEcx(u32) {
        INVARIANT_MPERF = 1 << 5,
        SUPERVISOR_SHADOW_STACK = 1 << 6,
        ARCHITECTURAL_PMU = 1 << 7,
        EXCEPTION_TRAP_INTERCEPT = 1 << 8,
        /// `DispatchVp` injects the vectors of the register page.
        #[doc(alias = "HV_VP_DISPATCH_INTERRUPT_INJECTION_AVAILABLE")]
        DISPATCH_INTERRUPT_INJECTION = 1 << 9,
        #[doc(alias = "HV_VP_GHCB_ROOT_MAPPING_AVAILABLE")]
        GHCB_ROOT_MAPPING = 1 << 10,
    }

    /// Leaf 3 EDX.
    pub struct FeaturesEdx(u32) {
        /// Deprecated.
        MWAIT = 1 << 0,
        GUEST_DEBUGGING = 1 << 1,
        PERFORMANCE_MONITOR = 1 << 2,
        CPU_DYNAMIC_PARTITIONING = 1 << 3,
        XMM_HYPERCALL_INPUT = 1 << 4,
        GUEST_IDLE_STATE = 1 << 5,
        HYPERVISOR_SLEEP_STATE = 1 << 6,
        NUMA_DISTANCE_QUERY = 1 << 7,
        /// The MSRs of the timer frequencies; needs the privilege too.
        FREQUENCY_MSRS = 1 << 8,
        SYNTHETIC_MACHINE_CHECK = 1 << 9,
        GUEST_CRASH_MSRS = 1 << 10,
        DEBUG_MSRS = 1 << 11,
        NPIEP = 1 << 12,
        DISABLE_HYPERVISOR = 1 << 13,
        EXTENDED_GVA_RANGES_FLUSH = 1 << 14,
        XMM_HYPERCALL_OUTPUT = 1 << 15,
        SINT_POLLING_MODE = 1 << 17,
        HYPERCALL_MSR_LOCK = 1 << 18,
        DIRECT_SYNTHETIC_TIMERS = 1 << 19,
    }

    /// Leaf 4 EAX: what the guest is recommended to do.
    pub struct Hints(u32) {
        ADDRESS_SWITCH_HYPERCALL = 1 << 0,
        LOCAL_FLUSH_HYPERCALL = 1 << 1,
        REMOTE_FLUSH_HYPERCALL = 1 << 2,
        APIC_MSRS = 1 << 3,
        RESET_MSR = 1 << 4,
        RELAXED_TIMING = 1 << 5,
        DMA_REMAPPING = 1 << 6,
        INTERRUPT_REMAPPING = 1 << 7,
        X2APIC_MSRS = 1 << 8,
        DEPRECATE_AUTO_EOI = 1 << 9,
        CLUSTER_IPI_HYPERCALL = 1 << 10,
        EX_PROCESSOR_MASKS = 1 << 11,
        /// This hypervisor runs within a partition of another.
        NESTED = 1 << 12,
        INT_FOR_MBEC_SYSCALLS = 1 << 13,
        ENLIGHTENED_VMCS = 1 << 14,
        SYNCED_TIMELINE = 1 << 15,
        DIRECT_LOCAL_FLUSH_ENTIRE = 1 << 17,
        NO_NONARCHITECTURAL_CORE_SHARING = 1 << 18,
        MMIO_HYPERCALLS = 1 << 21,
    }

    /// Leaf 6 EAX: hardware that the hypervisor found and uses. Bits 13:10 count its nesting level.
    pub struct HardwareFeatures(u32) {
        APIC_OVERLAY_ASSIST = 1 << 0,
        MSR_BITMAPS = 1 << 1,
        PERFORMANCE_COUNTERS = 1 << 2,
        SECOND_LEVEL_ADDRESS_TRANSLATION = 1 << 3,
        DMA_REMAPPING = 1 << 4,
        INTERRUPT_REMAPPING = 1 << 5,
        MEMORY_PATROL_SCRUBBER = 1 << 6,
        DMA_PROTECTION = 1 << 7,
        HPET_REQUESTED = 1 << 8,
        SYNTHETIC_TIMERS_VOLATILE = 1 << 9,
        PHYSICAL_DESTINATION_MODE_REQUIRED = 1 << 14,
        VMFUNC_ALIAS_SWITCH = 1 << 15,
        HARDWARE_MEMORY_ZEROING = 1 << 16,
        UNRESTRICTED_GUEST = 1 << 17,
        RESOURCE_ALLOCATION = 1 << 18,
        RESOURCE_MONITORING = 1 << 19,
        GUEST_VIRTUAL_PMU = 1 << 20,
        GUEST_VIRTUAL_LBR = 1 << 21,
        GUEST_VIRTUAL_IPT = 1 << 22,
        APIC_EMULATION = 1 << 23,
        ACPI_WDAT = 1 << 24,
    }

    /// Leaf 7 EAX.
    pub struct CpuManagementFeatures(u32) {
        START_LOGICAL_PROCESSOR = 1 << 0,
        CREATE_ROOT_VIRTUAL_PROCESSOR = 1 << 1,
        PERFORMANCE_COUNTER_SYNC = 1 << 2,
        RESERVED_IDENTITY = 1 << 31,
    }

    /// Leaf 0xa EAX. Bits 15:0 are the enlightened VMCS versions, low then high.
    pub struct NestedFeatures(u32) {
        DIRECT_FLUSH = 1 << 17,
        GUEST_MAPPING_FLUSH = 1 << 18,
        MSR_BITMAP = 1 << 19,
        VIRTUALIZATION_EXCEPTIONS_COMBINED = 1 << 20,
        VMCS_DEBUG_CTL = 1 << 21,
        /// AMD: flushes of an ASID leave nested translations; hypercalls flush those.
        ENLIGHTENED_TLB = 1 << 22,
    }

    /// Leaf 0xf0 EBX.
    pub struct Extensions(u32) {
        /// An event on a connection that a child does not have rings the doorbell that watches its address.
        EVENT_DOORBELLS = 1 << 0,
        /// `InterceptType::HYPERCALL` reports messages and events on connections that a child does not have.
        CONNECTION_INTERCEPT = 1 << 1,
    }

    /// Leaf 0x82 EAX.
    pub struct StackProperties(u32) {
        /// I/O APIC entries hold 15-bit destinations. Linux as root then programs the I/O APIC itself
        /// (`Linux hv-irq-remap-x86.c:hyperv_prepare_irq_remapping`).
        EXTENDED_IOAPIC_RTE = 1 << 2,
        CONFIDENTIAL_VMBUS = 1 << 3,
    }
}
