//! Numbers: every call, status, message, register, MSR and property that Linux names has ours.

use header_check::{Comparison, defined_names, linux_file};

/// Expects each name with the prefix, stripped of it, to be named here with the same number.
///
/// `renamed` are pairs of Linux's and our name; our name is empty for what we leave out.
fn expect_all(header: &str, prefixes: &[&str], renamed: &[(&str, &str)], ours: &[(&str, u64)]) {
    let header = linux_file(header);
    let mut comparison = Comparison::new();
    let mut found = 0;
    for prefix in prefixes {
        for name in defined_names(&header, prefix) {
            let mut stripped = &name[prefix.len()..];
            if prefixes.iter().any(|other| other.len() > prefix.len() && name.starts_with(other)) {
                continue;
            }
            if let Some((_, own)) = renamed.iter().find(|(theirs, _)| *theirs == stripped) {
                stripped = own;
            }
            if stripped.is_empty() {
                continue;
            }
            let (_, value) = ours
                .iter()
                .find(|(own, _)| *own == stripped)
                .unwrap_or_else(|| panic!("Linux defines {name}, tlfs has no {stripped}"));
            comparison.value(name, *value);
            found += 1;
        }
    }
    assert!(found > 0, "no name with a prefix of {prefixes:?} found");
    comparison.run();
}

macro_rules! named {
    ($type:ty) => {
        <$type>::NAMED
            .iter()
            .map(|value| (value.name().expect("a named value has a name"), u64::from(value.0)))
            .collect::<Vec<_>>()
    };
}

const MINI: &str = "include/hyperv/hvgdk_mini.h";

#[test]
fn call_codes_agree() {
    let renamed = [
        ("SEND_IPI", "SEND_SYNTHETIC_CLUSTER_IPI"),
        ("SEND_IPI_EX", "SEND_SYNTHETIC_CLUSTER_IPI_EX"),
        ("RETARGET_INTERRUPT", "RETARGET_DEVICE_INTERRUPT"),
        ("START_VP", "START_VIRTUAL_PROCESSOR"),
        ("DISABLE_HYP_EX", "DISABLE_HYPERVISOR_EX"),
    ];
    expect_all(MINI, &["HVCALL_"], &renamed, &named!(tlfs::CallCode));
    let renamed =
        [("QUERY_CAPABILITIES", "EXT_QUERY_CAPABILITIES"), ("MEMORY_HEAT_HINT", "EXT_MEMORY_HEAT_HINT")];
    expect_all("include/hyperv/hvgdk_ext.h", &["HV_EXT_CALL_"], &renamed, &named!(tlfs::CallCode));
}

#[test]
fn status_codes_agree() {
    expect_all(MINI, &["HV_STATUS_"], &[], &named!(tlfs::HvStatus));
}

#[test]
fn message_types_agree() {
    let renamed = [("X64_IOMMU_PRQ", "REGISTER_INTERCEPT")];
    expect_all(MINI, &["HVMSG_"], &renamed, &named!(tlfs::synic::MessageType));
}

#[test]
fn register_names_agree() {
    expect_all(MINI, &["HV_REGISTER_", "HV_X64_REGISTER_"], &[], &named!(tlfs::RegisterName));
}

#[test]
fn partition_properties_agree() {
    let ours = named!(tlfs::partition::PropertyCode);
    expect_all("include/hyperv/hvhdk_mini.h", &["HV_PARTITION_PROPERTY_"], &[], &ours);
}

#[test]
fn intercept_types_agree() {
    let renamed = [("RESERVED0", "")];
    expect_all(MINI, &["HV_INTERCEPT_TYPE_"], &renamed, &named!(tlfs::vp::InterceptType));
    expect_all(MINI, &["HV_INTERCEPT_ACCESS_"], &[], &named!(tlfs::intercept::InterceptAccess));
}

