//! Reference time and frequencies (TLFS timers).

use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release, SeqCst},
};

use tlfs::msr::{APIC_FREQUENCY, REFERENCE_TSC, TIME_REF_COUNT, TSC_FREQUENCY};

use super::{Case, apic_timer};
use crate::{
    report::{Outcome, check, equal},
    rt::{cpu, machine::Machine, memory::Page, msr, percpu::Cpu, smp, time},
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "reference_counter",
        4,
        "it only grows, on all VPs together, and none can write it (TLFS reference counter)",
        counter,
    )
    .partition(),
    Case::new(
        "reference_tsc",
        4,
        "the page gives the counter's time on every VP (TLFS reference TSC page)",
        tsc_page,
    )
    .partition(),
    Case::new(
        "reference_tsc_off",
        1,
        "the page is off at first, and can be switched off and moved (TLFS reference TSC page)",
        tsc_page_off,
    )
    .partition(),
    Case::new(
        "frequencies",
        1,
        "the frequency MSRs agree with the reference counter (TLFS timers)",
        frequencies,
    )
    .partition(),
    Case::new(
        "tsc_together",
        4,
        "the time stamp counter never goes back from one VP to the next (APM 2 §13.2.4)",
        tsc_together,
    ),
];

/// Reference time in 100 ns, by the MSR.
pub(super) fn now() -> u64 {
    msr::read(TIME_REF_COUNT)
}

/// Passes a growing value round all processors: each takes the last one, reads the clock, and must find it later.
fn round(machine: &Machine, clock: fn(u64) -> Outcome) -> Outcome {
    TURN.store(0, SeqCst);
    LAST.store(0, SeqCst);
    smp::run_on_all(machine.vps, clock, machine.vps as u64)
}

static TURN: AtomicU64 = AtomicU64::new(0);
static LAST: AtomicU64 = AtomicU64::new(0);

fn take_turns(vps: u64, rounds: u64, read: impl Fn() -> u64, is_strict: bool) -> Outcome {
    let own = Cpu::current().index() as u64;
    for turn in (0..rounds).map(|round| round * vps + own) {
        let came = time::eventually(|| TURN.load(Acquire) >= turn);
        check!(came, "turn {turn} does not come");
        let (last, now) = (LAST.load(Acquire), read());
        LAST.store(now, Release);
        TURN.store(turn + 1, Release);
        let is_right = if is_strict { now > last } else { now >= last };
        check!(is_right, "the clock goes from {last:#x} to {now:#x} in turn {turn} at VP {own}");
    }
    Ok(())
}

fn counter(machine: &Machine) -> Outcome {
    let first = now();
    check!(first < 36_000 * 10_000_000, "the counter starts at {first}");
    let mut last = first;
    for _ in 0..1000 {
        let next = now();
        check!(next > last, "the counter goes from {last} to {next}");
        last = next;
    }
    let written = msr::try_write(TIME_REF_COUNT, 0);
    check!(written.is_err_and(|fault| fault.is_protection()), "writing the counter gives {written:x?}");
    round(machine, |vps| take_turns(vps, 50, now, false))
}

/// The time that the page gives, or `None` if it sends us to the MSR.
fn page_time(page: &Page) -> Option<u64> {
    loop {
        let sequence = page.get(0) as u32;
        if sequence == 0 {
            return None;
        }
        let (tsc, scale, offset) = (cpu::tsc(), page.get(1), page.get(2));
        if page.get(0) as u32 == sequence {
            let units = (u128::from(tsc) * u128::from(scale)) >> 64;
            return Some((units as u64).wrapping_add(offset));
        }
    }
}

fn tsc_page(machine: &Machine) -> Outcome {
    fn compare(page: u64) -> Outcome {
        let page = crate::rt::memory::shared(page);
        for _ in 0..200 {
            let before = now();
            let by_page = page_time(page);
            let after = now();
            let Some(by_page) = by_page else {
                check!(false, "the page says that it must not be used");
                continue;
            };
            check!((before..=after).contains(&by_page), "{by_page} is not from {before} to {after}");
        }
        Ok(())
    }
    let page = Page::take();
    msr::write(REFERENCE_TSC, page.address() | 1);
    equal!(msr::read(REFERENCE_TSC), page.address() | 1, "MSR");
    check!(page.get(1) != 0, "scale 0");
    check!((3..512).all(|word| page.get(word) == 0), "reserved words of the page are not 0");
    smp::run_on_all(machine.vps, compare, page.address())?;
    round(machine, |vps| {
        let page = crate::rt::memory::shared(msr::read(REFERENCE_TSC) & !1);
        take_turns(vps, 50, || page_time(page).unwrap_or(0), false)
    })
}

fn tsc_page_off(_: &Machine) -> Outcome {
    let (first, second) = (Page::take(), Page::take());
    equal!(msr::read(REFERENCE_TSC), 0, "MSR at first");
    msr::write(REFERENCE_TSC, first.address());
    check!(first.is_all(0), "a page that is not enabled shows");
    msr::write(REFERENCE_TSC, first.address() | 1);
    msr::write(REFERENCE_TSC, second.address() | 1);
    let (before, by_page) = (now(), page_time(second));
    check!(by_page.is_some_and(|time| time >= before), "the page that was moved gives {by_page:?}");
    msr::write(REFERENCE_TSC, second.address());
    equal!(msr::read(REFERENCE_TSC), second.address(), "MSR of a page that is disabled");
    Ok(())
}

/// Whether `seen` is within one part in twenty of `expected`: this is about wrong units, and machines may be busy.
fn is_near(seen: u64, expected: u64) -> bool {
    seen.abs_diff(expected) <= expected / 20
}

fn frequencies(_: &Machine) -> Outcome {
    let (tsc_hz, apic_hz) = (msr::read(TSC_FREQUENCY), msr::read(APIC_FREQUENCY));
    let (from, begin) = time::stamped(now);
    time::wait(200_000);
    let (to, end) = time::stamped(now);
    let measured = ((u128::from(to - from)) * 10_000_000 / u128::from(end - begin)) as u64;
    check!(is_near(measured, tsc_hz), "the TSC runs at {measured} Hz, its MSR says {tsc_hz}");
    let measured = apic_timer::frequency();
    check!(is_near(measured, apic_hz), "the APIC timer runs at {measured} Hz, its MSR says {apic_hz}");
    let by_pm_timer = time::measure_tsc(200_000);
    check!(
        is_near(by_pm_timer, tsc_hz),
        "by the PM timer the TSC runs at {by_pm_timer} Hz, its MSR says {tsc_hz}"
    );
    Ok(())
}

fn tsc_together(machine: &Machine) -> Outcome {
    round(machine, |vps| take_turns(vps, 100, cpu::tsc, false))
}
