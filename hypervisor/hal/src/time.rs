//! The clocks: the frequencies of the time-stamp counter and of the APIC timer, and short delays.
//!
//! Both are measured at boot against the ACPI PM timer, or the PIT where there is none. The processors' counters
//! are taken to be synchronised and invariant, as Linux takes them when the TLFS says so.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    acpi::{Fadt, PmTimer},
    apic::{self, TimerRegisters},
    cpu,
    port::{inb, inl, outb},
};

/// Less than the PIT counts once, which is 54 ms.
const MEASURE_MS: u64 = 50;
/// How often the clocks are read to find them close together.
const ATTEMPTS: u32 = 64;
const PIT_COUNT: u16 = 0x42;
const PIT_MODE: u16 = 0x43;
const PIT_GATE: u16 = 0x61;
const LVT_MASKED: u32 = 1 << 16;
const DIVIDE_BY_1: u32 = 0b1011;

static TSC_HZ: AtomicU64 = AtomicU64::new(0);
static APIC_HZ: AtomicU64 = AtomicU64::new(0);
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);

/// Returns the frequency of the time-stamp counter; 0 until it is measured.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// Returns the frequency at which the APIC timer counts when it divides by 1; 0 until it is measured.
pub fn apic_hz() -> u64 {
    APIC_HZ.load(Ordering::Relaxed)
}

/// Waits for at least `us` microseconds. Does not wait before the clocks are measured.
pub fn delay_us(us: u64) {
    let deadline = deadline_us(us);
    while cpu::tsc() < deadline {
        cpu::pause();
    }
}

/// Returns the time-stamp counter's value in `us` microseconds.
pub(crate) fn deadline_us(us: u64) -> u64 {
    cpu::tsc().saturating_add((u128::from(us) * u128::from(tsc_hz()) / 1_000_000) as u64)
}

/// Returns the microseconds since boot; 0 until the clocks are measured.
pub fn since_boot_us() -> u64 {
    let ticks = cpu::tsc().saturating_sub(BOOT_TSC.load(Ordering::Relaxed));
    (u128::from(ticks) * 1_000_000).checked_div(u128::from(tsc_hz())).unwrap_or(0) as u64
}

/// Notes when boot began.
pub(crate) fn begin() {
    BOOT_TSC.store(cpu::tsc(), Ordering::Relaxed);
}

/// Measures both clocks. Boot only; the APIC is enabled and its timer not in use.
pub(crate) fn calibrate(fadt: Option<&Fadt>) {
    let reference = fadt.and_then(|fadt| fadt.pm_timer).map_or(Reference::Pit, Reference::PmTimer);
    reference.start();
    apic::timer_write(&TimerRegisters {
        lvt: LVT_MASKED,
        initial: u32::MAX,
        current: 0,
        divide: DIVIDE_BY_1,
    });
    let begin = sample(reference);
    let counts = |now: u32| u64::from(now.wrapping_sub(begin.reference) & reference.mask());
    while counts(reference.read()) < reference.hz() * MEASURE_MS / 1000 {}
    let end = sample(reference);
    apic::timer_stop();
    let frequency = |ticks| frequency(ticks, counts(end.reference), reference.hz());
    TSC_HZ.store(frequency(end.tsc - begin.tsc), Ordering::Relaxed);
    APIC_HZ.store(frequency(u64::from(begin.apic - end.apic)), Ordering::Relaxed);
}

/// A clock of known frequency.
#[derive(Clone, Copy)]
enum Reference {
    PmTimer(PmTimer),
    /// Channel 2 of the PIT, which has a gate and raises no interrupt.
    Pit,
}

impl Reference {
    fn hz(self) -> u64 {
        match self {
            Self::PmTimer(_) => 3_579_545,
            Self::Pit => 1_193_182,
        }
    }

    fn mask(self) -> u32 {
        match self {
            Self::PmTimer(timer) => timer.mask(),
            Self::Pit => 0xffff,
        }
    }

    /// Starts the PIT at its highest count, with the gate open and the speaker off. The PM timer always runs.
    fn start(self) {
        if let Self::Pit = self {
            outb(PIT_GATE, inb(PIT_GATE) & !2 | 1);
            outb(PIT_MODE, 0b1011_0000);
            outb(PIT_COUNT, 0xff);
            outb(PIT_COUNT, 0xff);
        }
    }

    /// Reads the count; it goes up.
    fn read(self) -> u32 {
        match self {
            Self::PmTimer(timer) => inl(timer.port),
            Self::Pit => {
                outb(PIT_MODE, 0b1000_0000);
                let count = u16::from_le_bytes([inb(PIT_COUNT), inb(PIT_COUNT)]);
                u32::from(u16::MAX - count)
            }
        }
    }
}

/// All clocks at one moment.
struct Sample {
    reference: u32,
    tsc: u64,
    apic: u32,
}

/// Reads the clocks as close together as a few attempts allow: on an emulator, or under a system-management
/// interrupt, a port read can take long.
fn sample(reference: Reference) -> Sample {
    let attempt = |_| {
        let before = cpu::tsc();
        let sample =
            Sample { reference: reference.read(), tsc: cpu::tsc(), apic: apic::timer_read().current };
        (cpu::tsc() - before, sample)
    };
    let attempts = (0..ATTEMPTS).map(attempt);
    attempts.min_by_key(|(ticks, _)| *ticks).expect("there is at least one attempt").1
}

/// The frequency of a clock that ticked `ticks` times while a clock of `hz` counted `counts`, to the nearest
/// 10 kHz: the measurement is no better, and real clocks are round.
fn frequency(ticks: u64, counts: u64, hz: u64) -> u64 {
    const GRAIN: u64 = 10_000;
    let measured = u128::from(ticks) * u128::from(hz) / u128::from(counts);
    (measured as u64 + GRAIN / 2) / GRAIN * GRAIN
}

#[cfg(test)]
mod tests {
    use super::frequency;

    #[test]
    fn a_frequency_is_rounded_to_what_the_measurement_can_tell() {
        assert_eq!(frequency(122_540_123, 178_977, 3_579_540), 2_450_800_000);
    }
}
