//! Behaviour of the local APIC, seen through its registers.

mod properties;
mod registers;
mod timer;

use super::{
    Delivery, Destination, Effect, Features, GeneralProtection, Ipi, Lapic, Mode, Source, Target, Trigger,
};

const ALL: Features = Features { x2apic: true, tsc_deadline: true };

fn enabled() -> Lapic {
    let mut lapic = Lapic::new(3, false, ALL);
    assert_eq!(lapic.write_mmio(0xf0, 0x1ff, 0), Effect::None);
    lapic
}

fn x2apic() -> Lapic {
    let mut lapic = enabled();
    lapic.set_base(0xfee0_0c00).unwrap();
    lapic
}

/// Requests `vectors` as edges and injects those that become pending, in that order.
fn inject(lapic: &mut Lapic, vectors: &[u8]) {
    for &vector in vectors {
        assert!(lapic.request(vector, Trigger::Edge));
        assert_eq!(lapic.pending(), Some(vector));
        lapic.acknowledge(vector);
    }
}

#[test]
fn state_fits_in_a_kilobyte() {
    assert!(size_of::<Lapic>() <= 1024);
    assert!(size_of::<Effect>() <= 16);
}

#[test]
fn highest_requested_vector_is_pending() {
    let mut lapic = enabled();
    for (request, pending) in [(0x41, 0x41), (0x31, 0x41), (0xf0, 0xf0), (0x80, 0xf0)] {
        lapic.request(request, Trigger::Edge);
        assert_eq!(lapic.pending(), Some(pending));
    }
    for vector in [0xf0, 0x80, 0x41, 0x31] {
        assert_eq!(lapic.pending(), Some(vector));
        lapic.acknowledge_auto_eoi(vector);
    }
    assert_eq!(lapic.pending(), None);
}

#[test]
fn an_offer_that_was_not_taken_is_requested_again() {
    let mut lapic = enabled();
    inject(&mut lapic, &[0x41]);
    lapic.request(0x61, Trigger::Edge);
    let before = lapic.clone();
    assert_eq!(lapic.pending(), Some(0x61));
    lapic.acknowledge(0x61);
    lapic.take_back(0x61);
    assert_eq!(lapic, before);
}

#[test]
fn a_vector_requested_while_it_is_on_offer_is_another_interrupt() {
    let mut lapic = enabled();
    lapic.request(0x61, Trigger::Edge);
    lapic.acknowledge(0x61);
    assert!(lapic.request(0x61, Trigger::Edge));
    assert_eq!(lapic.eoi(), None);
    assert_eq!(lapic.pending(), Some(0x61));
}

#[test]
fn interrupt_in_service_blocks_its_class_until_eoi() {
    let mut lapic = enabled();
    inject(&mut lapic, &[0x51]);
    lapic.request(0x5f, Trigger::Edge);
    assert_eq!((lapic.pending(), lapic.ppr()), (None, 0x50));
    lapic.request(0x60, Trigger::Edge);
    assert_eq!(lapic.pending(), Some(0x60));
    lapic.acknowledge(0x60);
    assert_eq!(lapic.eoi(), None);
    assert_eq!((lapic.pending(), lapic.ppr()), (None, 0x50));
    assert_eq!(lapic.eoi(), None);
    assert_eq!(lapic.pending(), Some(0x5f));
}

#[test]
fn task_priority_blocks_classes_up_to_its_own() {
    let mut lapic = enabled();
    lapic.request(0x45, Trigger::Edge);
    for (tpr, pending) in [(0x3f, Some(0x45)), (0x40, None), (0x50, None), (0, Some(0x45))] {
        lapic.set_tpr(tpr);
        assert_eq!(lapic.pending(), pending, "TPR {tpr:#x}");
    }
}

#[test]
fn processor_priority_keeps_the_subclass_of_the_task_priority_only() {
    let mut lapic = enabled();
    inject(&mut lapic, &[0x47]);
    for (tpr, ppr) in [(0x00, 0x40), (0x3c, 0x40), (0x40, 0x40), (0x43, 0x43), (0x5a, 0x5a)] {
        lapic.set_tpr(tpr);
        assert_eq!(lapic.ppr(), ppr, "TPR {tpr:#x}");
    }
}

#[test]
fn cr8_is_the_upper_half_of_the_task_priority() {
    let mut lapic = enabled();
    lapic.set_tpr(0x5a);
    assert_eq!(lapic.cr8(), 5);
    lapic.set_cr8(9).unwrap();
    assert_eq!(lapic.tpr, 0x90);
    for bad in [16, 0x100, u64::MAX] {
        assert_eq!(lapic.set_cr8(bad), Err(GeneralProtection));
    }
}

