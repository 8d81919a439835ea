//! Bit words and flag sets: every field that Linux has too.

use core::mem::offset_of;

use header_check::Comparison;
use tlfs::{cpuid, device, intercept, memory, msr, partition, port, register, synic, vp};

/// The bits of a word that change what a field reads.
macro_rules! field_mask {
    ($type:ty, $field:ident) => {
        (0..8 * size_of::<$type>() as u32)
            .filter(|bit| <$type>::from_bits(1 << bit).$field() != <$type>::new().$field())
            .fold(0u64, |mask, bit| mask | 1 << bit)
    };
}

/// Compares fields of bit words: `Ours = "c type": field, field = "c field", ...;`.
macro_rules! words {
    ($($type:ty = $c:literal $(at ($start:expr))?: $($field:ident $(= $c_field:literal)?),*;)*) => {{
        let mut comparison = Comparison::new();
        $(
            let start = 0 $(+ $start)?;
            $( comparison.mask_at($c, start, words!(@name $field $($c_field)?), field_mask!($type, $field)); )*
        )*
        comparison.run();
    }};
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $c_field:literal) => { $c_field };
}

/// Compares flags with constants that have our name after a prefix, or another: `Ours = "PREFIX": FLAG, ...;`.
macro_rules! flags {
    ($($type:ty = $prefix:literal: $($flag:ident $(= $c:literal)?),*;)*) => {{
        let mut comparison = Comparison::new();
        $( $( comparison.value(flags!(@name $prefix $flag $($c)?), <$type>::$flag.0.into()); )* )*
        comparison.run();
    }};
    (@name $prefix:literal $flag:ident) => { concat!($prefix, stringify!($flag)) };
    (@name $prefix:literal $flag:ident $c:literal) => { concat!($prefix, $c) };
}

#[test]
fn register_words_agree() {
    words! {
        register::SegmentAttributes = "struct hv_x64_segment_register"
            at (offset_of!(register::SegmentRegister, attributes)):
            segment_type, non_system_segment, descriptor_privilege_level, present, reserved, available,
            long = "_long", default = "_default", granularity;
        register::Suspend = "union hv_explicit_suspend_register": suspended, reserved;
        register::Suspend = "union hv_intercept_suspend_register": suspended, reserved;
        register::Suspend = "union hv_dispatch_suspend_register": suspended, reserved;
        register::InterruptState = "union hv_x64_interrupt_state_register": interrupt_shadow, nmi_masked, reserved;
        register::PendingInterruption = "union hv_x64_pending_interruption_register":
            interruption_pending, interruption_type, deliver_error_code, instruction_length, nested_event, reserved,
            vector = "interruption_vector", error_code;
    }
}

#[test]
fn msr_words_agree() {
    words! {
        msr::HypercallMsr = "union hv_x64_msr_hypercall_contents":
            enable, gpa_page_number = "guest_physical_address";
        msr::OverlayPageMsr = "union hv_reference_tsc_msr":
            enable, preserved = "reserved", gpa_page_number = "pfn";
        msr::OverlayPageMsr = "union hv_vp_assist_msr_contents":
            enable, preserved = "reserved", gpa_page_number = "pfn";
        msr::OverlayPageMsr = "union hv_synic_simp":
            enable = "simp_enabled", preserved, gpa_page_number = "base_simp_gpa";
        msr::OverlayPageMsr = "union hv_synic_siefp":
            enable = "siefp_enabled", preserved, gpa_page_number = "base_siefp_gpa";
        msr::OverlayPageMsr = "union hv_synic_sirbp":
            enable = "sirbp_enabled", preserved, gpa_page_number = "base_sirbp_gpa";
        msr::Scontrol = "union hv_synic_scontrol": enable, preserved = "reserved";
        msr::Sint = "union hv_synic_sint":
            vector, reserved1, masked, auto_eoi, polling, as_intercept, proxy, reserved2;
        msr::StimerConfig = "union hv_stimer_config":
            enabled = "enable", periodic, lazy, auto_enable, apic_vector, direct_mode, reserved0 = "reserved_z0",
            sint = "sintx", reserved1 = "reserved_z1";
        msr::ReenlightenmentControl = "struct hv_reenlightenment_control":
            vector, reserved1, enabled, reserved2, target_vp;
    }
    let mut comparison = Comparison::new();
    comparison.value("HV_CRASH_CTL_CRASH_NOTIFY_MSG", field_mask!(msr::CrashControl, crash_message));
    comparison.value("HV_CRASH_CTL_CRASH_NOTIFY", field_mask!(msr::CrashControl, crash_notify));
    comparison.run();
}

