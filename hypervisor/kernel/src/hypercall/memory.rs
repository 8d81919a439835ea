//! A child's guest-physical memory: mapping, unmapping, accessed and dirty bits.

use hal::{
    addr::{Gpa, Hpa},
    mem::space::{Access, PageSize},
};
use model::call::CallSpec;
use tlfs::{
    CallCode, HvStatus,
    memory::{
        GetGpaPagesAccessStatesInput, GpaAccessFlags, GpaAccessState, MapGpaFlags, MapGpaPagesInput,
        UnmapGpaFlags, UnmapGpaPagesInput,
    },
};

use super::{
    Call, Outcome, REPS_AT_ONCE,
    partition::{map_status, page},
};
use crate::{partition, root::RootCpu};

const KNOWN_MAP_FLAGS: MapGpaFlags = MapGpaFlags::PERMISSIONS_MASK
    .with(MapGpaFlags::ADJUSTABLE)
    .with(MapGpaFlags::NO_ACCESS)
    .with(MapGpaFlags::NO_OVERLAY)
    .with(MapGpaFlags::NOT_CACHED)
    .with(MapGpaFlags::LARGE_PAGE);

/// `HvCallMapGpaPages`.
pub const MAP: CallSpec = CallSpec::rep(size_of::<MapGpaPagesInput>(), 8, 0);

/// Maps pages of the root into a child, or forbids access to them.
///
/// A page without access is simply not mapped: either way an access is reported to the root. Large pages take one
/// element each. Caching is not ours to choose: memory is write-back for child and root alike.
pub fn map(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: MapGpaPagesInput = call.header()?;
    let partition = partition::find_for(input.target_partition_id, CallCode::MAP_GPA_PAGES)?;
    let flags = input.map_flags;
    if flags.without(KNOWN_MAP_FLAGS) != MapGpaFlags::NONE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let size = page_size(flags.contains(MapGpaFlags::LARGE_PAGE));
    let batch = call.batch();
    let gpa = nth_page(input.target_gpa_base, size, batch.start)?;
    let (done, result) = if flags.contains(MapGpaFlags::NO_ACCESS) {
        partition.space.unmap(gpa, batch.len(), size)
    } else {
        if !flags.contains(MapGpaFlags::READABLE) {
            return Err(HvStatus::INVALID_PARAMETER);
        }
        let mut targets = [Hpa(0); REPS_AT_ONCE];
        for (rep, place) in batch.clone().zip(targets.iter_mut()) {
            *place = page(call.element(rep)?)?;
        }
        let targets = targets.get(..batch.len()).unwrap_or_default();
        partition.space.map(gpa, targets, size, access(flags))
    };
    call.set_done(batch.start + done);
    result.map_err(map_status)
}

fn access(flags: MapGpaFlags) -> Access {
    // Nested paging knows one right to execute; the finer ones need mode-based execution control.
    let execute = MapGpaFlags::KERNEL_EXECUTABLE | MapGpaFlags::USER_EXECUTABLE;
    Access { write: flags.contains(MapGpaFlags::WRITABLE), execute: flags.intersects(execute) }
}

fn page_size(large: bool) -> PageSize {
    if large { PageSize::Large } else { PageSize::Small }
}

fn nth_page(base: u64, size: PageSize, index: usize) -> Result<Gpa, HvStatus> {
    let number = base.checked_add(size.pages() * index as u64).filter(|&number| number < 1 << 36);
    number.map(Gpa::from_page).ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallUnmapGpaPages`.
pub const UNMAP: CallSpec = CallSpec::rep(size_of::<UnmapGpaPagesInput>(), 0, 0);

/// Takes pages from a child. No processor can reach them when this returns.
pub fn unmap(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: UnmapGpaPagesInput = call.header()?;
    let partition = partition::find_for(input.target_partition_id, CallCode::UNMAP_GPA_PAGES)?;
    if input.unmap_flags.without(UnmapGpaFlags::NAMED) != UnmapGpaFlags::NONE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
    let size = page_size(input.unmap_flags.contains(UnmapGpaFlags::LARGE_PAGE));
    let batch = call.batch();
    let gpa = nth_page(input.target_gpa_base, size, batch.start)?;
    let (done, result) = partition.space.unmap(gpa, batch.len(), size);
    call.set_done(batch.start + done);
    result.map_err(map_status)
}

/// `HvCallGetGpaPagesAccessStates`.
pub const ACCESS_STATES: CallSpec = CallSpec::rep(size_of::<GetGpaPagesAccessStatesInput>(), 0, 1);

/// Returns which pages a child has accessed and written, and sets or clears that.
///
/// A page that is not mapped was not touched. The processor records into the mapping that it uses, so a large one
/// is split first when its bits are to change for one page alone; without a page table to spare the state of the whole
/// large page is returned and kept.
pub fn access_states(_: &mut RootCpu, call: &mut Call) -> Outcome {
    let input: GetGpaPagesAccessStatesInput = call.header()?;
    let partition = partition::find_for(input.partition_id, CallCode::GET_GPA_PAGES_ACCESS_STATES)?;
    let flags = input.flags;
    if flags.without(GpaAccessFlags::NAMED) != GpaAccessFlags::NONE {
        return Err(HvStatus::INVALID_PARAMETER);
    }
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
    for rep in call.batch() {
        let gpa = nth_page(input.gpa_page_number, PageSize::Small, rep)?;
        let is_single = update == [None; 2] || space.split_to_4k(gpa).is_ok();
        let update = if is_single { update } else { [None; 2] };
        let (accessed, dirty) = space.access_state(gpa, update).unwrap_or_default();
        let state = GpaAccessState::ACCESSED.when(accessed) | GpaAccessState::DIRTY.when(dirty);
        call.set_output_element(rep, &state);
        call.set_done(rep + 1);
    }
    if update.contains(&Some(false)) {
        // A processor that has the page in its TLB would not set the bits again.
        space.flush();
    }
    Ok(())
}
