//! The register files: what reads back, what is refused, and the saved state.

use tlfs::vp::LocalApicState;

use super::super::{Effect, Features, GeneralProtection, Lapic, Trigger};
use super::{ALL, enabled, inject, x2apic};

#[test]
fn power_up_values_are_those_of_the_manual() {
    let mut lapic = Lapic::new(3, true, ALL);
    let table = [
        (0x20, 0x0300_0000),
        (0x30, 0x0005_0014),
        (0x80, 0),
        (0xa0, 0),
        (0xb0, 0),
        (0xd0, 0),
        (0xe0, 0xffff_ffff),
        (0xf0, 0xff),
        (0x100, 0),
        (0x280, 0),
        (0x300, 0),
        (0x310, 0),
        (0x320, 0x1_0000),
        (0x330, 0x1_0000),
        (0x340, 0x1_0000),
        (0x350, 0x1_0000),
        (0x360, 0x1_0000),
        (0x370, 0x1_0000),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ];
    for (offset, value) in table {
        assert_eq!(lapic.read_mmio(offset, 0), value, "{offset:#x}");
    }
}

#[test]
fn xapic_registers_keep_only_their_own_bits() {
    let mut lapic = enabled();
    let table = [
        (0x20, 0x0300_0000),
        (0x30, 0x0005_0014),
        (0x80, 0xff),
        (0xa0, 0xff),
        (0xd0, 0xff00_0000),
        (0xe0, 0xffff_ffff),
        (0xf0, 0x3ff),
        (0x100, 0),
        (0x300, 0x000c_cfff),
        (0x310, 0xff00_0000),
        (0x320, 0x5_00ff),
        (0x330, 0x1_07ff),
        (0x340, 0x1_07ff),
        (0x350, 0x1_a7ff),
        (0x360, 0x1_a7ff),
        (0x370, 0x1_00ff),
        (0x390, 0),
        (0x3e0, 0xb),
    ];
    for (offset, value) in table {
        let _ = lapic.write_mmio(offset, u32::MAX, 0);
        assert_eq!(lapic.read_mmio(offset, 0), value, "{offset:#x}");
    }
}

#[test]
fn offset_that_is_no_register_reads_zero_and_is_an_error() {
    for offset in [0, 0x10, 0x24, 0x2f0, 0x3a0, 0x3f0, 0x400, 0xffc, 0xffff] {
        let mut lapic = enabled();
        assert_eq!(lapic.read_mmio(offset, 0), 0);
        let _ = lapic.write_mmio(0x280, 0, 0);
        assert_eq!(lapic.read_mmio(0x280, 0), 0x80, "read of {offset:#x}");
        assert_eq!(lapic.write_mmio(offset, 1, 0), Effect::None);
        let _ = lapic.write_mmio(0x280, 0, 0);
        assert_eq!(lapic.read_mmio(0x280, 0), 0x80, "write of {offset:#x}");
    }
}

#[test]
fn lvt_stays_masked_while_software_disabled() {
    let mut lapic = enabled();
    let _ = lapic.write_mmio(0x350, 0x45, 0);
    assert_eq!(lapic.read_mmio(0x350, 0), 0x45);
    let _ = lapic.write_mmio(0xf0, 0xff, 0);
    assert_eq!(lapic.read_mmio(0x350, 0), 0x1_0045);
    let _ = lapic.write_mmio(0x350, 0x46, 0);
    assert_eq!(lapic.read_mmio(0x350, 0), 0x1_0046);
}

#[test]
fn memory_and_msrs_exclude_each_other() {
    let mut lapic = enabled();
    assert_eq!(lapic.read_msr(0x802, 0), Err(GeneralProtection));
    assert_eq!(lapic.write_msr(0x808, 0, 0), Err(GeneralProtection));
    let mut lapic = x2apic();
    assert_eq!(lapic.read_msr(0x802, 0), Ok(3));
    assert_eq!(lapic.read_mmio(0x20, 0), u32::MAX);
    assert_eq!(lapic.write_mmio(0x80, 0x50, 0), Effect::None);
    assert_eq!(lapic.tpr, 0);
}

#[test]
fn x2apic_msrs_are_readable_and_writable_as_the_manual_lists_them() {
    let readable = |msr: u32| {
        matches!(msr, 0x802 | 0x803 | 0x808 | 0x80a | 0x80d | 0x80f | 0x810..=0x828 | 0x830)
            || matches!(msr, 0x832..=0x839 | 0x83e)
    };
    let writable =
        |msr: u32| matches!(msr, 0x808 | 0x80b | 0x80f | 0x828 | 0x830 | 0x832..=0x838 | 0x83e | 0x83f);
    for msr in 0x7f0..=0x910 {
        let mut lapic = x2apic();
        assert_eq!(lapic.read_msr(msr, 0).is_ok(), readable(msr), "read {msr:#x}");
        assert_eq!(lapic.write_msr(msr, 0, 0).is_ok(), writable(msr), "write {msr:#x}");
    }
}

#[test]
fn x2apic_reserved_bits_raise_gp() {
    let table: [(u32, u64); 14] = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x3ff),
        (0x828, 0),
        (0x830, 0xffff_ffff_000c_dfff),
        (0x832, 0x7_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ];
    for (msr, writable) in table {
        for bit in (0..64).map(|bit| 1u64 << bit) {
            let mut lapic = x2apic();
            let result = lapic.write_msr(msr, bit, 0);
            assert_eq!(result.is_ok(), writable & bit != 0, "{msr:#x} bit {bit:#x}");
            if result.is_err() {
                assert_eq!(lapic, x2apic(), "a refused write changes nothing");
            }
        }
    }
}