#[test]
fn hypercall_words_agree() {
    use tlfs::{HypercallInput, HypercallOutput};
    let mut comparison = Comparison::new();
    comparison.value("HV_HYPERCALL_FAST_BIT", field_mask!(HypercallInput, fast));
    comparison.value("HV_HYPERCALL_VARHEAD_MASK", field_mask!(HypercallInput, variable_header_size));
    comparison.value("HV_HYPERCALL_NESTED", field_mask!(HypercallInput, nested));
    comparison.value("HV_HYPERCALL_REP_COMP_MASK", field_mask!(HypercallInput, rep_count));
    comparison.value("HV_HYPERCALL_REP_START_MASK", field_mask!(HypercallInput, rep_start));
    comparison.value("HV_HYPERCALL_RESULT_MASK", field_mask!(HypercallOutput, status_code));
    comparison.value("HV_HYPERCALL_REP_COMP_MASK", field_mask!(HypercallOutput, reps_completed));
    // Linux counts the nested bit as reserved.
    let reserved = field_mask!(HypercallInput, reserved0)
        | field_mask!(HypercallInput, nested)
        | field_mask!(HypercallInput, reserved1)
        | field_mask!(HypercallInput, reserved2);
    comparison.value("HV_HYPERCALL_RSVD_MASK", reserved);
    comparison.run();
}

#[test]
fn other_words_agree() {
    words! {
        vp::InputVtl = "union hv_input_vtl": target_vtl, use_target_vtl, reserved = "reserved_z";
        vp::InterruptControl = "union hv_interrupt_control":
            interrupt_type, level_triggered, logical_destination_mode = "logical_dest_mode", reserved = "rsvd";
        intercept::ExecutionState = "union hv_x64_vp_execution_state":
            cpl, cr0_pe, cr0_am, efer_lma, debug_active, interruption_pending, vtl, enclave_mode, interrupt_shadow,
            virtualization_fault_active, reserved;
        intercept::MemoryAccessInfo = "union hv_x64_memory_access_info":
            gva_valid, gva_gpa_valid, hypercall_output_pending, tlb_locked_no_overlay, reserved;
        synic::MessageFlags = "union hv_message_flags": message_pending = "msg_pending", reserved;
        partition::ProximityFlags = "struct hv_proximity_domain_flags":
            preferred = "proximity_preferred", reserved, valid = "proximity_info_valid";
        partition::PfnRange = "union hv_pfn_range": base_page = "base_pfn", additional_pages = "add_pfns";
        partition::PropertyArgument = "union hv_partition_property_arg": argument = "arg", object_type;
        partition::IsolationProperties = "union hv_partition_isolation_properties":
            isolation_type, isolation_host_type, reserved = "rsvd_z", shared_gpa_boundary_page_number;
        memory::GpaPageRange = "union hv_gpa_page_range":
            additional_pages = "page.additional_pages", large_page = "page.largepage", base_page = "page.basepfn";
    }
    let mut comparison = Comparison::new();
    let flags = "struct { u64 before; union hv_input_disconnect_port port; }";
    comparison.mask_at(flags, 8 + offset_of!(port::DisconnectPortInput, is_doorbell), "port.is_doorbell", 1);
    comparison.value("HV_DOORBELL_FLAG_TRIGGER_SIZE_MASK", field_mask!(port::DoorbellFlags, trigger_size));
    comparison.value("HV_DOORBELL_FLAG_TRIGGER_ANY_VALUE", field_mask!(port::DoorbellFlags, any_value));
    comparison.value("HV_DOORBELL_FLAG_TRIGGER_SIZE_QWORD", port::DoorbellSize::QWORD.0.into());
    comparison.run();
}

