//! Ports and connections: the root makes them, for itself and for its children.
//!
//! Linux makes doorbells only. It has no handler for what a message port of the root on SINT 0 would deliver, and ports
//! do not aim there; what arrives at another source waits in its slot for whoever made the port.

use model::{
    ensure,
    port::{Connection, Port, PortKind},
};
use tlfs::{
    CallCode, HvStatus, SintIndex, VpIndex,
    port::{ConnectPortInput, CreatePortInput, DeletePortInput, DisconnectPortInput},
    synic::NotifyPortRingEmptyInput,
};

use super::Outcome;
use crate::{
    port::{self, endpoints, id_of, open_endpoints, party},
    root::RootCpu,
};

/// `HvCallCreatePort`: creates a port of the root or of a child. A doorbell is the root's, and rings on any processor,
/// in the ring of SINT 5: one for a certain processor would have to wake that one from wherever the child runs, and
/// nobody asks for it.
pub fn create(_: &mut RootCpu, input: CreatePortInput) -> Outcome {
    let owner = party(input.port_partition_id, CallCode::CREATE_PORT)?;
    let sender = party(input.connection_partition_id, CallCode::CREATE_PORT)?;
    let port = Port::new(id_of(&owner), id_of(&sender), &input)?;
    let is_usual = owner.is_none() && (port.sint, port.vp) == (SintIndex::DOORBELL, VpIndex::ANY);
    ensure(port.kind != PortKind::Doorbell || is_usual, HvStatus::INVALID_PARAMETER)?;
    port::check_vp(&owner, port.vp)?;
    open_endpoints(&owner, CallCode::CREATE_PORT)?.create(port)
}

/// `HvCallDeletePort`: deletes a port, whatever became of the partition that was to connect. A connection to a
/// doorbell would ring an id that the root no longer knows, which its driver passes over.
pub fn delete(_: &mut RootCpu, input: DeletePortInput) -> Outcome {
    let owner = party(input.port_partition_id, CallCode::DELETE_PORT)?;
    let port = endpoints(&owner).delete(input.port_id)?;
    port::forget(&owner, &port);
    Ok(())
}

/// `HvCallConnectPort`: connects a partition to a port that was created for it.
pub fn connect(_: &mut RootCpu, input: ConnectPortInput) -> Outcome {
    let owner = party(input.port_partition_id, CallCode::CONNECT_PORT)?;
    let sender = party(input.connection_partition_id, CallCode::CONNECT_PORT)?;
    let port = endpoints(&owner).port(input.port_id, id_of(&sender))?;
    let connection = Connection::new(id_of(&owner), &port, &input)?;
    open_endpoints(&sender, CallCode::CONNECT_PORT)?.connect(connection)
}

/// `HvCallDisconnectPort`: removes a connection. What was sent stays where it waits.
pub fn disconnect(_: &mut RootCpu, input: DisconnectPortInput) -> Outcome {
    let sender = party(input.connection_partition_id, CallCode::DISCONNECT_PORT)?;
    endpoints(&sender).disconnect(input.connection_id, input.is_doorbell == 1)
}

/// `HvCallNotifyPortRingEmpty`: puts into the calling processor's ring what did not fit before.
pub fn notify_ring_empty(cpu: &mut RootCpu, input: NotifyPortRingEmptyInput) -> Outcome {
    ensure(input.sint_index == SintIndex::DOORBELL, HvStatus::INVALID_PARAMETER)?;
    port::refill(cpu.vp);
    Ok(())
}
