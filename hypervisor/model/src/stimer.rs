//! The four synthetic timers of a VP.
//!
//! A timer is due at an exact reference time. When it expires, a direct timer asserts its vector, and any other one
//! has a message to deliver, which waits in the timer's own buffer until the slot of its SINT is empty: the caller
//! offers it at expiration, at every end of message, and when the message page is enabled. All times are reference
//! time in 100 ns units, counts included; the caller turns [`Timers::deadline`] into whatever wakes it.
//!
//! Source: TLFS timers. Silent there: reserved bits read as zero; a direct timer with a vector below 16 expires
//! without effect; a message still waiting at the next expiration of its timer is replaced by the new one.

use tlfs::{
    SintIndex,
    msr::{self, FIRST_VALID_VECTOR, STIMER_COUNT, StimerConfig},
    synic::{HvMessage, MessageType, StimerState, SyntheticTimersState, TimerExpired},
};

use crate::lapic::GeneralProtection;

/// Periods that a timer which is not lazy makes up for when its VP was away; beyond, they are skipped.
const CATCH_UP_PERIODS: u64 = 16;
/// A time beyond all times: what saturates to it does not happen.
const NEVER: u64 = u64::MAX;
const STATE_UNDELIVERED: u32 = 1;

/// The timers of one VP.
#[derive(Clone, Debug, Default)]
pub struct Timers([Timer; STIMER_COUNT]);

#[derive(Clone, Copy, Debug, Default)]
struct Timer {
    config: StimerConfig,
    count: u64,
    /// When it expires, while enabled. Periods are counted from here, however late an expiration is served.
    due: u64,
    /// The earliest time to serve that: later than `due` only while missed periods are made up for.
    serve: u64,
    /// When it expired, while its message waits.
    undelivered: Option<u64>,
}

impl Timers {
    /// Reads a configuration or count register.
    ///
    /// # Errors
    /// For any other MSR.
    pub fn read_msr(&self, msr: u32) -> Result<u64, GeneralProtection> {
        let timer = self.0.get(index(msr)?).ok_or(GeneralProtection)?;
        Ok(if is_count(msr) { timer.count } else { timer.config.into_bits() })
    }

