//! Properties of partitions.
//!
//! The root's properties say what a child can be given: VMMs read them before they create one. A child's come in
//! three kinds: fixed when it was created, set before it is initialized, and set at any time. Every answer is
//! synchronous, though Linux would wait for a message if it were told to (`CALL_PENDING`).

use core::sync::atomic::{AtomicU64, Ordering};

use hal::{cpu, time};
use model::{
    cpuid::{Allowed, Profile},
    ensure,
    reftime::ReferenceClock,
};
use tlfs::{
    CallCode, HvStatus,
    partition::{
        COMPATIBILITY_21_H2, GetPartitionPropertyExInput, GetPartitionPropertyInput,
        GetPartitionPropertyOutput, LogProperty, ProcessorVendor, PropertyCode, SetPartitionPropertyInput,
        SyntheticFeatures, VmmCapabilitiesProperty,
    },
};

use zerocopy::IntoBytes;

use super::Outcome;
use crate::{
    child::{refresh_reference_tsc, registers::layout},
    partition::{MAX_VPS, Partition, PartitionRef},
    port::party,
    root::{RootCpu, cpuid::host, root},
    vp::guest_tsc,
};

/// x87 and SSE, which the area of an XSAVE instruction always has.
const XSAVE_LEGACY: u64 = 3;

/// `HvCallGetPartitionProperty`: returns a property of the root or of a child.
pub fn get(_: &mut RootCpu, input: GetPartitionPropertyInput) -> Outcome<GetPartitionPropertyOutput> {
    let value = match party(input.partition_id, CallCode::GET_PARTITION_PROPERTY)? {
        Some(partition) => of_child(&partition, input.property_code)?,
        None => of_root(input.property_code)?,
    };
    Ok(GetPartitionPropertyOutput { value })
}

fn of_root(code: PropertyCode) -> Result<u64, HvStatus> {
    Ok(match code {
        PropertyCode::PRIVILEGE_FLAGS => Profile::ROOT.privileges.0,
        PropertyCode::SYNTHETIC_PROC_FEATURES => Profile::OFFERED.0,
        PropertyCode::TIME_FREEZE => 0,
        PropertyCode::REFERENCE_TIME => root().now(),
        code => return of_processor(&Allowed::ALL, code),
    })
}

fn of_child(partition: &Partition, code: PropertyCode) -> Result<u64, HvStatus> {
    let properties = &partition.properties;
    let stored = |number: &AtomicU64| number.load(Ordering::Relaxed);
    Ok(match code {
        PropertyCode::PRIVILEGE_FLAGS => partition.profile.lock().privileges.0,
        PropertyCode::SYNTHETIC_PROC_FEATURES => stored(&properties.synthetic),
        PropertyCode::UNIMPLEMENTED_MSR_ACTION => stored(&properties.unimplemented_msr),
        PropertyCode::PROCESSORS_PER_SOCKET => stored(&properties.processors_per_socket),
        PropertyCode::GPA_PAGE_ACCESS_TRACKING => stored(&properties.access_tracking),
        PropertyCode::GUEST_OS_ID => stored(&partition.msrs.guest_os_id),
        PropertyCode::TIME_FREEZE => partition.clock.lock().is_frozen().into(),
        PropertyCode::REFERENCE_TIME => partition.clock.lock().at(guest_tsc()),
        code => return of_processor(&partition.allowed, code),
    })
}

/// Properties of the processor, as far as `allowed` lets it be seen.
fn of_processor(allowed: &Allowed, code: PropertyCode) -> Result<u64, HvStatus> {
    Ok(match code {
        PropertyCode::PROCESSOR_VENDOR => vendor()?.0,
        PropertyCode::PROCESSOR_FEATURES0 => allowed.features(host).0.0,
        PropertyCode::PROCESSOR_FEATURES1 => allowed.features(host).1.0,
        PropertyCode::PROCESSOR_XSAVE_FEATURES => allowed.features(host).2.0,
        PropertyCode::XSAVE_STATES => layout().states() & (allowed.xsave_states(host) | XSAVE_LEGACY),
        PropertyCode::MAX_XSAVE_DATA_SIZE => layout().compacted_size() as u64,
        PropertyCode::PROCESSOR_CLOCK_FREQUENCY => time::tsc_hz(),
        PropertyCode::PHYSICAL_ADDRESS_WIDTH | PropertyCode::IMPLEMENTED_PHYSICAL_ADDRESS_BITS => {
            cpu::physical_address_bits().into()
        }
        // The specification names no unit; this is CPUID's, of 8 bytes (SDM 2A CPUID, leaf 1 EBX 15:8).
        PropertyCode::PROCESSOR_CL_FLUSH_SIZE => u64::from(host(1, 0).ebx >> 8 & 0xff),
        PropertyCode::COMPATIBILITY_VERSION => COMPATIBILITY_21_H2.into(),
        PropertyCode::PROCESSOR_VIRTUALIZATION_FEATURES => 0,
        // The root schedules: the hypervisor has no queue in which a weight could count.
        PropertyCode::CPU_RESERVE
        | PropertyCode::CPU_CAP
        | PropertyCode::CPU_WEIGHT
        | PropertyCode::CPU_GROUP_ID
        | PropertyCode::INTEGRATED_SCHEDULER_ENABLED => return Err(HvStatus::FEATURE_UNAVAILABLE),
        _ => return Err(HvStatus::UNKNOWN_PROPERTY),
    })
}