#[test]
fn eoi_reports_level_triggered_vectors_only() {
    let mut lapic = enabled();
    lapic.request(0x61, Trigger::Level);
    lapic.acknowledge(0x61);
    inject(&mut lapic, &[0x71]);
    assert_eq!(lapic.write_mmio(0xb0, 0, 0), Effect::None);
    assert_eq!(lapic.write_mmio(0xb0, 0, 0), Effect::LevelEoi(0x61));
    assert_eq!(lapic.write_mmio(0xb0, 0, 0), Effect::None);
    inject(&mut lapic, &[0x61]);
    assert_eq!(lapic.eoi(), None, "the trigger mode follows the latest request");
}

#[test]
fn auto_eoi_leaves_nothing_in_service() {
    let mut lapic = enabled();
    lapic.request(0xf3, Trigger::Edge);
    lapic.acknowledge_auto_eoi(0xf3);
    assert_eq!((lapic.pending(), lapic.ppr()), (None, 0));
}

#[test]
fn an_interrupt_that_one_in_service_holds_back_is_requested_but_not_pending() {
    let mut lapic = enabled();
    assert!(!lapic.has_request());
    lapic.request(0x61, Trigger::Edge);
    lapic.acknowledge(0x61);
    assert!(!lapic.has_request());
    lapic.request(0x60, Trigger::Edge);
    assert!(lapic.has_request());
    assert_eq!(lapic.pending(), None);
}

#[test]
fn eoi_assist_is_allowed_for_a_lone_edge() {
    let mut lapic = enabled();
    assert!(!lapic.eoi_assist_allowed());
    inject(&mut lapic, &[0x51]);
    assert!(lapic.eoi_assist_allowed());
    lapic.request(0x31, Trigger::Edge);
    assert!(!lapic.eoi_assist_allowed(), "0x31 waits for the EOI");

    let mut lapic = enabled();
    lapic.request(0x51, Trigger::Level);
    lapic.acknowledge(0x51);
    assert!(!lapic.eoi_assist_allowed());
}

#[test]
fn software_disabled_apic_drops_new_and_holds_old_requests() {
    let mut lapic = enabled();
    lapic.request(0x51, Trigger::Edge);
    assert_eq!(lapic.write_mmio(0xf0, 0xff, 0), Effect::None);
    assert!(!lapic.request(0x61, Trigger::Edge));
    assert_eq!(lapic.pending(), None);
    assert_eq!(lapic.write_mmio(0xf0, 0x1ff, 0), Effect::None);
    assert_eq!(lapic.pending(), Some(0x51));
}

#[test]
fn illegal_vector_is_an_error_and_no_request() {
    let mut lapic = enabled();
    let _ = lapic.write_mmio(0x370, 0xfe, 0);
    for vector in 0..16 {
        assert!(!lapic.request(vector, Trigger::Edge));
    }
    assert_eq!(lapic.pending(), Some(0xfe), "the error interrupt");
    assert_eq!(lapic.read_mmio(0x280, 0), 0, "the ESR shows errors once it was written");
    let _ = lapic.write_mmio(0x280, 0, 0);
    assert_eq!(lapic.read_mmio(0x280, 0), 0x40);
    let _ = lapic.write_mmio(0x280, 0, 0);
    assert_eq!(lapic.read_mmio(0x280, 0), 0);
}

#[test]
fn base_allows_the_transitions_of_the_manual() {
    const DISABLED: u64 = 0xfee0_0000;
    const XAPIC: u64 = 0xfee0_0800;
    const X2APIC: u64 = 0xfee0_0c00;
    const INVALID: u64 = 0xfee0_0400;
    let table = [
        (DISABLED, DISABLED, true),
        (DISABLED, XAPIC, true),
        (DISABLED, X2APIC, false),
        (DISABLED, INVALID, false),
        (XAPIC, DISABLED, true),
        (XAPIC, XAPIC, true),
        (XAPIC, X2APIC, true),
        (XAPIC, INVALID, false),
        (X2APIC, DISABLED, true),
        (X2APIC, XAPIC, false),
        (X2APIC, X2APIC, true),
        (X2APIC, INVALID, false),
    ];
    for (from, to, legal) in table {
        let mut lapic = Lapic::new(0, false, ALL);
        lapic.set_base(from).unwrap();
        assert_eq!(lapic.set_base(to).is_ok(), legal, "{from:#x} to {to:#x}");
        assert_eq!(lapic.base(), if legal { to } else { from });
    }
}