#[test]
fn tsc_deadline_mode_is_reserved_unless_offered() {
    let mut lapic = Lapic::new(0, true, Features { x2apic: true, tsc_deadline: false });
    lapic.set_base(0xfee0_0c00).unwrap();
    assert_eq!(lapic.write_msr(0x832, 0x4_0030, 0), Err(GeneralProtection));
    assert_eq!(lapic.tsc_deadline(), Err(GeneralProtection));
    assert_eq!(lapic.set_tsc_deadline(1), Err(GeneralProtection));
}

#[test]
fn request_and_service_registers_show_the_vectors() {
    let mut lapic = x2apic();
    inject(&mut lapic, &[0x21]);
    lapic.request(0xff, Trigger::Level);
    assert_eq!(lapic.read_msr(0x811, 0), Ok(1 << 1));
    assert_eq!(lapic.read_msr(0x827, 0), Ok(1 << 31));
    assert_eq!(lapic.read_msr(0x81f, 0), Ok(1 << 31));
    assert_eq!(lapic.read_msr(0x80a, 0), Ok(0x20));
}

#[test]
fn entering_x2apic_keeps_registers_but_not_the_destination() {
    let mut lapic = enabled();
    lapic.request(0x51, Trigger::Edge);
    let _ = lapic.write_mmio(0x310, 0x0500_0000, 0);
    let _ = lapic.write_mmio(0x80, 0x10, 0);
    lapic.set_base(0xfee0_0c00).unwrap();
    assert_eq!(lapic.read_msr(0x830, 0), Ok(0));
    assert_eq!(lapic.read_msr(0x808, 0), Ok(0x10));
    assert_eq!(lapic.pending(), Some(0x51));
}

#[test]
fn hyperv_msrs_reach_eoi_icr_and_tpr_in_both_modes() {
    for (mut lapic, icr) in [(enabled(), 0x0500_0000_0000_4041), (x2apic(), 0x0000_0005_0000_4041)] {
        lapic.request(0x51, Trigger::Level);
        lapic.acknowledge(0x51);
        assert_eq!(lapic.write_hv_msr(0x4000_0070, u64::MAX), Ok(Effect::LevelEoi(0x51)));
        assert_eq!(lapic.read_hv_msr(0x4000_0070), Err(GeneralProtection));
        assert!(matches!(lapic.write_hv_msr(0x4000_0071, icr), Ok(Effect::Ipi(_))));
        assert_eq!(lapic.read_hv_msr(0x4000_0071), Ok(icr));
        assert_eq!(lapic.write_hv_msr(0x4000_0072, 0x35), Ok(Effect::None));
        assert_eq!(lapic.read_hv_msr(0x4000_0072), Ok(0x35));
        assert_eq!(lapic.write_hv_msr(0x4000_0072, 0x100), Err(GeneralProtection));
        assert_eq!(lapic.write_hv_msr(0x4000_0073, 0), Err(GeneralProtection));
        lapic.set_base(0xfee0_0000).unwrap();
        assert_eq!(lapic.write_hv_msr(0x4000_0070, 0), Err(GeneralProtection));
        assert_eq!(lapic.read_hv_msr(0x4000_0072), Err(GeneralProtection));
    }
}

#[test]
fn saved_state_shows_registers_as_the_guest_reads_them() {
    let mut lapic = enabled();
    inject(&mut lapic, &[0x41]);
    let _ = lapic.write_mmio(0x320, 0x2_00ec, 0);
    let _ = lapic.write_mmio(0x380, 1000, 0);
    let state = lapic.state(500);
    assert_eq!((state.apic_id, state.version, state.spurious), (0x0300_0000, 0x0005_0014, 0x1ff));
    assert_eq!((state.isr[2], state.lvt[0], state.lvt[4]), (1 << 1, 0x2_00ec, 0x1_0000));
    assert_eq!((state.initial_count, state.current_count), (1000, 750));
    assert_eq!(x2apic().state(0).apic_id, 3);
}

#[test]
fn restored_timer_goes_on_from_its_count() {
    let mut saved = enabled();
    let _ = saved.write_mmio(0x320, 0x2_00ec, 0);
    let _ = saved.write_mmio(0x380, 1000, 0);
    let mut restored = Lapic::new(3, false, ALL);
    restored.set_state(&saved.state(500), 10_000);
    assert_eq!(restored.timer_deadline(), Some(11_500));
    restored.timer_expire(11_500);
    assert_eq!((restored.pending(), restored.timer_deadline()), (Some(0xec), Some(13_500)));
}

#[test]
fn restored_state_may_unmask_the_pins_of_a_disabled_apic() {
    let mut lapic = Lapic::new(0, true, ALL);
    let mut state = lapic.state(0);
    state.lvt[3..5].copy_from_slice(&[0x700, 0x400]);
    lapic.set_state(&state, 0);
    assert_eq!(lapic.state(0), state);
}

#[test]
fn restored_state_drops_what_no_apic_can_hold() {
    let mut lapic = enabled();
    let ones = LocalApicState {
        apic_id: 9,
        spurious: u32::MAX,
        irr: [u32::MAX; 8],
        esr: u32::MAX,
        lvt_cmci: u32::MAX,
        current_count: u32::MAX,
        initial_count: 5,
        divide_configuration: u32::MAX,
        ..LocalApicState::default()
    };
    lapic.set_state(&ones, u64::MAX);
    assert_eq!(lapic.pending(), Some(0xff));
    let state = lapic.state(0);
    assert_eq!((state.apic_id, state.spurious, state.irr[0]), (0x0300_0000, 0x3ff, 0xffff_0000));
    assert_eq!((state.lvt_cmci, state.divide_configuration, state.esr), (0, 0xb, 0xff));
}