#[test]
fn small_enumerations_agree() {
    let header = "include/hyperv/hvhdk_mini.h";
    let renamed = [("CRASHDUMPAREA", "CRASH_DUMP_AREA")];
    expect_all(header, &["HV_SYSTEM_PROPERTY_"], &renamed, &named!(tlfs::partition::SystemProperty));
    expect_all(header, &["HV_SCHEDULER_TYPE_"], &[], &named!(tlfs::partition::SchedulerType));
    expect_all(header, &["HV_SLEEP_STATE_"], &[], &named!(tlfs::partition::SleepState));
    expect_all(header, &["HV_STATS_OBJECT_"], &[], &named!(tlfs::stats::StatsObjectType));
    expect_all(header, &["HV_STATS_AREA_"], &[], &named!(tlfs::stats::StatsArea));
    let renamed = [("IOAPIC", "IO_APIC")];
    expect_all(header, &["HV_DEVICE_TYPE_"], &renamed, &named!(tlfs::device::DeviceType));
    expect_all(header, &["HV_INTERRUPT_TRIGGER_MODE_"], &[], &named!(tlfs::device::TriggerMode));
    let header = "include/hyperv/hvhdk.h";
    expect_all(header, &["HV_PORT_TYPE_"], &[], &named!(tlfs::port::PortType));
    expect_all(header, &["HV_VP_DISPATCH_STATE_"], &[], &named!(tlfs::vp::DispatchState));
    expect_all(header, &["HV_VP_DISPATCH_EVENT_"], &[], &named!(tlfs::vp::DispatchEvent));
    expect_all(header, &["HV_VP_STATE_PAGE_"], &[], &named!(tlfs::vp::VpStatePageType));
    let renamed = [("LAPIC_STATE", "LOCAL_APIC"), ("TYPE_PFN", "")];
    expect_all(header, &["HV_GET_SET_VP_STATE_"], &renamed, &named!(tlfs::vp::VpStateType));
    let renamed = [
        ("LOWESTPRIORITY", "LOWEST_PRIORITY"),
        ("REMOTEREAD", "REMOTE_READ"),
        ("EXTINT", "EXT_INT"),
        ("LOCALINT0", "LOCAL_INT0"),
        ("LOCALINT1", "LOCAL_INT1"),
        ("MAXIMUM", ""),
    ];
    expect_all(MINI, &["HV_X64_INTERRUPT_TYPE_"], &renamed, &named!(tlfs::vp::InterruptType));
}

#[test]
fn msr_numbers_agree() {
    use tlfs::msr;
    let mut comparison = Comparison::new();
    macro_rules! msrs {
        ($($name:ident)*) => { $(
            comparison.value(concat!("HV_X64_MSR_", stringify!($name)), msr::$name.into());
        )* };
    }
    msrs! {
        GUEST_OS_ID HYPERCALL VP_INDEX RESET VP_RUNTIME TIME_REF_COUNT REFERENCE_TSC TSC_FREQUENCY
        APIC_FREQUENCY EOI ICR TPR VP_ASSIST_PAGE SCONTROL SVERSION SIEFP SIMP EOM SIRBP SINT0 SINT15
        STIMER0_CONFIG STIMER0_COUNT STIMER3_CONFIG STIMER3_COUNT GUEST_IDLE CRASH_P0 CRASH_P4 CRASH_CTL
        REENLIGHTENMENT_CONTROL TSC_EMULATION_CONTROL TSC_EMULATION_STATUS TSC_INVARIANT_CONTROL
    }
    comparison.value("HV_X64_MSR_NESTED_SINT0", (msr::SINT0 + msr::NESTED_OFFSET).into());
    comparison.value("HV_SYNIC_VERSION_1", msr::SYNIC_VERSION);
    comparison.value("HV_SYNIC_FIRST_VALID_VECTOR", msr::FIRST_VALID_VECTOR.into());
    comparison.value("HV_SYNIC_STIMER_COUNT", msr::STIMER_COUNT as u64);
    comparison.run();
}

#[test]
fn cpuid_leaves_agree() {
    use tlfs::cpuid;
    let mut comparison = Comparison::new();
    let mut leaf = |name: &str, ours: u32| comparison.value(format!("HYPERV_{name}"), ours.into());
    leaf("CPUID_VENDOR_AND_MAX_FUNCTIONS", cpuid::VENDOR_AND_MAX_FUNCTION);
    leaf("CPUID_INTERFACE", cpuid::INTERFACE);
    leaf("CPUID_VERSION", cpuid::VERSION);
    leaf("CPUID_FEATURES", cpuid::FEATURES);
    leaf("CPUID_ENLIGHTMENT_INFO", cpuid::ENLIGHTENMENT_INFO);
    leaf("CPUID_IMPLEMENT_LIMITS", cpuid::IMPLEMENTATION_LIMITS);
    leaf("CPUID_CPU_MANAGEMENT_FEATURES", cpuid::CPU_MANAGEMENT_FEATURES);
    leaf("CPUID_NESTED_FEATURES", cpuid::NESTED_VIRTUALIZATION_FEATURES);
    leaf("CPUID_ISOLATION_CONFIG", cpuid::ISOLATION_CONFIGURATION);
    leaf("CPUID_VIRT_STACK_INTERFACE", cpuid::STACK_INTERFACE);
    leaf("VS_INTERFACE_EAX_SIGNATURE", cpuid::STACK_SIGNATURE);
    leaf("CPUID_VIRT_STACK_PROPERTIES", cpuid::STACK_PROPERTIES);
    leaf("HYPERVISOR_PRESENT_BIT", cpuid::HYPERVISOR_PRESENT);
    leaf("CPUID_MIN", cpuid::MAX_FUNCTION_MIN);
    leaf("CPUID_MAX", cpuid::MAX_FUNCTION_MAX);
    comparison.run();
}

