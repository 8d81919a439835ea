//! Layouts that only the bindings of the root's VMMs have: intercept messages, APIC state, and the inputs
//! of the calls that Linux passes through unread.

use core::mem::offset_of;

use mshv_bindings as theirs;
use tlfs::{intercept, register, synic, vp};

/// Compares sizes and offsets: `Ours = Theirs: field, field = their_field, ...;`.
macro_rules! layouts {
    ($($ours:ty = $theirs:ty: $($field:ident $(= $($their_field:ident).+)?),*;)*) => { $(
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($theirs));
        $( assert_eq!(
            offset_of!($ours, $field),
            layouts!(@offset $theirs, $field $($($their_field).+)?),
            "offset of {} in {}", stringify!($field), stringify!($theirs),
        ); )*
    )* };
    (@offset $theirs:ty, $field:ident) => { offset_of!($theirs, $field) };
    (@offset $theirs:ty, $field:ident $($their_field:ident).+) => { offset_of!($theirs, $($their_field).+) };
}

#[test]
fn intercept_messages_agree() {
    layouts! {
        intercept::InterceptHeader = theirs::hv_x64_intercept_message_header:
            vp_index, access_type = intercept_access_type, execution_state, cs = cs_segment, rip, rflags;
        intercept::MemoryIntercept = theirs::hv_x64_memory_intercept_message:
            header, cache_type, instruction_byte_count, access_info = memory_access_info, tpr_priority,
            guest_virtual_address, guest_physical_address, instruction_bytes;
        intercept::IoPortIntercept = theirs::hv_x64_io_port_intercept_message:
            header, port_number, access_info, instruction_byte_count, rax, instruction_bytes, ds = ds_segment,
            es = es_segment, rcx, rsi, rdi;
        intercept::MsrIntercept = theirs::hv_x64_msr_intercept_message: header, msr_number, rdx, rax;
        intercept::CpuidIntercept = theirs::hv_x64_cpuid_intercept_message:
            header, rax, rcx, rdx, rbx, default_result_rax, default_result_rcx, default_result_rdx,
            default_result_rbx;
        intercept::ExceptionIntercept = theirs::hv_x64_exception_intercept_message:
            header, exception_vector, exception_info, instruction_byte_count, error_code, exception_parameter,
            instruction_bytes, ds = ds_segment, ss = ss_segment, gp = rax;
        intercept::RegisterIntercept = theirs::hv_x64_register_intercept_message:
            header, register_name, access_info;
        intercept::HeaderIntercept = theirs::hv_x64_unrecoverable_exception_message: header;
        intercept::HeaderIntercept = theirs::hv_x64_halt_message: header;
        intercept::InvalidVpRegister = theirs::hv_x64_invalid_vp_register_message: vp_index;
        intercept::UnsupportedFeature = theirs::hv_x64_unsupported_feature_message:
            vp_index, feature_code, feature_parameter;
        intercept::ApicEoi = theirs::hv_x64_apic_eoi_message: vp_index, interrupt_vector;
        intercept::InterruptionDeliverable = theirs::hv_x64_interruption_deliverable_message:
            header, deliverable_type;
        intercept::SintDeliverable = theirs::hv_x64_sint_deliverable_message: header, deliverable_sints;
        intercept::SipiIntercept = theirs::hv_x64_sipi_intercept_message:
            header, target_vp_index, interrupt_vector;
    }
    // Theirs ends with the flags; ours is padded.
    type Theirs = theirs::hv_x64_hypercall_intercept_message;
    assert_eq!(offset_of!(intercept::HypercallIntercept, rax), offset_of!(Theirs, rax));
    assert_eq!(offset_of!(intercept::HypercallIntercept, xmm), offset_of!(Theirs, xmmregisters));
    assert_eq!(offset_of!(intercept::HypercallIntercept, reserved), size_of::<Theirs>());
}

