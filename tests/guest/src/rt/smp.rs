//! The other processors: how they start, and how a case gives them work.
//!
//! A processor without work halts, and is woken by an interrupt with a vector of its own.

use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use super::{
    apic, cpu, memory,
    percpu::{self, Cpu, Eoi, MAX_VPS},
    time,
};
use crate::report::{Outcome, check, wrong};

/// What wakes a processor without work.
pub(crate) const WAKE: u8 = 0xf8;
/// The page at which processors start, by default.
pub(crate) const START_PAGE: u8 = 0x08;

const IDLE: u8 = 0;
const POSTED: u8 = 1;
const DONE: u8 = 2;

/// APIC registers that are noted before a started processor changes any.
pub(crate) const FRESH: [u32; 6] =
    [apic::SVR, apic::TPR, apic::LVT_TIMER, apic::LVT_ERROR, apic::INITIAL_COUNT, apic::IRR + 7];

/// A piece of work for a processor.
pub(crate) type Job = fn(u64) -> Outcome;

/// The work that a processor was given.
pub(super) struct Slot {
    state: AtomicU8,
    job: AtomicUsize,
    argument: AtomicU64,
    outcome: UnsafeCell<Outcome>,
    halted: AtomicBool,
    starts: AtomicU32,
    segment: AtomicU32,
    fresh: [AtomicU32; FRESH.len()],
}

// SAFETY: `outcome` is written by the processor itself while the state is POSTED, and read by the boot processor
// when it is DONE.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicU8::new(IDLE),
            job: AtomicUsize::new(0),
            argument: AtomicU64::new(0),
            outcome: UnsafeCell::new(Ok(())),
            halted: AtomicBool::new(false),
            starts: AtomicU32::new(0),
            segment: AtomicU32::new(0),
            fresh: [const { AtomicU32::new(0) }; FRESH.len()],
        }
    }

    fn work(&self) {
        // SAFETY: `post` stored a function of this type.
        let job = unsafe { core::mem::transmute::<usize, Job>(self.job.load(SeqCst)) };
        let outcome = job(self.argument.load(SeqCst));
        // SAFETY: the boot processor does not look before the state is DONE.
        unsafe { *self.outcome.get() = outcome };
        self.state.store(DONE, SeqCst);
    }
}

unsafe extern "C" {
    static ap_trampoline: u8;
    static ap_trampoline_end: u8;
}

/// Puts the start-up code at page `page` below 1 MiB.
pub(crate) fn place_trampoline(page: u8) {
    let begin = &raw const ap_trampoline;
    let length = (&raw const ap_trampoline_end).addr() - begin.addr();
    // SAFETY: the code lies between the two symbols.
    let code = unsafe { core::slice::from_raw_parts(begin, length) };
    memory::copy_to(u64::from(page) << 12, code);
}

/// Starts a processor by INIT and start-up at `page`, and waits until it runs.
pub(crate) fn start_at(index: usize, page: u8) -> Outcome {
    let slot = &Cpu::of(index).job;
    let before = slot.starts.load(SeqCst);
    place_trampoline(page);
    apic::command(index as u32, apic::INIT);
    time::wait(10_000);
    apic::command(index as u32, apic::STARTUP | u32::from(page));
    // A processor that runs already ignores the second one (SDM 3A "MP Initialization Protocol").
    if !time::until(200_000, || slot.starts.load(SeqCst) != before) {
        apic::command(index as u32, apic::STARTUP | u32::from(page));
    }
    check!(time::eventually(|| slot.starts.load(SeqCst) != before), "processor {index} does not start");
    Ok(())
}

/// How often a processor was started, and the segment at which it was the last time.
pub(crate) fn starts(index: usize) -> (u32, u32) {
    let slot = &Cpu::of(index).job;
    (slot.starts.load(SeqCst), slot.segment.load(SeqCst))
}

/// The registers of [`FRESH`] as a processor found them when it was started.
pub(crate) fn fresh(index: usize) -> [u32; FRESH.len()] {
    Cpu::of(index).job.fresh.each_ref().map(|value| value.load(SeqCst))
}

/// Starts processors 1 to `vps - 1`.
pub(crate) fn start_all(vps: usize) -> Outcome {
    (1..vps).try_for_each(|index| start_at(index, START_PAGE))
}

/// The first Rust code of a started processor.
pub(super) extern "C" fn start_secondary(index: usize, segment: u32) -> ! {
    debug_assert!(index < MAX_VPS);
    percpu::load(index);
    let cpu = Cpu::of(index);
    cpu.set_eoi(Eoi::Apic);
    apic::start();
    for (place, register) in cpu.job.fresh.iter().zip(FRESH) {
        place.store(apic::read(register), SeqCst);
    }
    apic::enable();
    cpu.job.state.store(IDLE, SeqCst);
    cpu.job.halted.store(false, SeqCst);
    cpu.job.segment.store(segment, SeqCst);
    cpu.job.starts.fetch_add(1, SeqCst);
    idle(cpu)
}

fn idle(cpu: &'static Cpu) -> ! {
    let slot = &cpu.job;
    loop {
        cpu::disable_interrupts();
        slot.halted.store(true, SeqCst);
        if slot.state.load(SeqCst) == POSTED {
            slot.halted.store(false, SeqCst);
            cpu::enable_interrupts();
            slot.work();
        } else {
            cpu::enable_and_halt();
        }
    }
}

/// Gives a processor work. It must have finished what it was given before.
pub(crate) fn post(index: usize, job: Job, argument: u64) {
    let slot = &Cpu::of(index).job;
    slot.job.store(job as usize, SeqCst);
    slot.argument.store(argument, SeqCst);
    slot.state.store(POSTED, SeqCst);
    if slot.halted.load(SeqCst) {
        apic::send(index, WAKE);
    }
}

/// Waits for a processor's work.
///
/// # Errors
/// What the work came to, or that it does not end.
pub(crate) fn finish(index: usize) -> Outcome {
    let slot = &Cpu::of(index).job;
    if !time::until(60_000_000, || slot.state.load(SeqCst) == DONE) {
        return Err(wrong(format_args!("processor {index} does not finish its work")));
    }
    // SAFETY: the processor wrote it before it was DONE, and does not touch it again.
    let outcome = unsafe { *slot.outcome.get() };
    slot.state.store(IDLE, SeqCst);
    outcome
}

/// Has a processor, which may be this one, do some work, and waits for it.
pub(crate) fn run_on(index: usize, job: Job, argument: u64) -> Outcome {
    if index == Cpu::current().index() {
        return job(argument);
    }
    post(index, job, argument);
    finish(index)
}

/// Has all of the first `vps` processors do the same at the same time, this one (number 0) too.
pub(crate) fn run_on_all(vps: usize, job: Job, argument: u64) -> Outcome {
    (1..vps).for_each(|index| post(index, job, argument));
    let own = job(argument);
    (1..vps).try_fold(own, |outcome, index| Ok(outcome.and(finish(index))))?
}
