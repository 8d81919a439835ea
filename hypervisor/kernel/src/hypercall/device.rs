//! Interrupts of the root's devices: the identity, since VP n is LP n and no interrupt is remapped.

use model::{ensure, vpset};
use tlfs::{
    HvStatus,
    device::{
        DeviceType, InterruptEntry, InterruptTarget, InterruptTargetFlags, IoApicRte,
        MapDeviceInterruptInput, MapDeviceInterruptOutput, MsiEntry, TriggerMode, UnmapDeviceInterruptInput,
    },
    ids::{PartitionId, VpIndex},
    msr::FIRST_VALID_VECTOR,
};

use super::{Call, Outcome};
use crate::root::{self, RootCpu};

const MSI_BASE: u16 = 0xfee;

/// `HvCallMapDeviceInterrupt`: returns what a device has to send for the interrupt to reach the processor that the
/// root names.
///
/// Linux maps the same vector of the same processor for several devices at once while it sets them up, so
/// nothing is recorded that a second mapping could contradict.
///
/// The input ends inside the set's header, whose second word is the first of the variable header.
pub fn map(
    _: &mut RootCpu,
    _: [u8; MapDeviceInterruptInput::FIXED_SIZE],
    call: &Call,
) -> Outcome<MapDeviceInterruptOutput> {
    let banks = call.variable().get(8..).ok_or(HvStatus::INVALID_HYPERCALL_INPUT)?;
    let input: MapDeviceInterruptInput = call.at(0)?;
    let descriptor = input.interrupt_descriptor;
    is_root(input.partition_id)?;
    let vector = u8::try_from(descriptor.target.vector).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    let is_single = descriptor.vector_count == 1;
    ensure(is_single && vector >= FIRST_VALID_VECTOR, HvStatus::INVALID_PARAMETER)?;
    let target = target_vp(&descriptor.target, banks)?;
    let apic_id = hal::lp::apic_id(hal::lp::LpIndex(target.0)).ok_or(HvStatus::INVALID_VP_INDEX)?;
    // Without remapping, an interrupt message has eight bits for the destination (SDM 3A §11.11.1).
    let destination = u8::try_from(apic_id).map_err(|_| HvStatus::INVALID_VP_INDEX)?;
    let level = descriptor.trigger_mode == TriggerMode::LEVEL;
    let entry = match DeviceType(input.device_id.device_type()) {
        DeviceType::PCI => msi(destination, vector, level),
        DeviceType::IO_APIC => InterruptEntry::io_apic(
            IoApicRte::new().with_vector(vector).with_level_triggered(level).with_destination_id(destination),
        ),
        _ => return Err(HvStatus::INVALID_DEVICE_ID),
    };
    Ok(MapDeviceInterruptOutput { interrupt_entry: entry, deprecated: [0; 5] })
}

fn msi(destination: u8, vector: u8, level: bool) -> InterruptEntry {
    let entry = MsiEntry::new().with_msi_base(MSI_BASE).with_destination_id(destination).with_vector(vector);
    InterruptEntry::msi(entry.with_level_triggered(level).with_level_assert(level))
}

fn is_root(partition: PartitionId) -> Outcome {
    ensure(matches!(partition, PartitionId::SELF | root::ID), HvStatus::INVALID_PARTITION_ID)
}

/// The one processor that the target names.
fn target_vp(target: &InterruptTarget, banks: &[u8]) -> Outcome<VpIndex> {
    if !target.flags.contains(InterruptTargetFlags::PROCESSOR_SET) {
        // The older form: a mask of the first 64 processors in place of the set.
        let mask = target.vp_set.format.0;
        ensure(mask.count_ones() == 1, HvStatus::INVALID_PARAMETER)?;
        return Ok(VpIndex(mask.trailing_zeros()));
    }
    let mut members = vpset::members(target.vp_set, banks)?.ok_or(HvStatus::INVALID_PARAMETER)?;
    match (members.next(), members.next()) {
        (Some(only), None) => Ok(only),
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// `HvCallUnmapDeviceInterrupt`: ends a mapping. Nothing was recorded; the device's owner has silenced it.
pub fn unmap(_: &mut RootCpu, input: UnmapDeviceInterruptInput) -> Outcome {
    is_root(input.partition_id)?;
    let kind = DeviceType(input.device_id.device_type());
    ensure(matches!(kind, DeviceType::PCI | DeviceType::IO_APIC), HvStatus::INVALID_DEVICE_ID)
}
