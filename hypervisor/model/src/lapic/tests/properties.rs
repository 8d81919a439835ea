//! What holds after any sequence of actions.

use std::{collections::BTreeSet, vec, vec::Vec};

use proptest::prelude::*;
use tlfs::vp::LocalApicState;

use super::super::{Destination, Effect, Features, Lapic, Mode, Source, Trigger};
use super::{ALL, enabled};

#[derive(Clone, Copy, Debug)]
enum Action {
    Mmio(u16, u32),
    Msr(u32, u64),
    HvMsr(u32, u64),
    Base(u64),
    Request(u8, bool),
    Deliver,
    Eoi,
    Cr8(u64),
    Pin(Source),
    TscDeadline(u64),
    Expire,
    Init,
    Restore,
    Wait(u64),
}

/// Register values: any, and those that real software writes, which random bits seldom are.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0u32..0x1000,
        (0u32..8, any::<u8>()).prop_map(|(mode, v)| mode << 16 | u32::from(v))
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let source =
        prop_oneof![Just(Source::Thermal), Just(Source::PerfMon), Just(Source::Lint0), Just(Source::Lint1)];
    let base = prop_oneof![
        any::<u64>(),
        Just(0xfee0_0000),
        Just(0xfee0_0800),
        Just(0xfee0_0800),
        Just(0xfee0_0c00),
    ];
    prop_oneof![
        8 => (0u16..0x41, value()).prop_map(|(register, value)| Action::Mmio(register * 16, value)),
        1 => (any::<u16>(), any::<u32>()).prop_map(|(offset, value)| Action::Mmio(offset, value)),
        8 => (0x800u32..0x841, value()).prop_map(|(msr, value)| Action::Msr(msr, value.into())),
        1 => (0x7f0u32..0x910, any::<u64>()).prop_map(|(msr, value)| Action::Msr(msr, value)),
        2 => (0x4000_006fu32..0x4000_0074, any::<u64>()).prop_map(|(msr, value)| Action::HvMsr(msr, value)),
        2 => Just(Action::Mmio(0xf0, 0x1ff)),
        1 => base.prop_map(Action::Base),
        8 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Action::Request(vector, level)),
        6 => Just(Action::Deliver),
        4 => Just(Action::Eoi),
        2 => (0u64..20).prop_map(Action::Cr8),
        1 => source.prop_map(Action::Pin),
        1 => any::<u64>().prop_map(Action::TscDeadline),
        2 => Just(Action::Expire),
        1 => Just(Action::Init),
        1 => Just(Action::Restore),
        4 => prop_oneof![0u64..0x2000, any::<u64>()].prop_map(Action::Wait),
    ]
}

fn apply(lapic: &mut Lapic, action: Action, now: &mut u64) {
    match action {
        Action::Mmio(offset, value) => {
            lapic.read_mmio(offset, *now);
            let _ = lapic.write_mmio(offset, value, *now);
        }
        Action::Msr(msr, value) => {
            let _ = lapic.read_msr(msr, *now);
            let _ = lapic.write_msr(msr, value, *now);
        }
        Action::HvMsr(msr, value) => {
            let _ = lapic.read_hv_msr(msr);
            let _ = lapic.write_hv_msr(msr, value);
        }
        Action::Base(value) => drop(lapic.set_base(value)),
        Action::Request(vector, level) => {
            lapic.request(vector, if level { Trigger::Level } else { Trigger::Edge });
        }
        Action::Deliver => lapic.pending().into_iter().for_each(|vector| lapic.acknowledge(vector)),
        Action::Eoi => drop(lapic.eoi()),
        Action::Cr8(value) => drop(lapic.set_cr8(value)),
        Action::Pin(source) => drop(lapic.deliver_lvt(source)),
        Action::TscDeadline(tsc) => drop(lapic.set_tsc_deadline(tsc)),
        Action::Expire => lapic.timer_expire(*now),
        Action::Init => lapic.reset_init(),
        Action::Restore => {
            let state = lapic.state(*now);
            lapic.set_state(&state, *now);
        }
        Action::Wait(time) => *now = now.saturating_add(time),
    }
}

fn vectors(registers: [u32; 8]) -> BTreeSet<u8> {
    (0..=255u8).filter(|v| registers[usize::from(v / 32)] >> (v % 32) & 1 != 0).collect()
}

/// The manual's rule, from the registers alone.
fn expected_pending(lapic: &Lapic, state: &LocalApicState) -> Option<u8> {
    let in_service = vectors(state.isr).last().copied().unwrap_or(0);
    let priority = lapic.tpr.max(in_service) >> 4;
    let enabled = state.spurious & 0x100 != 0 && lapic.mode() != Mode::Disabled;
    vectors(state.irr).last().copied().filter(|vector| enabled && vector >> 4 > priority)
}

