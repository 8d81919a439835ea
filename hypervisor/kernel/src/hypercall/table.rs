//! The calls of the root: one row each.

use tlfs::{CallCode, partition::Privileges as P};

use super::{
    Row, device, intercept, memory, message, partition, port, property, registers, row, state, stats, system,
    vp,
};
use crate::root::RootCpu;

/// The row of a call that the root may make.
pub fn root_table(code: CallCode) -> Option<Row<RootCpu>> {
    use CallCode as C;
    match code {
        C::DISPATCH_VP => row(vp::DISPATCH, P::CREATE_PARTITIONS, vp::dispatch),
        C::ASSERT_VIRTUAL_INTERRUPT => row(vp::ASSERT_INTERRUPT, P::CREATE_PARTITIONS, vp::assert_interrupt),
        C::MAP_GPA_PAGES => row(memory::MAP, P::CREATE_PARTITIONS, memory::map),
        C::UNMAP_GPA_PAGES => row(memory::UNMAP, P::CREATE_PARTITIONS, memory::unmap),
        C::GET_GPA_PAGES_ACCESS_STATES => {
            row(memory::ACCESS_STATES, P::CREATE_PARTITIONS, memory::access_states)
        }
        C::CREATE_PARTITION => row(partition::CREATE, P::CREATE_PARTITIONS, partition::create),
        C::INITIALIZE_PARTITION => row(partition::INITIALIZE, P::CREATE_PARTITIONS, partition::initialize),
        C::FINALIZE_PARTITION => row(partition::FINALIZE, P::CREATE_PARTITIONS, partition::finalize),
        C::DELETE_PARTITION => row(partition::DELETE, P::CREATE_PARTITIONS, partition::delete),
        C::DEPOSIT_MEMORY => row(partition::DEPOSIT, P::ACCESS_MEMORY_POOL, partition::deposit),
        C::WITHDRAW_MEMORY => row(partition::WITHDRAW, P::ACCESS_MEMORY_POOL, partition::withdraw),
        C::GET_MEMORY_BALANCE => row(partition::BALANCE, P::ACCESS_MEMORY_POOL, partition::balance),
        C::CREATE_VP => row(vp::CREATE, P::CREATE_PARTITIONS, vp::create),
        C::DELETE_VP => row(vp::DELETE, P::CREATE_PARTITIONS, vp::delete),
        C::MAP_VP_STATE_PAGE => row(vp::MAP_STATE_PAGE, P::CREATE_PARTITIONS, vp::map_state_page),
        C::UNMAP_VP_STATE_PAGE => row(vp::UNMAP_STATE_PAGE, P::CREATE_PARTITIONS, vp::unmap_state_page),
        C::CLEAR_VIRTUAL_INTERRUPT => row(vp::CLEAR_INTERRUPT, P::CREATE_PARTITIONS, vp::clear_interrupt),
        C::GET_VP_REGISTERS => row(registers::GET, P::CREATE_PARTITIONS, registers::get),
        C::SET_VP_REGISTERS => row(registers::SET, P::CREATE_PARTITIONS, registers::set),
        other => detail_table(other),
    }
}

/// The calls about a child's details: state, properties, intercepts, ports, statistics.
fn detail_table(code: CallCode) -> Option<Row<RootCpu>> {
    use CallCode as C;
    match code {
        C::TRANSLATE_VIRTUAL_ADDRESS => row(registers::TRANSLATE, P::CREATE_PARTITIONS, registers::translate),
        C::GET_VP_STATE => row(state::GET, P::CREATE_PARTITIONS, state::get),
        C::SET_VP_STATE => row(state::SET, P::CREATE_PARTITIONS, state::set),
        C::INSTALL_INTERCEPT => row(intercept::INSTALL, P::CREATE_PARTITIONS, intercept::install),
        C::REGISTER_INTERCEPT_RESULT => {
            row(intercept::REGISTER_RESULT, P::CREATE_PARTITIONS, intercept::register_result)
        }
        C::GET_VP_CPUID_VALUES => row(intercept::CPUID_VALUES, P::CREATE_PARTITIONS, intercept::cpuid_values),
        C::GET_PARTITION_PROPERTY => row(property::GET, P::NONE, property::get),
        C::SET_PARTITION_PROPERTY => row(property::SET, P::CREATE_PARTITIONS, property::set),
        C::GET_PARTITION_PROPERTY_EX => row(property::GET_EX, P::NONE, property::get_ex),
        C::CREATE_PORT => row(port::CREATE, P::CREATE_PORT, port::create),
        C::DELETE_PORT => row(port::DELETE, P::CREATE_PORT, port::delete),
        C::CONNECT_PORT => row(port::CONNECT, P::CONNECT_PORT, port::connect),
        C::DISCONNECT_PORT => row(port::DISCONNECT, P::CONNECT_PORT, port::disconnect),
        C::POST_MESSAGE => row(message::POST, P::POST_MESSAGES, message::post),
        C::SIGNAL_EVENT => row(message::SIGNAL, P::SIGNAL_EVENTS, message::signal),
        C::POST_MESSAGE_DIRECT => row(message::POST_DIRECT, P::CREATE_PARTITIONS, message::post_direct),
        C::SIGNAL_EVENT_DIRECT => row(message::SIGNAL_DIRECT, P::CREATE_PARTITIONS, message::signal_direct),
        C::NOTIFY_PORT_RING_EMPTY => row(port::NOTIFY_RING_EMPTY, P::CREATE_PORT, port::notify_ring_empty),
        C::MAP_STATS_PAGE => row(stats::MAP, P::ACCESS_STATS, stats::map),
        C::UNMAP_STATS_PAGE => row(stats::UNMAP, P::ACCESS_STATS, stats::unmap),
        other => machine_table(other),
    }
}

/// The calls about the machine itself.
fn machine_table(code: CallCode) -> Option<Row<RootCpu>> {
    use CallCode as C;
    match code {
        C::GET_PARTITION_ID => {
            row(system::GET_PARTITION_ID, P::ACCESS_PARTITION_ID, system::get_partition_id)
        }
        C::GET_LOGICAL_PROCESSOR_RUN_TIME => {
            row(system::GET_LP_RUN_TIME, P::CPU_MANAGEMENT, system::get_lp_run_time)
        }
        C::ADD_LOGICAL_PROCESSOR => row(system::ADD_LP, P::CPU_MANAGEMENT, system::add_lp),
        C::NOTIFY_PARTITION_EVENT => {
            row(system::NOTIFY_PARTITION_EVENT, P::CPU_MANAGEMENT, system::notify_partition_event)
        }
        C::GET_SYSTEM_PROPERTY => row(system::GET_SYSTEM_PROPERTY, P::NONE, system::get_system_property),
        C::SET_SYSTEM_PROPERTY => {
            row(system::SET_SYSTEM_PROPERTY, P::CPU_MANAGEMENT, system::set_system_property)
        }
        C::ENTER_SLEEP_STATE => row(system::ENTER_SLEEP_STATE, P::CPU_MANAGEMENT, system::enter_sleep_state),
        C::MAP_DEVICE_INTERRUPT => row(device::MAP, P::CPU_MANAGEMENT, device::map),
        C::UNMAP_DEVICE_INTERRUPT => row(device::UNMAP, P::CPU_MANAGEMENT, device::unmap),
        _ => None,
    }
}