    /// Writes a configuration or count register at time `now`, after which the deadline may be another.
    ///
    /// # Errors
    /// For any other MSR.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<(), GeneralProtection> {
        let timer = self.0.get_mut(index(msr)?).ok_or(GeneralProtection)?;
        if is_count(msr) {
            timer.count = value;
            let enable = value != 0 && (timer.config.enabled() || timer.config.auto_enable());
            timer.config.set_enabled(enable);
        } else {
            timer.config = StimerConfig::from_bits(value).with_reserved0(0).with_reserved1(0);
        }
        timer.arm(now);
        Ok(())
    }

    /// When [`expire`](Self::expire) is to be called next: possibly in the past, `None` for never.
    pub fn deadline(&self) -> Option<u64> {
        self.0.iter().filter(|timer| timer.is_running()).map(|timer| timer.serve).min()
    }

    /// Expires what is due: calls `assert` with the vector of each direct timer, and makes ready the messages of the
    /// others. Returns whether any message waits; if so, [`deliver`](Self::deliver) comes next.
    pub fn expire(&mut self, now: u64, mut assert: impl FnMut(u8)) -> bool {
        for timer in &mut self.0 {
            if timer.is_running()
                && timer.serve <= now
                && let Some(vector) = timer.expire(now)
            {
                assert(vector);
            }
        }
        self.is_waiting()
    }

    /// Whether a message waits for its slot.
    pub fn is_waiting(&self) -> bool {
        self.0.iter().any(|timer| timer.undelivered.is_some())
    }

    /// Offers each waiting message; `offer` returns whether it was delivered.
    pub fn deliver(&mut self, now: u64, mut offer: impl FnMut(SintIndex, &HvMessage) -> bool) {
        for (timer_index, timer) in (0..).zip(&mut self.0) {
            let Some(expiration_time) = timer.undelivered else { continue };
            let payload = TimerExpired { timer_index, reserved: 0, expiration_time, delivery_time: now };
            let message = HvMessage::new(MessageType::TIMER_EXPIRED, 0, &payload);
            if offer(SintIndex(timer.config.sint().into()), &message) {
                timer.undelivered = None;
            }
        }
    }

    /// The state for `HvCallGetVpState`. The meaning of `adjustment` is not published; here it is the time at which
    /// a running timer is due, which keeps the phase of a periodic one.
    pub fn state(&self) -> SyntheticTimersState {
        let state = |timer: Timer| StimerState {
            flags: if timer.undelivered.is_some() { STATE_UNDELIVERED } else { 0 },
            reserved: 0,
            config: timer.config.into_bits(),
            count: timer.count,
            adjustment: if timer.is_running() { timer.due } else { 0 },
            undelivered_expiration_time: timer.undelivered.unwrap_or(0),
        };
        SyntheticTimersState { timers: self.0.map(state), ..SyntheticTimersState::ZEROED }
    }

    /// Takes over the state of `HvCallSetVpState` at time `now`. A periodic timer without a phase starts a period.
    pub fn restore(&mut self, state: &SyntheticTimersState, now: u64) {
        for (timer, saved) in self.0.iter_mut().zip(&state.timers) {
            let config = StimerConfig::from_bits(saved.config).with_reserved0(0).with_reserved1(0);
            *timer = Timer { config, count: saved.count, ..Timer::default() };
            timer.arm(now);
            if timer.config.periodic() && saved.adjustment != 0 {
                (timer.due, timer.serve) = (saved.adjustment, saved.adjustment);
            }
            let waits = saved.flags & STATE_UNDELIVERED != 0;
            timer.undelivered = waits.then_some(saved.undelivered_expiration_time);
        }
    }
}

impl Timer {
    const fn is_running(&self) -> bool {
        self.config.enabled() && self.count != 0 && self.serve != NEVER
    }

    /// Starts the timer afresh if it is enabled and may be.
    const fn arm(&mut self, now: u64) {
        self.undelivered = None;
        if !self.config.direct_mode() && self.config.sint() == 0 {
            self.config.set_enabled(false);
        }
        self.due = if self.config.periodic() { now.saturating_add(self.count) } else { self.count };
        self.serve = self.due;
    }

    /// Expires a running timer whose time has come, and starts its next period. Returns the vector to assert.
    fn expire(&mut self, now: u64) -> Option<u8> {
        let expired = self.due;
        if self.config.periodic() {
            self.start_next_period(now);
        } else {
            self.config.set_enabled(false);
        }
        if !self.config.direct_mode() {
            self.undelivered = Some(expired);
            return None;
        }
        Some(self.config.apic_vector()).filter(|&vector| vector >= FIRST_VALID_VECTOR)
    }

    /// If the next period is over already, either it is served half a period from now, and so on until the timer has
    /// caught up (the period modulation of the TLFS), or whole periods are skipped.
    const fn start_next_period(&mut self, now: u64) {
        self.due = self.due.saturating_add(self.count);
        let missed = now.saturating_sub(self.due) / self.count;
        if now >= self.due && (self.config.lazy() || missed >= CATCH_UP_PERIODS) {
            self.due = self.due.saturating_add((missed + 1).saturating_mul(self.count));
        }
        let earliest = now.saturating_add(self.count.div_ceil(2));
        self.serve = if self.due <= now { earliest } else { self.due };
    }
}

/// The timer that a register belongs to; the registers alternate between configuration and count.
fn index(msr: u32) -> Result<usize, GeneralProtection> {
    match msr {
        msr::STIMER0_CONFIG..=msr::STIMER3_COUNT => Ok((msr - msr::STIMER0_CONFIG) as usize / 2),
        _ => Err(GeneralProtection),
    }
}

const fn is_count(msr: u32) -> bool {
    msr % 2 == 1
}

#[cfg(test)]
mod tests;