#[test]
fn device_words_agree() {
    words! {
        device::DeviceId = "union hv_device_id": id = "logical.id", device_type = "logical.device_type";
        device::PciDeviceId = "union hv_device_id":
            requester_id = "pci.rid", segment = "pci.segment",
            subordinate_bus = "pci.shadow_bus_range.subordinate_bus",
            secondary_bus = "pci.shadow_bus_range.secondary_bus",
            phantom_function_bits = "pci.phantom_function_bits", source_shadow = "pci.source_shadow",
            reserved = "pci.rsvdz0", device_type = "pci.device_type";
        device::IoApicDeviceId = "union hv_device_id":
            io_apic_id = "ioapic.ioapic_id", device_type = "ioapic.device_type";
        device::MsiEntry = "union hv_msi_entry":
            reserved0 = "address.reserved1", logical_destination_mode = "address.destination_mode",
            redirection_hint = "address.redirection_hint", reserved1 = "address.reserved2",
            destination_id = "address.destination_id", msi_base = "address.msi_base", vector = "data.vector",
            delivery_mode = "data.delivery_mode", reserved2 = "data.reserved1", level_assert = "data.level_assert",
            level_triggered = "data.trigger_mode", reserved3 = "data.reserved2";
        device::IoApicRte = "union hv_ioapic_rte":
            vector, delivery_mode, logical_destination_mode = "destination_mode", delivery_status,
            active_low = "interrupt_polarity", remote_irr, level_triggered = "trigger_mode",
            masked = "interrupt_mask", destination_id;
    }
}

#[test]
fn flags_agree() {
    flags! {
        partition::CreationFlags = "HV_PARTITION_CREATION_FLAG_":
            SMT_ENABLED_GUEST, NESTED_VIRTUALIZATION_CAPABLE, GPA_SUPER_PAGES_ENABLED, EXO_PARTITION, LAPIC_ENABLED,
            INTERCEPT_MESSAGE_PAGE_ENABLED, X2APIC_CAPABLE;
        memory::MapGpaFlags = "HV_MAP_GPA_":
            READABLE, WRITABLE, KERNEL_EXECUTABLE, USER_EXECUTABLE, ADJUSTABLE, NO_ACCESS, NOT_CACHED, LARGE_PAGE;
        memory::UnmapGpaFlags = "HV_UNMAP_GPA_": LARGE_PAGE;
        memory::FlushFlags = "HV_FLUSH_":
            ALL_PROCESSORS, ALL_VIRTUAL_ADDRESS_SPACES, NON_GLOBAL_MAPPINGS_ONLY, USE_EXTENDED_RANGE_FORMAT;
        vp::DispatchFlags = "HV_DISPATCH_VP_FLAG_":
            CLEAR_INTERCEPT_SUSPEND, ENABLE_CALLER_INTERRUPTS, SET_CALLER_SPEC_CTRL, SKIP_VP_SPEC_FLUSH,
            SKIP_CALLER_SPEC_FLUSH, SKIP_CALLER_USER_SPEC_FLUSH, SCAN_INTERRUPT_INJECTION;
        vp::RegisterClasses = "1 << HV_X64_REGISTER_CLASS_": GENERAL, IP, XMM, SEGMENT, FLAGS;
        device::InterruptTargetFlags = "HV_DEVICE_INTERRUPT_TARGET_": MULTICAST, PROCESSOR_SET;
    }
    let mut comparison = Comparison::new();
    let mut bit =
        |field: &str, ours: u64| comparison.mask("union hv_gpa_page_access_state_flags", field, ours);
    bit("clear_accessed", memory::GpaAccessFlags::CLEAR_ACCESSED.0);
    bit("set_accessed", memory::GpaAccessFlags::SET_ACCESSED.0);
    bit("clear_dirty", memory::GpaAccessFlags::CLEAR_DIRTY.0);
    bit("set_dirty", memory::GpaAccessFlags::SET_DIRTY.0);
    let mut bit =
        |field: &str, ours: u8| comparison.mask("union hv_gpa_page_access_state", field, ours.into());
    bit("accessed", memory::GpaAccessState::ACCESSED.0);
    bit("dirty", memory::GpaAccessState::DIRTY.0);
    comparison.run();
}

