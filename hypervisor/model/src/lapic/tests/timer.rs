//! The timer's three modes.

use super::super::{Effect, Lapic};
use super::{enabled, x2apic};

const MASK: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const TSC_DEADLINE: u32 = 1 << 18;

/// Starts a count at time `now`; the divide register holds 0xb (by 1).
fn started(mode: u32, count: u32, now: u64) -> Lapic {
    let mut lapic = enabled();
    let _ = lapic.write_mmio(0x3e0, 0xb, now);
    let _ = lapic.write_mmio(0x320, mode | 0xec, now);
    let _ = lapic.write_mmio(0x380, count, now);
    lapic
}

fn clock(lapic: &Lapic) -> Option<u64> {
    lapic.timer_deadline()
}

#[test]
fn one_shot_fires_once() {
    let mut lapic = started(0, 0, 0);
    assert_eq!(lapic.write_mmio(0x380, 100, 1000), Effect::None);
    assert_eq!(clock(&lapic), Some(1100));
    lapic.timer_expire(1099);
    assert_eq!(lapic.pending(), None);
    lapic.timer_expire(1100);
    assert_eq!(lapic.pending(), Some(0xec));
    assert_eq!((clock(&lapic), lapic.read_mmio(0x390, 1100)), (None, 0));
    lapic.acknowledge_auto_eoi(0xec);
    lapic.timer_expire(5000);
    assert_eq!(lapic.pending(), None);
}

#[test]
fn current_count_runs_down_and_wraps_when_periodic() {
    let table = [(0, 100), (1, 99), (99, 1), (100, 0), (101, 0)];
    for (elapsed, count) in table {
        assert_eq!(started(0, 100, 7).read_mmio(0x390, 7 + elapsed), count, "one-shot after {elapsed}");
    }
    let table = [(0, 100), (99, 1), (100, 100), (101, 99), (350, 50)];
    for (elapsed, count) in table {
        assert_eq!(
            started(PERIODIC, 100, 7).read_mmio(0x390, 7 + elapsed),
            count,
            "periodic after {elapsed}"
        );
    }
}

#[test]
fn divide_register_scales_the_count() {
    let table = [(0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)];
    for (register, divisor) in table {
        let mut lapic = started(0, 0, 0);
        let _ = lapic.write_mmio(0x3e0, register, 0);
        let _ = lapic.write_mmio(0x380, 10, 0);
        assert_eq!(clock(&lapic), Some(10 * divisor), "divide {register:#x}");
        assert_eq!(lapic.read_mmio(0x390, 3 * divisor), 7);
    }
}

#[test]
fn running_count_goes_on_at_a_new_rate() {
    let mut lapic = started(0, 100, 0);
    assert_eq!(lapic.write_mmio(0x3e0, 0, 40), Effect::None);
    assert_eq!((lapic.read_mmio(0x390, 40), clock(&lapic)), (60, Some(160)));
}

#[test]
fn late_periodic_timer_fires_once_and_keeps_its_phase() {
    let mut lapic = started(PERIODIC, 100, 5);
    lapic.timer_expire(1234);
    assert_eq!(lapic.pending(), Some(0xec));
    lapic.acknowledge_auto_eoi(0xec);
    assert_eq!((lapic.pending(), clock(&lapic)), (None, Some(1305)));
}

#[test]
fn zero_count_stops_the_timer() {
    let mut lapic = started(PERIODIC, 100, 0);
    assert_eq!(lapic.write_mmio(0x380, 0, 50), Effect::None);
    assert_eq!((clock(&lapic), lapic.read_mmio(0x390, 60)), (None, 0));
}

#[test]
fn masked_timer_counts_without_interrupting() {
    let mut lapic = started(0, 100, 0);
    assert_eq!(lapic.write_mmio(0x320, MASK | 0xec, 10), Effect::None);
    assert_eq!((clock(&lapic), lapic.read_mmio(0x390, 30)), (None, 70));
    assert_eq!(lapic.write_mmio(0x320, 0xec, 200), Effect::None);
    assert_eq!((lapic.pending(), clock(&lapic)), (None, None), "it ran out while masked");

    let mut lapic = started(PERIODIC | MASK, 100, 0);
    assert_eq!(lapic.write_mmio(0x320, PERIODIC | 0xec, 250), Effect::None);
    assert_eq!((lapic.pending(), clock(&lapic)), (None, Some(300)));
}

