//! Layouts: every wire structure that Linux has too, by size and offsets.

use core::mem::offset_of;

use header_check::Comparison;
use tlfs::{device, intercept, memory, msr, partition, port, register, stats, synic, vp, vpset};

/// Compares offsets: `Ours = "c type": field, field = "c field", ...;`.
macro_rules! offsets {
    ($comparison:ident $($type:ty = $c:literal: $($field:ident $(= $c_field:literal)?),*;)*) => {
        $( $( $comparison.offset($c, offsets!(@name $field $($c_field)?), offset_of!($type, $field)); )* )*
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $c_field:literal) => { $c_field };
}

/// Compares sizes and offsets.
macro_rules! layouts {
    ($($type:ty = $c:literal: $($field:ident $(= $c_field:literal)?),*;)*) => {{
        let mut comparison = Comparison::new();
        $( comparison.size($c, size_of::<$type>()); )*
        offsets!(comparison $($type = $c: $($field $(= $c_field)?),*;)*);
        comparison.run();
    }};
}

#[test]
fn partition_layouts_agree() {
    layouts! {
        partition::CreatePartitionInput = "struct hv_input_create_partition":
            flags, proximity_domain_info, compatibility_version, padding,
            disabled_processor_features0 = "partition_creation_properties.disabled_processor_features.as_uint64[0]",
            disabled_processor_features1 = "partition_creation_properties.disabled_processor_features.as_uint64[1]",
            disabled_xsave_features = "partition_creation_properties.disabled_processor_xsave_features",
            isolation_properties;
        partition::PartitionIdOutput = "struct hv_output_create_partition": partition_id;
        partition::PartitionIdOutput = "struct hv_output_get_partition_id": partition_id;
        partition::PartitionIdInput = "struct hv_input_initialize_partition": partition_id;
        partition::PartitionIdInput = "struct hv_input_finalize_partition": partition_id;
        partition::PartitionIdInput = "struct hv_input_delete_partition": partition_id;
        partition::GetPartitionPropertyInput = "struct hv_input_get_partition_property":
            partition_id, property_code, padding;
        partition::GetPartitionPropertyOutput = "struct hv_output_get_partition_property":
            value = "property_value";
        partition::SetPartitionPropertyInput = "struct hv_input_set_partition_property":
            partition_id, property_code, padding, value = "property_value";
        partition::GetPartitionPropertyExInput = "struct hv_input_get_partition_property_ex":
            partition_id, property_code, padding, argument = "arg";
        partition::VmmCapabilitiesProperty = "struct hv_partition_property_vmm_capabilities":
            bank_count, reserved, bank0 = "as_uint64";
        partition::ProximityDomainInfo = "struct hv_proximity_domain_info": domain_id, flags;
    }
}

#[test]
fn system_layouts_agree() {
    layouts! {
        partition::GetSystemPropertyInput = "struct hv_input_get_system_property":
            property_id, reserved, argument = "as_uint64";
        partition::GetSystemPropertyOutput = "struct hv_output_get_system_property": value = "hv_tramp_pa";
        partition::SetSystemPropertyInput = "struct hv_input_set_system_property":
            property_id, reserved, sleep_state_info = "set_sleep_state_info";
        partition::EnterSleepStateInput = "struct hv_input_enter_sleep_state": sleep_state;
        partition::GetLogicalProcessorRunTimeInput = "struct hv_input_get_logical_processor_run_time": lp_index;
        partition::GetLogicalProcessorRunTimeOutput = "struct hv_output_get_logical_processor_run_time":
            global_time, local_run_time, reserved = "rsvdz0", hypervisor_time;
        partition::AddLogicalProcessorInput = "struct hv_input_add_logical_processor":
            lp_index, apic_id, proximity_domain_info;
        partition::AddLogicalProcessorOutput = "struct hv_output_add_logical_processor":
            hv_status = "startup_status.hv_status", substatus = "startup_status.substatus1";
        partition::NotifyPartitionEventInput = "struct hv_input_notify_partition_event":
            event, crashdump_action = "input.crashdump_input.crashdump_action";
    }
    // Linux's structure ends with the last field; ours is padded.
    let mut comparison = Comparison::new();
    offsets!(comparison partition::SleepStateInfo = "struct hv_sleep_state_info":
        sleep_state, pm1a_slp_typ, pm1b_slp_typ;);
    comparison.run();
}