#[test]
fn cpuid_flags_agree() {
    flags! {
        cpuid::FeaturesEcx = "HV_VP_":
            DISPATCH_INTERRUPT_INJECTION = "DISPATCH_INTERRUPT_INJECTION_AVAILABLE",
            GHCB_ROOT_MAPPING = "GHCB_ROOT_MAPPING_AVAILABLE";
        cpuid::FeaturesEdx = "HV_":
            MWAIT = "X64_MWAIT_AVAILABLE", GUEST_DEBUGGING = "X64_GUEST_DEBUGGING_AVAILABLE",
            PERFORMANCE_MONITOR = "X64_PERF_MONITOR_AVAILABLE",
            CPU_DYNAMIC_PARTITIONING = "X64_CPU_DYNAMIC_PARTITIONING_AVAILABLE",
            XMM_HYPERCALL_INPUT = "X64_HYPERCALL_XMM_INPUT_AVAILABLE",
            GUEST_IDLE_STATE = "X64_GUEST_IDLE_STATE_AVAILABLE",
            FREQUENCY_MSRS = "FEATURE_FREQUENCY_MSRS_AVAILABLE",
            GUEST_CRASH_MSRS = "FEATURE_GUEST_CRASH_MSR_AVAILABLE", DEBUG_MSRS = "FEATURE_DEBUG_MSRS_AVAILABLE",
            EXTENDED_GVA_RANGES_FLUSH = "FEATURE_EXT_GVA_RANGES_FLUSH",
            XMM_HYPERCALL_OUTPUT = "X64_HYPERCALL_XMM_OUTPUT_AVAILABLE",
            DIRECT_SYNTHETIC_TIMERS = "STIMER_DIRECT_MODE_AVAILABLE";
        cpuid::Hints = "HV_":
            ADDRESS_SWITCH_HYPERCALL = "X64_AS_SWITCH_RECOMMENDED",
            LOCAL_FLUSH_HYPERCALL = "X64_LOCAL_TLB_FLUSH_RECOMMENDED",
            REMOTE_FLUSH_HYPERCALL = "X64_REMOTE_TLB_FLUSH_RECOMMENDED",
            APIC_MSRS = "X64_APIC_ACCESS_RECOMMENDED", RESET_MSR = "X64_SYSTEM_RESET_RECOMMENDED",
            RELAXED_TIMING = "X64_RELAXED_TIMING_RECOMMENDED", DEPRECATE_AUTO_EOI = "DEPRECATING_AEOI_RECOMMENDED",
            CLUSTER_IPI_HYPERCALL = "X64_CLUSTER_IPI_RECOMMENDED",
            EX_PROCESSOR_MASKS = "X64_EX_PROCESSOR_MASKS_RECOMMENDED", NESTED = "X64_HYPERV_NESTED",
            ENLIGHTENED_VMCS = "X64_ENLIGHTENED_VMCS_RECOMMENDED",
            NO_NONARCHITECTURAL_CORE_SHARING = "X64_NO_NONARCH_CORESHARING",
            MMIO_HYPERCALLS = "X64_USE_MMIO_HYPERCALLS";
        cpuid::CpuManagementFeatures = "(u32)HV_X64_":
            START_LOGICAL_PROCESSOR, CREATE_ROOT_VIRTUAL_PROCESSOR, PERFORMANCE_COUNTER_SYNC,
            RESERVED_IDENTITY = "RESERVED_IDENTITY_BIT";
        cpuid::NestedFeatures = "HV_X64_NESTED_":
            DIRECT_FLUSH, GUEST_MAPPING_FLUSH, MSR_BITMAP, ENLIGHTENED_TLB;
        cpuid::StackProperties = "HYPERV_VS_PROPERTIES_EAX_":
            EXTENDED_IOAPIC_RTE, CONFIDENTIAL_VMBUS = "CONFIDENTIAL_VMBUS_AVAILABLE";
    }
}

