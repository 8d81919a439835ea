//! The 8254 interval timer and port 0x61.
//!
//! Only a kernel that does not see the hypervisor needs it: it calibrates the TSC with channel 2, whose
//! output it watches in port 0x61, and may tick by channel 0 until the local APIC timer works. Channel 1
//! (memory refresh) counts like the others and drives nothing. BCD counting is not modelled.

use std::sync::Arc;

use super::{Clock, IrqLine, PortDevice, put};

const PIT_HZ: u128 = 1_193_182;
const SECOND: u128 = 1_000_000_000;

/// The host timer behind channel 0.
pub trait Timer: Send {
    /// Fires once after `first` nanoseconds, then every `period` nanoseconds unless that is 0. Replaces what
    /// was armed; a `first` of 0 disarms.
    fn arm(&self, first: u64, period: u64);
}

/// Which bytes of the count an access means (bits 4 and 5 of the control word).
#[derive(Clone, Copy, PartialEq)]
enum Access {
    Low,
    High,
    LowThenHigh,
}

struct Channel {
    mode: u8,
    access: Access,
    /// Count from which it counts down; 0 in the register means 65,536.
    reload: u32,
    /// When it started to count, in nanoseconds; `None` until a count is written.
    start: Option<u64>,
    gate: bool,
    /// Low byte of a count of which the high byte is still to come.
    written: Option<u8>,
    /// Bytes that reads deliver before they deliver the running count.
    latched: Vec<u8>,
    /// The next read of the running count is its high byte.
    high_next: bool,
}

impl Channel {
    fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            access: Access::LowThenHigh,
            reload: 0x1_0000,
            start: None,
            gate,
            written: None,
            latched: Vec::new(),
            high_next: false,
        }
    }

    fn ticks(&self, now: u64) -> u64 {
        let elapsed = self.start.map_or(0, |start| now.saturating_sub(start));
        (u128::from(elapsed) * PIT_HZ / SECOND).try_into().unwrap_or(u64::MAX)
    }

    fn periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    fn count(&self, now: u64) -> u16 {
        let (ticks, reload) = (self.ticks(now), u64::from(self.reload));
        let count = match self.mode {
            2 => reload - ticks % reload,
            // A square wave counts down by two, twice per period.
            3 => (reload - 2 * ticks % reload) & !1,
            _ => reload.wrapping_sub(ticks),
        };
        let [low, high, ..] = count.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    fn output(&self, now: u64) -> bool {
        let (ticks, reload) = (self.ticks(now), u64::from(self.reload));
        match self.mode {
            _ if self.start.is_none() => self.mode != 0,
            2 => ticks % reload != reload - 1,
            3 => ticks % reload < reload.div_ceil(2),
            4 | 5 => ticks != reload,
            _ => ticks >= reload,
        }
    }

    fn set_mode(&mut self, control: u8) {
        self.access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowThenHigh,
        };
        // Modes 6 and 7 are 2 and 3.
        let mode = control >> 1 & 7;
        self.mode = if mode > 5 { mode - 4 } else { mode };
        (self.start, self.written, self.high_next) = (None, None, false);
        self.latched.clear();
    }

    /// Takes one byte of a count; true when the count is complete.
    fn write(&mut self, byte: u8, now: u64) -> bool {
        let count = match (self.access, self.written.take()) {
            (Access::Low, _) => [byte, 0],
            (Access::High, _) => [0, byte],
            (Access::LowThenHigh, Some(low)) => [low, byte],
            (Access::LowThenHigh, None) => {
                self.written = Some(byte);
                return false;
            }
        };
        let count = u32::from(u16::from_le_bytes(count));
        self.reload = if count == 0 { 0x1_0000 } else { count };
        self.start = Some(now);
        true
    }

    fn count_bytes(&self, now: u64) -> Vec<u8> {
        let [low, high] = self.count(now).to_le_bytes();
        match self.access {
            Access::Low => vec![low],
            Access::High => vec![high],
            Access::LowThenHigh => vec![low, high],
        }
    }

    fn latch_count(&mut self, now: u64) {
        if self.latched.is_empty() {
            self.latched = self.count_bytes(now);
        }
    }

    fn latch_status(&mut self, now: u64) {
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowThenHigh => 3,
        };
        let null_count = u8::from(self.start.is_none()) << 6;
        self.latched.insert(0, u8::from(self.output(now)) << 7 | null_count | access << 4 | self.mode << 1);
    }

    fn read(&mut self, now: u64) -> u8 {
        if !self.latched.is_empty() {
            return self.latched.remove(0);
        }
        let bytes = self.count_bytes(now);
        let byte = bytes.get(usize::from(self.high_next)).or(bytes.first()).copied().unwrap_or(0);
        self.high_next = self.access == Access::LowThenHigh && !self.high_next;
        byte
    }

    /// A rising gate starts the count anew. A low gate does not pause it, which no kernel has been seen to
    /// use.
    fn set_gate(&mut self, gate: bool, now: u64) {
        if gate && !self.gate && self.start.is_some() {
            self.start = Some(now);
        }
        self.gate = gate;
    }
}

