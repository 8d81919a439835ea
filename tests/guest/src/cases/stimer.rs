//! Synthetic timers (TLFS timers "Synthetic Timers").

use tlfs::{
    cpuid::FeaturesEdx,
    msr::{EOM, SCONTROL, SIMP, SINT0, STIMER0_CONFIG, STIMER0_COUNT, StimerConfig},
    synic::MessageType,
};

use super::{Case, clock::now, feature::own_features};
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        apic, cpu,
        machine::Machine,
        memory::Page,
        msr,
        percpu::{Cpu, Eoi},
        smp, time,
    },
};

pub(crate) const CASES: &[Case] = &[
    Case::new("stimer_reset", 4, "timers are off at first (TLFS synthetic timer registers)", reset)
        .partition(),
    Case::new(
        "stimer_message",
        1,
        "each timer posts its message once, not early, and disables itself (TLFS expiration message)",
        message,
    )
    .partition(),
    Case::new(
        "stimer_direct",
        1,
        "each timer asserts its vector once and not early (TLFS direct synthetic timers)",
        direct,
    )
    .partition(),
    Case::new(
        "stimer_periodic",
        1,
        "periods follow each other without drift (TLFS periodic timers)",
        periodic,
    )
    .partition(),
    Case::new(
        "stimer_periodic_message",
        1,
        "a periodic timer posts a message for each period (TLFS periodic timers)",
        periodic_message,
    )
    .partition(),
    Case::new("stimer_lazy", 1, "a lazy periodic timer never expires early (TLFS periodic timers)", lazy)
        .partition(),
    Case::new(
        "stimer_auto_enable",
        1,
        "writing the count enables the timer if the configuration says so (TLFS timer configuration)",
        auto_enable,
    )
    .partition(),
    Case::new(
        "stimer_rules",
        1,
        "source 0, count 0 and a cleared enable bit stop a timer (TLFS timer configuration)",
        rules,
    )
    .partition(),
    Case::new("stimer_past", 1, "a time in the past expires at once (TLFS timer configuration)", past)
        .partition(),
    Case::new(
        "stimer_busy",
        1,
        "a busy slot gets the pending flag, EOM and EOI deliver what waits (TLFS SynIC messages)",
        busy,
    )
    .partition(),
    Case::new(
        "stimer_masked",
        1,
        "a masked or polled source gets messages and no interrupt (TLFS SINTx registers)",
        masked,
    )
    .partition(),
    Case::new(
        "stimer_auto_eoi",
        1,
        "an AutoEOI source is not in service in its handler (TLFS SINTx registers)",
        auto_eoi,
    )
    .partition(),
    Case::new(
        "stimer_no_synic",
        1,
        "a message waits until controller and page are enabled (TLFS SynIC messages)",
        no_synic,
    )
    .partition(),
    Case::new(
        "stimer_together",
        4,
        "all four timers of every VP run at the same time (TLFS synthetic timers)",
        together,
    )
    .partition(),
    Case::new("stimer_far", 1, "a time that never comes does no harm (TLFS synthetic timer count)", far)
        .partition(),
];

const VECTOR: u8 = 0x71;
const SINT: u8 = 4;
/// Units of reference time in a millisecond.
const MS: u64 = 10_000;
/// Words of a message slot.
const SLOT: usize = 32;
const PENDING: u64 = 1 << 40;

fn config_msr(timer: u32) -> u32 {
    STIMER0_CONFIG + 2 * timer
}

fn count_msr(timer: u32) -> u32 {
    STIMER0_COUNT + 2 * timer
}

fn by_message(timer: u32) -> StimerConfig {
    StimerConfig::new().with_enabled(true).with_sint(SINT + timer as u8)
}

fn by_vector(timer: u32) -> StimerConfig {
    StimerConfig::new().with_enabled(true).with_direct_mode(true).with_apic_vector(VECTOR + timer as u8)
}

fn start(timer: u32, config: StimerConfig, count: u64) {
    msr::write(config_msr(timer), 0);
    msr::write(count_msr(timer), count);
    msr::write(config_msr(timer), config.into_bits());
}

/// Enables the controller, with sources `SINT` to `SINT + 3` at `VECTOR` to `VECTOR + 3`; returns the message page.
pub(super) fn enable_synic() -> &'static Page {
    let page = Page::take();
    msr::write(SIMP, page.address() | 1);
    for timer in 0..4 {
        msr::write(SINT0 + u32::from(SINT) + timer, u64::from(VECTOR) + u64::from(timer));
    }
    msr::write(SCONTROL, 1);
    page
}

fn slot(timer: u32) -> usize {
    (usize::from(SINT) + timer as usize) * SLOT
}

/// Whether there is a message in a timer's slot.
fn has_message(page: &Page, timer: u32) -> bool {
    page.get(slot(timer)) as u32 != 0
}

