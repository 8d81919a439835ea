//! The local APIC's timer (SDM 3A "APIC Timer"; TLFS timers "One virtual APIC timer per virtual processor").

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::{Case, in_both_modes};
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        apic::{self, DEADLINE, DIVIDE_BY_1, MASKED, PERIODIC},
        cpu,
        machine::Machine,
        msr,
        percpu::Cpu,
        smp, time,
    },
};

pub(crate) const CASES: &[Case] = in_both_modes! {
    timer_once 1 "a count expires once, not early, and the current count stays 0 (SDM 3A APIC timer)";
    timer_periodic 1 "periods follow one another without drift (SDM 3A APIC timer)";
    timer_masked 1 "a masked timer counts and does not interrupt (SDM 3A local vector table)";
    timer_stop 1 "initial count 0 stops the timer (SDM 3A APIC timer)";
    timer_divide 1 "each divider makes the count so much slower (SDM 3A divide configuration)";
    timer_deadline 1 "a deadline interrupts once and not early, one in the past at once, 0 never (SDM 3A TSC-deadline)";
    timer_on_all 4 "the timers of all processors run by themselves (SDM 3A APIC timer)";
};

const VECTOR: u8 = 0x52;

/// Ticks of the undivided timer per second, by the time stamp counter.
pub(super) fn frequency() -> u64 {
    const WINDOW_US: u64 = 50_000;
    apic::write(apic::DIVIDE, DIVIDE_BY_1);
    apic::write(apic::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, u32::MAX);
    let (from, begin) = time::stamped(current);
    time::wait(WINDOW_US);
    let (to, end) = time::stamped(current);
    apic::write(apic::INITIAL_COUNT, 0);
    (u128::from(begin - end) * u128::from(time::tsc_hz()) / u128::from(to - from)) as u64
}

fn current() -> u64 {
    apic::read(apic::CURRENT_COUNT).into()
}

fn count_for(hz: u64, us: u64) -> u32 {
    (hz * us / 1_000_000) as u32
}

/// Ticks of the time stamp counter by which two clocks may differ on `us`: rounding, and a measured frequency.
fn slack(us: u64) -> u64 {
    time::ticks(us / 20 + 50)
}

fn timer_once(_: &Machine) -> Outcome {
    const US: u64 = 20_000;
    let own = Cpu::current();
    let count = count_for(frequency(), US);
    apic::write(apic::LVT_TIMER, VECTOR.into());
    for nth in 1..=5 {
        let begin = cpu::tsc();
        apic::write(apic::INITIAL_COUNT, count);
        equal!(apic::read(apic::INITIAL_COUNT), count, "initial count");
        let current = apic::read(apic::CURRENT_COUNT);
        check!(current <= count && current > 0, "current count {current} right after {count}");
        check!(time::eventually(|| own.count(VECTOR) == nth), "timer {nth} does not expire");
        let took = own.stamp(VECTOR) - begin;
        check!(took + slack(US) >= time::ticks(US), "it takes {} us instead of {US}", time::us(took));
        equal!(apic::read(apic::CURRENT_COUNT), 0, "current count afterwards");
    }
    check!(time::never(|| own.count(VECTOR) > 5), "a timer that has expired does so again");
    Ok(())
}

fn timer_periodic(_: &Machine) -> Outcome {
    const US: u64 = 5_000;
    const PERIODS: u32 = 40;
    let own = Cpu::current();
    let count = count_for(frequency(), US);
    apic::write(apic::LVT_TIMER, PERIODIC | u32::from(VECTOR));
    let begin = cpu::tsc();
    apic::write(apic::INITIAL_COUNT, count);
    check!(time::eventually(|| own.count(VECTOR) >= PERIODS), "{} periods only", own.count(VECTOR));
    let (periods, took) = (u64::from(own.count(VECTOR)), own.stamp(VECTOR) - begin);
    let expected = time::ticks(US * periods);
    check!(took + slack(US * periods) >= expected, "{periods} periods take {} us only", time::us(took));
    let current = apic::read(apic::CURRENT_COUNT);
    check!(current <= count, "current count {current} of {count}");
    apic::write(apic::LVT_TIMER, MASKED | PERIODIC | u32::from(VECTOR));
    let stopped = own.count(VECTOR);
    check!(time::never(|| own.count(VECTOR) > stopped + 1), "a masked periodic timer interrupts");
    Ok(())
}

fn timer_masked(_: &Machine) -> Outcome {
    let own = Cpu::current();
    let count = count_for(frequency(), 10_000);
    apic::write(apic::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::INITIAL_COUNT, count);
    check!(time::eventually(|| apic::read(apic::CURRENT_COUNT) == 0), "a masked timer does not count");
    check!(time::never(|| own.taken() > 0), "a masked timer interrupts");
    apic::write(apic::LVT_TIMER, VECTOR.into());
    check!(time::never(|| own.taken() > 0), "unmasking brings back an expiry that is over");
    apic::write(apic::INITIAL_COUNT, count);
    check!(time::eventually(|| own.count(VECTOR) == 1), "an unmasked timer does not interrupt");
    Ok(())
}