/// Ports 0x40 to 0x43 and, at offset [`Pit::CONTROL_B`], port 0x61.
pub struct Pit {
    channels: [Channel; 3],
    speaker: bool,
    clock: Box<dyn Clock>,
    timer: Box<dyn Timer>,
    line: Arc<dyn IrqLine>,
}

impl Pit {
    /// First port.
    pub const PORT: u16 = 0x40;
    /// Number of ports up to and including port 0x61.
    pub const PORTS: u16 = Self::CONTROL_B + 1;
    const CONTROL_B: u16 = 0x61 - Self::PORT;

    /// A timer that has not been programmed. `timer` must lead to [`Pit::tick`].
    pub fn new(clock: impl Clock + 'static, timer: impl Timer + 'static, line: Arc<dyn IrqLine>) -> Self {
        let channels = [Channel::new(true), Channel::new(true), Channel::new(false)];
        Self { channels, speaker: false, clock: Box::new(clock), timer: Box::new(timer), line }
    }

    /// Channel 0 has expired. Expirations that the host let pass together are one interrupt, as they would be
    /// on a machine with interrupts disabled.
    pub fn tick(&self) {
        self.line.pulse();
    }

    fn arm(&self) {
        let channel = &self.channels[0];
        let period: u64 = (u128::from(channel.reload) * SECOND / PIT_HZ).try_into().unwrap_or(u64::MAX);
        match channel.start {
            None => self.timer.arm(0, 0),
            Some(_) => self.timer.arm(period, if channel.periodic() { period } else { 0 }),
        }
    }

    fn control(&mut self, word: u8, now: u64) {
        match word >> 6 {
            3 => {
                for (index, channel) in self.channels.iter_mut().enumerate() {
                    let selected = word & (2 << index) != 0;
                    if selected && word & 1 << 5 == 0 {
                        channel.latch_count(now);
                    }
                    if selected && word & 1 << 4 == 0 {
                        channel.latch_status(now);
                    }
                }
            }
            index => {
                let channel = &mut self.channels[usize::from(index)];
                if word & 0x30 == 0 {
                    channel.latch_count(now);
                } else {
                    channel.set_mode(word);
                    if index == 0 {
                        self.arm();
                    }
                }
            }
        }
    }

    /// Port 0x61: gate and speaker as written, a refresh toggle, the output of channel 2.
    fn control_b(&self, now: u64) -> u8 {
        let refresh = (now / 15_085) & 1 != 0;
        u8::from(self.channels[2].gate)
            | u8::from(self.speaker) << 1
            | u8::from(refresh) << 4
            | u8::from(self.channels[2].output(now)) << 5
    }
}

