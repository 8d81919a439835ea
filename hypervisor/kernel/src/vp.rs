//! Virtual processors of children.
//!
//! A VP runs only inside `HvCallDispatchVp`, on the LP of the caller, with its [`Context`] locked. Whatever other
//! processors want of it, they leave in its local APIC, its SynIC or its [`Requests`], and then [`Vp::wake`] it:
//!
//! | `run` is | the VP | what a wake-up does |
//! |---|---|---|
//! | `LP` n | is being dispatched on LP n | kicks that LP |
//! | `BLOCKED` | waits; the root waits for a signal | makes it `IDLE` and sends the signal, once |
//! | `IDLE` | is not dispatched, and the root knows that it can be | nothing |
//!
//! To block, the dispatching LP stores `BLOCKED` and looks for work again; a waker adds work and then looks at `run`.
//! Both are `SeqCst`, so work is either seen by the one or signalled by the other.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::{
    cpu,
    lp::{self, LpIndex},
    mem::{NoMemory, PageArc, PageBox, SharedPage},
    sync::SpinLock,
    virt::{Vcpu, lps, svm::Kind},
};
use model::{
    cpuid::Overrides,
    lapic::{Features, Lapic},
    stimer::Timers,
    synic::Synic,
};
use tlfs::{HvStatus, VpIndex, partition::CreationFlags};

use crate::{
    child::msr::Msrs,
    partition::{PartitionRef, VpRef},
    root::{root, synic::Signal},
    timer,
};

/// A child's synthetic interrupt controller, with as many message buffers as its frame has room for.
pub type ChildSynic = Synic<13>;

/// The most child VPs that exist at once, in all partitions.
pub const MAX_VPS: usize = 2048;

const IDLE: u32 = 0;
const BLOCKED: u32 = 1;
const FIRST_LP: u32 = 2;
const NO_LP: u32 = u32::MAX;
const EXTERNAL: u32 = 1 << 8;

/// What others ask of a VP, as bits.
pub mod request {
    /// An NMI.
    pub const NMI: u32 = 1 << 0;
    /// INIT.
    pub const INIT: u32 = 1 << 1;
    /// A start-up IPI, with its vector in bits 15:8.
    pub const STARTUP: u32 = 1 << 2;
    /// Forget cached translations of virtual addresses.
    pub const FLUSH: u32 = 1 << 3;
    /// Look at messages that wait.
    pub const MESSAGE: u32 = 1 << 4;
    /// Where the vector of a start-up IPI is.
    pub const VECTOR_SHIFT: u32 = 8;
}

/// What a VP does when nothing stops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It executes instructions.
    Running,
    /// It waits for an interrupt (HLT).
    Halted,
    /// It waits for an interrupt even with interrupts disabled (`HV_X64_MSR_GUEST_IDLE`).
    Idle,
    /// It waits for a start-up IPI.
    WaitForStartup,
}

/// An interrupt that a VP may take without an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Of its local APIC, which has acknowledged it.
    Apic(u8),
    /// Of a controller that the parent emulates.
    External(u8),
}

/// What only the LP that runs the VP, or a caller that stopped it, touches.
pub struct Context {
    /// Hardware state.
    pub vcpu: Vcpu,
    /// State that has a frame of its own.
    pub extra: PageBox<Extra>,
    /// What it does.
    pub activity: Activity,
    /// When it halted, as a TSC value.
    pub halted_at: u64,
    /// An NMI waits.
    pub nmi_pending: bool,
    /// An NMI is being handled.
    pub nmi_masked: bool,
    /// The VP's CR8 at its last entry.
    pub task_priority: u8,
    /// The interrupt that was offered at its last entry.
    pub offered: Option<Offered>,
    /// "No EOI required" is set in its assist page.
    pub has_lazy_eoi: bool,
    /// An intercept was reported and not yet resumed.
    pub intercept_suspended: bool,
    /// Timer messages or SynIC messages wait for a page that was not mapped.
    pub messages_wait: bool,
}

/// Rarely used state of a VP.
pub struct Extra {
    /// Synthetic timers.
    pub timers: Timers,
    /// CPUID results that the parent registered.
    pub overrides: Overrides<24>,
    /// MSRs that are only storage.
    pub msrs: Msrs,
}