#[test]
fn identifiers_and_limits_agree() {
    use tlfs::{PartitionId, PortId, SintIndex, VpIndex, memory, partition, synic, vp, vpset};
    let mut comparison = Comparison::new();
    comparison.value("HV_PARTITION_ID_SELF", PartitionId::SELF.0);
    comparison.value("HV_PARTITION_ID_INVALID", PartitionId::INVALID.0);
    comparison.value("HV_VP_INDEX_SELF", VpIndex::SELF.0.into());
    comparison.value("HV_ANY_VP", VpIndex::ANY.0.into());
    comparison.mask("union hv_port_id", "u.id", PortId::MASK.into());
    comparison.mask("union hv_connection_id", "u.id", tlfs::ConnectionId::MASK.into());
    comparison.value("HV_SYNIC_SINT_COUNT", SintIndex::COUNT as u64);
    comparison.value("HV_SYNIC_INTERCEPTION_SINT_INDEX", SintIndex::INTERCEPTION.0.into());
    comparison.value("HV_SYNIC_VMBUS_SINT_INDEX", SintIndex::VMBUS.0.into());
    comparison.value("HV_SYNIC_DOORBELL_SINT_INDEX", SintIndex::DOORBELL.0.into());
    comparison.value("HV_HYP_PAGE_SIZE", tlfs::PAGE_SIZE as u64);
    comparison.value("HV_HYP_PAGE_SHIFT", tlfs::PAGE_SHIFT.into());
    comparison.value("HV_CLOCK_HZ", 1_000_000_000 / tlfs::REFERENCE_TICK_NS);
    comparison.value("HV_HYPERCALL_MAX_XMM_REGISTERS", tlfs::call::FAST_XMM_REGISTERS as u64);
    comparison.value("HV_MAX_SPARSE_VCPU_BANKS", vpset::MAX_BANKS as u64);
    comparison.value("HV_VCPUS_PER_SPARSE_BANK", vpset::VPS_PER_BANK.into());
    comparison.value("HV_GENERIC_SET_SPARSE_4K", vpset::VpSetFormat::SPARSE_4K.0);
    comparison.value("HV_GENERIC_SET_ALL", vpset::VpSetFormat::ALL.0);
    comparison.value("HV_MESSAGE_PAYLOAD_BYTE_COUNT", synic::MESSAGE_PAYLOAD_SIZE as u64);
    comparison.value("HV_EVENT_FLAGS_BYTE_COUNT", synic::EVENT_FLAGS_SIZE as u64);
    comparison.value("HV_EVENT_FLAGS_COUNT", synic::EVENT_FLAGS_COUNT.into());
    comparison.value("HV_SYNIC_EVENT_RING_MESSAGE_COUNT", synic::EVENT_RING_ENTRIES as u64);
    comparison.value("HV_GET_SET_VP_STATE_TYPE_PFN", vp::VpStateType::BY_PAGE.into());
    comparison.value("HV_VP_REGISTER_PAGE_VERSION_1", vp::VpRegisterPage::VERSION.into());
    comparison.value("HV_COMPATIBILITY_21_H2", partition::COMPATIBILITY_21_H2.into());
    comparison.value("HV_PARTITION_PROPERTY_EX_MAX_VAR_SIZE", partition::PROPERTY_EX_MAX_SIZE as u64);
    comparison.value("HV_MAP_GPA_PERMISSIONS_MASK", memory::MapGpaFlags::PERMISSIONS_MASK.0.into());
    comparison.value("HV_INTERRUPT_SOURCE_MSI", tlfs::device::InterruptSource::MSI.0.into());
    comparison.value("HV_INTERRUPT_SOURCE_IOAPIC", tlfs::device::InterruptSource::IO_APIC.0.into());
    comparison.value("HV_PARTITION_EVENT_ROOT_CRASHDUMP", partition::PartitionEvent::ROOT_CRASHDUMP.0.into());
    comparison.value(
        "HV_PARTITION_ALL_LOGICAL_PROCESSORS_STARTED",
        partition::PartitionEvent::ALL_LOGICAL_PROCESSORS_STARTED.0.into(),
    );
    comparison.run();
}

/// Linux names counters by strings such as `VpTotalRunTime`; ours are compared without underscores.
fn expect_counters(table: &str, prefix: &str, ours: &[(&str, u64)]) {
    let mut comparison = Comparison::new();
    for (name, index) in ours {
        // Linux misspells this one.
        let name = name.replace("FLUSH_ENTRIES", "FLUSH_ENTIRES").replace('_', "");
        let equal = format!(
            "COUNTER({table}, {index}) && !strcasecmp(COUNTER({table}, {index}), \"{prefix}{name}\")"
        );
        comparison.value(equal, 1);
    }
    comparison.run();
}

#[test]
fn counters_agree() {
    expect_counters("hv_hypervisor_counters", "Hv", &named!(tlfs::stats::HypervisorCounter));
    expect_counters("hv_lp_counters", "Lp", &named!(tlfs::stats::LpCounter));
    expect_counters("hv_partition_counters", "Pt", &named!(tlfs::stats::PartitionCounter));
    expect_counters("hv_vp_counters", "Vp", &named!(tlfs::stats::VpCounter));
}
