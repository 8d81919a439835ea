//! The timer of an LP, shared between the root that owns it and the children that need it now and then.
//!
//! The local APIC's timer is the root's, untouched, as long as no child VP has a timer armed on this LP. When one
//! has, the hypervisor *borrows* the timer (docs/adr/0005): it notes the root's setting, answers the root's accesses
//! to the timer's registers, lets physical interrupts of the root exit, and programs the earliest of all deadlines
//! under a vector of its own. A timer interrupt that the root is due is raised for it by a self-IPI. With the last
//! child deadline gone, the root gets the timer back with what was left of its count.
//!
//! An interrupt of the root that waits while the timer is borrowed is never delivered by the hypervisor: the root gets
//! its timer *lent*, takes the interrupt itself, and leaves its guest at the end of it, if not sooner.
//!
//! Deadlines are TSC values; `u64::MAX` is never.

use core::mem;

use hal::{
    apic::{self, TimerRegisters},
    cpu,
    lp::PerLp,
    sync::SpinLock,
    time,
};

use crate::vp::{self, VpNumber, VpNumbers};

/// The vector of the hypervisor's own timer interrupts: the highest, so that it is always the first to be taken. It
/// must never reach the root, which has it for spurious interrupts.
pub const VECTOR: u8 = 0xff;
/// No deadline.
pub const NEVER: u64 = u64::MAX;

const LVT: u32 = 0x832;
const INITIAL: u32 = 0x838;
const CURRENT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const LVT_MASKED: u32 = 1 << 16;
const LVT_PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;

static TIMERS: PerLp<SpinLock<LpTimer>> = PerLp::new();

/// The root's timer while it is borrowed.
#[derive(Clone, Copy)]
struct RootTimer {
    registers: TimerRegisters,
    /// When it expires.
    deadline: u64,
}

struct LpTimer {
    borrowed: Option<RootTimer>,
    /// The root has its timer although there are deadlines, until [`recall`].
    lent: bool,
    /// VPs that wait for their timers on this LP.
    waiting: VpNumbers,
    /// The earliest deadline among them.
    earliest: u64,
    /// The deadline of the VP that this LP runs.
    running: u64,
    /// What the hardware is set to.
    programmed: u64,
    /// APIC ticks in 2^32 TSC ticks, and the reverse.
    apic_per_tsc: u64,
    tsc_per_apic: u64,
}

/// Makes the timers. Boot only, after the clocks are measured.
pub fn init() {
    let ratio = |a: u64, b: u64| ((u128::from(a) << 32) / u128::from(b.max(1))) as u64;
    TIMERS.init(|_| {
        SpinLock::new(LpTimer {
            borrowed: None,
            lent: false,
            waiting: VpNumbers::EMPTY,
            earliest: NEVER,
            running: NEVER,
            programmed: NEVER,
            apic_per_tsc: ratio(time::apic_hz(), time::tsc_hz()),
            tsc_per_apic: ratio(time::tsc_hz(), time::apic_hz()),
        })
    });
}

fn scale(value: u64, ratio: u64) -> u64 {
    ((u128::from(value) * u128::from(ratio)) >> 32) as u64
}

/// Who has the timer of an LP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The root.
    Root,
    /// The root, until the interrupt that waits for it is over.
    Lent,
    /// The hypervisor.
    Hypervisor,
}

/// Who has the timer of this LP.
pub fn holder() -> Holder {
    let timer = TIMERS.this().lock();
    match timer.borrowed {
        Some(_) => Holder::Hypervisor,
        None if timer.lent => Holder::Lent,
        None => Holder::Root,
    }
}

/// The root has left its guest: a timer that was lent to it is needed again.
pub fn recall() {
    let mut timer = TIMERS.this().lock();
    if mem::take(&mut timer.lent) {
        timer.rearm();
    }
}