/// Pages of a VP that the root maps.
#[derive(Default)]
pub struct Pages {
    /// Why it stopped.
    pub intercept: Option<SharedPage>,
    /// Its registers.
    pub registers: Option<SharedPage>,
    /// Statistics: its own, its parent's.
    pub stats: Option<SharedPage>,
}

/// What a VP did, for the statistics page.
#[derive(Default)]
pub struct Counters {
    /// Time in the guest, in TSC ticks.
    pub run_ticks: AtomicU64,
    /// Hypercalls.
    pub hypercalls: AtomicU64,
    /// Port accesses.
    pub io: AtomicU64,
    /// HLT instructions.
    pub halts: AtomicU64,
    /// CPUID instructions.
    pub cpuid: AtomicU64,
    /// MSR accesses.
    pub msrs: AtomicU64,
    /// Nested page faults.
    pub gpa_faults: AtomicU64,
    /// Physical interrupts.
    pub interrupts: AtomicU64,
    /// Other exits.
    pub others: AtomicU64,
    /// Dispatches.
    pub dispatches: AtomicU64,
    /// `HvCallNotifyLongSpinWait`.
    pub long_spins: AtomicU64,
}

/// A virtual processor.
pub struct Vp {
    /// Its index, which is its APIC id.
    pub index: VpIndex,
    /// Its number among all.
    pub number: VpNumber,
    /// Its partition.
    pub partition: PartitionRef,
    run: AtomicU32,
    requests: AtomicU32,
    deadline: AtomicU64,
    timer_lp: AtomicU32,
    /// Signals sent to the root for it (`HV_REGISTER_VP_ROOT_SIGNAL_COUNT`).
    pub root_signals: AtomicU64,
    /// The root forbids dispatching it (`HV_REGISTER_DISPATCH_SUSPEND`).
    pub dispatch_suspended: AtomicBool,
    /// Its parent stopped it, or did not start it yet.
    explicitly_suspended: AtomicBool,
    retired: AtomicBool,
    /// A vector from an interrupt controller that the parent emulates, with [`EXTERNAL`].
    external: AtomicU32,
    /// Vectors whose delivery is also their end (SINTs with auto-EOI).
    pub auto_eoi: [AtomicU64; 4],
    /// Its local APIC.
    pub lapic: SpinLock<Lapic>,
    /// Its synthetic interrupt controller.
    pub synic: SpinLock<PageBox<ChildSynic>>,
    /// Its state.
    pub context: SpinLock<Context>,
    /// Its pages.
    pub pages: SpinLock<Pages>,
    /// What it did.
    pub counters: Counters,
}

impl Vp {
    /// Makes a VP of `partition` as after RESET: VP 0 runs, the others wait for a start-up IPI.
    ///
    /// # Errors
    /// `INSUFFICIENT_MEMORY`; `NO_RESOURCES` when there are too many VPs in all.
    pub fn new(partition: &PartitionRef, index: VpIndex) -> Result<VpRef, HvStatus> {
        let no_memory = |NoMemory| HvStatus::INSUFFICIENT_MEMORY;
        let pool = partition.pool;
        let (msrs, ports) = root().child_maps();
        let features =
            Features { x2apic: partition.flags.contains(CreationFlags::X2APIC_CAPABLE), tsc_deadline: true };
        let is_first = index == VpIndex(0);
        let activity = if is_first { Activity::Running } else { Activity::WaitForStartup };
        let extra = Extra { timers: Timers::default(), overrides: Overrides::new(), msrs: Msrs::reset() };
        let mut vcpu = Vcpu::new(Kind::Child(pool), msrs, ports).map_err(no_memory)?;
        partition.intercepts.apply(&mut vcpu);
        let context = Context {
            vcpu,
            extra: PageBox::new(pool, extra).map_err(no_memory)?,
            activity,
            halted_at: 0,
            nmi_pending: false,
            nmi_masked: false,
            task_priority: 0,
            offered: None,
            has_lazy_eoi: false,
            intercept_suspended: false,
            messages_wait: false,
        };
        let synic = PageBox::new(pool, Synic::new()).map_err(no_memory)?;
        let number = VpNumber::take()?;
        let vp = Self {
            index,
            number,
            partition: partition.clone(),
            run: AtomicU32::new(IDLE),
            requests: AtomicU32::new(0),
            deadline: AtomicU64::new(timer::NEVER),
            timer_lp: AtomicU32::new(NO_LP),
            root_signals: AtomicU64::new(0),
            dispatch_suspended: AtomicBool::new(false),
            explicitly_suspended: AtomicBool::new(true),
            retired: AtomicBool::new(false),
            external: AtomicU32::new(0),
            auto_eoi: [const { AtomicU64::new(0) }; 4],
            lapic: SpinLock::new(Lapic::new(index.0, is_first, features)),
            synic: SpinLock::new(synic),
            context: SpinLock::new(context),
            pages: SpinLock::default(),
            counters: Counters::default(),
        };
        let vp = PageArc::new(pool, vp).map_err(|NoMemory| HvStatus::INSUFFICIENT_MEMORY)?;
        number.publish(&vp);
        Ok(vp)
    }

