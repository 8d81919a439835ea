//! The APIC timer.
//!
//! A running count is kept as the time at which it reaches zero, so nothing has to tick. Times are `u64` counts of the
//! timer's input clock, before the divider, which is the VP's TSC. The count registers cover 32 bits times a divider of at most 128, so sums
//! stay far from overflow for any real clock; they saturate for the unreal ones.
//!
//! A masked timer counts but has no deadline to report: its expiry is made up for, silently, when it is next looked at.

use super::{GeneralProtection, Lapic, Trigger};
use crate::ensure;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    initial: u32,
    /// The divide configuration register: bits 3, 1 and 0.
    divide: u32,
    /// When a running count reaches zero next; `initial` is not 0 then. In TSC-deadline mode, IA32_TSC_DEADLINE.
    end: Option<u64>,
}

impl Timer {
    pub(super) const STOPPED: Self = Self { initial: 0, divide: 0, end: None };
    pub(super) const DIVIDE_MASK: u32 = 0b1011;

    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// Input clocks per count: 2, 4, ... 128, then 1.
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | (self.divide & 8) >> 1;
        1 << ((code + 1) & 7)
    }

    fn period(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    /// The current count register: counts left, rounded up; from 1 to `initial` while it runs.
    pub(super) fn count(&self, now: u64, periodic: bool) -> u32 {
        let Some(end) = self.end else { return 0 };
        let left = match now.checked_sub(end) {
            None => end - now,
            Some(late) if periodic => self.period() - late % self.period(),
            Some(_) => 0,
        };
        u32::try_from(left.div_ceil(self.divisor())).unwrap_or(u32::MAX)
    }

    /// Loads the registers and starts with `count` left; with 0 the timer stands.
    pub(super) fn load(&mut self, initial: u32, count: u32, divide: u32, now: u64) {
        self.initial = initial;
        self.set_divide(divide);
        let left = u64::from(count.min(initial)) * self.divisor();
        self.end = (left != 0).then(|| now.saturating_add(left));
    }

    /// Moves the end past `now`; says whether it was reached. Missed periods count as one, and the next end is a whole
    /// number of periods after the first, so lateness never adds up.
    fn expire(&mut self, now: u64, periodic: bool) -> bool {
        let Some(end) = self.end.filter(|end| *end <= now) else { return false };
        self.end = periodic.then(|| {
            let missed = (now - end) / self.period();
            end.saturating_add(missed * self.period()).saturating_add(self.period())
        });
        true
    }

    pub(super) fn set_divide(&mut self, divide: u32) {
        self.divide = divide & Self::DIVIDE_MASK;
    }

    pub(super) fn stop(&mut self) {
        *self = Self { divide: self.divide, ..Self::STOPPED };
    }
}

impl Lapic {
    /// When to call [`Lapic::timer_expire`], if the timer is armed and its expiry would show.
    pub fn timer_deadline(&self) -> Option<u64> {
        let entry = self.lvt.timer();
        // A TSC deadline also if masked: the guest can read whether it has passed.
        self.timer.end.filter(|_| entry.tsc_deadline() || !entry.masked())
    }

    /// Raises the timer's vector if its time has come at `now`. A periodic timer continues, any other is disarmed by it.
    pub fn timer_expire(&mut self, now: u64) {
        let entry = self.lvt.timer();
        if self.timer.expire(now, entry.periodic()) && !entry.masked() {
            self.request(entry.vector(), Trigger::Edge);
        }
    }

    /// The current count register; in TSC-deadline mode nothing counts.
    pub(super) fn current_count(&self, now: u64) -> u32 {
        let entry = self.lvt.timer();
        if entry.tsc_deadline() { 0 } else { self.timer.count(now, entry.periodic()) }
    }

    /// IA32_TSC_DEADLINE (MSR 0x6e0): 0 if disarmed or in another timer mode.
    ///
    /// # Errors
    /// The mode is not offered.
    pub fn tsc_deadline(&self) -> Result<u64, GeneralProtection> {
        ensure(self.features.tsc_deadline, GeneralProtection)?;
        Ok(self.timer.end.filter(|_| self.lvt.timer().tsc_deadline()).unwrap_or(0))
    }

    /// Writes IA32_TSC_DEADLINE; 0 disarms. Other timer modes ignore it, so a restore sets the APIC's state first.
    ///
    /// # Errors
    /// The mode is not offered.
    pub fn set_tsc_deadline(&mut self, tsc: u64) -> Result<(), GeneralProtection> {
        ensure(self.features.tsc_deadline, GeneralProtection)?;
        if self.lvt.timer().tsc_deadline() {
            self.timer.end = (tsc != 0).then_some(tsc);
        }
        Ok(())
    }

    /// The initial count register. It is ignored in TSC-deadline mode, where it reads as zero.
    pub(super) fn write_initial_count(&mut self, count: u32, now: u64) {
        self.timer_expire(now);
        if !self.lvt.timer().tsc_deadline() {
            self.timer.load(count, count, self.timer.divide, now);
        }
    }

    /// The divide configuration register. A running count goes on from its value at the new rate.
    pub(super) fn write_divide(&mut self, divide: u32, now: u64) {
        self.timer_expire(now);
        if self.lvt.timer().tsc_deadline() {
            self.timer.set_divide(divide);
        } else {
            self.timer.load(self.timer.initial, self.current_count(now), divide, now);
        }
    }

    /// The timer's LVT entry. Entering or leaving TSC-deadline mode disarms the timer. The SDM says so of every change
    /// of mode, but processors let a count run on between one-shot and periodic, and so do we.
    pub(super) fn write_lvt_timer(&mut self, value: u32, now: u64) {
        self.timer_expire(now);
        let before = self.lvt.timer().tsc_deadline();
        self.set_lvt(0, value);
        if self.lvt.timer().tsc_deadline() != before {
            self.timer.stop();
        }
    }
}
