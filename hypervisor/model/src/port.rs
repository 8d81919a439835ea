//! Ports and connections: what they are, and who may reach what through them.
//!
//! A port belongs to the partition that receives, a connection to the one that sends. Each partition has its own
//! [`Endpoints`]; where they are kept is the caller's [`Table`]. Both partitions were checked by the caller
//! (identity, parenthood, privilege, state), and come here resolved, never as "self". A connection outlives its port,
//! and then fails. Doorbell connections are named apart from the others (`HvCallDisconnectPort` says which it means).
//!
//! Source: TLFS inter-partition-communication, hypercalls/HvCallCreatePort, HvCallConnectPort; status codes from
//! TLFS 2.0 §14.9, which also rules that SINT 0 is the hypervisor's and that a port has one connection at a time.

use tlfs::{
    ConnectionId, HvStatus, PAGE_SIZE, PartitionId, PortId, SintIndex, VpIndex,
    port::{ConnectPortInput, CreatePortInput, PortType},
    synic::{EVENT_FLAGS_COUNT, HvMessage, MESSAGE_PAYLOAD_SIZE, MessageType, PostMessageInput},
};

use crate::{doorbell::Doorbell, ensure};

/// What a port receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// Messages.
    Message,
    /// Event flags from `base`, `count` of them.
    Event {
        /// The first.
        base: u16,
        /// How many; at least one.
        count: u16,
    },
    /// Writes of another partition, in the event ring of the source.
    Doorbell,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Unique among the owner's ports.
    pub id: PortId,
    /// The only partition that may connect.
    pub sender: PartitionId,
    /// What it receives.
    pub kind: PortKind,
    /// The source that is signalled, 1 to 15.
    pub sint: SintIndex,
    /// The VP that is signalled, possibly [`VpIndex::ANY`].
    pub vp: VpIndex,
    /// A doorbell that rang while the event ring was full.
    pub is_remembered: bool,
}

/// A connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Unique among the owner's connections, or among its doorbells.
    pub id: ConnectionId,
    /// The receiving partition.
    pub port_owner: PartitionId,
    /// Its port.
    pub port: PortId,
    /// The trigger, if the port is a doorbell.
    pub doorbell: Option<Doorbell>,
}

impl Port {
    /// Checks the input of `HvCallCreatePort`, whose partitions are `owner` and `sender`. Whether the VP exists is
    /// left to the caller.
    ///
    /// # Errors
    /// `INVALID_PARTITION_ID` if the two partitions are one, `INVALID_PORT_ID` for reserved bits in the id and for
    /// doorbell 0, which the event ring cannot carry,
    /// `INVALID_PARAMETER` for an unknown type, a source outside 1 to 15, flags beyond the page, another
    /// trust level than 0, reserved fields.
    pub fn new(owner: PartitionId, sender: PartitionId, input: &CreatePortInput) -> Result<Self, HvStatus> {
        ensure(owner != sender, HvStatus::INVALID_PARTITION_ID)?;
        let is_usable = input.port_info.port_type != PortType::DOORBELL || input.port_id.0 != 0;
        ensure(is_usable && input.port_id.0 & !PortId::MASK == 0, HvStatus::INVALID_PORT_ID)?;
        let (sint_info, event) = (input.port_info.as_sint(), input.port_info.as_event());
        let (kind, reserved) = match input.port_info.port_type {
            PortType::MESSAGE => (PortKind::Message, sint_info.reserved),
            PortType::DOORBELL => (PortKind::Doorbell, sint_info.reserved),
            PortType::EVENT => {
                let (base, count) = (event.base_flag_number, event.flag_count);
                (PortKind::Event { base, count }, event.reserved.into())
            }
            _ => return Err(HvStatus::INVALID_PARAMETER),
        };
        let flags_fit = match kind {
            PortKind::Event { base, count } => {
                count != 0 && u32::from(base) + u32::from(count) <= EVENT_FLAGS_COUNT
            }
            _ => true,
        };
        let (sint, vp) = (sint_info.target_sint, sint_info.target_vp);
        let is_usable = (1..SintIndex::COUNT as u32).contains(&sint.0);
        let is_clear =
            (input.port_vtl, input.min_connection_vtl, input.padding) == (0, 0, 0) && reserved == 0;
        ensure(is_usable && flags_fit && is_clear, HvStatus::INVALID_PARAMETER)?;
        Ok(Self { id: input.port_id, sender, kind, sint, vp, is_remembered: false })
    }