    /// Asks for something and makes the VP look.
    pub fn request(&self, bits: u32) {
        self.requests.fetch_or(bits, Ordering::SeqCst);
        self.wake();
    }

    /// What was asked for, all at once; it is the taker's to do.
    pub fn take_requests(&self) -> u32 {
        if self.requests.load(Ordering::SeqCst) == 0 {
            return 0;
        }
        self.requests.swap(0, Ordering::SeqCst)
    }

    /// Whether something is asked for.
    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::SeqCst) != 0
    }

    /// Makes the VP look at what has changed for it, wherever it is.
    pub fn wake(&self) {
        match self.run.load(Ordering::SeqCst) {
            IDLE => {}
            // It would only be dispatched to be found stopped; resuming it wakes it again.
            BLOCKED if self.is_explicitly_suspended() => {}
            BLOCKED => {
                let woken = self.run.compare_exchange(BLOCKED, IDLE, Ordering::SeqCst, Ordering::SeqCst);
                if woken.is_ok() {
                    self.signal_root();
                }
            }
            // What runs on this LP looks before it enters its guest again.
            lp if lp == FIRST_LP + lp::this().0 => {}
            lp => lps::kick(LpIndex(lp - FIRST_LP)),
        }
    }

    /// Tells the root that the VP can be dispatched: on the LP where it ran last, whose root thread waits for it.
    fn signal_root(&self) {
        self.stop_timer();
        if self.dispatch_suspended.load(Ordering::SeqCst) {
            return;
        }
        self.root_signals.fetch_add(1, Ordering::SeqCst);
        let home = self.timer_lp.load(Ordering::Relaxed) as usize;
        let vps = root().vps;
        if let Some(target) = vps.get(home).or_else(|| vps.get(lp::this().0 as usize)) {
            target.synic.lock().signal(Signal { partition: self.partition.id, vp: self.index });
        }
    }

    /// Begins a dispatch on this LP.
    pub fn begin_dispatch(&self) {
        self.stop_timer();
        self.timer_lp.store(lp::this().0, Ordering::Relaxed);
        self.run.store(FIRST_LP + lp::this().0, Ordering::SeqCst);
    }

    /// Ends a dispatch after which the root will dispatch again of its own accord.
    pub fn end_dispatch(&self) {
        self.run.store(IDLE, Ordering::SeqCst);
    }

    /// Announces that the VP waits, its timers due at `deadline`. The caller looks for work once more after this.
    pub fn block(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::SeqCst);
        self.run.store(BLOCKED, Ordering::SeqCst);
        if deadline != timer::NEVER {
            timer::add(self.number, deadline);
        }
    }

    /// Takes the announcement back. `false`: a waker was faster, and the root has its signal.
    pub fn unblock(&self) -> bool {
        let lp = FIRST_LP + lp::this().0;
        let back = self.run.compare_exchange(BLOCKED, lp, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if back {
            self.stop_timer();
        }
        back
    }

    fn stop_timer(&self) {
        if self.deadline.swap(timer::NEVER, Ordering::SeqCst) != timer::NEVER {
            timer::remove(LpIndex(self.timer_lp.load(Ordering::Relaxed)), self.number);
        }
    }

    /// Whether an LP dispatches it, and which.
    pub fn lp(&self) -> Option<LpIndex> {
        self.run.load(Ordering::SeqCst).checked_sub(FIRST_LP).map(LpIndex)
    }

    /// Whether its parent stopped it.
    pub fn is_explicitly_suspended(&self) -> bool {
        self.explicitly_suspended.load(Ordering::SeqCst)
    }

    /// Stops the VP, or lets it run.
    pub fn set_explicitly_suspended(&self, on: bool) {
        self.explicitly_suspended.store(on, Ordering::SeqCst);
        self.wake();
    }

    /// Asserts an interrupt whose vector comes from a controller outside of the local APIC, or withdraws it.
    pub fn set_external(&self, vector: Option<u8>) {
        self.external.store(vector.map_or(0, |vector| EXTERNAL | u32::from(vector)), Ordering::SeqCst);
        self.wake();
    }

    /// The external interrupt that waits.
    pub fn external(&self) -> Option<u8> {
        let word = self.external.load(Ordering::SeqCst);
        (word & EXTERNAL != 0).then_some(word as u8)
    }

    /// Whether it is going away.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Ends its use: it leaves its LP, its timer and its number.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.stop_timer();
        if let Some(lp) = self.lp() {
            lps::kick(lp);
        }
        self.number.withdraw();
    }

    /// Drops all cached translations of virtual addresses before the VP executes another instruction. If it runs
    /// now, this returns when it has left its guest; if not, the flush is remembered.
    pub fn flush_translations(&self) {
        self.requests.fetch_or(request::FLUSH, Ordering::SeqCst);
        if let Some(lp) = self.lp().filter(|&lp| lp != lp::this()) {
            lps::evict(lp);
        }
    }
}