fn vendor() -> Result<ProcessorVendor, HvStatus> {
    match cpu::vendor() {
        cpu::Vendor::Amd => Ok(ProcessorVendor::AMD),
        cpu::Vendor::Intel => Ok(ProcessorVendor::INTEL),
        cpu::Vendor::Other => Err(HvStatus::UNKNOWN_PROPERTY),
    }
}

/// `HvCallSetPartitionProperty`: sets a property of a child. One that was fixed when the child was created is refused
/// as coming too late, which is what VMMs know of Hyper-V (`mshv-ioctls`, test of invalid properties).
pub fn set(_: &mut RootCpu, input: SetPartitionPropertyInput) -> Outcome {
    let (code, value) = (input.property_code, input.value);
    let partition = party(input.partition_id, CallCode::SET_PARTITION_PROPERTY)?;
    let partition = partition.ok_or(HvStatus::ACCESS_DENIED)?;
    partition.state().permit_property(code)?;
    let properties = &partition.properties;
    match code {
        PropertyCode::SYNTHETIC_PROC_FEATURES => set_features(&partition, value),
        PropertyCode::UNIMPLEMENTED_MSR_ACTION => return store(&properties.unimplemented_msr, value, 1),
        PropertyCode::PROCESSORS_PER_SOCKET => {
            return store(&properties.processors_per_socket, value, MAX_VPS as u64);
        }
        // Bit 0 enables it, bit 1 asks for the small granularity (`mshv-ioctls`).
        PropertyCode::GPA_PAGE_ACCESS_TRACKING => return store(&properties.access_tracking, value, 3),
        PropertyCode::TIME_FREEZE if value > 1 => return Err(HvStatus::PROPERTY_VALUE_OUT_OF_RANGE),
        PropertyCode::TIME_FREEZE if value == 1 => change_time(&partition, ReferenceClock::freeze),
        PropertyCode::TIME_FREEZE => change_time(&partition, ReferenceClock::thaw),
        PropertyCode::REFERENCE_TIME => change_time(&partition, |clock, tsc| clock.set(tsc, value)),
        code => return of_child(&partition, code).and(Err(HvStatus::INVALID_PARTITION_STATE)),
    }
    Ok(())
}

fn store(property: &AtomicU64, value: u64, max: u64) -> Outcome {
    ensure(value <= max, HvStatus::PROPERTY_VALUE_OUT_OF_RANGE)?;
    property.store(value, Ordering::Relaxed);
    Ok(())
}

/// Keeps what was asked for, and shows the child what of it there is.
fn set_features(partition: &Partition, value: u64) {
    partition.properties.synthetic.store(value, Ordering::Relaxed);
    *partition.profile.lock() = Profile::child(SyntheticFeatures(value));
}

/// Moves reference time. Every VP looks at its timers again, since their deadlines have moved too.
fn change_time(partition: &PartitionRef, change: impl FnOnce(&mut ReferenceClock, u64)) {
    change(&mut partition.clock.lock(), guest_tsc());
    refresh_reference_tsc(partition);
    partition.for_each_vp(|vp| vp.wake());
}

/// `HvCallGetPartitionPropertyEx`: returns a property that is a structure. VMMs take `UNKNOWN_PROPERTY` for none of
/// it, and give up at other errors.
pub fn get_ex(_: &mut RootCpu, input: GetPartitionPropertyExInput) -> Outcome<LogProperty> {
    party(input.partition_id, CallCode::GET_PARTITION_PROPERTY_EX)?;
    // The longest of them: a shorter one is its beginning.
    let mut answer = LogProperty::ZEROED;
    match input.property_code {
        PropertyCode::VMM_CAPABILITIES => {
            let none = VmmCapabilitiesProperty { bank_count: 1, ..VmmCapabilitiesProperty::ZEROED };
            let _ = none.write_to_prefix(answer.as_mut_bytes());
        }
        PropertyCode::BULKHEAD_LOG => {
            let (len, next) = hal::log::read(input.argument.argument().into(), &mut answer.text);
            (answer.len, answer.next) = (len as u32, next as u32);
        }
        _ => return Err(HvStatus::UNKNOWN_PROPERTY),
    }
    Ok(answer)
}
