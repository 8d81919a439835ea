use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const CONFIG: u32 = msr::STIMER0_CONFIG;
const COUNT: u32 = msr::STIMER0_COUNT;
const ENABLED: u64 = 1;
const PERIODIC: u64 = 2;
const LAZY: u64 = 4;
const AUTO: u64 = 8;
const DIRECT: u64 = 1 << 12 | 0xed << 4;
const SINT3: u64 = 3 << 16;

fn timer(config: u64, count: u64, now: u64) -> Timers {
    let mut timers = Timers::default();
    timers.write_msr(CONFIG, config, now).unwrap();
    timers.write_msr(COUNT, count, now).unwrap();
    timers
}

fn is_enabled(timers: &Timers) -> bool {
    timers.read_msr(CONFIG).unwrap() & ENABLED != 0
}

/// Messages ready at `now`: the source and the expiration time of each.
fn messages(timers: &mut Timers, now: u64) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    if timers.expire(now, |_| panic!("not direct")) {
        timers.deliver(now, |sint, message| {
            let payload: TimerExpired = message.payload_as();
            assert_eq!(
                (message.header.message_type, payload.delivery_time),
                (MessageType::TIMER_EXPIRED, now)
            );
            all.push((sint.0, payload.expiration_time));
            true
        });
    }
    all
}

#[test]
fn a_one_shot_timer_fires_once_at_its_count_and_is_then_disabled() {
    let mut timers = timer(AUTO | SINT3, 100, 10);
    assert_eq!(timers.deadline(), Some(100));
    assert_eq!(messages(&mut timers, 99), []);
    assert_eq!(messages(&mut timers, 103), [(3, 100)]);
    assert!(!is_enabled(&timers));
    assert_eq!(timers.deadline(), None);
}

#[test]
fn a_one_shot_timer_set_in_the_past_expires_at_once() {
    let mut timers = timer(AUTO | SINT3, 5, 10);
    assert_eq!(messages(&mut timers, 10), [(3, 5)]);
}

#[test]
fn linux_stimer0_asserts_its_vector_each_time_the_count_is_written() {
    let mut timers = timer(ENABLED | AUTO | DIRECT, 100, 0);
    for time in [100, 250] {
        timers.write_msr(COUNT, time, time - 50).unwrap();
        let mut vectors = Vec::new();
        assert!(!timers.expire(time, |vector| vectors.push(vector)));
        assert_eq!(vectors, [0xed]);
        assert_eq!(timers.deadline(), None);
    }
}

#[test]
fn without_auto_enable_the_count_starts_nothing() {
    let mut timers = timer(SINT3, 100, 0);
    assert_eq!(timers.deadline(), None);
    timers.write_msr(CONFIG, ENABLED | SINT3, 0).unwrap();
    assert_eq!(timers.deadline(), Some(100));
}

#[test]
fn a_zero_count_stops_the_timer_whatever_auto_enable_says() {
    let mut timers = timer(AUTO | SINT3, 100, 0);
    timers.write_msr(COUNT, 0, 50).unwrap();
    assert!(!is_enabled(&timers));
    assert_eq!(timers.deadline(), None);
}

#[test]
fn source_zero_disables_a_timer_that_is_not_direct() {
    let mut timers = timer(AUTO, 100, 0);
    assert!(!is_enabled(&timers));
    timers.write_msr(CONFIG, ENABLED, 0).unwrap();
    assert!(!is_enabled(&timers));
    assert_eq!(timers.deadline(), None);
}

#[test]
fn a_direct_timer_with_an_exception_vector_expires_without_effect() {
    let mut timers = timer(AUTO | 1 << 12 | 15 << 4, 100, 0);
    assert!(!timers.expire(100, |_| panic!("an exception vector")));
    assert_eq!(timers.deadline(), None);
}

#[test]
fn a_periodic_timer_keeps_its_phase_when_served_late() {
    let mut timers = timer(AUTO | PERIODIC | SINT3, 100, 7);
    assert_eq!(timers.deadline(), Some(107));
    assert_eq!(messages(&mut timers, 150), [(3, 107)]);
    assert_eq!(timers.deadline(), Some(207));
    assert!(is_enabled(&timers));
}

