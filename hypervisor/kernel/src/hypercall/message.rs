//! Messages and events: over connections, by anyone; and right to a child's VP, by its parent.

use model::call::CallSpec;
use tlfs::{
    CallCode, HvStatus, SintIndex,
    synic::{
        HvMessage, MESSAGE_PAYLOAD_SIZE, MessageType, PostMessageDirectInput, PostMessageInput,
        SignalEventDirectInput, SignalEventDirectOutput, SignalEventInput,
    },
};

use super::{Call, Caller, Outcome, vp};
use crate::{port, root::RootCpu};

/// `HvCallPostMessage`.
pub const POST: CallSpec = CallSpec::simple(size_of::<PostMessageInput>(), 0);

/// Posts a message over a connection of the caller.
pub fn post<C: Caller>(caller: &mut C, call: &mut Call) -> Outcome {
    port::post(&caller.party(), &call.header()?)
}

/// `HvCallSignalEvent`.
pub const SIGNAL: CallSpec = CallSpec::simple(size_of::<SignalEventInput>(), 0);

/// Signals an event over a connection of the caller.
pub fn signal<C: Caller>(caller: &mut C, call: &mut Call) -> Outcome {
    let input: SignalEventInput = call.header()?;
    if input.reserved != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    port::signal(&caller.party(), input.connection_id, input.flag_number)
}

/// `HvCallPostMessageDirect`.
pub const POST_DIRECT: CallSpec = CallSpec::simple(size_of::<PostMessageDirectInput>(), 0);

/// Posts a whole message, with the header that the caller gives it, to a child's VP. The layout is that of the callers'
/// bindings, as the TLFS leaves no room for one.
pub fn post_direct(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: PostMessageDirectInput = call.header()?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::POST_MESSAGE_DIRECT)?;
    let message: HvMessage = zerocopy::transmute!(input.message);
    let is_oversized = usize::from(message.header.payload_size) > MESSAGE_PAYLOAD_SIZE;
    if input.vtl != 0 || message.header.message_type == MessageType::NONE || is_oversized {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    vp.post(input.sint_index, &message)
}

/// `HvCallSignalEventDirect`.
pub const SIGNAL_DIRECT: CallSpec =
    CallSpec::simple(size_of::<SignalEventDirectInput>(), size_of::<SignalEventDirectOutput>());

/// Sets an event flag of a child's VP and tells whether it was clear.
pub fn signal_direct(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: SignalEventDirectInput = call.header()?;
    let (_, vp) = vp::find(input.target_partition, input.target_vp, CallCode::SIGNAL_EVENT_DIRECT)?;
    if input.target_vtl != 0 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let is_new = vp.signal_event(SintIndex(input.target_sint.into()), input.flag_number)?;
    call.answer(&SignalEventDirectOutput { newly_signaled: is_new.into() })
}