#[test]
fn privileges_agree() {
    flags! {
        partition::Privileges = "HV_":
            ACCESS_VP_RUN_TIME_REG = "MSR_VP_RUNTIME_AVAILABLE",
            ACCESS_PARTITION_REFERENCE_COUNTER = "MSR_TIME_REF_COUNT_AVAILABLE",
            ACCESS_SYNIC_REGS = "MSR_SYNIC_AVAILABLE", ACCESS_SYNTHETIC_TIMER_REGS = "MSR_SYNTIMER_AVAILABLE",
            ACCESS_INTR_CTRL_REGS = "MSR_APIC_ACCESS_AVAILABLE", ACCESS_HYPERCALL_MSRS = "MSR_HYPERCALL_AVAILABLE",
            ACCESS_VP_INDEX = "MSR_VP_INDEX_AVAILABLE", ACCESS_RESET_REG = "MSR_RESET_AVAILABLE",
            ACCESS_STATS_REG = "MSR_STAT_PAGES_AVAILABLE",
            ACCESS_PARTITION_REFERENCE_TSC = "MSR_REFERENCE_TSC_AVAILABLE",
            ACCESS_GUEST_IDLE_REG = "MSR_GUEST_IDLE_AVAILABLE", ACCESS_FREQUENCY_REGS = "ACCESS_FREQUENCY_MSRS",
            ACCESS_REENLIGHTENMENT_CONTROLS = "ACCESS_REENLIGHTENMENT",
            ACCESS_TSC_INVARIANT_CONTROLS = "ACCESS_TSC_INVARIANT";
        // The high half of the mask.
        partition::Privileges = "(u64)HV_":
            CREATE_PARTITIONS = "CREATE_PARTITIONS << 32", ACCESS_PARTITION_ID = "ACCESS_PARTITION_ID << 32",
            ACCESS_MEMORY_POOL = "ACCESS_MEMORY_POOL << 32",
            ADJUST_MESSAGE_BUFFERS = "ADJUST_MESSAGE_BUFFERS << 32", POST_MESSAGES = "POST_MESSAGES << 32",
            SIGNAL_EVENTS = "SIGNAL_EVENTS << 32", CREATE_PORT = "CREATE_PORT << 32",
            CONNECT_PORT = "CONNECT_PORT << 32", ACCESS_STATS = "ACCESS_STATS << 32",
            DEBUGGING = "DEBUGGING << 32", CPU_MANAGEMENT = "CPU_MANAGEMENT << 32",
            ENABLE_EXTENDED_HYPERCALLS = "ENABLE_EXTENDED_HYPERCALLS << 32", ISOLATION = "ISOLATION << 32";
    }
}

/// Compares flags with bit fields: `Ours = "c type" at bank, "suffix": FLAG, FLAG = "c_field", ...;`, where
/// the field's name is ours in lower case with the suffix, unless it is given.
macro_rules! bit_fields {
    ($($type:ty = $c:literal at $bank:literal, $suffix:literal: $($flag:ident $(= $field:literal)?),*;)*) => {{
        let mut comparison = Comparison::new();
        $( $( {
            let given: Option<&str> = None$(.or(Some($field)))?;
            let derived = stringify!($flag).to_lowercase() + $suffix;
            comparison.mask_at($c, 8 * $bank, given.unwrap_or(&derived), <$type>::$flag.0);
        } )* )*
        comparison.run();
    }};
}