/// Sets the deadline of the VP that this LP is about to run, or for which it waits.
pub fn set_running(deadline: u64) {
    let mut timer = TIMERS.this().lock();
    if mem::replace(&mut timer.running, deadline) != deadline {
        timer.rearm();
    }
}

/// Has this LP wake the VP at `deadline`, until [`remove`].
pub fn add(number: VpNumber, deadline: u64) {
    let mut timer = TIMERS.this().lock();
    timer.waiting.insert(number);
    timer.earliest = timer.earliest.min(deadline);
    timer.rearm();
}

/// No longer wakes the VP, on whichever LP it waited. The hardware keeps a deadline that has become needless.
pub fn remove(lp: hal::lp::LpIndex, number: VpNumber) {
    if let Some(timer) = TIMERS.get(lp) {
        timer.lock().waiting.remove(number);
    }
}

/// An interrupt waits on this LP. Takes it if it is the hypervisor's own. Returns whether there is one for the root, which
/// takes it without an exit when it runs next.
pub fn sort_interrupt() -> bool {
    if holder() != Holder::Hypervisor {
        return true;
    }
    if apic::irr(VECTOR) {
        apic::take_interrupt().into_iter().for_each(taken);
        if !apic::has_interrupt() {
            return false;
        }
    }
    let mut timer = TIMERS.this().lock();
    if let Some(root) = timer.borrowed {
        timer.give_back(root);
        timer.lent = timer.borrowed.is_none();
    }
    true
}

/// An interrupt was taken off this LP: the hypervisor's own, or one of the root's, which waits again.
pub fn taken(vector: u8) {
    if vector != VECTOR {
        apic::put_back(vector);
    } else if apic::isr(VECTOR) {
        expired();
    }
}

fn expired() {
    apic::eoi();
    let now = cpu::tsc();
    let due = {
        let mut timer = TIMERS.this().lock();
        timer.programmed = NEVER;
        timer.expire_root(now);
        timer.take_due(now)
    };
    // Waking takes other locks, and may come back here for the same LP's list.
    if let Some(due) = due {
        due.iter().for_each(vp::wake_number);
    }
    TIMERS.this().lock().rearm();
}

/// Reads a timer register for the root while the timer is borrowed.
pub fn root_read(number: u32) -> Option<u64> {
    let timer = TIMERS.this().lock();
    let root = timer.borrowed.as_ref()?;
    Some(u64::from(match number {
        LVT => root.registers.lvt,
        INITIAL => root.registers.initial,
        CURRENT => timer.remaining(root),
        _ => root.registers.divide,
    }))
}

/// Writes a timer register for the root while the timer is borrowed.
pub fn root_write(number: u32, value: u32) {
    let mut timer = TIMERS.this().lock();
    let now = cpu::tsc();
    let left = timer.borrowed.as_ref().map_or(0, |root| timer.remaining(root));
    let Some(mut root) = timer.borrowed else { return };
    match number {
        LVT => root.registers.lvt = value,
        INITIAL => {
            root.registers.initial = value;
            root.deadline = timer.deadline_after(&root, now, value);
        }
        DIVIDE => {
            root.registers.divide = value;
            root.deadline = timer.deadline_after(&root, now, left);
        }
        _ => {}
    }
    timer.borrowed = Some(root);
    timer.rearm();
}

impl LpTimer {
    /// When a count of `ticks` that starts at `now` reaches zero.
    fn deadline_after(&self, root: &RootTimer, now: u64, ticks: u32) -> u64 {
        let clocks = u64::from(ticks) << divide_shift(root.registers.divide);
        if ticks == 0 { NEVER } else { now.saturating_add(scale(clocks, self.tsc_per_apic)) }
    }

    /// The root's current count.
    fn remaining(&self, root: &RootTimer) -> u32 {
        if root.deadline == NEVER {
            return 0;
        }
        let clocks = scale(root.deadline.saturating_sub(cpu::tsc()), self.apic_per_tsc);
        u32::try_from(clocks >> divide_shift(root.registers.divide)).unwrap_or(u32::MAX)
    }

