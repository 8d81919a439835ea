//! The CMOS clock: an MC146818 with the century in byte 0x32, in 24-hour BCD.
//!
//! Its time is the host's, shifted by what the guest has set. It has no interrupt: alarms and periodic ticks
//! are never due, and status C is always 0.

use super::{Clock, PortDevice, nanoseconds, put};
use crate::layout::CENTURY;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;

/// Status A: an update of the time registers is about to happen.
const UPDATING: u8 = 1 << 7;
/// Status A: the oscillator runs at 32,768 Hz; rate 1,024 Hz.
const DIVIDER: u8 = 0x26;
/// Status B: 24-hour mode. Binary mode (bit 2) cannot be chosen.
const HOURS_24: u8 = 1 << 1;
/// Status D: the battery is good.
const VALID: u8 = 1 << 7;

const SECOND: u64 = 1_000_000_000;
/// The chip announces an update this long before it happens, in nanoseconds.
const NOTICE: u64 = 244_000;
const DAY_SECONDS: i64 = 86_400;

/// The host's wall clock, as nanoseconds since 1970.
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        nanoseconds(time.tv_sec, time.tv_nsec)
    }
}

/// Index port, then data port.
pub struct Rtc {
    clock: Box<dyn Clock>,
    index: u8,
    /// Seconds that the guest's time is ahead of the host's.
    ahead: i64,
    status_b: u8,
    /// What is left of the 128 bytes is memory.
    memory: [u8; 128],
}

impl Rtc {
    /// Number of ports.
    pub const PORTS: u16 = 2;

    /// A clock that follows `clock`, nanoseconds since 1970.
    pub fn new(clock: impl Clock + 'static) -> Self {
        Self { clock: Box::new(clock), index: 0, ahead: 0, status_b: HOURS_24, memory: [0; 128] }
    }

    /// The guest's time in seconds since 1970, and nanoseconds within the second.
    fn time(&self) -> (i64, u64) {
        let now = self.clock.now();
        ((now / SECOND).cast_signed() + self.ahead, now % SECOND)
    }

    fn read_register(&self) -> u8 {
        let (seconds, within) = self.time();
        let date = Date::of(seconds);
        match self.index {
            SECONDS => bcd(date.second),
            MINUTES => bcd(date.minute),
            HOURS => bcd(date.hour),
            WEEKDAY => bcd(date.weekday()),
            DAY => bcd(date.day),
            MONTH => bcd(date.month),
            YEAR => bcd(date.year.rem_euclid(100)),
            CENTURY => bcd(date.year.div_euclid(100)),
            STATUS_A if within >= SECOND - NOTICE => DIVIDER | UPDATING,
            STATUS_A => DIVIDER,
            STATUS_B => self.status_b,
            STATUS_C => 0,
            STATUS_D => VALID,
            other => self.memory[usize::from(other)],
        }
    }

    /// A time register takes its field and leaves the others, so that setting the time register by register
    /// ends at the right time whatever the order.
    fn write_register(&mut self, value: u8) {
        let (seconds, _) = self.time();
        let mut date = Date::of(seconds);
        let number = i64::from(value >> 4) * 10 + i64::from(value & 0xf);
        match self.index {
            SECONDS => date.second = number,
            MINUTES => date.minute = number,
            HOURS => date.hour = number,
            DAY => date.day = number,
            MONTH => date.month = number.clamp(1, 12),
            YEAR => date.year = date.year.div_euclid(100) * 100 + number,
            CENTURY => date.year = date.year.rem_euclid(100) + number * 100,
            STATUS_B => self.status_b = value | HOURS_24,
            WEEKDAY | STATUS_A | STATUS_C | STATUS_D => {}
            other => self.memory[usize::from(other)] = value,
        }
        self.ahead += date.seconds() - seconds;
    }
}

impl PortDevice for Rtc {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        if offset == 1 {
            put(self.read_register().into(), data);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        match (offset, data.first()) {
            // Bit 7 of the index masks the NMI, of which there is none.
            (0, Some(index)) => self.index = index & 0x7f,
            (_, Some(value)) => self.write_register(*value),
            _ => {}
        }
    }
}

