//! A child's guest-physical memory: mapping, unmapping, accessed and dirty bits.

use hal::{
    addr::Gpa,
    mem::space::{Access, PageSize},
};
use model::ensure;
use tlfs::{
    CallCode, HvStatus,
    memory::{
        GetGpaPagesAccessStatesInput, GpaAccessFlags, GpaAccessState, MapGpaFlags, MapGpaPagesInput,
        UnmapGpaFlags, UnmapGpaPagesInput,
    },
};

use super::{Call, Outcome};
use crate::{partition, root::RootCpu};

const KNOWN_MAP_FLAGS: MapGpaFlags = MapGpaFlags::PERMISSIONS_MASK
    .with(MapGpaFlags::ADJUSTABLE)
    .with(MapGpaFlags::NO_ACCESS)
    .with(MapGpaFlags::NO_OVERLAY)
    .with(MapGpaFlags::NOT_CACHED)
    .with(MapGpaFlags::LARGE_PAGE);

/// `HvCallMapGpaPages`: maps pages of the root into a child, or forbids access to them.
///
/// A page without access is simply not mapped: either way an access is reported to the root. Large pages take one
/// element each. Caching is not ours to choose: memory is write-back for child and root alike.
pub fn map(_: &mut RootCpu, input: MapGpaPagesInput, call: &mut Call<u64>) -> Outcome {
    let partition = partition::find_for(input.target_partition_id, CallCode::MAP_GPA_PAGES)?;
    let flags = input.map_flags;
    ensure(KNOWN_MAP_FLAGS.contains(flags), HvStatus::INVALID_PARAMETER)?;
    let size = page_size(flags.contains(MapGpaFlags::LARGE_PAGE));
    let batch = call.batch();
    let gpa = nth_page(input.target_gpa_base, size, batch.start)?;
    if flags.contains(MapGpaFlags::NO_ACCESS) {
        return call.did(partition.space.unmap(gpa, batch.len(), size));
    }
    ensure(flags.contains(MapGpaFlags::READABLE), HvStatus::INVALID_PARAMETER)?;
    call.did(partition.space.map(gpa, &call.pages()?, size, access(flags)))
}

fn access(flags: MapGpaFlags) -> Access {
    // Nested paging knows one right to execute; the finer ones need mode-based execution control.
    let execute = MapGpaFlags::KERNEL_EXECUTABLE | MapGpaFlags::USER_EXECUTABLE;
    Access { write: flags.contains(MapGpaFlags::WRITABLE), execute: flags.intersects(execute) }
}

fn page_size(large: bool) -> PageSize {
    if large { PageSize::Large } else { PageSize::Small }
}

fn nth_page(base: u64, size: PageSize, index: usize) -> Outcome<Gpa> {
    let number = base.checked_add(size.pages() * index as u64).filter(|&number| number < 1 << 36);
    number.map(Gpa::from_page).ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallUnmapGpaPages`: takes pages from a child. No processor can reach them when this returns.
pub fn unmap(_: &mut RootCpu, input: UnmapGpaPagesInput, call: &mut Call) -> Outcome {
    let partition = partition::find_for(input.target_partition_id, CallCode::UNMAP_GPA_PAGES)?;
    ensure(UnmapGpaFlags::NAMED.contains(input.unmap_flags), HvStatus::INVALID_PARAMETER)?;
    let size = page_size(input.unmap_flags.contains(UnmapGpaFlags::LARGE_PAGE));
    let batch = call.batch();
    let gpa = nth_page(input.target_gpa_base, size, batch.start)?;
    call.did(partition.space.unmap(gpa, batch.len(), size))
}

/// `HvCallGetGpaPagesAccessStates`: returns which pages a child has accessed and written, and sets or clears that.
///
/// A page that is not mapped was not touched. The processor records into the mapping that it uses, so a large one
/// is split first when its bits are to change for one page alone; without a page table to spare the state of the whole
/// large page is returned and kept.
pub fn access_states(
    _: &mut RootCpu,
    input: GetGpaPagesAccessStatesInput,
    call: &mut Call<(), GpaAccessState>,
) -> Outcome {
    let partition = partition::find_for(input.partition_id, CallCode::GET_GPA_PAGES_ACCESS_STATES)?;
    let flags = input.flags;
    ensure(GpaAccessFlags::NAMED.contains(flags), HvStatus::INVALID_PARAMETER)?;
    let change = |set, clear| match (flags.contains(set), flags.contains(clear)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    };
    let update = [
        change(GpaAccessFlags::SET_ACCESSED, GpaAccessFlags::CLEAR_ACCESSED),
        change(GpaAccessFlags::SET_DIRTY, GpaAccessFlags::CLEAR_DIRTY),
    ];
    let space = &partition.space;
    call.each(|rep, ()| {
        let gpa = nth_page(input.gpa_page_number, PageSize::Small, rep)?;
        let is_single = update == [None; 2] || space.split_to_4k(gpa).is_ok();
        let update = if is_single { update } else { [None; 2] };
        let (accessed, dirty) = space.access_state(gpa, update).unwrap_or_default();
        Ok(GpaAccessState::ACCESSED.when(accessed) | GpaAccessState::DIRTY.when(dirty))
    })?;
    if update.contains(&Some(false)) {
        // A processor that has the page in its TLB would not set the bits again.
        space.flush();
    }
    Ok(())
}