proptest! {
    #[test]
    fn pending_is_always_the_highest_request_above_the_priority(
        id in any::<u32>(),
        x2apic in any::<bool>(),
        tsc_deadline in any::<bool>(),
        actions in proptest::collection::vec(action(), 1..80),
    ) {
        let mut lapic = Lapic::new(id, false, Features { x2apic, tsc_deadline });
        let mut now = 0;
        for action in actions {
            apply(&mut lapic, action, &mut now);
            let state = lapic.clone().state(now);
            let mut settled = lapic.clone();
            settled.timer_expire(now);
            prop_assert_eq!(settled.pending(), expected_pending(&settled, &state), "after {:?}", action);
            prop_assert!(vectors(state.irr).union(&vectors(state.isr)).all(|vector| *vector >= 16));
        }
    }

    #[test]
    fn save_and_restore_is_identity(actions in proptest::collection::vec(action(), 1..80), later in any::<u64>()) {
        let mut lapic = Lapic::new(0x1_0003, false, ALL);
        let mut now = 0;
        for action in actions {
            apply(&mut lapic, action, &mut now);
        }
        let state = lapic.state(now);
        let mut copy = Lapic::new(0x1_0003, false, ALL);
        for base in [0xfee0_0800, lapic.base()] {
            copy.set_base(base).unwrap();
        }
        copy.set_tpr(lapic.tpr);
        let later = later / 2;
        copy.set_state(&state, later);
        let _ = copy.set_tsc_deadline(lapic.tsc_deadline().unwrap());
        prop_assert_eq!(copy.state(later), state);
        prop_assert_eq!(copy.pending(), lapic.pending());
        prop_assert_eq!(copy.tsc_deadline(), lapic.tsc_deadline());
    }

    #[test]
    fn eoi_ends_the_highest_vector_in_service(requests in proptest::collection::vec((16u8.., any::<bool>()), 1..40)) {
        let mut lapic = enabled();
        let mut levels = [false; 256];
        for (vector, level) in requests {
            if lapic.state(0).isr[usize::from(vector / 32)] >> (vector % 32) & 1 != 0 {
                continue;
            }
            levels[usize::from(vector)] = level;
            lapic.request(vector, if level { Trigger::Level } else { Trigger::Edge });
            if let Some(vector) = lapic.pending() {
                lapic.acknowledge(vector);
            }
        }
        let mut in_service: Vec<u8> = vectors(lapic.state(0).isr).into_iter().collect();
        while let Some(highest) = in_service.pop() {
            prop_assert_eq!(lapic.eoi(), levels[usize::from(highest)].then_some(highest));
            prop_assert_eq!(vectors(lapic.state(0).isr).into_iter().collect::<Vec<_>>(), in_service.clone());
        }
    }

    #[test]
    fn every_accepted_vector_is_delivered_exactly_once(requests in proptest::collection::btree_set(16u8.., 0..100)) {
        let mut lapic = enabled();
        for vector in &requests {
            prop_assert!(lapic.request(*vector, Trigger::Edge));
        }
        let mut delivered = BTreeSet::new();
        while let Some(vector) = lapic.pending() {
            lapic.acknowledge(vector);
            prop_assert!(delivered.insert(vector));
            lapic.eoi();
        }
        prop_assert_eq!(delivered, requests);
    }

    #[test]
    fn periodic_timer_never_drifts(
        start in 0u64..1 << 40,
        count in 1u32..100_000,
        divide in 0u32..16,
        delays in proptest::collection::vec(0u64..10_000_000, 1..50),
    ) {
        let mut lapic = enabled();
        let _ = lapic.write_mmio(0x3e0, divide, start);
        let _ = lapic.write_mmio(0x320, 0x2_00ec, start);
        let _ = lapic.write_mmio(0x380, count, start);
        let Some(first) = lapic.timer_deadline() else { panic!("not armed") };
        let period = first - start;
        for delay in delays {
            let Some(deadline) = lapic.timer_deadline() else { panic!("not armed") };
            let now = deadline + delay;
            lapic.timer_expire(now);
            prop_assert_eq!(lapic.pending(), Some(0xec));
            lapic.acknowledge_auto_eoi(0xec);
            let Some(next) = lapic.timer_deadline() else { panic!("not armed") };
            prop_assert_eq!((next - start) % period, 0);
            prop_assert!(next > now && next - now <= period);
        }
    }

    #[test]
    fn hostile_state_never_panics(words in proptest::collection::vec(any::<u32>(), 23), now in any::<u64>()) {
        let mut lapic = Lapic::new(1, false, ALL);
        lapic.set_base(0xfee0_0c00).unwrap();
        let state = LocalApicState {
            spurious: words[0],
            isr: [words[1]; 8],
            irr: [words[2]; 8],
            lvt: [words[3], 0, 0, 0, 0, words[4]],
            initial_count: words[5],
            current_count: words[6],
            divide_configuration: words[7],
            icr_low: words[8],
            ..LocalApicState::default()
        };
        lapic.set_state(&state, now);
        lapic.timer_expire(u64::MAX);
        let after = lapic.state(u64::MAX);
        prop_assert_eq!(lapic.pending(), expected_pending(&lapic, &after));
        let _ = lapic.matches(Destination::Logical(words[9]));
        prop_assert!(lapic.write_msr(0x80b, 0, now).is_ok_and(|effect| !matches!(effect, Effect::Ipi(_))));
    }
}