#[test]
fn due_interrupt_is_not_lost_to_a_register_write() {
    for (offset, value) in [(0x320, MASK | 0xec), (0x380, 0), (0x3e0, 3), (0xf0, 0xff)] {
        let mut lapic = started(0, 100, 0);
        let _ = lapic.write_mmio(offset, value, 100);
        assert_eq!(lapic.state(100).irr[7], 1 << 12, "{offset:#x}");
    }
}

#[test]
fn count_survives_a_change_between_one_shot_and_periodic() {
    let mut lapic = started(0, 100, 0);
    let _ = lapic.write_mmio(0x320, PERIODIC | 0xec, 30);
    assert_eq!(clock(&lapic), Some(100));
    lapic.timer_expire(100);
    let _ = lapic.write_mmio(0x320, 0xec, 150);
    lapic.timer_expire(200);
    assert_eq!(clock(&lapic), None);
    let _ = lapic.write_mmio(0x320, PERIODIC | 0xec, 210);
    assert_eq!((clock(&lapic), lapic.read_mmio(0x390, 210)), (None, 0), "a count that ended stays ended");
}

#[test]
fn software_disable_silences_the_timer() {
    let mut lapic = started(PERIODIC, 100, 0);
    assert_eq!(lapic.write_mmio(0xf0, 0xff, 50), Effect::None);
    assert_eq!(clock(&lapic), None);
}

#[test]
fn illegal_timer_vector_is_an_error() {
    let mut lapic = started(0, 100, 0);
    let _ = lapic.write_mmio(0x320, 5, 0);
    lapic.timer_expire(100);
    let _ = lapic.write_mmio(0x280, 0, 100);
    assert_eq!((lapic.pending(), lapic.read_mmio(0x280, 100)), (None, 0x40));
}

#[test]
fn tsc_deadline_fires_once_and_disarms_itself() {
    let mut lapic = x2apic();
    let _ = lapic.write_msr(0x832, (TSC_DEADLINE | 0xec).into(), 0);
    assert_eq!(lapic.set_tsc_deadline(5000), Ok(()));
    assert_eq!((lapic.timer_deadline(), lapic.tsc_deadline()), (Some(5000), Ok(5000)));
    lapic.timer_expire(4999);
    assert_eq!(lapic.pending(), None);
    lapic.timer_expire(5000);
    assert_eq!(lapic.pending(), Some(0xec));
    assert_eq!((lapic.timer_deadline(), lapic.tsc_deadline()), (None, Ok(0)));
}

#[test]
fn tsc_deadline_and_count_exclude_each_other() {
    let mut lapic = started(0, 100, 0);
    assert_eq!(lapic.set_tsc_deadline(5000), Ok(()));
    assert_eq!(lapic.tsc_deadline(), Ok(0));
    assert_eq!(lapic.write_mmio(0x320, TSC_DEADLINE | 0xec, 0), Effect::None);
    assert_eq!((lapic.timer_deadline(), lapic.read_mmio(0x380, 0)), (None, 0));
    assert_eq!(lapic.write_mmio(0x380, 100, 0), Effect::None);
    let _ = lapic.set_tsc_deadline(5000);
    assert_eq!(lapic.write_mmio(0x320, 0xec, 0), Effect::None);
    assert_eq!((lapic.timer_deadline(), lapic.tsc_deadline()), (None, Ok(0)));
}

#[test]
fn masked_tsc_deadline_passes_silently() {
    let mut lapic = x2apic();
    let _ = lapic.write_msr(0x832, (TSC_DEADLINE | MASK | 0xec).into(), 0);
    let _ = lapic.set_tsc_deadline(5000);
    lapic.timer_expire(6000);
    assert_eq!((lapic.pending(), lapic.tsc_deadline()), (None, Ok(0)));
}
