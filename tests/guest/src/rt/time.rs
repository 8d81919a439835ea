//! Time by the time stamp counter.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{
    cpu,
    port::{self, PM_TIMER},
};

/// Ticks per second; set once by the boot processor.
static TSC_HZ: AtomicU64 = AtomicU64::new(1_000_000_000);

/// Frequency of the PM timer.
const PM_HZ: u64 = 3_579_545;
/// Bits of the PM timer that every machine has.
const PM_MASK: u32 = 0xff_ffff;

/// Ticks of the time stamp counter per second.
pub(crate) fn tsc_hz() -> u64 {
    TSC_HZ.load(Relaxed)
}

/// Says how fast the time stamp counter runs.
pub(super) fn set_tsc_hz(hz: u64) {
    TSC_HZ.store(hz, Relaxed);
}

/// A clock's reading and the time stamp counter at that moment: a reading between which and the counter's the
/// processor was busy elsewhere is taken again.
pub(crate) fn stamped(read: impl Fn() -> u64) -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..50 {
        let before = cpu::tsc();
        let value = read();
        let took = cpu::tsc() - before;
        if took < best.0 {
            best = (took, before + took / 2, value);
        } else if took < 2 * best.0 {
            break;
        }
    }
    (best.1, best.2)
}

/// Measures the time stamp counter against the ACPI PM timer for `us` microseconds; in Hz.
pub(crate) fn measure_tsc(us: u64) -> u64 {
    let read = || u64::from(port::in32(PM_TIMER));
    let (from, begin) = stamped(read);
    wait(us);
    let (to, end) = stamped(read);
    let passed = end.wrapping_sub(begin) & u64::from(PM_MASK);
    ((u128::from(to - from)) * u128::from(PM_HZ) / u128::from(passed.max(1))) as u64
}

/// Microseconds as ticks.
pub(crate) fn ticks(us: u64) -> u64 {
    (u128::from(us) * u128::from(tsc_hz()) / 1_000_000) as u64
}

/// Ticks as microseconds.
pub(crate) fn us(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(tsc_hz())) as u64
}

/// Waits with interrupts as they are.
pub(crate) fn wait(us: u64) {
    until(us, || false);
}

/// Waits until the condition holds, at most `us` microseconds; says whether it does.
pub(crate) fn until(us: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = cpu::tsc().saturating_add(ticks(us));
    loop {
        if condition() {
            return true;
        }
        if cpu::tsc() >= end {
            return condition();
        }
        cpu::pause();
    }
}

/// Waits for what has to happen: long enough for a busy machine.
pub(crate) fn eventually(condition: impl FnMut() -> bool) -> bool {
    until(10_000_000, condition)
}

/// Whether the condition stays false for a while.
pub(crate) fn never(mut condition: impl FnMut() -> bool) -> bool {
    !until(30_000, &mut condition)
}
