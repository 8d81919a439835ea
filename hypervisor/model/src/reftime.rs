//! Reference time: a partition's 100 ns clock, computed from the time stamp counter.
//!
//! The same three numbers (scale, offset, sequence) drive the reference counter MSR, the reference TSC page and
//! the synthetic timers, so that all of them agree to the last unit. Arithmetic is exact: a deadline converted to
//! a TSC value and back is never early, and late by less than one unit.
//!
//! TSC values are those the partition sees (after any TSC offset). Source: TLFS timers.

use tlfs::msr::ReferenceTscPage;

/// Reference time runs at ten million units (of 100 ns) a second.
pub const UNITS_PER_SECOND: u64 = 10_000_000;

/// The fraction of a reference time unit that one TSC tick lasts, times 2^64: `TscScale` of the TSC page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscScale(u64);

impl TscScale {
    /// The scale of a counter running at `hz`. A counter no faster than reference time itself (nothing that has an
    /// invariant TSC) gets the largest scale there is rather than an error.
    pub const fn from_hz(hz: u64) -> Self {
        if hz <= UNITS_PER_SECOND {
            return Self(u64::MAX);
        }
        Self((((UNITS_PER_SECOND as u128) << 64) / hz as u128) as u64)
    }

    /// Whole reference time units in `ticks`, rounded down.
    pub const fn units(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.0 as u128) >> 64) as u64
    }

    /// The fewest ticks that last at least `units`, or `u64::MAX` if the counter never gets that far.
    pub const fn ticks(self, units: u64) -> u64 {
        let ticks = ((units as u128) << 64).div_ceil(self.0 as u128);
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }
}

/// A partition's reference clock.
#[derive(Clone, Copy, Debug)]
pub struct ReferenceClock {
    scale: TscScale,
    offset: i64,
    sequence: u32,
    frozen: Option<u64>,
}

impl ReferenceClock {
    /// A clock that reads zero at `tsc`: the counter of a partition starts with the partition (TLFS timers).
    pub const fn new(scale: TscScale, tsc: u64) -> Self {
        let mut clock = Self { scale, offset: 0, sequence: 1, frozen: None };
        clock.align(tsc, 0);
        clock
    }

    /// The reference time at `tsc`, in 100 ns units.
    pub const fn at(&self, tsc: u64) -> u64 {
        match self.frozen {
            Some(time) => time,
            None => self.scale.units(tsc).wrapping_add_signed(self.offset),
        }
    }

    /// The first TSC value at which the clock reads `time` or later; zero if it does from the counter's start, and
    /// `u64::MAX` if it never will, in particular while time is frozen.
    pub const fn tsc_at(&self, time: u64) -> u64 {
        if self.frozen.is_some() {
            return u64::MAX;
        }
        let units = time as i128 - self.offset as i128;
        if units <= 0 {
            0
        } else if units > u64::MAX as i128 {
            u64::MAX
        } else {
            self.scale.ticks(units as u64)
        }
    }

    /// What the reference TSC page is to hold now. A frozen clock cannot be expressed in scale and offset (a scale
    /// of zero would lose the sequence that tells of the change), so it sends readers to the MSR.
    pub const fn page(&self) -> ReferenceTscPage {
        let sequence = if self.frozen.is_some() { ReferenceTscPage::SEQUENCE_INVALID } else { self.sequence };
        ReferenceTscPage { sequence, reserved: 0, scale: self.scale.0, offset: self.offset }
    }

    /// Whether time stands still.
    pub const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Stops the clock at its reading of `tsc` (partition property `TimeFreeze` set to 1). A second freeze changes
    /// nothing. The TSC page is to be rewritten.
    pub const fn freeze(&mut self, tsc: u64) {
        self.frozen = Some(self.at(tsc));
    }

    /// Lets the clock go on at `tsc` from the reading at which it stopped. The TSC page is to be rewritten, and
    /// every deadline converted by [`tsc_at`](Self::tsc_at) again.
    pub const fn thaw(&mut self, tsc: u64) {
        if let Some(time) = self.frozen.take() {
            self.align(tsc, time);
        }
    }

