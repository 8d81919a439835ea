//! VMBus: messages, packets and rings by size, offsets and numbers.
//!
//! `include/linux/hyperv.h` includes half of the kernel, so the declarations that matter are taken out of it.

use core::mem::offset_of;

use header_check::{Comparison, declaration, linux_file};
use vmbus::protocol::{
    self, GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, InitiateContact, ModifyChannel,
    ModifyChannelResponse, OfferChannel, OpenChannel, OpenResult, TlConnectRequest, Version, VersionResponse,
    kind, offer_flag,
};

/// What the declarations below need of the kernel.
const KERNEL: &str = "typedef struct { u8 bytes[16]; } guid_t;\n#define PAGE_SIZE 4096\n";

const DECLARATIONS: [&str; 20] = [
    "struct gpa_range {",
    "enum vmbus_packet_type {",
    "enum vmbus_channel_message_type {",
    "struct hv_ring_buffer {",
    "struct vmpacket_descriptor {",
    "struct vmdata_gpa_direct {",
    "struct vmbus_channel_offer {",
    "struct vmbus_channel_message_header {",
    "struct vmbus_channel_offer_channel {",
    "struct vmbus_channel_open_channel {",
    "struct vmbus_channel_open_result {",
    "struct vmbus_channel_modifychannel_response {",
    "struct vmbus_channel_gpadl_header {",
    "struct vmbus_channel_gpadl_body {",
    "struct vmbus_channel_gpadl_created {",
    "struct vmbus_channel_gpadl_teardown {",
    "struct vmbus_channel_initiate_contact {",
    "struct vmbus_channel_tl_connect_request {",
    "struct vmbus_channel_modifychannel {",
    "struct vmbus_channel_version_response {",
];

/// The macros that the declarations use, and the numbers that are compared.
const MACROS: [&str; 5] = [
    "#define VMBUS_MAKE_VERSION",
    "#define VERSION_WIN10",
    "#define VMBUS_CHANNEL_",
    "#define MAX_USER_DEFINED_BYTES",
    "#define MAX_PIPE_USER_DEFINED_BYTES",
];

fn comparison() -> Comparison {
    let header = linux_file("include/linux/hyperv.h");
    let mut text = KERNEL.to_owned();
    for line in header.lines().filter(|line| MACROS.iter().any(|start| line.starts_with(start))) {
        text.push_str(line);
        text.push('\n');
    }
    text.extend(DECLARATIONS.iter().map(|first_line| declaration(&header, first_line)));
    Comparison::over(text)
}

/// Compares bodies of messages, which follow a header of 8 bytes: `Ours = "struct": field = "field", ...;`.
macro_rules! bodies {
    ($comparison:ident $($type:ty = $c:literal: $($field:ident = $c_field:literal),*;)*) => {
        $(
            $comparison.size(concat!("struct vmbus_channel_", $c), 8 + size_of::<$type>());
            $( $comparison.offset(
                concat!("struct vmbus_channel_", $c), $c_field, 8 + offset_of!($type, $field)
            ); )*
        )*
    };
}

#[test]
fn messages_agree() {
    let mut comparison = comparison();
    comparison.size("struct vmbus_channel_message_header", size_of::<protocol::Header>());
    bodies! { comparison
        InitiateContact = "initiate_contact":
            version = "vmbus_version_requested", target_vp = "target_vcpu", target_info = "interrupt_page",
            target_info = "msg_sint", parent_to_child_monitor = "monitor_page1",
            child_to_parent_monitor = "monitor_page2";
        VersionResponse = "version_response":
            supported = "version_supported", state = "connection_state", connection = "msg_conn_id";
        OfferChannel = "offer_channel":
            interface = "offer.if_type", instance = "offer.if_instance", flags = "offer.chn_flags",
            mmio_megabytes = "offer.mmio_megabytes", user_defined = "offer.u",
            subchannel = "offer.sub_channel_index", channel = "child_relid", monitor = "monitorid",
            connection = "connection_id";
        OpenChannel = "open_channel":
            channel = "child_relid", open_id = "openid", ring_gpadl = "ringbuffer_gpadlhandle",
            target_vp = "target_vp", downstream_page = "downstream_ringbuffer_pageoffset",
            user_data = "userdata";
        OpenResult = "open_result": channel = "child_relid", open_id = "openid", status = "status";
        GpadlHeader = "gpadl_header":
            channel = "child_relid", gpadl = "gpadl", bytes = "range_buflen", ranges = "rangecount";
        GpadlBody = "gpadl_body": number = "msgnumber", gpadl = "gpadl";
        GpadlCreated = "gpadl_created":
            channel = "child_relid", gpadl = "gpadl", status = "creation_status";
        GpadlTeardown = "gpadl_teardown": channel = "child_relid", gpadl = "gpadl";
        TlConnectRequest = "tl_connect_request":
            endpoint = "guest_endpoint_id", service = "host_service_id";
        ModifyChannel = "modifychannel": channel = "child_relid", target_vp = "target_vp";
        ModifyChannelResponse = "modifychannel_response": channel = "child_relid", status = "status";
    }
    comparison.run();
}