    /// The number in its page of the flag that `HvCallSignalEvent` calls `flag`.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` if it is no event port, `INVALID_PARAMETER` for a flag that is not the port's.
    pub fn flag(&self, flag: u16) -> Result<u16, HvStatus> {
        match self.kind {
            PortKind::Event { base, count } if flag < count => Ok(base + flag),
            PortKind::Event { .. } => Err(HvStatus::INVALID_PARAMETER),
            _ => Err(HvStatus::INVALID_PORT_ID),
        }
    }

    /// The message that arrives when `input` is posted to it.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` if it is no message port.
    pub fn message(&self, input: &PostMessageInput) -> Result<HvMessage, HvStatus> {
        ensure(self.kind == PortKind::Message, HvStatus::INVALID_PORT_ID)?;
        let mut message = HvMessage::new(input.message_type, u64::from(self.id.0), &[0u8; 0]);
        message.header.payload_size = input.payload_size as u8;
        let sent = input.payload.iter().take(input.payload_size as usize);
        message.payload.iter_mut().zip(sent).for_each(|(to, from)| *to = *from);
        Ok(message)
    }
}

/// Checks the input of `HvCallPostMessage`, whatever it is posted to.
///
/// # Errors
/// `INVALID_PARAMETER` for a message type of the hypervisor's, type zero or an oversized payload.
pub fn check_message(input: &PostMessageInput) -> Result<(), HvStatus> {
    let kind = input.message_type;
    let is_own = kind.0 & MessageType::HYPERVISOR_MASK != 0 || kind == MessageType::NONE;
    let is_valid = !is_own && input.payload_size as usize <= MESSAGE_PAYLOAD_SIZE && input.reserved == 0;
    ensure(is_valid, HvStatus::INVALID_PARAMETER)
}

impl Connection {
    /// Checks the input of `HvCallConnectPort`, by which a partition is connected to `port` of `port_owner`.
    ///
    /// # Errors
    /// `INVALID_CONNECTION_ID` for reserved bits in the id, `INVALID_PARAMETER` for a type that is not the port's, a
    /// bad trigger, reserved fields.
    pub fn new(port_owner: PartitionId, port: &Port, input: &ConnectPortInput) -> Result<Self, HvStatus> {
        let (id, info) = (input.connection_id, &input.connection_info);
        ensure(id.0 & !ConnectionId::MASK == 0, HvStatus::INVALID_CONNECTION_ID)?;
        let doorbell = match (port.kind, info.port_type) {
            (PortKind::Doorbell, PortType::DOORBELL) => Some(Doorbell::new(&info.as_doorbell())?),
            (PortKind::Message, PortType::MESSAGE) | (PortKind::Event { .. }, PortType::EVENT)
                if info.body[0] == 0 =>
            {
                None
            }
            _ => return Err(HvStatus::INVALID_PARAMETER),
        };
        let reserved = (input.connection_vtl, input.reserved0, input.reserved1, input.reserved2);
        ensure(reserved == (0, 0, 0, 0), HvStatus::INVALID_PARAMETER)?;
        Ok(Self { id, port_owner, port: port.id, doorbell })
    }

    fn is(&self, id: ConnectionId, is_doorbell: bool) -> bool {
        (self.id, self.doorbell.is_some()) == (id, is_doorbell)
    }
}