impl PortDevice for Pit {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        let now = self.clock.now();
        match offset {
            0..=2 => put(self.channels[usize::from(offset)].read(now).into(), data),
            Self::CONTROL_B => put(self.control_b(now).into(), data),
            _ => {}
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        let now = self.clock.now();
        match offset {
            0..=2 => {
                let complete = self.channels[usize::from(offset)].write(value, now);
                if complete && offset == 0 {
                    self.arm();
                }
            }
            3 => self.control(value, now),
            Self::CONTROL_B => {
                self.speaker = value & 2 != 0;
                self.channels[2].set_gate(value & 1 != 0, now);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::device::testing::{TestClock, TestLine};

    #[derive(Clone, Default)]
    struct TestTimer(Arc<Mutex<Vec<(u64, u64)>>>);

    impl Timer for TestTimer {
        fn arm(&self, first: u64, period: u64) {
            self.0.lock().unwrap().push((first, period));
        }
    }

    fn pit() -> (Pit, TestClock, TestTimer) {
        let (clock, timer) = (TestClock::default(), TestTimer::default());
        (Pit::new(clock.clone(), timer.clone(), Arc::new(TestLine::default())), clock, timer)
    }

    fn read(pit: &mut Pit, offset: u16) -> u8 {
        let mut data = [0];
        pit.read(offset, &mut data);
        data[0]
    }

    /// Nanoseconds after which this many ticks have passed.
    fn after(ticks: u128) -> u64 {
        ((ticks * SECOND).div_ceil(PIT_HZ)).try_into().unwrap()
    }

    #[test]
    fn output_of_channel_2_rises_when_the_count_is_over() {
        let (mut pit, clock, _) = pit();
        pit.write(Pit::CONTROL_B, &[1]);
        pit.write(3, &[0xb0]);
        pit.write(2, &[0xe8]);
        pit.write(2, &[0x03]);
        clock.set(after(999));
        assert_eq!(read(&mut pit, Pit::CONTROL_B) & 0x21, 0x01);
        clock.set(after(1000));
        assert_eq!(read(&mut pit, Pit::CONTROL_B) & 0x21, 0x21);
    }

    #[test]
    fn count_reads_low_then_high_and_a_latch_stands_still() {
        let (mut pit, clock, _) = pit();
        pit.write(3, &[0xb0]);
        pit.write(2, &[0x00]);
        pit.write(2, &[0x10]);
        clock.set(after(1));
        assert_eq!([read(&mut pit, 2), read(&mut pit, 2)], [0xff, 0x0f]);
        pit.write(3, &[0x80]);
        clock.set(after(0x100));
        assert_eq!([read(&mut pit, 2), read(&mut pit, 2)], [0xff, 0x0f]);
        assert_eq!([read(&mut pit, 2), read(&mut pit, 2)], [0x00, 0x0f]);
    }

    #[test]
    fn channel_0_arms_the_host_timer_by_its_mode() {
        let (mut pit, _, timer) = pit();
        let program = |pit: &mut Pit, mode: u8| {
            pit.write(3, &[0x30 | mode << 1]);
            pit.write(0, &[0xa9]);
            pit.write(0, &[0x04]);
            std::mem::take(&mut *timer.0.lock().unwrap())
        };
        assert_eq!(program(&mut pit, 2), [(0, 0), (999_847, 999_847)]);
        assert_eq!(program(&mut pit, 4), [(0, 0), (999_847, 0)]);
    }

    #[test]
    fn count_of_zero_is_the_longest() {
        let (mut pit, _, timer) = pit();
        pit.write(3, &[0x34]);
        pit.write(0, &[0]);
        pit.write(0, &[0]);
        assert_eq!(timer.0.lock().unwrap().last(), Some(&(54_925_401, 54_925_401)));
    }

    #[test]
    fn read_back_gives_status_before_count() {
        let (mut pit, _, _) = pit();
        pit.write(3, &[0x34]);
        pit.write(0, &[0x34]);
        pit.write(0, &[0x12]);
        pit.write(3, &[0xc2]);
        assert_eq!(read(&mut pit, 0), 0xb4);
        assert_eq!([read(&mut pit, 0), read(&mut pit, 0)], [0x34, 0x12]);
    }
}
