//! Ports and connections, over which messages and events pass between partitions.

use crate::{
    ids::{ConnectionId, PartitionId, PortId, SintIndex, VpIndex},
    partition::ProximityDomainInfo,
};

/// Where the doorbells of events are: a guest-physical address that no partition can have.
///
/// An extension of Bulkhead (`docs/adr/0010-guest-to-host-signals.md`): see [`ConnectionId::event_doorbell`].
pub const EVENT_DOORBELLS: u64 = 1 << 48;

impl ConnectionId {
    /// The guest-physical address whose doorbell hears of a `SignalEvent` on this connection, as of a write of the flag's
    /// number in 8 bytes, if the partition has no such connection. `None` for an id with reserved bits.
    #[must_use]
    pub const fn event_doorbell(self) -> Option<u64> {
        if self.0 & !Self::MASK == 0 { Some(EVENT_DOORBELLS + self.0 as u64 * 8) } else { None }
    }
}

wire! {
    /// Input of `CreatePort`.
    #[doc(alias = "hv_input_create_port")]
    pub struct CreatePortInput: 56 {
        0 => port_partition_id: PartitionId,
        8 => port_id: PortId,
        12 => port_vtl: u8,
        13 => min_connection_vtl: u8,
        14 => padding: u16,
        16 => connection_partition_id: PartitionId,
        24 => port_info: PortInfo,
        48 => proximity_domain_info: ProximityDomainInfo,
    }

    /// What a port is; the body's meaning depends on the type.
    #[doc(alias = "hv_port_info")]
    pub struct PortInfo: 24 {
        0 => port_type: PortType,
        4 => padding: u32,
        8 => body: [u64; 2],
    }

    /// The body of a message or doorbell port.
    pub struct SintPortInfo: 16 {
        0 => target_sint: SintIndex,
        4 => target_vp: VpIndex,
        8 => reserved: u64,
    }

    /// The body of an event port.
    pub struct EventPortInfo: 16 {
        0 => target_sint: SintIndex,
        4 => target_vp: VpIndex,
        8 => base_flag_number: u16,
        10 => flag_count: u16,
        12 => reserved: u32,
    }

    /// The body of a monitor port.
    pub struct MonitorPortInfo: 16 {
        /// Guest physical address of the monitor page, in bytes.
        0 => monitor_address: u64,
        8 => reserved: u64,
    }

    /// Input of `DeletePort`, commonly fast.
    #[doc(alias = "hv_input_delete_port")]
    pub struct DeletePortInput: 16 {
        0 => port_partition_id: PartitionId,
        8 => port_id: PortId,
        12 => reserved: u32,
    }

    /// Input of `ConnectPort`.
    #[doc(alias = "hv_input_connect_port")]
    pub struct ConnectPortInput: 72 {
        0 => connection_partition_id: PartitionId,
        8 => connection_id: ConnectionId,
        12 => connection_vtl: u8,
        13 => reserved0: u8,
        14 => reserved1: u16,
        16 => port_partition_id: PartitionId,
        24 => port_id: PortId,
        28 => reserved2: u32,
        32 => connection_info: ConnectionInfo,
        64 => proximity_domain_info: ProximityDomainInfo,
    }

    /// What a connection is; the body's meaning depends on the type.
    #[doc(alias = "hv_connection_info")]
    pub struct ConnectionInfo: 32 {
        0 => port_type: PortType,
        4 => padding: u32,
        8 => body: [u64; 3],
    }

    /// The body of a connection to a doorbell: a guest's write there signals the port.
    pub struct DoorbellConnectionInfo: 24 {
        /// Guest physical address in bytes.
        0 => gpa: u64,
        8 => trigger_value: u64,
        16 => flags: DoorbellFlags,
    }

    /// Input of `DisconnectPort`, commonly fast.
    #[doc(alias = "hv_input_disconnect_port")]
    pub struct DisconnectPortInput: 16 {
        0 => connection_partition_id: PartitionId,
        8 => connection_id: ConnectionId,
        /// Bit 0: the connection is to a doorbell, which has identifiers of its own.
        12 => is_doorbell: u32,
    }
}

bit_word! {
    /// Which writes ring a doorbell.
    pub struct DoorbellFlags(u64) {
        /// A [`DoorbellSize`].
        #[bits(3)]
        pub trigger_size: u8,
        #[bits(28)]
        pub reserved0: u32,
        /// Else only a write of the trigger value rings.
        pub any_value: bool,
        pub reserved1: u32,
    }
}

open_enum! {
    /// The kind of a port.
    #[doc(alias = "hv_port_type")]
    pub struct PortType(u32) {
        MESSAGE = 1,
        EVENT = 2,
        MONITOR = 3,
        /// Of the root only.
        DOORBELL = 4,
    }

    /// The size of the writes that ring a doorbell.
    #[doc(alias = "HV_DOORBELL_FLAG_TRIGGER_SIZE_MASK")]
    pub struct DoorbellSize(u8) {
        ANY = 0,
        BYTE = 1,
        WORD = 2,
        DWORD = 3,
        QWORD = 4,
    }
}

impl PortInfo {
    /// As a message or doorbell port.
    #[must_use]
    pub const fn as_sint(&self) -> SintPortInfo {
        zerocopy::transmute!(self.body)
    }

    /// As an event port.
    #[must_use]
    pub const fn as_event(&self) -> EventPortInfo {
        zerocopy::transmute!(self.body)
    }

    /// As a monitor port.
    #[must_use]
    pub const fn as_monitor(&self) -> MonitorPortInfo {
        zerocopy::transmute!(self.body)
    }
}

impl ConnectionInfo {
    /// As a connection to a doorbell.
    #[must_use]
    pub const fn as_doorbell(&self) -> DoorbellConnectionInfo {
        zerocopy::transmute!(self.body)
    }
}