#[test]
fn vp_layouts_agree() {
    layouts! {
        vp::CreateVpInput = "struct hv_create_vp":
            partition_id, vp_index, padding, subnode_type, subnode_id, proximity_domain_info, flags;
        vp::DeleteVpInput = "union hv_input_delete_vp": partition_id, vp_index, reserved;
        vp::VpRegistersInput = "struct hv_input_get_vp_registers":
            partition_id, vp_index, input_vtl, padding = "rsvd_z8";
        vp::VpRegistersInput = "struct hv_input_set_vp_registers":
            partition_id, vp_index, input_vtl, padding = "rsvd_z8";
        vp::MapVpStatePageInput = "struct hv_input_map_vp_state_page":
            partition_id, vp_index, page_type = "type", input_vtl, flags, requested_map_location;
        vp::MapVpStatePageOutput = "struct hv_output_map_vp_state_page": map_location;
        vp::UnmapVpStatePageInput = "struct hv_input_unmap_vp_state_page":
            partition_id, vp_index, page_type = "type", input_vtl, reserved = "reserved0";
        vp::VpStateInput = "struct hv_input_get_vp_state":
            partition_id, vp_index, input_vtl, reserved = "rsvd0", state_type = "state_data.type",
            reserved1 = "state_data.rsvd", xsave_flags = "state_data.xsave.flags",
            xsave_states = "state_data.xsave.states";
        vp::VpStateInput = "struct hv_input_set_vp_state": partition_id, vp_index, state_type = "state_data.type";
        vp::DispatchVpInput = "struct hv_input_dispatch_vp":
            partition_id, vp_index, flags, time_slice, spec_ctrl;
        vp::DispatchVpOutput = "struct hv_output_dispatch_vp": state = "dispatch_state", event = "dispatch_event";
        vp::AssertVirtualInterruptInput = "struct hv_input_assert_virtual_interrupt":
            partition_id, control, destination = "dest_addr", vector, target_vtl, reserved = "rsvd_z0";
        vp::StartVirtualProcessorInput = "struct hv_enable_vp_vtl":
            partition_id, vp_index, target_vtl, padding = "mbz0", context = "vp_context";
        vp::InitialVpContext = "struct hv_init_vp_context":
            rip, rsp, rflags, cs, ds, es, fs, gs, ss, tr, ldtr, idtr, gdtr, efer, cr0, cr3, cr4, pat = "msr_cr_pat";
        vp::GetVpIndexFromApicIdInput = "struct hv_get_vp_from_apic_id_in":
            partition_id, target_vtl, padding = "res";
        vp::VpRegisterPage = "struct hv_vp_register_page":
            version, is_valid = "isvalid", reserved = "rsvdz", dirty, gp = "gp_registers", rip, rflags,
            reserved1 = "reserved", xmm = "xmm_registers", segments = "segment_registers", cr0, cr3, cr4, cr8,
            efer, dr7, pending_interruption, interrupt_state, instruction_emulation_hints, xfem,
            reserved2 = "reserved1", interrupt_vectors;
        vp::InterruptVectors = "union hv_vp_register_page_interrupt_vectors": count = "vector_count", vector;
    }
}