/// The number of a VP among all that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpNumber(u16);

static VPS: [SpinLock<Option<VpRef>>; MAX_VPS] = [const { SpinLock::new(None) }; MAX_VPS];
static TAKEN: SpinLock<VpNumbers> = SpinLock::new(VpNumbers::EMPTY);

impl VpNumber {
    fn take() -> Result<Self, HvStatus> {
        let mut taken = TAKEN.lock();
        let number = taken.first_absent().ok_or(HvStatus::NO_RESOURCES)?;
        taken.insert(number);
        Ok(number)
    }

    fn publish(self, vp: &VpRef) {
        *VPS[usize::from(self.0)].lock() = Some(vp.clone());
    }

    fn withdraw(self) {
        let vp = VPS[usize::from(self.0)].lock().take();
        if vp.is_some() {
            TAKEN.lock().remove(self);
        }
    }

    fn vp(self) -> Option<VpRef> {
        VPS.get(usize::from(self.0))?.lock().clone()
    }
}

/// When the timers of a waiting VP are due.
pub fn deadline_of(number: VpNumber) -> u64 {
    number.vp().map_or(timer::NEVER, |vp| vp.deadline.load(Ordering::SeqCst))
}

/// Wakes a VP whose timers are due.
pub fn wake_number(number: VpNumber) {
    if let Some(vp) = number.vp() {
        vp.wake();
    }
}

/// A set of VPs.
#[derive(Clone, Copy)]
pub struct VpNumbers([u64; MAX_VPS / 64]);

impl VpNumbers {
    /// No VP.
    pub const EMPTY: Self = Self([0; MAX_VPS / 64]);

    fn word(&mut self, number: VpNumber) -> Option<(&mut u64, u64)> {
        self.0.get_mut(usize::from(number.0) / 64).map(|word| (word, 1 << (number.0 % 64)))
    }

    /// Adds a VP.
    pub fn insert(&mut self, number: VpNumber) {
        if let Some((word, bit)) = self.word(number) {
            *word |= bit;
        }
    }

    /// Removes a VP.
    pub fn remove(&mut self, number: VpNumber) {
        if let Some((word, bit)) = self.word(number) {
            *word &= !bit;
        }
    }

    fn first_absent(&self) -> Option<VpNumber> {
        let (index, word) = self.0.iter().enumerate().find(|(_, word)| **word != u64::MAX)?;
        Some(VpNumber((index * 64) as u16 + word.trailing_ones() as u16))
    }

    /// The members, in order.
    pub fn iter(&self) -> impl Iterator<Item = VpNumber> + use<> {
        let words = self.0;
        words.into_iter().enumerate().filter(|(_, word)| *word != 0).flat_map(|(index, word)| {
            (0..64u16)
                .filter(move |bit| word >> bit & 1 != 0)
                .map(move |bit| VpNumber(index as u16 * 64 + bit))
        })
    }
}

/// TSC ticks in `us` microseconds.
pub fn ticks_of_us(us: u64) -> u64 {
    us.saturating_mul(hal::time::tsc_hz() / 1_000_000)
}

/// The TSC as the VP sees it. No child has an offset: all see the machine's counter.
pub fn guest_tsc() -> u64 {
    cpu::tsc()
}
