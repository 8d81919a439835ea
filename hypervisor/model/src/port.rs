//! Ports and connections: what they are, and who may reach what through them.
//!
//! A port belongs to the partition that receives, a connection to the one that sends; both partitions were checked
//! by the caller (identity, parenthood, privilege, state), and come here resolved, never as "self". Storage is the
//! caller's slices. A connection outlives its port, and then fails. Doorbell connections are named apart from the
//! others (`HvCallDisconnectPort` says which it means).
//!
//! Source: TLFS inter-partition-communication, hypercalls/HvCallCreatePort, HvCallConnectPort; status codes from
//! TLFS 2.0 §14.9, which also rules that SINT 0 is the hypervisor's and that a port has one connection at a time.

use tlfs::{
    ConnectionId, HvStatus, PartitionId, PortId, SintIndex, VpIndex,
    port::{ConnectPortInput, CreatePortInput, PortType},
    synic::{EVENT_FLAGS_COUNT, MESSAGE_PAYLOAD_SIZE, MessageType, PostMessageInput},
};

use crate::doorbell::Doorbell;

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
    /// The receiving partition.
    pub owner: PartitionId,
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
    /// The sending partition.
    pub owner: PartitionId,
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
    /// `INVALID_PARAMETER` for an unknown type, a source outside 1 to 15, flags beyond the page, reserved fields.
    pub fn new(owner: PartitionId, sender: PartitionId, input: &CreatePortInput) -> Result<Self, HvStatus> {
        if owner == sender {
            return Err(HvStatus::INVALID_PARTITION_ID);
        }
        let is_unusable = input.port_info.port_type == PortType::DOORBELL && input.port_id.0 == 0;
        if input.port_id.0 & !PortId::MASK != 0 || is_unusable {
            return Err(HvStatus::INVALID_PORT_ID);
        }
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
        if !is_usable || !flags_fit || reserved != 0 || input.padding != 0 {
            return Err(HvStatus::INVALID_PARAMETER);
        }
        Ok(Self { owner, id: input.port_id, sender, kind, sint, vp, is_remembered: false })
    }

    fn is(&self, owner: PartitionId, id: PortId) -> bool {
        (self.owner, self.id) == (owner, id)
    }
}

impl Connection {
    fn is(&self, owner: PartitionId, id: ConnectionId, is_doorbell: bool) -> bool {
        (self.owner, self.id, self.doorbell.is_some()) == (owner, id, is_doorbell)
    }

    fn leads_to(&self, port: &Port) -> bool {
        port.is(self.port_owner, self.port)
    }
}

/// Adds a port.
///
/// # Errors
/// `INVALID_PORT_ID` if the owner has one with this id, `NO_RESOURCES` if the table is full.
pub fn create(ports: &mut [Option<Port>], port: Port) -> Result<(), HvStatus> {
    if find(ports, port.owner, port.id).is_ok() {
        return Err(HvStatus::INVALID_PORT_ID);
    }
    insert(ports, port)
}

/// Removes a port; its connection stays, and leads nowhere.
///
/// # Errors
/// `INVALID_PORT_ID` if there is none.
pub fn delete(ports: &mut [Option<Port>], owner: PartitionId, id: PortId) -> Result<(), HvStatus> {
    remove(ports, |port| port.is(owner, id)).ok_or(HvStatus::INVALID_PORT_ID).map(drop)
}

