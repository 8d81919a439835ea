//! Messages and events: over connections, by anyone; and right to a child's VP, by its parent.

use model::ensure;
use tlfs::{
    CallCode, HvStatus, SintIndex,
    synic::{
        HvMessage, MESSAGE_PAYLOAD_SIZE, MessageType, PostMessageDirectInput, PostMessageInput,
        SignalEventDirectInput, SignalEventDirectOutput, SignalEventInput,
    },
};

use super::{Caller, Outcome, vp};
use crate::{port, root::RootCpu};

/// `HvCallPostMessage`: posts a message over a connection of the caller.
pub fn post<C: Caller>(caller: &mut C, input: PostMessageInput) -> Outcome {
    port::post(&caller.party(), &input)
}

/// `HvCallSignalEvent`: signals an event over a connection of the caller.
pub fn signal<C: Caller>(caller: &mut C, input: SignalEventInput) -> Outcome {
    ensure(input.reserved == 0, HvStatus::INVALID_PARAMETER)?;
    port::signal(&caller.party(), input.connection_id, input.flag_number)
}

/// `HvCallPostMessageDirect`: posts a whole message, with the header that the caller gives it, to a child's VP. The
/// layout is that of the callers' bindings, as the TLFS leaves no room for one.
pub fn post_direct(_: &mut RootCpu, input: PostMessageDirectInput) -> Outcome {
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::POST_MESSAGE_DIRECT)?;
    let message: HvMessage = zerocopy::transmute!(input.message);
    let fits = usize::from(message.header.payload_size) <= MESSAGE_PAYLOAD_SIZE;
    let is_typed = message.header.message_type != MessageType::NONE;
    ensure(input.vtl == 0 && is_typed && fits, HvStatus::INVALID_PARAMETER)?;
    vp.post(input.sint_index, &message)
}

/// `HvCallSignalEventDirect`: sets an event flag of a child's VP and tells whether it was clear.
pub fn signal_direct(_: &mut RootCpu, input: SignalEventDirectInput) -> Outcome<SignalEventDirectOutput> {
    let (_, vp) = vp::find(input.target_partition, input.target_vp, CallCode::SIGNAL_EVENT_DIRECT)?;
    ensure(input.target_vtl == 0, HvStatus::INVALID_PARAMETER)?;
    let is_new = vp.signal_event(SintIndex(input.target_sint.into()), input.flag_number)?;
    Ok(SignalEventDirectOutput { newly_signaled: is_new.into() })
}