#[test]
fn vp_layouts_agree() {
    layouts! {
        vp::LocalApicState = theirs::hv_local_interrupt_controller_state:
            apic_id, version = apic_version, ldr = apic_ldr, dfr = apic_dfr, spurious = apic_spurious,
            isr = apic_isr, tmr = apic_tmr, irr = apic_irr, esr = apic_esr, icr_high = apic_icr_high,
            icr_low = apic_icr_low, lvt = apic_lvt_timer, lvt_cmci = apic_lvt_cmci, error_status = apic_error_status,
            initial_count = apic_initial_count, current_count = apic_counter_value,
            divide_configuration = apic_divide_configuration, remote_read = apic_remote_read;
        vp::TranslateVirtualAddressInput = theirs::hv_input_translate_virtual_address:
            partition_id, vp_index, control_flags, gva_page;
        vp::TranslateVirtualAddressOutput = theirs::hv_output_translate_virtual_address:
            result_code = translation_result, gpa_page;
        vp::InstallInterceptInput = theirs::hv_input_install_intercept:
            partition_id, access_type, intercept_type, parameter = intercept_parameter;
        vp::GetVpCpuidValuesInput = theirs::hv_input_get_vp_cpuid_values: partition_id, vp_index, flags, reserved;
        vp::CpuidLeafInfo = theirs::hv_cpuid_leaf_info: eax, ecx, xfem, xss;
        vp::CpuidResult = theirs::hv_output_get_vp_cpuid_values: ;
        vp::CpuidResultParameters = theirs::hv_register_x64_cpuid_result_parameters:
            leaf = input.eax, subleaf = input.ecx, subleaf_specific = input.subleaf_specific,
            always_override = input.always_override, eax = result.eax, eax_mask = result.eax_mask,
            ebx = result.ebx, ebx_mask = result.ebx_mask, ecx = result.ecx, ecx_mask = result.ecx_mask,
            edx = result.edx, edx_mask = result.edx_mask;
        vp::MsrResultParameters = theirs::hv_register_x64_msr_result_parameters: msr_index, access_type, action;
        synic::SignalEventDirectInput = theirs::hv_input_signal_event_direct:
            target_partition, target_vp, target_vtl, target_sint, flag_number;
        synic::PostMessageDirectInput = theirs::hv_input_post_message_direct:
            partition_id, vp_index, vtl, sint_index, message;
        register::PendingExceptionEvent = theirs::hv_x64_pending_exception_event: ;
    }
    assert_eq!(
        size_of::<vp::RegisterInterceptResultInput>(),
        offset_of!(theirs::hv_input_register_intercept_result, parameters),
    );
}

#[test]
fn registers_agree() {
    let names = [
        (tlfs::RegisterName::RAX, theirs::hv_register_name_HV_X64_REGISTER_RAX),
        (tlfs::RegisterName::RFLAGS, theirs::hv_register_name_HV_X64_REGISTER_RFLAGS),
        (tlfs::RegisterName::XMM15, theirs::hv_register_name_HV_X64_REGISTER_XMM15),
        (tlfs::RegisterName::XMM_CONTROL_STATUS, theirs::hv_register_name_HV_X64_REGISTER_XMM_CONTROL_STATUS),
        (tlfs::RegisterName::XFEM, theirs::hv_register_name_HV_X64_REGISTER_XFEM),
        (tlfs::RegisterName::TR, theirs::hv_register_name_HV_X64_REGISTER_TR),
        (tlfs::RegisterName::GDTR, theirs::hv_register_name_HV_X64_REGISTER_GDTR),
        (tlfs::RegisterName::TSC_AUX, theirs::hv_register_name_HV_X64_REGISTER_TSC_AUX),
        (tlfs::RegisterName::PENDING_EVENT0, theirs::hv_register_name_HV_REGISTER_PENDING_EVENT0),
        (tlfs::RegisterName::HYPERCALL, theirs::hv_register_name_HV_X64_REGISTER_HYPERCALL),
    ];
    for (ours, theirs) in names {
        assert_eq!(ours.0, theirs, "{ours:?}");
    }
}