#[test]
fn register_and_msr_layouts_agree() {
    layouts! {
        register::RegisterValue = "union hv_register_value": low = "reg128.low_part", high = "reg128.high_part";
        register::SegmentRegister = "struct hv_x64_segment_register": base, limit, selector, attributes;
        register::TableRegister = "struct hv_x64_table_register": padding = "pad", limit, base;
        register::RegisterAssoc = "struct hv_register_assoc": name, reserved1, reserved2, value;
        msr::ReferenceTscPage = "struct ms_hyperv_tsc_page":
            sequence = "tsc_sequence", reserved = "reserved1", scale = "tsc_scale", offset = "tsc_offset";
        msr::VpAssistPage = "struct hv_vp_assist_page":
            apic_assist, reserved1, vtl_entry_reason, vtl_reserved, vtl_return_rax = "vtl_ret_x64rax",
            vtl_return_rcx = "vtl_ret_x64rcx", nested_enlightenments_control = "nested_control",
            enlighten_vm_entry = "enlighten_vmentry", reserved2, current_nested_vmcs,
            synthetic_time_unhalted_timer_expired, reserved3, virtualization_fault_information, reserved4,
            intercept_message, vtl_return_actions = "vtl_ret_actions";
    }
}

#[test]
fn memory_layouts_agree() {
    layouts! {
        memory::MapGpaPagesInput = "struct hv_input_map_gpa_pages":
            target_partition_id, target_gpa_base, map_flags, padding;
        memory::UnmapGpaPagesInput = "struct hv_input_unmap_gpa_pages":
            target_partition_id, target_gpa_base, unmap_flags, padding;
        memory::DepositMemoryInput = "struct hv_deposit_memory": partition_id;
        memory::WithdrawMemoryInput = "struct hv_input_withdraw_memory": partition_id, proximity_domain_info;
        memory::GetGpaPagesAccessStatesInput = "struct hv_input_get_gpa_pages_access_state":
            partition_id, flags, gpa_page_number = "hv_gpa_page_number";
        memory::GpaAccessState = "union hv_gpa_page_access_state": ;
        memory::FlushVirtualAddressInput = "struct hv_tlb_flush": address_space, flags, processor_mask;
        memory::FlushVirtualAddressExInput = "struct hv_tlb_flush_ex":
            address_space, flags, vp_set = "hv_vp_set";
        memory::FlushGuestPhysicalAddressInput = "struct hv_guest_mapping_flush": address_space, flags;
        vpset::VpSetHeader = "struct hv_vpset": format, valid_bank_mask;
    }
}

#[test]
fn synic_layouts_agree() {
    layouts! {
        synic::HvMessage = "struct hv_message": header, payload = "u.payload";
        synic::MessageHeader = "struct hv_message_header":
            message_type, payload_size, flags = "message_flags", reserved, origin = "sender";
        synic::TimerExpired = "struct hv_timer_message_payload":
            timer_index, reserved, expiration_time, delivery_time;
        synic::SintIntercept = "struct hv_notification_message_payload": sint_index;
        synic::AsyncCallCompletion = "struct hv_async_completion_message_payload":
            partition_id, status, completion_count, sub_status;
        synic::SchedulerVpSignalBitset = "struct hv_vp_signal_bitset_scheduler_message":
            partition_id, overflow_count, vp_count, reserved, vp_set = "vp_bitset",
            banks = "vp_bitset.bitset.bank_contents";
        synic::SchedulerVpSignalPair = "struct hv_vp_signal_pair_scheduler_message":
            overflow_count, vp_count, reserved1, partition_ids, vp_indexes, reserved2;
        synic::EventRing = "struct hv_synic_event_ring":
            signal_masked, ring_full, reserved = "reserved_z", data;
        synic::StimerState = "struct hv_stimer_state":
            flags, reserved = "resvd", config, count, adjustment, undelivered_expiration_time = "undelivered_exp_time";
        synic::SyntheticTimersState = "struct hv_synthetic_timers_state": timers, reserved;
        synic::NotifyPortRingEmptyInput = "union hv_input_notify_port_ring_empty": sint_index, reserved;
        synic::SendIpiInput = "struct hv_send_ipi":
            vector, target_vtl = "reserved", processor_mask = "cpu_mask";
        synic::SendIpiExInput = "struct hv_send_ipi_ex": vector, target_vtl = "reserved", vp_set;
    }
    let mut comparison = Comparison::new();
    comparison.size("union hv_synic_event_flags", synic::EVENT_FLAGS_SIZE);
    comparison.offset("struct hv_message_page", "sint_message[1]", synic::SLOT_SIZE);
    comparison.offset("struct hv_synic_event_flags_page", "event_flags[1]", synic::SLOT_SIZE);
    comparison.offset("struct hv_synic_event_ring_page", "sint_event_ring[1]", synic::SLOT_SIZE);
    comparison.offset("struct hv_message", "header.message_flags", synic::MESSAGE_FLAGS_OFFSET);
    comparison.offset("struct hv_synic_event_ring", "data", synic::EVENT_RING_DATA_OFFSET);
    comparison.run();
}