#[test]
fn base_refuses_reserved_bits_other_addresses_and_x2apic_not_offered() {
    let mut lapic = Lapic::new(0, true, Features::default());
    assert_eq!(lapic.base(), 0xfee0_0900);
    for bad in [0xfee0_0801, 0xfee0_0a00, 0xfed0_0800, 0x1_fee0_0800, 0xfee0_0d00, 1 << 63 | 0xfee0_0900] {
        assert_eq!(lapic.set_base(bad), Err(GeneralProtection), "{bad:#x}");
    }
    lapic.set_base(0xfee0_0800).unwrap();
    assert_eq!(lapic.base(), 0xfee0_0900, "the BSP stays the BSP");
}

#[test]
fn init_keeps_id_and_mode_and_resets_the_rest() {
    let mut lapic = x2apic();
    inject(&mut lapic, &[0x51]);
    lapic.set_tpr(0x20);
    lapic.reset_init();
    let mut fresh = Lapic::new(3, false, ALL);
    fresh.set_base(0xfee0_0c00).unwrap();
    assert_eq!(lapic, fresh);
    assert_eq!((lapic.mode(), lapic.id()), (Mode::X2Apic, 3));
}

#[test]
fn disabling_loses_what_was_pending() {
    let mut lapic = enabled();
    lapic.request(0x51, Trigger::Edge);
    lapic.set_base(0xfee0_0000).unwrap();
    assert_eq!(lapic.pending(), None);
    assert!(!lapic.request(0x61, Trigger::Edge));
    lapic.set_base(0xfee0_0800).unwrap();
    assert_eq!(lapic.pending(), None);
    assert_eq!(lapic.read_mmio(0xf0, 0), 0xff);
}

fn destination(id: u32, logical: bool) -> Target {
    Target::Destination(if logical { Destination::Logical(id) } else { Destination::Physical(id) })
}

#[test]
fn icr_write_becomes_an_ipi() {
    use Delivery::{Fixed, Init, LowestPriority, Nmi, Sipi, Smi};
    let broadcast = Target::Destination(Destination::Broadcast);
    let table = [
        (0x0500_0000, 0x0000_4041, Some((Fixed, destination(5, false)))),
        (0x0500_0000, 0x0000_4841, Some((Fixed, destination(5, true)))),
        (0xff00_0000, 0x0000_4041, Some((Fixed, broadcast))),
        (0x0500_0000, 0x0000_4141, Some((LowestPriority, destination(5, false)))),
        (0x0500_0000, 0x0000_4200, Some((Smi, destination(5, false)))),
        (0x0500_0000, 0x0000_4400, Some((Nmi, destination(5, false)))),
        (0x0500_0000, 0x0000_c500, Some((Init, destination(5, false)))),
        (0x0500_0000, 0x0000_4500, Some((Init, destination(5, false)))),
        (0x0500_0000, 0x0000_8500, None),
        (0x0500_0000, 0x0000_4608, Some((Sipi, destination(5, false)))),
        (0x0500_0000, 0x0000_4341, None),
        (0x0500_0000, 0x0000_4741, None),
        (0, 0x0008_4041, Some((Fixed, Target::AllIncludingSelf))),
        (0, 0x000c_4041, Some((Fixed, Target::AllExcludingSelf))),
        (0, 0x000c_c500, Some((Init, Target::AllExcludingSelf))),
        (0, 0x0008_c500, None),
        (0, 0x0004_4400, None),
    ];
    for (high, low, expected) in table {
        let mut lapic = enabled();
        assert_eq!(lapic.write_mmio(0x310, high, 0), Effect::None);
        let expected = expected.map_or(Effect::None, |(delivery, target)| {
            Effect::Ipi(Ipi { delivery, vector: low as u8, target })
        });
        assert_eq!(lapic.write_mmio(0x300, low, 0), expected, "{low:#x}");
        assert_eq!((lapic.read_mmio(0x300, 0), lapic.read_mmio(0x310, 0)), (low, high));
        assert_eq!(lapic.pending(), None);
    }
}

#[test]
fn ipi_to_self_is_requested_at_once() {
    let mut lapic = enabled();
    assert_eq!(lapic.write_mmio(0x300, 0x0004_4041, 0), Effect::None);
    assert_eq!(lapic.pending(), Some(0x41));
    let mut lapic = x2apic();
    assert_eq!(lapic.write_msr(0x83f, 0x42, 0), Ok(Effect::None));
    assert_eq!(lapic.pending(), Some(0x42));
}

#[test]
fn sending_an_illegal_vector_is_an_error_and_sends_nothing() {
    let mut lapic = x2apic();
    for (msr, value) in [(0x830, 0x0000_0001_0000_400f), (0x830, 0x000c_4101), (0x83f, 0)] {
        assert_eq!(lapic.write_msr(msr, value, 0), Ok(Effect::None));
        assert_eq!(lapic.write_msr(0x828, 0, 0), Ok(Effect::None));
        assert_eq!(lapic.read_msr(0x828, 0), Ok(0x20));
    }
}

