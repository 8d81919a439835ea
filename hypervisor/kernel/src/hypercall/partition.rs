//! Creating, initializing, finalizing and deleting partitions, and the memory that pays for them.

use hal::{
    addr::Hpa,
    mem::{NoMemory, PoolId, frame::Refusal, space::MapError},
};
use model::call::CallSpec;
use tlfs::{
    CallCode, HvStatus, PartitionId,
    memory::{DepositMemoryInput, GetMemoryBalanceOutput, WithdrawMemoryInput},
    partition::{CreatePartitionInput, CreationFlags, PartitionIdInput, PartitionIdOutput},
};

use super::{Call, Outcome, REPS_AT_ONCE};
use crate::{
    partition,
    root::{self, RootCpu, root},
    stats,
};

/// What a partition can be created with.
const SUPPORTED_FLAGS: CreationFlags = CreationFlags::SMT_ENABLED_GUEST
    .with(CreationFlags::NESTED_VIRTUALIZATION_CAPABLE)
    .with(CreationFlags::GPA_SUPER_PAGES_ENABLED)
    .with(CreationFlags::EXO_PARTITION)
    .with(CreationFlags::LAPIC_ENABLED)
    .with(CreationFlags::INTERCEPT_MESSAGE_PAGE_ENABLED)
    .with(CreationFlags::X2APIC_CAPABLE);

/// `HvCallCreatePartition`.
pub const CREATE: CallSpec = CallSpec::simple(size_of::<CreatePartitionInput>(), 8);

/// Creates a child of the root. Nested virtualization is accepted as a wish: the child's CPUID does not show it.
pub fn create(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: CreatePartitionInput = call.header()?;
    let needed = CreationFlags::EXO_PARTITION | CreationFlags::LAPIC_ENABLED;
    let isolated = input.isolation_properties.into_bits() != 0;
    if input.flags.without(SUPPORTED_FLAGS) != CreationFlags::NONE || isolated {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    if !input.flags.contains(needed) {
        hal::warn!(
            "a partition needs the creation flags EXO and LAPIC and was asked for with {:#x}",
            input.flags.0
        );
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let partition_id = partition::create(&input)?;
    stats::publish_census();
    call.answer(&PartitionIdOutput { partition_id })
}

/// `HvCallInitializePartition`.
pub const INITIALIZE: CallSpec = CallSpec::simple(size_of::<PartitionIdInput>(), 0);

/// Makes a partition able to have processors.
pub fn initialize(_: &mut RootCpu, call: &mut Call) -> Outcome {
    target(call)?.initialize()
}

/// `HvCallFinalizePartition`.
pub const FINALIZE: CallSpec = CallSpec::simple(size_of::<PartitionIdInput>(), 0);

/// Stops a partition and takes everything from it but its pool.
pub fn finalize(_: &mut RootCpu, call: &mut Call) -> Outcome {
    target(call)?.finalize()
}

/// `HvCallDeletePartition`.
pub const DELETE: CallSpec = CallSpec::simple(size_of::<PartitionIdInput>(), 0);

/// Deletes a partition whose pool has been withdrawn.
pub fn delete(_: &mut RootCpu, call: &mut Call) -> Outcome {
    target(call)?.delete()?;
    stats::publish_census();
    Ok(())
}

fn target(call: &Call) -> Result<partition::PartitionRef, HvStatus> {
    let input: PartitionIdInput = call.header()?;
    partition::find(input.partition_id)
}

/// The partition that a call names, on which `code` may be made, and its pool.
pub fn pool_of(id: PartitionId, code: CallCode) -> Result<(PartitionId, PoolId), HvStatus> {
    match id {
        PartitionId::SELF | root::ID => Ok((root::ID, root().pool)),
        child => partition::find_for(child, code).map(|partition| (child, partition.pool)),
    }
}

/// `HvCallDepositMemory`.
pub const DEPOSIT: CallSpec = CallSpec::rep(size_of::<DepositMemoryInput>(), 8, 0);

/// Takes pages of the root for a partition. They are out of the root's reach before this returns.
pub fn deposit(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: DepositMemoryInput = call.header()?;
    let (id, pool) = pool_of(input.partition_id, CallCode::DEPOSIT_MEMORY)?;
    let mut pages = [Hpa(0); REPS_AT_ONCE];
    let batch = call.batch();
    for (rep, place) in batch.clone().zip(pages.iter_mut()) {
        *place = page(call.element(rep)?)?;
    }
    let pages = pages.get(..batch.len()).unwrap_or_default();
    let (taken, result) = root().space.revoke(pages, |frame| pool.get().deposit(frame));
    call.set_done(batch.start + taken);
    stats::publish_pages(id, pool);
    result.map_err(map_status)
}

/// The address of a page that a caller names.
pub fn page(number: u64) -> Result<Hpa, HvStatus> {
    if number < 1 << 40 { Ok(Hpa::from_page(number)) } else { Err(HvStatus::INVALID_PARAMETER) }
}

/// What a failed change of a space means for the caller.
pub fn map_status(error: MapError) -> HvStatus {
    match error {
        MapError::NoMemory => HvStatus::INSUFFICIENT_MEMORY,
        MapError::Refused(Refusal::Shared) => HvStatus::OBJECT_IN_USE,
        MapError::Refused(Refusal::NotMemory | Refusal::Owned) | MapError::BadAddress => {
            HvStatus::INVALID_PARAMETER
        }
    }
}

/// `HvCallWithdrawMemory`.
pub const WITHDRAW: CallSpec = CallSpec::rep(size_of::<WithdrawMemoryInput>(), 0, 8);

/// Gives free pages of a partition back to the root, zeroed. `NO_RESOURCES` ends the root's loop; the pages that
/// came before it count.
pub fn withdraw(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: WithdrawMemoryInput = call.header()?;
    let (id, pool) = pool_of(input.partition_id, CallCode::WITHDRAW_MEMORY)?;
    let outcome = withdraw_batch(call, pool);
    stats::publish_pages(id, pool);
    outcome
}

fn withdraw_batch(call: &mut Call, pool: PoolId) -> Outcome {
    for rep in call.batch() {
        let frame = pool.get().withdraw().map_err(|NoMemory| HvStatus::NO_RESOURCES)?;
        let hpa = root().space.restore(frame).map_err(map_status)?;
        call.set_output_element(rep, &hpa.page());
        call.set_done(rep + 1);
    }
    Ok(())
}

/// `HvCallGetMemoryBalance`.
pub const BALANCE: CallSpec = CallSpec::simple(size_of::<WithdrawMemoryInput>(), 16);

/// Tells how many pages of a pool are free, and how many in use.
pub fn balance(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: WithdrawMemoryInput = call.header()?;
    let (_, pool) = pool_of(input.partition_id, CallCode::GET_MEMORY_BALANCE)?;
    let pool = pool.get();
    call.answer(&GetMemoryBalanceOutput {
        pages_available: pool.free_pages(),
        pages_in_use: pool.used_pages(),
    })
}
