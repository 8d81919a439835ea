//! Ports of the root and connections of its children to them: doorbells.
//!
//! Message and event ports of the root are refused. Linux has no handler for what they would deliver, and a message
//! that its driver cannot attribute blocks the message slot for ever (`Linux drivers/hv/mshv_synic.c:mshv_isr`).

use model::{
    call::CallSpec,
    port::{self, Port, PortKind},
};
use tlfs::{
    CallCode, HvStatus, PartitionId, SintIndex, VpIndex,
    port::{ConnectPortInput, CreatePortInput, DeletePortInput, DisconnectPortInput, PortType},
    synic::NotifyPortRingEmptyInput,
};

use super::{Call, Outcome};
use crate::{
    doorbell::{PORTS, refill},
    partition,
    root::{self, RootCpu},
};

/// `HvCallCreatePort`.
pub const CREATE: CallSpec = CallSpec::simple(size_of::<CreatePortInput>(), 0);

/// Creates a doorbell port of the root, for one child. It rings on any processor, in the ring of SINT 5: a doorbell
/// for a certain processor would have to wake that one from wherever the child runs, and nobody asks for it.
pub fn create(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: CreatePortInput = call.header()?;
    check_owner(input.port_partition_id)?;
    let sender = partition::find_for(input.connection_partition_id, CallCode::CREATE_PORT)?;
    let port = Port::new(root::ID, sender.id, &input)?;
    let is_doorbell = port.kind == PortKind::Doorbell;
    if !is_doorbell || port.sint != SintIndex::DOORBELL || port.vp != VpIndex::ANY {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    if (input.port_vtl, input.min_connection_vtl) != (0, 0) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    port::create(&mut *PORTS.lock(), port)
}

fn check_owner(owner: PartitionId) -> Outcome {
    match owner {
        PartitionId::SELF | root::ID => Ok(()),
        _ => Err(HvStatus::INVALID_PARTITION_ID),
    }
}

/// `HvCallDeletePort`.
pub const DELETE: CallSpec = CallSpec::simple(size_of::<DeletePortInput>(), 0);

/// Deletes a port, whatever became of the partition that was to connect. A connection to it would ring an id that
/// the root no longer knows, which its driver passes over.
pub fn delete(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: DeletePortInput = call.header()?;
    check_owner(input.port_partition_id)?;
    port::delete(&mut *PORTS.lock(), root::ID, input.port_id)
}

/// `HvCallConnectPort`.
pub const CONNECT: CallSpec = CallSpec::simple(size_of::<ConnectPortInput>(), 0);

/// Connects a child to a port that was created for it.
pub fn connect(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: ConnectPortInput = call.header()?;
    check_owner(input.port_partition_id)?;
    let sender = partition::find_for(input.connection_partition_id, CallCode::CONNECT_PORT)?;
    let reserved = (input.connection_vtl, input.reserved0, input.reserved1, input.reserved2);
    if input.connection_info.port_type != PortType::DOORBELL || reserved != (0, 0, 0, 0) {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let ports = PORTS.lock();
    if !ports.iter().flatten().any(|port| port.id == input.port_id && port.sender == sender.id) {
        return Err(HvStatus::INVALID_PORT_ID);
    }
    let info = input.connection_info.as_doorbell();
    let mut doorbells = sender.doorbells.lock();
    // Under the lock that finalization clears them with: a later connection would outlive that.
    sender.state().permit(CallCode::CONNECT_PORT)?;
    doorbells.connect(sender.pool, input.connection_id, input.port_id, &info)
}

/// `HvCallDisconnectPort`.
pub const DISCONNECT: CallSpec = CallSpec::simple(size_of::<DisconnectPortInput>(), 0);

/// Removes a connection. What was rung stays in the ring.
pub fn disconnect(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: DisconnectPortInput = call.header()?;
    let sender = partition::find_for(input.connection_partition_id, CallCode::DISCONNECT_PORT)?;
    if input.is_doorbell != 1 {
        return Err(HvStatus::INVALID_CONNECTION_ID);
    }
    sender.doorbells.lock().disconnect(input.connection_id)
}

/// `HvCallNotifyPortRingEmpty`.
pub const NOTIFY_RING_EMPTY: CallSpec = CallSpec::simple(size_of::<NotifyPortRingEmptyInput>(), 0);

/// Puts into the calling processor's ring what did not fit before.
pub fn notify_ring_empty(cpu: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: NotifyPortRingEmptyInput = call.header()?;
    if input.sint_index != SintIndex::DOORBELL {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    refill(cpu.vp);
    Ok(())
}