#[test]
fn port_layouts_agree() {
    layouts! {
        port::CreatePortInput = "struct hv_input_create_port":
            port_partition_id, port_id, port_vtl, min_connection_vtl, padding, connection_partition_id, port_info,
            proximity_domain_info;
        port::PortInfo = "struct hv_port_info": port_type, padding, body = "doorbell_port_info";
        port::DeletePortInput = "union hv_input_delete_port": port_partition_id, port_id, reserved;
        port::ConnectPortInput = "struct hv_input_connect_port":
            connection_partition_id, connection_id, connection_vtl, reserved0 = "rsvdz0", reserved1 = "rsvdz1",
            port_partition_id, port_id, reserved2, connection_info, proximity_domain_info;
        port::ConnectionInfo = "struct hv_connection_info": port_type, padding, body = "doorbell_connection_info";
        port::DisconnectPortInput = "union hv_input_disconnect_port": connection_partition_id, connection_id;
    }
    let body = offset_of!(port::PortInfo, body);
    let mut comparison = Comparison::new();
    let mut view =
        |field: &str, offset: usize| comparison.offset("struct hv_port_info", field, body + offset);
    for name in ["message", "doorbell"] {
        view(&format!("{name}_port_info.target_sint"), offset_of!(port::SintPortInfo, target_sint));
        view(&format!("{name}_port_info.target_vp"), offset_of!(port::SintPortInfo, target_vp));
    }
    view("event_port_info.target_sint", offset_of!(port::EventPortInfo, target_sint));
    view("event_port_info.target_vp", offset_of!(port::EventPortInfo, target_vp));
    view("event_port_info.base_flag_number", offset_of!(port::EventPortInfo, base_flag_number));
    view("event_port_info.flag_count", offset_of!(port::EventPortInfo, flag_count));
    view("monitor_port_info.monitor_address", offset_of!(port::MonitorPortInfo, monitor_address));
    let body = offset_of!(port::ConnectionInfo, body);
    let mut view = |field: &str, offset: usize| {
        comparison.offset(
            "struct hv_connection_info",
            &format!("doorbell_connection_info.{field}"),
            body + offset,
        );
    };
    view("gpa", offset_of!(port::DoorbellConnectionInfo, gpa));
    view("trigger_value", offset_of!(port::DoorbellConnectionInfo, trigger_value));
    view("flags", offset_of!(port::DoorbellConnectionInfo, flags));
    comparison.run();
}