/// Two decimal digits.
fn bcd(number: i64) -> u8 {
    let digits = number.rem_euclid(100);
    (digits / 10 * 16 + digits % 10).to_le_bytes()[0]
}

/// A time of the proleptic Gregorian calendar, month and day from 1.
struct Date {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
}

impl Date {
    /// Of seconds since 1970. The year is counted from March, which puts the leap day at its end, and the
    /// calendar repeats every 400 years (146,097 days).
    fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY_SECONDS) + 719_468;
        let rest = seconds.rem_euclid(DAY_SECONDS);
        let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: rest / 3_600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// Seconds since 1970; a day beyond its month counts into the next.
    fn seconds(&self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let from_march = (self.month + 9) % 12;
        let of_year = (153 * from_march + 2) / 5 + self.day - 1;
        let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year;
        (days - 719_468) * DAY_SECONDS + self.hour * 3_600 + self.minute * 60 + self.second
    }

    /// 1 is Sunday.
    fn weekday(&self) -> i64 {
        (self.seconds().div_euclid(DAY_SECONDS) + 4).rem_euclid(7) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::TestClock;

    fn read(rtc: &mut Rtc, index: u8) -> u8 {
        let mut data = [0];
        rtc.write(0, &[index]);
        rtc.read(1, &mut data);
        data[0]
    }

    fn write(rtc: &mut Rtc, index: u8, value: u8) {
        rtc.write(0, &[index]);
        rtc.write(1, &[value]);
    }

    fn reading(rtc: &mut Rtc) -> [u8; 8] {
        [CENTURY, YEAR, MONTH, DAY, WEEKDAY, HOURS, MINUTES, SECONDS].map(|index| read(rtc, index))
    }

    #[test]
    fn leap_day_reads_in_bcd() {
        let clock = TestClock::default();
        clock.set(1_709_251_199 * SECOND);
        let mut rtc = Rtc::new(clock);
        // Thursday, 29 February 2024, 23:59:59.
        assert_eq!(reading(&mut rtc), [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x59]);
    }

    #[test]
    fn dates_survive_a_round_trip_across_four_centuries() {
        for days in (-150_000..150_000).step_by(17) {
            let seconds = days * DAY_SECONDS + 12_345;
            assert_eq!(Date::of(seconds).seconds(), seconds);
        }
    }

    #[test]
    fn setting_the_time_register_by_register_keeps_running_from_there() {
        let clock = TestClock::default();
        clock.set(1_709_251_199 * SECOND);
        let mut rtc = Rtc::new(clock.clone());
        for (index, value) in
            [(SECONDS, 0x30), (MINUTES, 0x15), (HOURS, 0x08), (DAY, 0x17), (MONTH, 0x11), (YEAR, 0x31)]
        {
            write(&mut rtc, index, value);
        }
        clock.set(1_709_251_204 * SECOND);
        assert_eq!(reading(&mut rtc), [0x20, 0x31, 0x11, 0x17, 2, 0x08, 0x15, 0x35]);
    }

    #[test]
    fn update_is_announced_just_before_the_second_changes() {
        let clock = TestClock::default();
        let mut rtc = Rtc::new(clock.clone());
        clock.set(SECOND - NOTICE - 1);
        assert_eq!(read(&mut rtc, STATUS_A) & UPDATING, 0);
        clock.set(SECOND - 1);
        assert_eq!(read(&mut rtc, STATUS_A) & UPDATING, UPDATING);
        clock.set(SECOND);
        assert_eq!((read(&mut rtc, STATUS_A) & UPDATING, read(&mut rtc, SECONDS)), (0, 1));
    }

    #[test]
    fn other_bytes_are_memory_and_the_nmi_bit_is_no_index() {
        let mut rtc = Rtc::new(TestClock::default());
        write(&mut rtc, 0x80 | 0x40, 0xa5);
        assert_eq!(read(&mut rtc, 0x40), 0xa5);
        assert_eq!(read(&mut rtc, STATUS_D), VALID);
    }
}