fn timer_stop(_: &Machine) -> Outcome {
    let own = Cpu::current();
    let count = count_for(frequency(), 30_000);
    apic::write(apic::LVT_TIMER, VECTOR.into());
    apic::write(apic::INITIAL_COUNT, count);
    apic::write(apic::INITIAL_COUNT, 0);
    equal!(apic::read(apic::CURRENT_COUNT), 0, "current count of a stopped timer");
    check!(!time::until(60_000, || own.taken() > 0), "a stopped timer interrupts");
    Ok(())
}

fn timer_divide(_: &Machine) -> Outcome {
    /// Register values for 1, 2, 4 and so on.
    const DIVIDERS: [u32; 8] = [0b1011, 0b0000, 0b0001, 0b0010, 0b0011, 0b1000, 0b1001, 0b1010];
    let hz = frequency();
    apic::write(apic::LVT_TIMER, MASKED | u32::from(VECTOR));
    for (power, divider) in DIVIDERS.into_iter().enumerate() {
        apic::write(apic::DIVIDE, divider);
        equal!(apic::read(apic::DIVIDE), divider, "divide configuration");
        apic::write(apic::INITIAL_COUNT, u32::MAX);
        let (from, begin) = time::stamped(current);
        time::wait(20_000);
        let (to, end) = time::stamped(current);
        let seen = (begin - end) << power;
        let expected = (u128::from(to - from) * u128::from(hz) / u128::from(time::tsc_hz())) as u64;
        // An access to a register takes time too.
        let near = seen.abs_diff(expected) <= expected / 8 + (2 << power);
        check!(near, "divider {}: {seen} ticks instead of {expected}", 1 << power);
    }
    apic::write(apic::INITIAL_COUNT, 0);
    Ok(())
}

fn timer_deadline(_: &Machine) -> Outcome {
    needs!(apic::has_deadline(), "the timer has no deadlines");
    let own = Cpu::current();
    msr::write(msr::TSC_DEADLINE, cpu::tsc() + time::ticks(1_000));
    equal!(msr::read(msr::TSC_DEADLINE), 0, "deadline in one-shot mode");
    apic::write(apic::LVT_TIMER, DEADLINE | u32::from(VECTOR));
    for nth in 1..=5 {
        let deadline = cpu::tsc() + time::ticks(20_000);
        msr::write(msr::TSC_DEADLINE, deadline);
        equal!(msr::read(msr::TSC_DEADLINE), deadline, "armed deadline");
        check!(time::eventually(|| own.count(VECTOR) == nth), "deadline {nth} does not interrupt");
        check!(own.stamp(VECTOR) >= deadline, "{} ticks early", deadline - own.stamp(VECTOR));
        equal!(msr::read(msr::TSC_DEADLINE), 0, "deadline afterwards");
    }
    msr::write(msr::TSC_DEADLINE, 1);
    check!(time::eventually(|| own.count(VECTOR) == 6), "a deadline in the past does not interrupt");
    msr::write(msr::TSC_DEADLINE, cpu::tsc() + time::ticks(30_000));
    msr::write(msr::TSC_DEADLINE, 0);
    check!(!time::until(60_000, || own.count(VECTOR) > 6), "a deadline that was taken back interrupts");
    msr::write(msr::TSC_DEADLINE, cpu::tsc() + time::ticks(30_000));
    apic::write(apic::LVT_TIMER, MASKED | u32::from(VECTOR));
    apic::write(apic::LVT_TIMER, VECTOR.into());
    check!(!time::until(60_000, || own.count(VECTOR) > 6), "leaving deadline mode does not disarm");
    equal!(apic::read(apic::CURRENT_COUNT), 0, "current count");
    Ok(())
}

fn timer_on_all(machine: &Machine) -> Outcome {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    fn run(_: u64) -> Outcome {
        let own = Cpu::current();
        apic::write(apic::DIVIDE, DIVIDE_BY_1);
        apic::write(apic::LVT_TIMER, PERIODIC | u32::from(VECTOR));
        apic::write(apic::INITIAL_COUNT, COUNT.load(SeqCst));
        let enough = time::eventually(|| own.count(VECTOR) >= 20);
        apic::write(apic::INITIAL_COUNT, 0);
        check!(enough, "processor {} has {} periods only", own.index(), own.count(VECTOR));
        Ok(())
    }
    COUNT.store(count_for(frequency(), 5_000), SeqCst);
    smp::run_on_all(machine.vps, run, 0)
}
