//! Child partitions: what they own, how they are found, and how they end.
//!
//! The object itself lies in a frame of its parent's pool, everything else in frames of its own pool. It is found by
//! its id through a table of slots; an id names a slot and a generation, so that a stale id finds nothing.
//!
//! Lock order: slot, `vps`, a VP's `context`, a VP's `synic` or `lapic`, an LP's timer, a root VP's `synic`, space,
//! pool. None of them is held while a guest runs, but the running VP's own `context`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal::{
    cpu,
    mem::{NoMemory, PageArc, PageBox, PoolId, Space},
    sync::SpinLock,
    time,
};
use model::{
    cpuid::{Allowed, Profile},
    ensure,
    lifecycle::State,
    reftime::{ReferenceClock, TscScale},
};
use tlfs::{
    CallCode, HvStatus, PartitionId, VpIndex,
    partition::{CreatePartitionInput, CreationFlags, SyntheticFeatures},
    vp::UnimplementedMsrAction,
};

use crate::{
    hypercall::intercept::Intercepts,
    port::{self, Endpoints},
    root::root,
    vp::Vp,
};

/// Pools 0 and 1 are the boot pool and the root's.
const FIRST_POOL: usize = 2;
/// The most children that exist at once.
const SLOTS: usize = hal::mem::pool::POOLS - FIRST_POOL;
const SLOT_BITS: u32 = 10;
/// The most VPs of a partition: what one frame has room for.
pub const MAX_VPS: usize = 448;

static TABLE: [SpinLock<Option<PartitionRef>>; SLOTS] = [const { SpinLock::new(None) }; SLOTS];
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// A partition, kept alive by this.
pub type PartitionRef = PageArc<Partition>;
/// A virtual processor, kept alive by this.
pub type VpRef = PageArc<Vp>;

/// The VPs by index.
pub struct VpTable([Option<VpRef>; MAX_VPS]);

/// A child partition.
pub struct Partition {
    /// Its id.
    pub id: PartitionId,
    slot: usize,
    /// Its deposits.
    pub pool: PoolId,
    /// How it was created.
    pub flags: CreationFlags,
    /// What it may see of the processor.
    pub allowed: Allowed,
    /// Held for one look or change, with nothing taken inside.
    state: SpinLock<State>,
    /// Its guest-physical space.
    pub space: Space,
    vps: SpinLock<Option<PageBox<VpTable>>>,
    vp_count: AtomicU32,
    /// Its reference time.
    pub clock: SpinLock<ReferenceClock>,
    /// What it is told of the hypervisor.
    pub profile: SpinLock<Profile>,
    /// What was set of its properties.
    pub properties: Properties,
    /// What its parent wants to see.
    pub intercepts: Intercepts,
    /// Its ports and connections.
    pub endpoints: SpinLock<Endpoints>,
    /// Its hypervisor MSRs that all its VPs share.
    pub msrs: PartitionMsrs,
}

/// Properties that are only numbers.
#[derive(Default)]
pub struct Properties {
    /// The features asked for, before what is offered was applied.
    pub synthetic: AtomicU64,
    /// What happens at an MSR that nobody knows: see [`UnimplementedMsrAction`].
    pub unimplemented_msr: AtomicU64,
    /// Processors of a socket.
    pub processors_per_socket: AtomicU64,
    /// Whether accessed and dirty bits are kept for each 4 KiB page.
    pub access_tracking: AtomicU64,
}

/// MSRs of a partition rather than of a VP.
#[derive(Default)]
pub struct PartitionMsrs {
    /// HV_X64_MSR_GUEST_OS_ID.
    pub guest_os_id: AtomicU64,
    /// HV_X64_MSR_HYPERCALL.
    pub hypercall: AtomicU64,
    /// HV_X64_MSR_REFERENCE_TSC.
    pub reference_tsc: AtomicU64,
    /// HV_X64_MSR_CRASH_P0 to P4.
    pub crash: [AtomicU64; 5],
}

/// Makes a partition, uninitialized and without memory of its own.
///
/// # Errors
/// `INSUFFICIENT_MEMORY`: the parent has to deposit; `NO_RESOURCES`: no slot is free.
pub fn create(input: &CreatePartitionInput) -> Result<PartitionId, HvStatus> {
    for (slot, place) in TABLE.iter().enumerate() {
        let mut place = place.lock();
        if place.is_some() {
            continue;
        }
        let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
        let id = PartitionId(generation << SLOT_BITS | slot as u64);
        let pool = PoolId::new(slot + FIRST_POOL).ok_or(HvStatus::NO_RESOURCES)?;
        let no_memory = |NoMemory| HvStatus::INSUFFICIENT_MEMORY;
        let space = Space::new(root().pool, pool).map_err(no_memory)?;
        let partition = Partition::new(id, slot, pool, space, input);
        *place = Some(PageArc::new(root().pool, partition).map_err(no_memory)?);
        return Ok(id);
    }
    Err(HvStatus::NO_RESOURCES)
}

/// Finds a partition.
///
/// # Errors
/// `INVALID_PARTITION_ID`.
pub fn find(id: PartitionId) -> Result<PartitionRef, HvStatus> {
    let slot = TABLE.get(id.0 as usize & ((1 << SLOT_BITS) - 1)).ok_or(HvStatus::INVALID_PARTITION_ID)?;
    slot.lock().clone().filter(|partition| partition.id == id).ok_or(HvStatus::INVALID_PARTITION_ID)
}

/// Finds a partition on which `call` may be made now.
///
/// # Errors
/// `INVALID_PARTITION_ID`, `INVALID_PARTITION_STATE`.
pub fn find_for(id: PartitionId, call: CallCode) -> Result<PartitionRef, HvStatus> {
    let partition = find(id)?;
    partition.state().permit(call)?;
    Ok(partition)
}