    /// Sets the reading at `tsc` to `time` (partition property `ReferenceTime`, for a restored partition).
    pub const fn set(&mut self, tsc: u64, time: u64) {
        match &mut self.frozen {
            Some(stopped) => *stopped = time,
            None => self.align(tsc, time),
        }
    }

    /// Moves the offset, and with it the sequence: 0 is reserved by the TLFS, and !0 was in earlier editions.
    const fn align(&mut self, tsc: u64, time: u64) {
        self.offset = time.wrapping_sub(self.scale.units(tsc)).cast_signed();
        self.sequence = if self.sequence >= u32::MAX - 1 { 1 } else { self.sequence + 1 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GHZ_3: u64 = 3_000_000_000;

    #[test]
    fn a_second_of_ticks_is_ten_million_units() {
        let clock = ReferenceClock::new(TscScale::from_hz(GHZ_3), 0);
        assert!((9_999_999..=10_000_000).contains(&clock.at(GHZ_3)));
    }

    #[test]
    fn reference_time_is_zero_when_the_partition_is_created() {
        assert_eq!(ReferenceClock::new(TscScale::from_hz(GHZ_3), 123_456_789_012).at(123_456_789_012), 0);
    }

    #[test]
    fn a_frozen_clock_stands_still_and_resumes_without_a_jump() {
        let mut clock = ReferenceClock::new(TscScale::from_hz(GHZ_3), 0);
        let before = clock.page().sequence;
        clock.freeze(GHZ_3);
        let stopped = clock.at(GHZ_3);
        assert_eq!(clock.at(9 * GHZ_3), stopped);
        assert_eq!(clock.page().sequence, 0);
        assert_eq!(clock.tsc_at(stopped), u64::MAX);
        clock.thaw(9 * GHZ_3);
        assert_eq!(clock.at(9 * GHZ_3), stopped);
        assert_ne!(clock.page().sequence, before);
        assert!(clock.at(10 * GHZ_3) > stopped);
    }

    #[test]
    fn the_sequence_never_takes_a_reserved_value() {
        let mut clock =
            ReferenceClock { sequence: u32::MAX - 2, ..ReferenceClock::new(TscScale::from_hz(GHZ_3), 0) };
        for _ in 0..4 {
            clock.set(0, 5);
            assert!(!matches!(clock.page().sequence, 0 | u32::MAX));
        }
    }

    proptest! {
        #[test]
        fn the_page_formula_gives_the_same_time_as_the_counter(
            hz in 10_000_001u64..6_000_000_000, start in 0..u64::MAX / 2, later in 0..u64::MAX / 2,
        ) {
            let clock = ReferenceClock::new(TscScale::from_hz(hz), start);
            let page = clock.page();
            let tsc = start + later;
            let time = ((u128::from(tsc) * u128::from(page.scale)) >> 64) as i128 + i128::from(page.offset);
            prop_assert_eq!(i128::from(clock.at(tsc)), time);
        }

        #[test]
        fn a_deadline_is_the_first_tick_at_which_the_time_is_reached(
            hz in 10_000_001u64..6_000_000_000, start in 0..1u64 << 60, wait in 1..1u64 << 50,
        ) {
            let clock = ReferenceClock::new(TscScale::from_hz(hz), start);
            let tsc = clock.tsc_at(wait);
            prop_assert!(clock.at(tsc) >= wait);
            prop_assert!(clock.at(tsc - 1) < wait);
        }

        #[test]
        fn time_never_goes_back(hz in 1u64..6_000_000_000, a in 0..u64::MAX, step in 0..u64::MAX) {
            let clock = ReferenceClock::new(TscScale::from_hz(hz), 0);
            prop_assert!(clock.at(a.saturating_add(step)) >= clock.at(a));
        }

        #[test]
        fn no_input_panics(hz: u64, start: u64, tsc: u64, time: u64) {
            let mut clock = ReferenceClock::new(TscScale::from_hz(hz), start);
            clock.set(tsc, time);
            prop_assert_eq!(clock.at(tsc), time);
            clock.tsc_at(start);
            clock.freeze(start);
            clock.thaw(tsc);
        }
    }
}