#[test]
fn partition_features_agree() {
    bit_fields! {
        partition::ProcessorFeatures0 = "union hv_partition_processor_features" at 0, "_support":
            SSE3, LAHF_SAHF, SSSE3, SSE4_1, SSE4_2, SSE4A, XOP, POPCNT = "pop_cnt_support", CMPXCHG16B, ALTMOVCR8,
            LZCNT, MISALIGN_SSE = "mis_align_sse_support", MMX_EXT, AMD_3DNOW = "amd3dnow_support",
            EXTENDED_AMD_3DNOW = "extended_amd3dnow_support", PAGE_1GB, AES, PCLMULQDQ, PCID, FMA4, F16C,
            RDRAND = "rd_rand_support", RD_WR_FS_GS, SMEP, ENHANCED_FAST_STRING, BMI1, BMI2,
            HLE_DEPRECATED = "hle_support_deprecated", RTM_DEPRECATED = "rtm_support_deprecated", MOVBE, NPIEP1,
            DEP_X87_FPU_SAVE, RDSEED = "rd_seed_support", ADX, INTEL_PREFETCH, SMAP, HLE, RTM, RDTSCP, CLFLUSHOPT,
            CLWB, SHA, X87_POINTERS_SAVED, INVPCID, IBRS, STIBP, IBPB, UNRESTRICTED_GUEST, MDD,
            FAST_SHORT_REP_MOV, L1D_CACHE_FLUSH = "l1dcache_flush_support", RDCL_NO, IBRS_ALL,
            SKIP_L1D_FLUSH = "skip_l1df_support", SSB_NO, RSBA_NO = "rsb_a_no_support", VIRT_SPEC_CTRL,
            RDPID = "rd_pid_support", UMIP, MDS_NO = "mbs_no_support", MD_CLEAR = "mb_clear_support", TAA_NO,
            TSX_CTRL;
        partition::ProcessorFeatures1 = "union hv_partition_processor_features" at 1, "_support":
            ACOUNT_MCOUNT = "acount_mcount_support", TSC_INVARIANT, CLZERO = "cl_zero_support", RDPRU, LA57, MBEC,
            NESTED_VIRT, PSFD, CET_SS, CET_IBT, VMX_EXCEPTION_INJECT, ENQCMD, UMWAIT_TPAUSE, MOVDIRI, MOVDIR64B,
            CLDEMOTE, SERIALIZE, TSC_DEADLINE_TMR, TSC_ADJUST, FZL_REP_MOVSB = "fzlrep_movsb",
            FS_REP_STOSB = "fsrep_stosb", FS_REP_CMPSB = "fsrep_cmpsb";
        partition::XsaveFeatures = "union hv_partition_processor_xsave_features" at 0, "_support":
            XSAVE, XSAVEOPT, AVX;
        partition::SyntheticFeatures = "union hv_partition_synthetic_processor_features" at 0, "":
            HYPERVISOR_PRESENT, HV1, ACCESS_VP_RUN_TIME_REG, ACCESS_PARTITION_REFERENCE_COUNTER, ACCESS_SYNIC_REGS,
            ACCESS_SYNTHETIC_TIMER_REGS, ACCESS_INTR_CTRL_REGS, ACCESS_HYPERCALL_REGS, ACCESS_VP_INDEX,
            ACCESS_PARTITION_REFERENCE_TSC, ACCESS_GUEST_IDLE_REG, ACCESS_FREQUENCY_REGS,
            ENABLE_EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST, FAST_HYPERCALL_OUTPUT,
            START_VIRTUAL_PROCESSOR, DIRECT_SYNTHETIC_TIMERS, EXTENDED_PROCESSOR_MASKS, TB_FLUSH_HYPERCALLS,
            SYNTHETIC_CLUSTER_IPI, NOTIFY_LONG_SPIN_WAIT, QUERY_NUMA_DISTANCE, SIGNAL_EVENTS,
            RETARGET_DEVICE_INTERRUPT, RESTORE_TIME, ENLIGHTENED_VMCS;
        partition::VmmCapabilities = "struct hv_partition_property_vmm_capabilities" at 1, "":
            MAP_GPA_PRESERVE_ADJUSTABLE, VMM_CAN_PROVIDE_OVERLAY_GPFN, VP_AFFINITY_PROPERTY,
            ASSIGNABLE_SYNTHETIC_PROC_FEATURES, VMM_ENABLE_INTEGRATED_SCHEDULER;
    }
}