/// Connects `owner` to a port of `port_owner` as the input of `HvCallConnectPort` asks.
///
/// # Errors
/// `INVALID_CONNECTION_ID` for an id in use or with reserved bits, `INVALID_PORT_ID` for a port that does not exist,
/// is connected or is not for `owner`, `INVALID_PARAMETER` for a type that is not the port's, a bad trigger, reserved
/// fields; `NO_RESOURCES` if the table is full.
pub fn connect(
    ports: &[Option<Port>],
    connections: &mut [Option<Connection>],
    owner: PartitionId,
    port_owner: PartitionId,
    input: &ConnectPortInput,
) -> Result<(), HvStatus> {
    let (id, info) = (input.connection_id, &input.connection_info);
    if id.0 & !ConnectionId::MASK != 0 {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    let port = find(ports, port_owner, input.port_id)?;
    if port.sender != owner || connections.iter().flatten().any(|other| other.leads_to(port)) {
        return Err(HvStatus::INVALID_PORT_ID);
    }
    let doorbell = match (port.kind, info.port_type) {
        (PortKind::Doorbell, PortType::DOORBELL) => Some(Doorbell::new(&info.as_doorbell())?),
        (PortKind::Message, PortType::MESSAGE) | (PortKind::Event { .. }, PortType::EVENT)
            if info.body[0] == 0 =>
        {
            None
        }
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    if (input.reserved0, input.reserved1, input.reserved2) != (0, 0, 0) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    if connections.iter().flatten().any(|other| other.is(owner, id, doorbell.is_some())) {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    insert(connections, Connection { owner, id, port_owner, port: input.port_id, doorbell })
}

/// Removes a connection and returns it. Messages already queued are not affected.
///
/// # Errors
/// `INVALID_CONNECTION_ID` if there is none.
pub fn disconnect(
    connections: &mut [Option<Connection>],
    owner: PartitionId,
    id: ConnectionId,
    is_doorbell: bool,
) -> Result<Connection, HvStatus> {
    remove(connections, |connection| connection.is(owner, id, is_doorbell))
        .ok_or(HvStatus::INVALID_CONNECTION_ID)
}

/// Removes what belongs to a partition that ceases to exist.
pub fn purge(ports: &mut [Option<Port>], connections: &mut [Option<Connection>], partition: PartitionId) {
    while remove(ports, |port| port.owner == partition).is_some() {}
    while remove(connections, |connection| connection.owner == partition).is_some() {}
}

/// The port that a message of `HvCallPostMessage` goes to.
///
/// # Errors
/// `INVALID_PARAMETER` for a message type of the hypervisor's, type zero or an oversized payload,
/// `INVALID_CONNECTION_ID` for an unknown connection, `INVALID_PORT_ID` if it does not lead to a message port.
pub fn message_target(
    ports: &[Option<Port>],
    connections: &[Option<Connection>],
    sender: PartitionId,
    input: &PostMessageInput,
) -> Result<Port, HvStatus> {
    let kind = input.message_type;
    let is_own = kind.0 & MessageType::HYPERVISOR_MASK != 0 || kind == MessageType::NONE;
    if is_own || input.payload_size as usize > MESSAGE_PAYLOAD_SIZE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let port = target(ports, connections, sender, input.connection_id)?;
    if port.kind == PortKind::Message { Ok(*port) } else { Err(HvStatus::INVALID_PORT_ID) }
}

/// The port that a flag of `HvCallSignalEvent` goes to, and the flag's number in its page.
///
/// # Errors
/// `INVALID_CONNECTION_ID` for an unknown connection, `INVALID_PORT_ID` if it does not lead to an event port,
/// `INVALID_PARAMETER` for a flag that is not the port's.
pub fn event_target(
    ports: &[Option<Port>],
    connections: &[Option<Connection>],
    sender: PartitionId,
    id: ConnectionId,
    flag: u16,
) -> Result<(Port, u16), HvStatus> {
    let port = target(ports, connections, sender, id)?;
    match port.kind {
        PortKind::Event { base, count } if flag < count => Ok((*port, base + flag)),
        PortKind::Event { .. } => Err(HvStatus::INVALID_PARAMETER),
        _ => Err(HvStatus::INVALID_PORT_ID),
    }
}

/// The doorbells that a write of `sender` rings, as the ports' owners and ids: several, if several watch the address.
pub fn rung(
    connections: &[Option<Connection>],
    sender: PartitionId,
    gpa: u64,
    bytes: u8,
    value: u64,
) -> impl Iterator<Item = (PartitionId, PortId)> {
    let rings = move |doorbell: Doorbell| doorbell.rings(gpa, bytes, value);
    let matching = connections.iter().flatten().filter(move |connection| connection.owner == sender);
    matching
        .filter(move |connection| connection.doorbell.is_some_and(rings))
        .map(|found| (found.port_owner, found.port))
}

fn find(ports: &[Option<Port>], owner: PartitionId, id: PortId) -> Result<&Port, HvStatus> {
    ports.iter().flatten().find(|port| port.is(owner, id)).ok_or(HvStatus::INVALID_PORT_ID)
}

fn target<'a>(
    ports: &'a [Option<Port>],
    connections: &[Option<Connection>],
    sender: PartitionId,
    id: ConnectionId,
) -> Result<&'a Port, HvStatus> {
    let mut all = connections.iter().flatten();
    let connection =
        all.find(|connection| connection.is(sender, id, false)).ok_or(HvStatus::INVALID_CONNECTION_ID)?;
    find(ports, connection.port_owner, connection.port)
}

fn insert<T>(table: &mut [Option<T>], entry: T) -> Result<(), HvStatus> {
    let free = table.iter_mut().find(|slot| slot.is_none()).ok_or(HvStatus::NO_RESOURCES)?;
    *free = Some(entry);
    Ok(())
}

fn remove<T>(table: &mut [Option<T>], is_it: impl Fn(&T) -> bool) -> Option<T> {
    table.iter_mut().find(|slot| slot.as_ref().is_some_and(&is_it)).and_then(Option::take)
}

#[cfg(test)]
mod tests;