/// How many partitions exist beside the root, and their VPs.
pub fn census() -> (u64, u64) {
    let counts = TABLE.iter().filter_map(|slot| slot.lock().as_ref().map(|p| u64::from(p.vp_count())));
    counts.fold((0, 0), |(partitions, vps), count| (partitions + 1, vps + count))
}

impl Partition {
    fn new(id: PartitionId, slot: usize, pool: PoolId, space: Space, input: &CreatePartitionInput) -> Self {
        let x2apic = input.flags.contains(CreationFlags::X2APIC_CAPABLE);
        Self {
            id,
            slot,
            pool,
            flags: input.flags,
            allowed: Allowed::without(
                input.disabled_processor_features0,
                input.disabled_processor_features1,
                input.disabled_xsave_features,
                x2apic,
            ),
            state: SpinLock::new(State::Uninitialized),
            space,
            vps: SpinLock::new(None),
            vp_count: AtomicU32::new(0),
            clock: SpinLock::new(ReferenceClock::new(TscScale::from_hz(time::tsc_hz()), cpu::tsc())),
            profile: SpinLock::new(Profile::child(SyntheticFeatures::NONE)),
            properties: Properties {
                unimplemented_msr: u64::from(UnimplementedMsrAction::FAULT.0).into(),
                ..Properties::default()
            },
            intercepts: Intercepts::default(),
            endpoints: SpinLock::new(port::none(pool)),
            msrs: PartitionMsrs::default(),
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> State {
        *self.state.lock()
    }

    /// Gives it room for VPs.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`, `INSUFFICIENT_MEMORY`.
    pub fn initialize(&self) -> Result<(), HvStatus> {
        let mut vps = self.vps.lock();
        let next = self.state().initialize()?;
        if vps.is_none() {
            let table = PageBox::new(self.pool, VpTable([const { None }; MAX_VPS]));
            *vps = Some(table.map_err(|NoMemory| HvStatus::INSUFFICIENT_MEMORY)?);
        }
        *self.state.lock() = next;
        Ok(())
    }

    /// How many VPs it has.
    pub fn vp_count(&self) -> u32 {
        self.vp_count.load(Ordering::Relaxed)
    }

    /// Finds a VP.
    ///
    /// # Errors
    /// `INVALID_VP_INDEX`.
    pub fn vp(&self, index: VpIndex) -> Result<VpRef, HvStatus> {
        let vps = self.vps.lock();
        let table = vps.as_ref().ok_or(HvStatus::INVALID_PARTITION_STATE)?;
        table.0.get(index.0 as usize).and_then(Clone::clone).ok_or(HvStatus::INVALID_VP_INDEX)
    }

    /// Calls `each` with every VP.
    pub fn for_each_vp(&self, mut each: impl FnMut(&VpRef)) {
        for index in 0..MAX_VPS as u32 {
            if let Ok(vp) = self.vp(VpIndex(index)) {
                each(&vp);
            }
        }
    }

    /// Adds a VP that `make` returns.
    ///
    /// # Errors
    /// `INVALID_VP_INDEX` for one that cannot be or is there already; what `make` returns.
    pub fn add_vp(
        &self,
        index: VpIndex,
        make: impl FnOnce() -> Result<VpRef, HvStatus>,
    ) -> Result<(), HvStatus> {
        ensure(self.vp(index).is_err() && (index.0 as usize) < MAX_VPS, HvStatus::INVALID_VP_INDEX)?;
        let vp = make()?;
        let mut vps = self.vps.lock();
        self.state().permit(CallCode::CREATE_VP)?;
        let place = vps.as_mut().and_then(|table| table.0.get_mut(index.0 as usize));
        match place {
            Some(place) if place.is_none() => *place = Some(vp),
            _ => return Err(HvStatus::INVALID_VP_INDEX),
        }
        self.vp_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Takes a VP away and waits until no LP uses it.
    ///
    /// # Errors
    /// `INVALID_VP_INDEX`.
    pub fn remove_vp(&self, index: VpIndex) -> Result<(), HvStatus> {
        let vp = {
            let mut vps = self.vps.lock();
            let place = vps.as_mut().and_then(|table| table.0.get_mut(index.0 as usize));
            place.and_then(Option::take).ok_or(HvStatus::INVALID_VP_INDEX)?
        };
        self.vp_count.fetch_sub(1, Ordering::Relaxed);
        vp.retire();
        // An LP that still runs it leaves at the kick; others hold it only for the time of a call.
        while vp.users() > 1 {
            cpu::pause();
        }
        Ok(())
    }

    /// Stops everything and gives back all frames but those that only deletion can.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`.
    pub fn finalize(&self) -> Result<(), HvStatus> {
        {
            let _vps = self.vps.lock();
            let next = self.state().finalize(0)?;
            *self.state.lock() = next;
        }
        for index in 0..MAX_VPS as u32 {
            let _ = self.remove_vp(VpIndex(index));
        }
        for vp in root().vps {
            vp.synic.lock().forget(self.id);
        }
        self.space.clear();
        *self.endpoints.lock() = port::none(self.pool);
        *self.vps.lock() = None;
        let mut state = self.state.lock();
        *state = state.finalized();
        Ok(())
    }

    /// Ends it. What is left, the object and the top of its page tables, goes back to its parent's pool.
    ///
    /// # Errors
    /// `INVALID_PARTITION_STATE`; `OPERATION_DENIED` while its pool holds pages.
    pub fn delete(&self) -> Result<(), HvStatus> {
        self.state().check_delete(self.pool.get().free_pages() as usize)?;
        TABLE.get(self.slot).map(|slot| slot.lock().take());
        Ok(())
    }
}
