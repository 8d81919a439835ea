//! Statistics: pages of counters that the root reads when it likes.
//!
//! A page is a frame of the root's pool, written when a figure changes and a page is mapped: a child VP's at the end
//! of each dispatch, the others when a partition, a VP or memory comes or goes. A counter that is not kept stays zero. Each
//! object has one page, its own: a second area for its parent (`StatsArea::PARENT`) would hold the same, and Linux
//! does without (`Linux drivers/hv/mshv_root_hv_call.c:hv_call_map_stats_page`).
//!
//! Lock order: [`PAGES`], a partition's slot; [`PAGES`] or a VP's `pages`, space, pool.

use core::sync::atomic::{AtomicU64, Ordering};

use hal::{
    lp::{self, LpIndex},
    mem::{PoolId, SharedPage, pool, space::MapError},
    sync::SpinLock,
};
use tlfs::{
    HvStatus, PartitionId, VpIndex,
    stats::{HypervisorCounter, LpCounter, PartitionCounter, VpCounter},
};

use crate::{
    partition,
    root::{self, page_number, root},
    vp::{Counters, Vp},
};

/// The most pages at once, those of child VPs not counted.
const MAX_PAGES: usize = 2048;

static PAGES: SpinLock<[Option<Mapped>; MAX_PAGES]> = SpinLock::new([const { None }; MAX_PAGES]);

/// What has a page, beside a child's VP, which keeps its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The hypervisor.
    Hypervisor,
    /// An LP.
    Lp(LpIndex),
    /// A partition, the root too.
    Partition(PartitionId),
    /// A VP of the root.
    RootVp(VpIndex),
}

struct Mapped {
    object: Object,
    page: SharedPage,
}

/// Gives the root the page of `object` and returns its number. Mapping it again returns the same page.
///
/// # Errors
/// `INSUFFICIENT_MEMORY`: the root has to deposit a page to itself; `NO_RESOURCES`.
pub fn map(object: Object) -> Result<u64, HvStatus> {
    let mut pages = PAGES.lock();
    if let Some(mapped) = pages.iter().flatten().find(|mapped| mapped.object == object) {
        return Ok(page_number(&mapped.page));
    }
    let place = pages.iter_mut().find(|place| place.is_none()).ok_or(HvStatus::NO_RESOURCES)?;
    let page = new_page()?;
    fill(object, &page);
    let number = page_number(&page);
    *place = Some(Mapped { object, page });
    Ok(number)
}

/// Takes the page of `object` back.
///
/// # Errors
/// `INVALID_PARAMETER` if it is not mapped.
pub fn unmap(object: Object) -> Result<(), HvStatus> {
    let is_it = |place: &&mut Option<Mapped>| place.as_ref().is_some_and(|mapped| mapped.object == object);
    let mapped = PAGES.lock().iter_mut().find(is_it).and_then(Option::take);
    // The page is unmapped from the root here, when the lock is free again.
    mapped.map(drop).ok_or(HvStatus::INVALID_PARAMETER)
}

/// As [`map`], for a child's VP.
///
/// # Errors
/// `INSUFFICIENT_MEMORY`.
pub fn map_vp(vp: &Vp) -> Result<u64, HvStatus> {
    let number = {
        let mut pages = vp.pages.lock();
        page_number(match &mut pages.stats {
            Some(page) => page,
            none => none.insert(new_page()?),
        })
    };
    publish(vp);
    Ok(number)
}

/// As [`unmap`], for a child's VP.
///
/// # Errors
/// `INVALID_PARAMETER` if it is not mapped.
pub fn unmap_vp(vp: &Vp) -> Result<(), HvStatus> {
    let page = vp.pages.lock().stats.take();
    page.map(drop).ok_or(HvStatus::INVALID_PARAMETER)
}

fn new_page() -> Result<SharedPage, HvStatus> {
    SharedPage::new(root().pool, &root().space).map_err(|error| match error {
        MapError::NoMemory => HvStatus::INSUFFICIENT_MEMORY,
        MapError::Refused(_) | MapError::BadAddress => HvStatus::OPERATION_FAILED,
    })
}

/// Finds a count among what a VP counts.
type Count = fn(&Counters) -> &AtomicU64;