#[test]
fn missed_periods_are_made_up_for_at_a_shortened_period() {
    let mut timers = timer(AUTO | PERIODIC | SINT3, 100, 0);
    assert_eq!(messages(&mut timers, 330), [(3, 100)]);
    assert_eq!(timers.deadline(), Some(380));
    assert_eq!(messages(&mut timers, 380), [(3, 200)]);
    assert_eq!(messages(&mut timers, 430), [(3, 300)]);
    assert_eq!(messages(&mut timers, 480), [(3, 400)]);
    assert_eq!(timers.deadline(), Some(500));
}

#[test]
fn lazy_timers_and_long_absences_skip_periods() {
    let mut lazy = timer(AUTO | PERIODIC | LAZY | SINT3, 100, 0);
    assert_eq!(messages(&mut lazy, 330), [(3, 100)]);
    assert_eq!(lazy.deadline(), Some(400));
    let mut eager = timer(AUTO | PERIODIC | SINT3, 100, 0);
    assert_eq!(messages(&mut eager, 1_000_000_042), [(3, 100)]);
    assert_eq!(eager.deadline(), Some(1_000_000_100));
}

#[test]
fn a_message_waits_until_its_slot_is_empty() {
    let mut timers = timer(AUTO | SINT3, 100, 0);
    assert!(timers.expire(100, |_| ()));
    timers.deliver(100, |_, _| false);
    assert!(timers.is_waiting());
    assert_eq!(timers.deadline(), None);
    assert_eq!(messages(&mut timers, 120), [(3, 100)]);
    assert!(!timers.is_waiting());
}

#[test]
fn writing_a_register_withdraws_the_waiting_message() {
    let mut timers = timer(AUTO | SINT3, 100, 0);
    timers.expire(100, |_| ());
    timers.write_msr(CONFIG, 0, 110).unwrap();
    assert!(!timers.is_waiting());
}

#[test]
fn each_timer_has_its_own_registers() {
    let mut timers = Timers::default();
    for i in 0..4 {
        timers.write_msr(CONFIG + 2 * i, (AUTO | PERIODIC) | u64::from(i + 1) << 16, 0).unwrap();
        timers.write_msr(COUNT + 2 * i, 100, 0).unwrap();
    }
    assert_eq!(messages(&mut timers, 100), [(1, 100), (2, 100), (3, 100), (4, 100)]);
    assert!(timers.read_msr(CONFIG - 1).is_err());
    assert!(timers.write_msr(msr::STIMER3_COUNT + 1, 0, 0).is_err());
}

#[test]
fn state_survives_a_move_with_phase_and_waiting_message() {
    let mut timers = timer(AUTO | PERIODIC | SINT3, 100, 33);
    timers.expire(140, |_| ());
    let state = timers.state();
    let mut moved = Timers::default();
    moved.restore(&state, 150);
    assert_eq!(moved.state(), state);
    assert_eq!(moved.deadline(), Some(233));
    assert_eq!(messages(&mut moved, 150), [(3, 133)]);
}

proptest! {
    #[test]
    fn a_timer_never_fires_early_and_expire_always_ends(
        writes in prop::collection::vec((CONFIG..=msr::STIMER3_COUNT, any::<u64>(), 0..1u64 << 40), 0..20),
        small in prop::collection::vec((0u32..4, 0u64..16, 1u64..1000), 0..8),
        step in 0u64..1 << 41,
    ) {
        let mut timers = Timers::default();
        for (msr, value, now) in writes {
            timers.write_msr(msr, value, now).unwrap();
        }
        for (timer, flags, count) in small {
            timers.write_msr(CONFIG + 2 * timer, flags | SINT3, 0).unwrap();
            timers.write_msr(COUNT + 2 * timer, count, 0).unwrap();
        }
        for now in [step, step.saturating_mul(2), u64::MAX - 1, u64::MAX] {
            let early = |timers: &Timers| timers.0.iter().any(|timer| timer.undelivered > Some(now));
            timers.expire(now, |_| ());
            prop_assert!(!early(&timers));
            prop_assert!(timers.deadline().is_none_or(|deadline| deadline > now));
            timers.deliver(now, |_, _| true);
        }
    }

    #[test]
    fn a_periodic_timer_served_in_time_has_no_drift(period in 1u64..1000, start in 0u64..1000, count in 1u64..50) {
        let mut timers = timer(AUTO | PERIODIC | SINT3, period, start);
        for n in 1..=count {
            let due = timers.deadline().unwrap();
            prop_assert_eq!(due, start + n * period);
            prop_assert_eq!(messages(&mut timers, due), [(3, due)]);
        }
    }
}
