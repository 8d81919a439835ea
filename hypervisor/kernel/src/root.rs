//! The root partition: a Linux that owns the machine's devices, and the parent of every child.
//!
//! VP n of the root is pinned to LP n and never moves, so its local APIC is the physical one, and devices interrupt
//! it without an exit. What it must not reach is what the hypervisor keeps: its own memory, virtualization, and the
//! few MSRs named in [`msr`].

pub mod cpuid;
pub mod msr;
mod run;
pub mod start;
pub mod synic;

pub use run::{RootCpu, make_cpus, run};

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::{
    addr::{Gpa, Hpa},
    cpu,
    lp::LpIndex,
    mem::{PoolId, SharedPage, Space},
    sync::{Once, SpinLock},
    virt::{IoMap, MsrAccess, MsrMap, kick},
};
use model::reftime::ReferenceClock;
use tlfs::ids::PartitionId;

use crate::{options::Options, port::Endpoints};

/// The root's partition id. Children have higher ones.
pub const ID: PartitionId = PartitionId(1);

static ROOT: Once<Root> = Once::new();

/// What all processors of the root share.
pub struct Root {
    /// Its guest-physical space, the identity.
    pub space: Space,
    /// Its processors; the index is that of the VP and of the LP.
    pub vps: &'static [RootVp],
    /// Its deposits: what children cost before they have a pool of their own.
    pub pool: PoolId,
    /// Its ports and connections.
    pub endpoints: SpinLock<Endpoints>,
    /// The time since the hypervisor started.
    pub clock: ReferenceClock,
    /// The page from which it makes hypercalls.
    pub hypercall_page: SharedPage,
    /// The reference TSC page.
    pub tsc_page: SharedPage,
    /// What was chosen at boot.
    pub options: Options,
    maps: Maps,
    guest_os_id: AtomicU64,
    hypercall_enabled: AtomicBool,
    /// SLP_TYP for PM1a and PM1b of the state to enter, in bits 7:0 and 15:8, once the root has said.
    pub sleep_types: AtomicU32,
}

/// Permission maps.
struct Maps {
    ports: IoMap,
    /// The root's, while its APIC timer is its own.
    free: MsrMap,
    /// The root's, while the hypervisor uses the LP's timer.
    borrowed: MsrMap,
    /// The root's, while it has that timer for one interrupt.
    lent: MsrMap,
    child_ports: IoMap,
    child_msrs: MsrMap,
}

/// One processor of the root, as other processors see it.
pub struct RootVp {
    /// Its LP.
    pub lp: LpIndex,
    /// A start-up vector to obey: [`START`] with the vector, or [`INIT`].
    startup: AtomicU32,
    /// Whether it runs code, rather than waiting for a start-up IPI.
    online: AtomicBool,
    /// Its synthetic interrupt controller.
    pub synic: SpinLock<synic::RootSynic>,
    /// Its VP assist page.
    pub assist_page: SharedPage,
    assist_enabled: AtomicBool,
}

const START: u32 = 1 << 8;
const INIT: u32 = 1 << 9;

/// The root. Everything that calls this runs after [`start::build`].
pub fn root() -> &'static Root {
    ROOT.get().expect("the root is built before any processor enters a guest")
}

impl Root {
    /// The reference time now, in 100 ns since the hypervisor started.
    pub fn now(&self) -> u64 {
        self.clock.at(cpu::tsc())
    }

    /// Permission maps for children.
    pub fn child_maps(&self) -> (MsrMap, IoMap) {
        (self.maps.child_msrs, self.maps.child_ports)
    }

    /// Decides whether the root's interrupt commands exit. They must while a processor of it is offline, since
    /// INIT and start-up IPIs are virtual; once all run, they are only interrupts (docs/adr/0009).
    fn update_command_intercept(&self) {
        let all_online = self.vps.iter().all(|vp| vp.online.load(Ordering::SeqCst));
        let assists = self.vps.iter().all(|vp| vp.assist_enabled.load(Ordering::SeqCst));
        let access = if all_online && assists { MsrAccess::Pass } else { MsrAccess::ExitOnWrite };
        for map in [self.maps.free, self.maps.borrowed, self.maps.lent] {
            map.set(msr::X2APIC_ICR, access);
        }
    }
}

impl RootVp {
    /// Asks the processor to start at `vector` << 12, if it waits for that.
    fn send_startup(&self, vector: u8) {
        // A running processor ignores a start-up IPI (SDM 3A §9.4.3.3).
        if !self.online.load(Ordering::SeqCst) {
            self.startup.store(START | u32::from(vector), Ordering::SeqCst);
            kick(self.lp);
        }
    }

    /// Puts the processor into the state that waits for a start-up IPI.
    fn send_init(&self) {
        self.startup.store(INIT, Ordering::SeqCst);
        kick(self.lp);
    }
}

/// Makes the permission maps. Boot only.
fn make_maps() -> Option<Maps> {
    let free = MsrMap::new(MsrAccess::Pass)?;
    let borrowed = MsrMap::new(MsrAccess::Pass)?;
    let lent = MsrMap::new(MsrAccess::Pass)?;
    for map in [free, borrowed, lent] {
        msr::PROTECTED.iter().for_each(|&(number, access)| map.set(number, access));
    }
    msr::TIMER.iter().for_each(|&number| borrowed.set(number, MsrAccess::Exit));
    lent.set(msr::X2APIC_EOI, MsrAccess::ExitOnWrite);
    let child_msrs = MsrMap::new(MsrAccess::Exit)?;
    msr::CHILD_OWN.iter().for_each(|&number| child_msrs.set(number, MsrAccess::Pass));
    Some(Maps { ports: IoMap::new(false)?, free, borrowed, lent, child_ports: IoMap::new(true)?, child_msrs })
}

/// The page number of a page, as MSRs and hypercalls name it.
pub fn page_number(page: &SharedPage) -> u64 {
    page.hpa().page()
}

/// The same address in both spaces.
pub fn identity(gpa: Gpa) -> Hpa {
    Hpa(gpa.0)
}
