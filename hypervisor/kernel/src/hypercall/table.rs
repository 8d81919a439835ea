//! The calls of the root: one arm each.

use tlfs::{CallCode, partition::Privileges as P};

use super::{
    Answer, Request, device, intercept, memory, message, partition, port, property, registers, state, stats,
    system, vp,
};
use crate::root::RootCpu;

/// Carries out a call of the root.
pub fn root_table(call: Request<RootCpu>) -> Answer {
    use CallCode as C;
    match call.code() {
        C::DISPATCH_VP => call.simple(P::CREATE_PARTITIONS, vp::dispatch),
        C::ASSERT_VIRTUAL_INTERRUPT => call.simple(P::CREATE_PARTITIONS, vp::assert_interrupt),
        C::MAP_GPA_PAGES => call.rep(P::CREATE_PARTITIONS, memory::map),
        C::UNMAP_GPA_PAGES => call.rep(P::CREATE_PARTITIONS, memory::unmap),
        C::GET_GPA_PAGES_ACCESS_STATES => call.rep(P::CREATE_PARTITIONS, memory::access_states),
        C::CREATE_PARTITION => call.simple(P::CREATE_PARTITIONS, partition::create),
        C::INITIALIZE_PARTITION => call.simple(P::CREATE_PARTITIONS, partition::initialize),
        C::FINALIZE_PARTITION => call.simple(P::CREATE_PARTITIONS, partition::finalize),
        C::DELETE_PARTITION => call.simple(P::CREATE_PARTITIONS, partition::delete),
        C::DEPOSIT_MEMORY => call.rep(P::ACCESS_MEMORY_POOL, partition::deposit),
        C::WITHDRAW_MEMORY => call.rep(P::ACCESS_MEMORY_POOL, partition::withdraw),
        C::GET_MEMORY_BALANCE => call.simple(P::ACCESS_MEMORY_POOL, partition::balance),
        C::CREATE_VP => call.simple(P::CREATE_PARTITIONS, vp::create),
        C::DELETE_VP => call.simple(P::CREATE_PARTITIONS, vp::delete),
        C::MAP_VP_STATE_PAGE => call.simple(P::CREATE_PARTITIONS, vp::map_state_page),
        C::UNMAP_VP_STATE_PAGE => call.simple(P::CREATE_PARTITIONS, vp::unmap_state_page),
        C::CLEAR_VIRTUAL_INTERRUPT => call.simple(P::CREATE_PARTITIONS, vp::clear_interrupt),
        C::GET_VP_REGISTERS => call.rep(P::CREATE_PARTITIONS, registers::get),
        C::SET_VP_REGISTERS => call.rep(P::CREATE_PARTITIONS, registers::set),
        _ => detail_table(call),
    }
}

/// The calls about a child's details: state, properties, intercepts, ports, statistics.
fn detail_table(call: Request<RootCpu>) -> Answer {
    use CallCode as C;
    match call.code() {
        C::TRANSLATE_VIRTUAL_ADDRESS => call.simple(P::CREATE_PARTITIONS, registers::translate),
        C::GET_VP_STATE => call.variable(P::CREATE_PARTITIONS, state::get),
        C::SET_VP_STATE => call.variable(P::CREATE_PARTITIONS, state::set),
        C::INSTALL_INTERCEPT => call.simple(P::CREATE_PARTITIONS, intercept::install),
        C::REGISTER_INTERCEPT_RESULT => call.simple(P::CREATE_PARTITIONS, intercept::register_result),
        C::GET_VP_CPUID_VALUES => call.rep(P::CREATE_PARTITIONS, intercept::cpuid_values),
        C::GET_PARTITION_PROPERTY => call.simple(P::NONE, property::get),
        C::SET_PARTITION_PROPERTY => call.simple(P::CREATE_PARTITIONS, property::set),
        C::GET_PARTITION_PROPERTY_EX => call.simple(P::NONE, property::get_ex),
        C::CREATE_PORT => call.simple(P::CREATE_PORT, port::create),
        C::DELETE_PORT => call.simple(P::CREATE_PORT, port::delete),
        C::CONNECT_PORT => call.simple(P::CONNECT_PORT, port::connect),
        C::DISCONNECT_PORT => call.simple(P::CONNECT_PORT, port::disconnect),
        C::POST_MESSAGE => call.simple(P::POST_MESSAGES, message::post),
        C::SIGNAL_EVENT => call.simple(P::SIGNAL_EVENTS, message::signal),
        C::POST_MESSAGE_DIRECT => call.simple(P::CREATE_PARTITIONS, message::post_direct),
        C::SIGNAL_EVENT_DIRECT => call.simple(P::CREATE_PARTITIONS, message::signal_direct),
        C::NOTIFY_PORT_RING_EMPTY => call.simple(P::CREATE_PORT, port::notify_ring_empty),
        C::MAP_STATS_PAGE => call.simple(P::ACCESS_STATS, stats::map),
        C::UNMAP_STATS_PAGE => call.simple(P::ACCESS_STATS, stats::unmap),
        _ => machine_table(call),
    }
}

/// The calls about the machine itself.
fn machine_table(call: Request<RootCpu>) -> Answer {
    use CallCode as C;
    match call.code() {
        C::GET_PARTITION_ID => call.simple(P::ACCESS_PARTITION_ID, system::get_partition_id),
        C::GET_LOGICAL_PROCESSOR_RUN_TIME => call.simple(P::CPU_MANAGEMENT, system::get_lp_run_time),
        C::ADD_LOGICAL_PROCESSOR => call.simple(P::CPU_MANAGEMENT, system::add_lp),
        C::NOTIFY_PARTITION_EVENT => call.simple(P::CPU_MANAGEMENT, system::notify_partition_event),
        C::GET_SYSTEM_PROPERTY => call.simple(P::NONE, system::get_system_property),
        C::SET_SYSTEM_PROPERTY => call.simple(P::CPU_MANAGEMENT, system::set_system_property),
        C::ENTER_SLEEP_STATE => call.simple(P::CPU_MANAGEMENT, system::enter_sleep_state),
        C::MAP_DEVICE_INTERRUPT => call.variable(P::CPU_MANAGEMENT, device::map),
        C::UNMAP_DEVICE_INTERRUPT => call.simple(P::CPU_MANAGEMENT, device::unmap),
        _ => call.unknown(),
    }
}