#[test]
fn x2apic_destinations_have_32_bits() {
    let mut lapic = x2apic();
    for (value, target) in [
        (0x0000_00ff_0000_4041, destination(0xff, false)),
        (0xffff_ffff_0000_4041, Target::Destination(Destination::Broadcast)),
        (0x0001_0003_0000_4841, destination(0x1_0003, true)),
    ] {
        let ipi = Ipi { delivery: Delivery::Fixed, vector: 0x41, target };
        assert_eq!(lapic.write_msr(0x830, value, 0), Ok(Effect::Ipi(ipi)));
        assert_eq!(lapic.read_msr(0x830, 0), Ok(value));
    }
}

#[test]
fn xapic_logical_destinations_follow_the_model_in_the_dfr() {
    let table = [
        (0xffff_ffff, 0x0400_0000, 0x04, true),
        (0xffff_ffff, 0x0400_0000, 0xfb, false),
        (0xffff_ffff, 0x0400_0000, 0x104, false),
        (0x0fff_ffff, 0x2100_0000, 0x23, true),
        (0x0fff_ffff, 0x2100_0000, 0x22, false),
        (0x0fff_ffff, 0x2100_0000, 0x11, false),
        (0x7fff_ffff, 0x2100_0000, 0x21, false),
    ];
    for (dfr, ldr, id, expected) in table {
        let mut lapic = enabled();
        let _ = lapic.write_mmio(0xe0, dfr, 0);
        let _ = lapic.write_mmio(0xd0, ldr, 0);
        assert_eq!(lapic.matches(Destination::Logical(id)), expected, "{dfr:#x} {ldr:#x} {id:#x}");
        assert!(lapic.matches(Destination::from_xapic(0xff, true)));
    }
}

#[test]
fn x2apic_logical_id_is_cluster_and_bit() {
    let mut lapic = Lapic::new(0x123, false, ALL);
    lapic.set_base(0xfee0_0c00).unwrap();
    assert_eq!(lapic.read_msr(0x80d, 0), Ok(0x0012_0008));
    for (id, expected) in
        [(0x0012_0008, true), (0x0012_ffff, true), (0x0012_0007, false), (0x0013_0008, false)]
    {
        assert_eq!(lapic.matches(Destination::from_x2apic(id, true)), expected, "{id:#x}");
    }
}

#[test]
fn physical_destination_names_one_apic_and_broadcast_all_enabled_ones() {
    let mut lapic = enabled();
    for (destination, expected) in [
        (Destination::from_xapic(3, false), true),
        (Destination::from_x2apic(3, false), true),
        (Destination::from_xapic(4, false), false),
        (Destination::from_x2apic(0xff, false), false),
        (Destination::Broadcast, true),
    ] {
        assert_eq!(lapic.matches(destination), expected, "{destination:?}");
    }
    lapic.set_base(0xfee0_0000).unwrap();
    assert!(!lapic.matches(Destination::Broadcast));
}

#[test]
fn local_pins_deliver_what_their_entries_say() {
    let mut lapic = enabled();
    let _ = lapic.write_mmio(0x350, 0x700, 0);
    let _ = lapic.write_mmio(0x360, 0x400, 0);
    let _ = lapic.write_mmio(0x340, 0x0fa, 0);
    assert_eq!(lapic.deliver_lvt(Source::Lint0), Some(Delivery::ExtInt));
    assert_eq!(lapic.deliver_lvt(Source::Lint1), Some(Delivery::Nmi));
    assert_eq!(lapic.deliver_lvt(Source::Thermal), None, "masked since reset");
    assert_eq!(lapic.deliver_lvt(Source::PerfMon), None);
    assert_eq!(lapic.pending(), Some(0xfa));
    assert_eq!(lapic.read_mmio(0x340, 0), 0x1_00fa, "an overflow masks its own entry");
    let _ = lapic.write_mmio(0x350, 0x80fb, 0);
    assert_eq!(lapic.deliver_lvt(Source::Lint0), None);
    lapic.acknowledge(0xfb);
    assert_eq!(lapic.eoi(), Some(0xfb), "LINT0 can be level-triggered");
    lapic.set_base(0xfee0_0000).unwrap();
    assert_eq!(lapic.deliver_lvt(Source::Lint0), Some(Delivery::ExtInt));
    assert_eq!(lapic.deliver_lvt(Source::Lint1), Some(Delivery::Nmi));
}