    /// Raises the root's interrupt if it is due, and starts its next period.
    fn expire_root(&mut self, now: u64) {
        let Some(mut root) = self.borrowed.filter(|root| root.deadline <= now) else { return };
        let lvt = root.registers.lvt;
        if lvt & LVT_MASKED == 0 {
            apic::self_ipi(lvt as u8);
        }
        let next = if lvt & LVT_PERIODIC != 0 { root.registers.initial } else { 0 };
        root.deadline = self.deadline_after(&root, now, next);
        self.borrowed = Some(root);
    }

    /// Takes the VPs whose deadlines have passed off the list; `None` if there is none. `earliest` may be a deadline
    /// that no longer counts, but none is earlier.
    fn take_due(&mut self, now: u64) -> Option<VpNumbers> {
        if self.earliest > now {
            return None;
        }
        let mut due = VpNumbers::EMPTY;
        self.earliest = NEVER;
        for number in self.waiting.iter() {
            let deadline = vp::deadline_of(number);
            if deadline <= now {
                due.insert(number);
            } else {
                self.earliest = self.earliest.min(deadline);
            }
        }
        due.iter().for_each(|number| self.waiting.remove(number));
        Some(due)
    }

    /// Sets the hardware to the earliest deadline, borrowing the timer or giving it back as needed.
    fn rearm(&mut self) {
        let own = self.running.min(self.earliest);
        match self.borrowed {
            None if own == NEVER || self.lent => {}
            None => {
                self.borrow_timer();
                self.program(own);
            }
            Some(root) if own == NEVER => self.give_back(root),
            Some(root) => self.program(own.min(root.deadline)),
        }
    }

    fn borrow_timer(&mut self) {
        let registers = apic::timer_read();
        let now = cpu::tsc();
        let mut root = RootTimer { registers, deadline: NEVER };
        // A count that has just ended may not have raised its interrupt yet, and never will once the registers are
        // ours (QEMU raises it from another thread). It is raised again: the root takes a second one for an early one.
        root.deadline = match registers.current {
            0 if registers.initial != 0 => now,
            current => self.deadline_after(&root, now, current),
        };
        self.borrowed = Some(root);
        self.programmed = NEVER;
    }

    fn program(&mut self, deadline: u64) {
        if deadline == self.programmed {
            return;
        }
        self.programmed = deadline;
        if deadline == NEVER {
            apic::timer_stop();
            return;
        }
        let clocks = scale(deadline.saturating_sub(cpu::tsc()), self.apic_per_tsc);
        // A deadline beyond the counter's range is programmed again when the counter ends.
        let initial = u32::try_from(clocks).unwrap_or(u32::MAX).max(1);
        apic::timer_write(&TimerRegisters { lvt: VECTOR.into(), initial, current: 0, divide: DIVIDE_BY_1 });
    }

    /// Gives the timer back to the root, unless an interrupt of ours is still on its way: that must not reach the
    /// root, so the timer stays borrowed until it was taken.
    fn give_back(&mut self, root: RootTimer) {
        apic::timer_stop();
        self.programmed = NEVER;
        if apic::irr(VECTOR) {
            return;
        }
        let initial = match root.deadline {
            NEVER => 0,
            _ if root.registers.lvt & LVT_PERIODIC != 0 => root.registers.initial,
            _ => self.remaining(&root).max(1),
        };
        apic::timer_write(&TimerRegisters { initial, ..root.registers });
        self.borrowed = None;
    }
}

/// log2 of what a divide configuration register divides by (APM 2 §16.4.1): bits 3, 1 and 0 count from 2 on, and
/// all ones are 1.
fn divide_shift(divide: u32) -> u32 {
    let code = divide & 3 | (divide >> 1) & 4;
    (code + 1) & 7
}