/// Where the ports or the connections of a partition are kept.
pub trait Table<T> {
    /// All entries.
    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a T>
    where
        T: 'a;
    /// Adds an entry.
    ///
    /// # Errors
    /// `NO_RESOURCES` if there may be no more, `INSUFFICIENT_MEMORY` if nobody pays.
    fn insert(&mut self, entry: T) -> Result<(), HvStatus>;
    /// Removes the first entry of which `is_it` is true.
    fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T>;
}

/// The ports and the connections of one partition.
pub struct Endpoints<P, C> {
    /// Its ports.
    pub ports: P,
    /// Its connections.
    pub connections: C,
}

impl<P: Table<Port>, C: Table<Connection>> Endpoints<P, C> {
    /// Adds a port.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` if there is one with this id; those of [`Table::insert`].
    pub fn create(&mut self, port: Port) -> Result<(), HvStatus> {
        ensure(self.ports.iter().all(|other| other.id != port.id), HvStatus::INVALID_PORT_ID)?;
        self.ports.insert(port)
    }

    /// Removes a port; its connection stays, and leads nowhere.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` if there is none.
    pub fn delete(&mut self, id: PortId) -> Result<Port, HvStatus> {
        self.ports.remove(|port| port.id == id).ok_or(HvStatus::INVALID_PORT_ID)
    }

    /// The port through which `sender` reaches the partition. An id that was given away again does not.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` if there is none.
    pub fn port(&self, id: PortId, sender: PartitionId) -> Result<Port, HvStatus> {
        let port = self.ports.iter().find(|port| (port.id, port.sender) == (id, sender));
        port.copied().ok_or(HvStatus::INVALID_PORT_ID)
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// `INVALID_PORT_ID` for a port that is connected already, `INVALID_CONNECTION_ID` for an id in use; those of
    /// [`Table::insert`].
    pub fn connect(&mut self, new: Connection) -> Result<(), HvStatus> {
        let leads_to = |other: &Connection| (other.port_owner, other.port);
        let is_first = self.connections.iter().all(|other| leads_to(other) != leads_to(&new));
        ensure(is_first, HvStatus::INVALID_PORT_ID)?;
        let is_new = !self.connections.iter().any(|other| other.is(new.id, new.doorbell.is_some()));
        ensure(is_new, HvStatus::INVALID_CONNECTION_ID)?;
        self.connections.insert(new)
    }

    /// Removes a connection. Messages already queued are not affected.
    ///
    /// # Errors
    /// `INVALID_CONNECTION_ID` if there is none.
    pub fn disconnect(&mut self, id: ConnectionId, is_doorbell: bool) -> Result<(), HvStatus> {
        let gone = self.connections.remove(|connection| connection.is(id, is_doorbell));
        gone.map(drop).ok_or(HvStatus::INVALID_CONNECTION_ID)
    }

    /// The connection over which a message or an event is sent.
    ///
    /// # Errors
    /// `INVALID_CONNECTION_ID` if there is none.
    pub fn connection(&self, id: ConnectionId) -> Result<Connection, HvStatus> {
        let found = self.connections.iter().find(|connection| connection.is(id, false));
        found.copied().ok_or(HvStatus::INVALID_CONNECTION_ID)
    }

    /// The port that a write of the low `bytes` bytes of `value` to `gpa` rings; the first connected, where several
    /// watch the same write. (Linux refuses such ioeventfds, unless one of the two takes any size.)
    pub fn rung(&self, gpa: u64, bytes: u8, value: u64) -> Option<PortId> {
        let rings = |doorbell: Doorbell| doorbell.rings(gpa, bytes, value);
        let mut all = self.connections.iter();
        all.find(|connection| connection.doorbell.is_some_and(rings)).map(|hit| hit.port)
    }

    /// Whether a doorbell is in the page of `gpa`.
    pub fn has_doorbell_in_page(&self, gpa: u64) -> bool {
        let page = |gpa: u64| gpa / PAGE_SIZE as u64;
        let mut doorbells = self.connections.iter().filter_map(|connection| connection.doorbell);
        doorbells.any(|doorbell| page(doorbell.gpa()) == page(gpa))
    }
}

#[cfg(test)]
mod tests;
