//! Calls about the machine: properties, logical processors, sleep.

use core::sync::atomic::Ordering;

use model::call::CallSpec;
use tlfs::{
    HvStatus,
    partition::{
        AddLogicalProcessorInput, EnterSleepStateInput, GetLogicalProcessorRunTimeInput,
        GetLogicalProcessorRunTimeOutput, GetSystemPropertyInput, GetSystemPropertyOutput,
        NotifyPartitionEventInput, PartitionEvent, PartitionIdOutput, SchedulerType, SetSystemPropertyInput,
        SleepState, SystemProperty,
    },
};

use super::{Call, Outcome};
use crate::root::{self, RootCpu, root};

/// `HvCallGetPartitionId`.
pub const GET_PARTITION_ID: CallSpec = CallSpec::simple(0, 8);

/// Returns the caller's id.
pub fn get_partition_id(_: &mut RootCpu, call: &mut Call) -> Outcome {
    call.answer(&PartitionIdOutput { partition_id: root::ID })
}

/// `HvCallGetLogicalProcessorRunTime`.
pub const GET_LP_RUN_TIME: CallSpec = CallSpec::simple(size_of::<GetLogicalProcessorRunTimeInput>(), 32);

/// Tells how long an LP has run. That it succeeds tells Linux that the LPs are started already
/// (`Linux drivers/hv/hv_proc.c:hv_lp_exists`).
pub fn get_lp_run_time(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: GetLogicalProcessorRunTimeInput = call.header()?;
    if input.lp_index.0 >= hal::lp::count() {
        return Err(HvStatus::INVALID_LP_INDEX);
    }
    let now = root().now();
    call.answer(&GetLogicalProcessorRunTimeOutput {
        global_time: now,
        local_run_time: now,
        reserved: 0,
        hypervisor_time: 0,
    })
}

/// `HvCallAddLogicalProcessor`.
pub const ADD_LP: CallSpec = CallSpec::simple(size_of::<AddLogicalProcessorInput>(), 56);

/// Refuses to add an LP: the hypervisor started all that the firmware lists, under their Linux numbers.
pub fn add_lp(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: AddLogicalProcessorInput = call.header()?;
    Err(if input.lp_index.0 < hal::lp::count() {
        HvStatus::OBJECT_IN_USE
    } else {
        HvStatus::INVALID_LP_INDEX
    })
}

/// `HvCallNotifyPartitionEvent`.
pub const NOTIFY_PARTITION_EVENT: CallSpec = CallSpec::simple(size_of::<NotifyPartitionEventInput>(), 0);

/// Notes what the root says of itself.
pub fn notify_partition_event(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: NotifyPartitionEventInput = call.header()?;
    match input.event {
        PartitionEvent::ALL_LOGICAL_PROCESSORS_STARTED => Ok(()),
        PartitionEvent::ROOT_CRASHDUMP => {
            hal::error!("the root reports that it crashed (action {})", input.crashdump_action);
            Ok(())
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// `HvCallGetSystemProperty`.
pub const GET_SYSTEM_PROPERTY: CallSpec = CallSpec::simple(size_of::<GetSystemPropertyInput>(), 8);

/// Returns a property of the machine.
pub fn get_system_property(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: GetSystemPropertyInput = call.header()?;
    let value = match input.property_id {
        SystemProperty::SCHEDULER_TYPE => u64::from(SchedulerType::ROOT.0),
        // No processor feature of ours depends on the machine's state.
        SystemProperty::DYNAMIC_PROCESSOR_FEATURE => 0,
        // No crash dump area: Linux then does its own.
        SystemProperty::CRASH_DUMP_AREA => 0,
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    call.answer(&GetSystemPropertyOutput { value })
}

/// `HvCallSetSystemProperty`.
pub const SET_SYSTEM_PROPERTY: CallSpec = CallSpec::simple(size_of::<SetSystemPropertyInput>(), 0);

/// Takes the register values that enter a sleep state; only the root can read them, from its AML.
pub fn set_system_property(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: SetSystemPropertyInput = call.header()?;
    let info = input.sleep_state_info;
    if input.property_id != SystemProperty::SLEEP_STATE || info.sleep_state != SleepState::S5 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let types = u32::from(info.pm1a_slp_typ) | u32::from(info.pm1b_slp_typ) << 8;
    root().sleep_types.store(types, Ordering::Relaxed);
    Ok(())
}

/// `HvCallEnterSleepState`.
pub const ENTER_SLEEP_STATE: CallSpec = CallSpec::simple(size_of::<EnterSleepStateInput>(), 0);

/// Switches the machine off.
pub fn enter_sleep_state(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: EnterSleepStateInput = call.header()?;
    let fadt = hal::acpi::tables().fadt().ok_or(HvStatus::OPERATION_FAILED)?;
    if input.sleep_state != SleepState::S5 {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let types = root().sleep_types.load(Ordering::Relaxed);
    hal::info!("the root powers the machine off");
    hal::acpi::power_off(&fadt, types as u8, (types >> 8) as u8)
}
