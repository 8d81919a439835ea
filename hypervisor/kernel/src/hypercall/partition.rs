//! Creating, initializing, finalizing and deleting partitions, and the memory that pays for them.

use hal::{
    addr::Hpa,
    mem::{NoMemory, PoolId, frame::Refusal, space::MapError},
};
use model::ensure;
use tlfs::{
    CallCode, HvStatus, PartitionId,
    memory::{DepositMemoryInput, GetMemoryBalanceOutput, WithdrawMemoryInput},
    partition::{CreatePartitionInput, CreationFlags, PartitionIdInput, PartitionIdOutput},
};

use super::{Call, Outcome};
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

/// `HvCallCreatePartition`: creates a child of the root. Nested virtualization is accepted as a wish: the child's
/// CPUID does not show it.
pub fn create(_: &mut RootCpu, input: CreatePartitionInput) -> Outcome<PartitionIdOutput> {
    let needed = CreationFlags::EXO_PARTITION | CreationFlags::LAPIC_ENABLED;
    let is_isolated = input.isolation_properties.into_bits() != 0;
    ensure(SUPPORTED_FLAGS.contains(input.flags) && !is_isolated, HvStatus::INVALID_PARAMETER)?;
    if !input.flags.contains(needed) {
        let flags = input.flags.0;
        hal::warn!("a partition needs the creation flags EXO and LAPIC and was asked for with {flags:#x}");
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let partition_id = partition::create(&input)?;
    stats::publish_census();
    Ok(PartitionIdOutput { partition_id })
}

/// `HvCallInitializePartition`: makes a partition able to have processors.
pub fn initialize(_: &mut RootCpu, input: PartitionIdInput) -> Outcome {
    partition::find(input.partition_id)?.initialize()
}

/// `HvCallFinalizePartition`: stops a partition and takes everything from it but its pool.
pub fn finalize(_: &mut RootCpu, input: PartitionIdInput) -> Outcome {
    partition::find(input.partition_id)?.finalize()
}

/// `HvCallDeletePartition`: deletes a partition whose pool has been withdrawn.
pub fn delete(_: &mut RootCpu, input: PartitionIdInput) -> Outcome {
    partition::find(input.partition_id)?.delete()?;
    stats::publish_census();
    Ok(())
}

/// The partition that a call names, on which `code` may be made, and its pool.
pub fn pool_of(id: PartitionId, code: CallCode) -> Outcome<(PartitionId, PoolId)> {
    match id {
        PartitionId::SELF | root::ID => Ok((root::ID, root().pool)),
        child => partition::find_for(child, code).map(|partition| (child, partition.pool)),
    }
}

/// `HvCallDepositMemory`: takes pages of the root for a partition. They are out of the root's reach before this
/// returns.
pub fn deposit(_: &mut RootCpu, input: DepositMemoryInput, call: &mut Call<u64>) -> Outcome {
    let (id, pool) = pool_of(input.partition_id, CallCode::DEPOSIT_MEMORY)?;
    let outcome = call.did(root().space.revoke(&call.pages()?, |frame| pool.get().deposit(frame)));
    stats::publish_pages(id, pool);
    outcome
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

/// `HvCallWithdrawMemory`: gives free pages of a partition back to the root, zeroed. `NO_RESOURCES` ends the root's
/// loop; the pages that came before it count.
pub fn withdraw(_: &mut RootCpu, input: WithdrawMemoryInput, call: &mut Call<(), u64>) -> Outcome {
    let (id, pool) = pool_of(input.partition_id, CallCode::WITHDRAW_MEMORY)?;
    let outcome = call.each(|_, ()| {
        let frame = pool.get().withdraw().map_err(|NoMemory| HvStatus::NO_RESOURCES)?;
        root().space.restore(frame).map(Hpa::page).map_err(map_status)
    });
    stats::publish_pages(id, pool);
    outcome
}

/// `HvCallGetMemoryBalance`: tells how many pages of a pool are free, and how many in use.
pub fn balance(_: &mut RootCpu, input: WithdrawMemoryInput) -> Outcome<GetMemoryBalanceOutput> {
    let (_, pool) = pool_of(input.partition_id, CallCode::GET_MEMORY_BALANCE)?;
    let pool = pool.get();
    Ok(GetMemoryBalanceOutput { pages_available: pool.free_pages(), pages_in_use: pool.used_pages() })
}
