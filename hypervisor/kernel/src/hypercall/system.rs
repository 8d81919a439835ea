//! Calls about the machine: properties, logical processors, sleep.

use core::sync::atomic::Ordering;

use model::ensure;
use tlfs::{
    HvStatus,
    partition::{
        AddLogicalProcessorInput, AddLogicalProcessorOutput, EnterSleepStateInput,
        GetLogicalProcessorRunTimeInput, GetLogicalProcessorRunTimeOutput, GetSystemPropertyInput,
        GetSystemPropertyOutput, NotifyPartitionEventInput, PartitionEvent, PartitionIdOutput, SchedulerType,
        SetSystemPropertyInput, SleepState, SystemProperty,
    },
};

use super::Outcome;
use crate::root::{self, RootCpu, root};

/// `HvCallGetPartitionId`: returns the caller's id.
pub fn get_partition_id(_: &mut RootCpu, (): ()) -> Outcome<PartitionIdOutput> {
    Ok(PartitionIdOutput { partition_id: root::ID })
}

/// `HvCallGetLogicalProcessorRunTime`: tells how long an LP has run. That it succeeds tells Linux that the LPs are
/// started already (`Linux drivers/hv/hv_proc.c:hv_lp_exists`).
pub fn get_lp_run_time(
    _: &mut RootCpu,
    input: GetLogicalProcessorRunTimeInput,
) -> Outcome<GetLogicalProcessorRunTimeOutput> {
    ensure(input.lp_index.0 < hal::lp::count(), HvStatus::INVALID_LP_INDEX)?;
    let now = root().now();
    Ok(GetLogicalProcessorRunTimeOutput {
        global_time: now,
        local_run_time: now,
        reserved: 0,
        hypervisor_time: 0,
    })
}

/// `HvCallAddLogicalProcessor`: refuses to add an LP: the hypervisor started all that the firmware lists, under their
/// Linux numbers.
pub fn add_lp(_: &mut RootCpu, input: AddLogicalProcessorInput) -> Outcome<AddLogicalProcessorOutput> {
    ensure(input.lp_index.0 < hal::lp::count(), HvStatus::INVALID_LP_INDEX)?;
    Err(HvStatus::OBJECT_IN_USE)
}

/// `HvCallNotifyPartitionEvent`: notes what the root says of itself.
pub fn notify_partition_event(_: &mut RootCpu, input: NotifyPartitionEventInput) -> Outcome {
    match input.event {
        PartitionEvent::ALL_LOGICAL_PROCESSORS_STARTED => Ok(()),
        PartitionEvent::ROOT_CRASHDUMP => {
            hal::error!("the root reports that it crashed (action {})", input.crashdump_action);
            Ok(())
        }
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// `HvCallGetSystemProperty`: returns a property of the machine.
pub fn get_system_property(
    _: &mut RootCpu,
    input: GetSystemPropertyInput,
) -> Outcome<GetSystemPropertyOutput> {
    let value = match input.property_id {
        SystemProperty::SCHEDULER_TYPE => u64::from(SchedulerType::ROOT.0),
        // No processor feature of ours depends on the machine's state.
        SystemProperty::DYNAMIC_PROCESSOR_FEATURE => 0,
        // No crash dump area: Linux then does its own.
        SystemProperty::CRASH_DUMP_AREA => 0,
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    Ok(GetSystemPropertyOutput { value })
}

/// `HvCallSetSystemProperty`: takes the register values that enter a sleep state; only the root can read them, from
/// its AML.
pub fn set_system_property(_: &mut RootCpu, input: SetSystemPropertyInput) -> Outcome {
    let info = input.sleep_state_info;
    let is_known = input.property_id == SystemProperty::SLEEP_STATE && info.sleep_state == SleepState::S5;
    ensure(is_known, HvStatus::INVALID_PARAMETER)?;
    let types = u32::from(info.pm1a_slp_typ) | u32::from(info.pm1b_slp_typ) << 8;
    root().sleep_types.store(types, Ordering::Relaxed);
    Ok(())
}

/// `HvCallEnterSleepState`: switches the machine off.
pub fn enter_sleep_state(_: &mut RootCpu, input: EnterSleepStateInput) -> Outcome {
    let fadt = hal::acpi::tables().fadt().ok_or(HvStatus::OPERATION_FAILED)?;
    ensure(input.sleep_state == SleepState::S5, HvStatus::INVALID_PARAMETER)?;
    let types = root().sleep_types.load(Ordering::Relaxed);
    hal::info!("the root powers the machine off");
    hal::acpi::power_off(&fadt, types as u8, (types >> 8) as u8)
}