#[test]
fn numbers_agree() {
    let mut comparison = comparison();
    let kinds = [
        ("OFFERCHANNEL", kind::OFFER_CHANNEL),
        ("RESCIND_CHANNELOFFER", kind::RESCIND_CHANNEL_OFFER),
        ("REQUESTOFFERS", kind::REQUEST_OFFERS),
        ("ALLOFFERS_DELIVERED", kind::ALL_OFFERS_DELIVERED),
        ("OPENCHANNEL", kind::OPEN_CHANNEL),
        ("OPENCHANNEL_RESULT", kind::OPEN_CHANNEL_RESULT),
        ("CLOSECHANNEL", kind::CLOSE_CHANNEL),
        ("GPADL_HEADER", kind::GPADL_HEADER),
        ("GPADL_BODY", kind::GPADL_BODY),
        ("GPADL_CREATED", kind::GPADL_CREATED),
        ("GPADL_TEARDOWN", kind::GPADL_TEARDOWN),
        ("GPADL_TORNDOWN", kind::GPADL_TORNDOWN),
        ("RELID_RELEASED", kind::RELID_RELEASED),
        ("INITIATE_CONTACT", kind::INITIATE_CONTACT),
        ("VERSION_RESPONSE", kind::VERSION_RESPONSE),
        ("UNLOAD", kind::UNLOAD),
        ("UNLOAD_RESPONSE", kind::UNLOAD_RESPONSE),
        ("TL_CONNECT_REQUEST", kind::TL_CONNECT_REQUEST),
        ("MODIFYCHANNEL", kind::MODIFY_CHANNEL),
        ("TL_CONNECT_RESULT", kind::TL_CONNECT_RESULT),
        ("MODIFYCHANNEL_RESPONSE", kind::MODIFY_CHANNEL_RESPONSE),
    ];
    for (name, ours) in kinds {
        comparison.value(format!("CHANNELMSG_{name}"), ours.into());
    }
    let versions = [
        ("", Version::V4_0),
        ("_V4_1", Version::V4_1),
        ("_V5", Version::V5_0),
        ("_V5_1", Version::V5_1),
        ("_V5_2", Version::V5_2),
        ("_V5_3", Version::V5_3),
        ("_V6_0", Version::V6_0),
    ];
    for (name, ours) in versions {
        comparison.value(format!("VERSION_WIN10{name}"), ours.number().into());
    }
    let flags = [
        ("ENUMERATE_DEVICE_INTERFACE", offer_flag::ENUMERATE_DEVICE_INTERFACE),
        ("NAMED_PIPE_MODE", offer_flag::NAMED_PIPE),
        ("TLNPI_PROVIDER_OFFER", offer_flag::SOCKET),
    ];
    for (name, ours) in flags {
        comparison.value(format!("VMBUS_CHANNEL_{name}"), ours.into());
    }
    comparison.run();
}

/// The numbers of `vmbus/src/ring.rs`, which are nobody else's business there.
#[test]
fn rings_and_packets_agree() {
    let mut comparison = comparison();
    let header = [
        ("write_index", 0),
        ("read_index", 4),
        ("interrupt_mask", 8),
        ("pending_send_sz", 12),
        ("feature_bits", 64),
        ("buffer", 4096),
    ];
    for (field, ours) in header {
        comparison.offset("struct hv_ring_buffer", field, ours);
    }
    comparison.mask_at("struct hv_ring_buffer", 64, "feature_bits.feat_pending_send_sz", 1);
    comparison.size("struct vmpacket_descriptor", 16);
    let descriptor = [("type", 0), ("offset8", 2), ("len8", 4), ("flags", 6), ("trans_id", 8)];
    for (field, ours) in descriptor {
        comparison.offset("struct vmpacket_descriptor", field, ours);
    }
    comparison.offset("struct vmdata_gpa_direct", "range_cnt", 20);
    comparison.offset("struct vmdata_gpa_direct", "range", 24);
    for (field, ours) in [("byte_count", 0), ("byte_offset", 4), ("pfn_array", 8)] {
        comparison.offset("struct gpa_range", field, ours);
    }
    let kinds = [("INBAND", 6), ("USING_XFER_PAGES", 7), ("USING_GPA_DIRECT", 9)]
        .map(|(name, ours)| (format!("DATA_{name}"), ours));
    for (name, ours) in kinds.into_iter().chain([("COMP".to_owned(), 11)]) {
        comparison.value(format!("VM_PKT_{name}"), ours);
    }
    comparison.run();
}