/// Takes the message out of a timer's slot; returns when it expired and when it was delivered.
fn take_message(page: &Page, timer: u32, expected: u64) -> Outcome<(u64, u64)> {
    let at = slot(timer);
    equal!(page.get(at) as u32, MessageType::TIMER_EXPIRED.0, "message type of timer {timer}");
    equal!(page.get(at) >> 32 & 0xff, 24, "payload size of timer {timer}");
    equal!(page.get(at + 2), u64::from(timer), "timer index");
    let (expired, delivered) = (page.get(at + 3), page.get(at + 4));
    let read = now();
    if expected != 0 {
        equal!(expired, expected, "expiration time of timer {timer}");
    }
    check!(
        delivered >= expired && delivered <= read,
        "expired at {expired}, delivered at {delivered}, read at {read}"
    );
    // Only the type must go; the flags stay to be looked at.
    let head = page.word(at).fetch_and(!0xffff_ffff, core::sync::atomic::Ordering::SeqCst);
    if head & PENDING != 0 {
        msr::write(EOM, 0);
    }
    Ok((expired, delivered))
}

fn reset(machine: &Machine) -> Outcome {
    fn compare(_: u64) -> Outcome {
        for timer in 0..4 {
            equal!(msr::read(config_msr(timer)), 0, "configuration of timer {timer}");
            equal!(msr::read(count_msr(timer)), 0, "count of timer {timer}");
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, compare, 0)
}

fn message(_: &Machine) -> Outcome {
    let (own, page) = (Cpu::current(), enable_synic());
    for timer in (0..4).chain(0..4) {
        let vector = VECTOR + timer as u8;
        let before = own.count(vector);
        let due = now() + 10 * MS;
        start(timer, by_message(timer), due);
        equal!(msr::read(count_msr(timer)), due, "count of timer {timer}");
        check!(time::eventually(|| own.count(vector) == before + 1), "timer {timer} does not interrupt");
        take_message(page, timer, due)?;
        let left = StimerConfig::from_bits(msr::read(config_msr(timer)));
        check!(!left.enabled(), "timer {timer} stays enabled");
    }
    check!(time::never(|| own.taken() > 8), "{} interrupts of 8", own.taken());
    check!((0..4).all(|timer| !has_message(page, timer)), "there are more messages");
    Ok(())
}

fn needs_direct() -> Outcome {
    needs!(own_features().contains(FeaturesEdx::DIRECT_SYNTHETIC_TIMERS), "there is no direct mode");
    Ok(())
}

fn direct(_: &Machine) -> Outcome {
    needs_direct()?;
    let own = Cpu::current();
    for timer in (0..4).chain(0..4) {
        let vector = VECTOR + timer as u8;
        let before = own.count(vector);
        let due = now() + 10 * MS;
        start(timer, by_vector(timer), due);
        check!(time::eventually(|| own.count(vector) == before + 1), "timer {timer} does not interrupt");
        check!(now() >= due, "timer {timer} is early");
        let stamp = own.stamp(vector);
        let lateness = (now() - due).saturating_sub(time::us(cpu::tsc() - stamp) * 10);
        check!(lateness < 10_000 * MS, "timer {timer} is {lateness} units late");
        check!(
            !StimerConfig::from_bits(msr::read(config_msr(timer))).enabled(),
            "timer {timer} stays enabled"
        );
    }
    check!(time::never(|| own.taken() > 8), "{} interrupts of 8", own.taken());
    Ok(())
}

fn periodic(_: &Machine) -> Outcome {
    const PERIODS: u32 = 40;
    needs_direct()?;
    let own = Cpu::current();
    for timer in 0..4 {
        let vector = VECTOR + timer as u8;
        let begin = now();
        start(timer, by_vector(timer).with_periodic(true), 5 * MS);
        check!(
            time::eventually(|| own.count(vector) >= PERIODS),
            "timer {timer}: {} periods",
            own.count(vector)
        );
        let (periods, took) = (u64::from(own.count(vector)), now() - begin);
        check!(took >= periods * 5 * MS, "timer {timer}: {periods} periods take {took} units only");
        check!(
            StimerConfig::from_bits(msr::read(config_msr(timer))).enabled(),
            "timer {timer} disables itself"
        );
        msr::write(config_msr(timer), 0);
        let stopped = own.count(vector);
        check!(time::never(|| own.count(vector) > stopped + 1), "timer {timer} runs on");
    }
    Ok(())
}

fn periodic_message(_: &Machine) -> Outcome {
    let page = enable_synic();
    let mut last = now();
    let period = 10 * MS;
    start(2, by_message(2).with_periodic(true), period);
    let begin = now();
    for nth in 1..=20_u64 {
        check!(time::eventually(|| has_message(page, 2)), "message {nth} does not come");
        let (expired, _) = take_message(page, 2, 0)?;
        check!(expired >= last + period / 2 || nth == 1, "message {nth} expired at {expired} after {last}");
        check!(expired >= last, "time goes back from {last} to {expired}");
        last = expired;
    }
    check!(now() >= begin + 19 * period, "20 periods take {} units only", now() - begin);
    msr::write(config_msr(2), 0);
    Ok(())
}

fn lazy(_: &Machine) -> Outcome {
    const PERIODS: u32 = 20;
    needs_direct()?;
    let own = Cpu::current();
    let begin = now();
    start(1, by_vector(1).with_periodic(true).with_lazy(true), 5 * MS);
    check!(time::eventually(|| own.count(VECTOR + 1) >= PERIODS), "{} periods", own.count(VECTOR + 1));
    let (periods, took) = (u64::from(own.count(VECTOR + 1)), now() - begin);
    check!(took >= periods * 5 * MS, "{periods} periods take {took} units only");
    msr::write(config_msr(1), 0);
    Ok(())
}

fn auto_enable(_: &Machine) -> Outcome {
    needs_direct()?;
    let own = Cpu::current();
    let config = by_vector(3).with_enabled(false).with_auto_enable(true);
    msr::write(config_msr(3), config.into_bits());
    check!(
        !StimerConfig::from_bits(msr::read(config_msr(3))).enabled(),
        "the configuration enables by itself"
    );
    for nth in 1..=5 {
        let due = now() + 10 * MS;
        msr::write(count_msr(3), due);
        check!(time::eventually(|| own.count(VECTOR + 3) == nth), "count {nth} does not expire");
        check!(now() >= due, "count {nth} is early");
        let left = StimerConfig::from_bits(msr::read(config_msr(3)));
        check!(!left.enabled() && left.auto_enable(), "configuration {left:?} after count {nth}");
    }
    // Without it, a count alone does nothing.
    msr::write(config_msr(3), by_vector(3).with_enabled(false).into_bits());
    msr::write(count_msr(3), now() + MS);
    check!(time::never(|| own.count(VECTOR + 3) > 5), "a timer that is not enabled expires");
    Ok(())
}

fn rules(_: &Machine) -> Outcome {
    let own = Cpu::current();
    let page = enable_synic();
    let enabled = |timer: u32| StimerConfig::from_bits(msr::read(config_msr(timer))).enabled();
    msr::write(count_msr(0), now() + 20 * MS);
    msr::write(config_msr(0), by_message(0).with_sint(0).into_bits());
    check!(!enabled(0), "a timer with source 0 is enabled");
    start(1, by_message(1), now() + 20 * MS);
    check!(enabled(1), "a timer with a source and a count is not enabled");
    msr::write(count_msr(1), 0);
    check!(!enabled(1), "a timer with count 0 is enabled");
    start(2, by_message(2), now() + 20 * MS);
    msr::write(config_msr(2), by_message(2).with_enabled(false).into_bits());
    msr::write(config_msr(3), by_message(3).with_auto_enable(true).with_enabled(false).into_bits());
    msr::write(count_msr(3), now() + 20 * MS);
    msr::write(count_msr(3), 0);
    check!(!enabled(3), "a timer with count 0 is enabled in spite of AutoEnable");
    let any = || own.taken() > 0 || (0..4).any(|timer| has_message(page, timer));
    check!(!time::until(60_000, any), "a stopped timer expires");
    Ok(())
}

fn past(_: &Machine) -> Outcome {
    let (own, page) = (Cpu::current(), enable_synic());
    for (nth, due) in [1, now() - 1, now()].into_iter().enumerate() {
        start(1, by_message(1), due);
        check!(time::eventually(|| own.count(VECTOR + 1) == nth as u32 + 1), "time {due} does not expire");
        take_message(page, 1, due)?;
    }
    Ok(())
}

fn busy(_: &Machine) -> Outcome {
    let (own, page) = (Cpu::current(), enable_synic());
    // Both timers use the source of timer 0.
    let at = slot(0);
    for by_eoi in [false, true] {
        own.forget();
        own.set_eoi(if by_eoi { Eoi::Never } else { Eoi::Apic });
        start(0, by_message(0), now() + 5 * MS);
        check!(time::eventually(|| own.count(VECTOR) == 1), "the first message does not come");
        start(1, by_message(0), now() + 5 * MS);
        check!(
            time::eventually(|| page.get(at) & PENDING != 0),
            "the pending flag is not set for the second one"
        );
        check!(time::never(|| own.count(VECTOR) > 1), "there is an interrupt for a message that waits");
        equal!(page.get(at + 2), 0, "timer of the message in the slot");
        page.word(at).store(0, core::sync::atomic::Ordering::SeqCst);
        if by_eoi {
            own.set_eoi(Eoi::Apic);
            apic::end_of_interrupt();
        } else {
            msr::write(EOM, 0);
        }
        check!(time::eventually(|| has_message(page, 0)), "the second message does not come (EOI: {by_eoi})");
        equal!(page.get(at + 2), 1, "timer of the second message");
        check!(page.get(at) & PENDING == 0, "the last message has the pending flag");
        check!(time::eventually(|| own.count(VECTOR) == 2), "no interrupt for the second message");
        page.word(at).store(0, core::sync::atomic::Ordering::SeqCst);
        msr::write(EOM, 0);
        check!(time::never(|| has_message(page, 0)), "there is a third message");
    }
    Ok(())
}

fn masked(_: &Machine) -> Outcome {
    const MASKED: u64 = 1 << 16;
    const POLLING: u64 = 1 << 18;
    let (own, page) = (Cpu::current(), enable_synic());
    for flag in [MASKED, POLLING] {
        msr::write(SINT0 + u32::from(SINT), u64::from(VECTOR) | flag);
        start(0, by_message(0), now() + 5 * MS);
        check!(time::eventually(|| has_message(page, 0)), "a source with {flag:#x} gets no message");
        check!(time::never(|| own.taken() > 0), "a source with {flag:#x} interrupts");
        take_message(page, 0, 0)?;
    }
    Ok(())
}

fn auto_eoi(_: &Machine) -> Outcome {
    const AUTO_EOI: u64 = 1 << 17;
    let (own, page) = (Cpu::current(), enable_synic());
    own.set_eoi(Eoi::Never);
    msr::write(SINT0 + u32::from(SINT), u64::from(VECTOR) | AUTO_EOI);
    for nth in 1..=3 {
        start(0, by_message(0), now() + 5 * MS);
        check!(time::eventually(|| own.count(VECTOR) == nth), "interrupt {nth} does not come");
        check!(!apic::has(apic::ISR, VECTOR), "it is in service");
        take_message(page, 0, 0)?;
    }
    Ok(())
}

fn no_synic(_: &Machine) -> Outcome {
    let own = Cpu::current();
    let page = Page::take();
    msr::write(SINT0 + u32::from(SINT), VECTOR.into());
    start(0, by_message(0), now() + 5 * MS);
    check!(!time::until(50_000, || own.taken() > 0), "there is an interrupt without a controller");
    msr::write(SCONTROL, 1);
    check!(time::never(|| own.taken() > 0), "there is an interrupt without a page");
    msr::write(SIMP, page.address() | 1);
    // TLFS: what is queued comes with the next EOM, at the latest.
    msr::write(EOM, 0);
    check!(time::eventually(|| own.count(VECTOR) == 1), "the message is lost");
    take_message(page, 0, 0).map(|_| ())
}

fn together(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        let own = Cpu::current();
        let page = enable_synic();
        let due: [u64; 4] = core::array::from_fn(|timer| now() + (5 + 3 * timer as u64) * MS);
        for round in 1..=10 {
            for timer in 0..4 {
                start(timer, by_message(timer), due[timer as usize] + u64::from(round) * 20 * MS);
            }
            for timer in 0..4 {
                let vector = VECTOR + timer as u8;
                check!(
                    time::eventually(|| own.count(vector) == round),
                    "timer {timer} of VP {} in round {round}",
                    own.index()
                );
                take_message(page, timer, due[timer as usize] + u64::from(round) * 20 * MS)?;
            }
        }
        Ok(())
    }
    (0..machine.vps).for_each(|vp| Cpu::of(vp).forget());
    smp::run_on_all(machine.vps, run, 0)
}

fn far(_: &Machine) -> Outcome {
    let own = Cpu::current();
    enable_synic();
    for count in [u64::MAX, u64::MAX - 1, 1 << 63] {
        for config in
            [by_message(0), by_vector(0), by_message(0).with_periodic(true), by_message(0).with_lazy(true)]
        {
            start(0, config, count);
            equal!(msr::read(count_msr(0)), count, "count");
        }
        check!(time::never(|| own.taken() > 0), "count {count:#x} expires");
    }
    // Every reserved bit, and the smallest period.
    for bit in (13..16).chain(20..64) {
        let _ = msr::try_write(config_msr(1), 1 << bit);
    }
    // The smallest period leaves no time for anything but the handler, which therefore has to stop the timer.
    own.set_hook(Some(|vector| {
        if vector == VECTOR + 1 && Cpu::current().count(vector) > 10 {
            msr::write(config_msr(1), 0);
        }
    }));
    start(1, by_vector(1).with_periodic(true), 1);
    check!(time::eventually(|| own.count(VECTOR + 1) > 10), "the smallest period does not run");
    Ok(())
}
