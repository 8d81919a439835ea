//! Interrupts of the root's devices: the identity, since VP n is LP n and no interrupt is remapped.

use model::{call::CallSpec, vpset::VpSet};
use tlfs::{
    HvStatus,
    device::{
        DeviceId, DeviceType, InterruptEntry, InterruptTargetFlags, IoApicRte, MapDeviceInterruptInput,
        MapDeviceInterruptOutput, MsiEntry, TriggerMode, UnmapDeviceInterruptInput,
    },
    ids::{PartitionId, VpIndex},
    msr::FIRST_VALID_VECTOR,
    vpset::VpSetHeader,
};

use super::{Call, Outcome};
use crate::root::{self, RootCpu};

const MSI_BASE: u16 = 0xfee;

/// `HvCallMapDeviceInterrupt`.
pub const MAP: CallSpec = CallSpec::simple(MapDeviceInterruptInput::FIXED_SIZE, 56).variable();

/// Returns what a device has to send for the interrupt to reach the processor that the root names.
///
/// Linux maps the same vector of the same processor for several devices at once while it sets them up, so
/// nothing is recorded that a second mapping could contradict.
pub fn map(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let banks = call.variable().len() / 8;
    let input: MapDeviceInterruptInput = read_padded(call)?;
    let descriptor = input.interrupt_descriptor;
    is_root(input.partition_id)?;
    let vector = u8::try_from(descriptor.target.vector).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    if descriptor.vector_count != 1 || vector < FIRST_VALID_VECTOR {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let target = target_vp(call, descriptor.target.flags, descriptor.target.vp_set, banks)?;
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
    call.answer(&MapDeviceInterruptOutput { interrupt_entry: entry, deprecated: [0; 5] })
}

fn msi(destination: u8, vector: u8, level: bool) -> InterruptEntry {
    let entry = MsiEntry::new().with_msi_base(MSI_BASE).with_destination_id(destination).with_vector(vector);
    InterruptEntry::msi(entry.with_level_triggered(level).with_level_assert(level))
}

/// The input ends inside the set's header, whose second word is the first of the variable header.
fn read_padded(call: &Call) -> Result<MapDeviceInterruptInput, HvStatus> {
    if call.variable().len() < 8 {
        return Err(HvStatus::INVALID_HYPERCALL_INPUT);
    }
    call.at(0)
}

fn is_root(partition: PartitionId) -> Outcome {
    match partition {
        PartitionId::SELF | root::ID => Ok(()),
        _ => Err(HvStatus::INVALID_PARTITION_ID),
    }
}

/// The one processor that the target names.
fn target_vp(
    call: &Call,
    flags: InterruptTargetFlags,
    set: VpSetHeader,
    words: usize,
) -> Result<VpIndex, HvStatus> {
    if !flags.contains(InterruptTargetFlags::PROCESSOR_SET) {
        // The older form: a mask of the first 64 processors in place of the set.
        let mask = set.format.0;
        return (mask.count_ones() == 1)
            .then(|| VpIndex(mask.trailing_zeros()))
            .ok_or(HvStatus::INVALID_PARAMETER);
    }
    let banks = words.saturating_sub(1);
    let bank =
        |index: usize| call.at::<u64>(MapDeviceInterruptInput::FIXED_SIZE + 8 + index * 8).unwrap_or(0);
    match VpSet::parse(set, banks, bank)? {
        VpSet::All => Err(HvStatus::INVALID_PARAMETER),
        VpSet::Sparse(mut members) => match (members.next(), members.next()) {
            (Some(only), None) => Ok(only),
            _ => Err(HvStatus::INVALID_PARAMETER),
        },
    }
}

/// `HvCallUnmapDeviceInterrupt`.
pub const UNMAP: CallSpec = CallSpec::simple(size_of::<UnmapDeviceInterruptInput>(), 0);

/// Ends a mapping. Nothing was recorded; the device's owner has silenced it.
pub fn unmap(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: UnmapDeviceInterruptInput = call.header()?;
    is_root(input.partition_id)?;
    is_mappable(input.device_id)
}

fn is_mappable(device: DeviceId) -> Outcome {
    match DeviceType(device.device_type()) {
        DeviceType::PCI | DeviceType::IO_APIC => Ok(()),
        _ => Err(HvStatus::INVALID_DEVICE_ID),
    }
}