/// The counts that a VP's page shows as they are.
const COUNTS: [(VpCounter, Count); 10] = [
    (VpCounter::HYPERCALLS_COUNT, |counters| &counters.hypercalls),
    (VpCounter::IO_INSTRUCTIONS_COUNT, |counters| &counters.io),
    (VpCounter::HLT_INSTRUCTIONS_COUNT, |counters| &counters.halts),
    (VpCounter::CPUID_INSTRUCTIONS_COUNT, |counters| &counters.cpuid),
    (VpCounter::MSR_ACCESSES_COUNT, |counters| &counters.msrs),
    (VpCounter::OTHER_INTERCEPTS_COUNT, |counters| &counters.others),
    (VpCounter::EXTERNAL_INTERRUPTS_COUNT, |counters| &counters.interrupts),
    (VpCounter::LONG_SPIN_WAIT_HYPERCALLS, |counters| &counters.long_spins),
    (VpCounter::NESTED_PAGE_FAULT_INTERCEPTS_COUNT, |counters| &counters.gpa_faults),
    (VpCounter::LOGICAL_PROCESSOR_DISPATCHES, |counters| &counters.dispatches),
];

/// Writes a child VP's figures to its page, if that is mapped.
pub fn publish(vp: &Vp) {
    let pages = vp.pages.lock();
    let Some(page) = &pages.stats else { return };
    // The root's clock has no offset, so it turns any number of ticks into their time.
    let run_time = root().clock.at(vp.counters.run_ticks.load(Ordering::Relaxed));
    put(page, VpCounter::TOTAL_RUN_TIME.0, run_time);
    for (counter, of) in COUNTS {
        put(page, counter.0, of(&vp.counters).load(Ordering::Relaxed));
    }
}

/// Writes the figures that change as partitions and VPs come and go. The caller holds no lock of theirs.
pub fn publish_census() {
    let pages = PAGES.lock();
    pages.iter().flatten().for_each(|mapped| fill(mapped.object, &mapped.page));
}

/// Writes the figures that change as pages are deposited to a partition and withdrawn from it.
pub fn publish_pages(id: PartitionId, pool: PoolId) {
    for mapped in PAGES.lock().iter().flatten() {
        match mapped.object {
            Object::Hypervisor => put(&mapped.page, HypervisorCounter::TOTAL_PAGES.0, pool::total_pages()),
            Object::Partition(of) if of == id => {
                put(&mapped.page, PartitionCounter::DEPOSITED_PAGES.0, pool.get().total_pages());
            }
            Object::Partition(_) | Object::Lp(_) | Object::RootVp(_) => {}
        }
    }
}

fn fill(object: Object, page: &SharedPage) {
    let root_vps = root().vps.len() as u64;
    match object {
        Object::Hypervisor => {
            let (children, vps) = partition::census();
            put(page, HypervisorCounter::LOGICAL_PROCESSORS.0, lp::count().into());
            put(page, HypervisorCounter::PARTITIONS.0, children + 1);
            put(page, HypervisorCounter::TOTAL_PAGES.0, pool::total_pages());
            put(page, HypervisorCounter::VIRTUAL_PROCESSORS.0, vps + root_vps);
        }
        // VP n of the root is pinned to LP n.
        Object::Lp(lp) => put(page, LpCounter::ROOT_VP_INDEX.0, lp.0.into()),
        Object::RootVp(vp) => put(page, VpCounter::IDEAL_CPU.0, vp.0.into()),
        Object::Partition(id) => {
            let (vps, pool) = match partition::find(id) {
                Ok(child) => (child.vp_count().into(), Some(child.pool)),
                Err(_) if id == root::ID => (root_vps, Some(root().pool)),
                Err(_) => (0, None),
            };
            let pages = pool.map_or(0, |pool| pool.get().total_pages());
            put(page, PartitionCounter::PARTITION_ID.0, id.0);
            put(page, PartitionCounter::VIRTUAL_PROCESSORS.0, vps);
            put(page, PartitionCounter::DEPOSITED_PAGES.0, pages);
        }
    }
}

fn put(page: &SharedPage, word: u16, value: u64) {
    page.write_u64(usize::from(word) * size_of::<u64>(), value);
}