#[test]
fn device_layouts_agree() {
    layouts! {
        device::MapDeviceInterruptInput = "struct hv_input_map_device_interrupt":
            partition_id, device_id, flags, base_irt_index = "base_irt_idx", logical_interrupt_entry,
            interrupt_descriptor;
        device::MapDeviceInterruptOutput = "struct hv_output_map_device_interrupt":
            interrupt_entry, deprecated = "ext_status_deprecated";
        device::RetargetDeviceInterruptInput = "struct hv_retarget_device_interrupt":
            partition_id, device_id, interrupt_entry = "int_entry", reserved = "reserved2", target = "int_target";
        device::InterruptEntry = "struct hv_interrupt_entry":
            source, reserved = "reserved1", data = "msi_entry";
        device::InterruptDescriptor = "struct hv_device_interrupt_descriptor":
            interrupt_type, trigger_mode, vector_count, reserved, target;
        device::InterruptTarget = "struct hv_device_interrupt_target": vector, flags, vp_set;
        device::DeviceId = "union hv_device_id": ;
    }
    let mut comparison = Comparison::new();
    // Linux's structure ends with the flags; ours is padded.
    offsets!(comparison device::UnmapDeviceInterruptInput = "struct hv_input_unmap_device_interrupt":
        partition_id, device_id, interrupt_entry, flags;);
    comparison.offset(
        "struct hv_input_map_device_interrupt",
        "interrupt_descriptor.target.vp_set.valid_bank_mask",
        device::MapDeviceInterruptInput::FIXED_SIZE,
    );
    comparison.offset(
        "struct hv_retarget_device_interrupt",
        "int_target.vp_set.valid_bank_mask",
        device::RetargetDeviceInterruptInput::FIXED_SIZE,
    );
    comparison.run();
}

#[test]
fn stats_layouts_agree() {
    layouts! {
        stats::StatsPageInput = "struct hv_input_map_stats_page": object_type = "type", padding, identity;
        stats::StatsPageInput = "struct hv_input_unmap_stats_page": object_type = "type", padding, identity;
        stats::MapStatsPage2Input = "struct hv_input_map_stats_page2":
            object_type = "type", padding, identity, map_location;
        stats::MapStatsPageOutput = "struct hv_output_map_stats_page": map_location;
        stats::StatsIdentity = "union hv_stats_object_identity":
            object = "vp.partition_id", vp_index = "vp.vp_index", flags = "vp.flags", reserved = "vp.reserved",
            area = "vp.stats_area_type";
    }
    let mut comparison = Comparison::new();
    for (view, object) in [("hv", None), ("lp", Some("lp_index")), ("partition", Some("partition_id"))] {
        let identity = "union hv_stats_object_identity";
        comparison.offset(
            identity,
            &format!("{view}.stats_area_type"),
            offset_of!(stats::StatsIdentity, area),
        );
        if let Some(object) = object {
            comparison.offset(
                identity,
                &format!("{view}.{object}"),
                offset_of!(stats::StatsIdentity, object),
            );
        }
    }
    comparison.run();
}

#[test]
fn intercept_layouts_agree() {
    layouts! {
        intercept::MemoryIntercept = "struct hv_x64_memory_intercept_message":
            header, cache_type, instruction_byte_count, access_info = "memory_access_info", tpr_priority,
            reserved = "reserved1", guest_virtual_address, guest_physical_address, instruction_bytes;
        intercept::ApicEoi = "struct hv_x64_apic_eoi_message": vp_index, interrupt_vector;
        intercept::OpaqueIntercept = "struct hv_opaque_intercept_message": vp_index;
    }
    let mut comparison = Comparison::new();
    let header = "struct hv_x64_intercept_message_header";
    comparison.size(header, size_of::<intercept::InterceptHeader>());
    offsets!(comparison intercept::InterceptHeader = "struct hv_x64_intercept_message_header":
        vp_index, access_type = "intercept_access_type", execution_state, cs = "cs_segment", rip, rflags;);
    // C has no offset of a bit field: these two share a byte.
    let instruction = offset_of!(intercept::InterceptHeader, instruction);
    comparison.mask_at(header, instruction, "instruction_length", 0x0f);
    comparison.mask_at(header, instruction, "cr8", 0xf0);
    comparison.run();
}
