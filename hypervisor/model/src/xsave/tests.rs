//! Layouts like those of a server processor, and areas no processor writes.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const AVX: u64 = 1 << 2;
const OPMASK: u64 = 1 << 5;
const ZMM: u64 = 3 << 6;
const PKRU: u64 = 1 << 9;
const CET: u64 = 1 << 11;
const ALL: u64 = X87 | SSE | AVX | OPMASK | ZMM | PKRU;

/// The numbers of a server processor, and CET_U to try alignment behind an odd size.
fn leaf(number: u32) -> [u32; 4] {
    match number {
        2 => [256, 576, 0, 0],
        5 => [64, 832, 0, 0],
        6 => [512, 896, 2, 0],
        7 => [1024, 1408, 0, 0],
        9 => [8, 2432, 0, 0],
        10 => [16, 0, 1, 0],
        11 => [16, 2440, 2, 0],
        _ => [0; 4],
    }
}

fn layout(states: u64) -> Layout {
    Layout::new(states, 0x2_ffff, leaf)
}

/// An area with every byte of every component different from zero.
fn filled(present: u64) -> Vec<u8> {
    let mut area: Vec<u8> = (0..2496).map(|n| (n % 251) as u8 + 1).collect();
    put(&mut area, MXCSR, &MXCSR_INIT.to_le_bytes());
    put(&mut area, MXCSR_MASK, &0x2_ffff_u32.to_le_bytes());
    area[512..576].fill(0);
    put(&mut area, XSTATE_BV, &present.to_le_bytes());
    area
}

#[test]
fn the_layout_follows_cpuid() {
    let layout = layout(ALL | CET | 1 << 10 | 1 << 40);
    assert_eq!(layout.states(), ALL | CET, "no supervisor states and none without a size");
    assert_eq!(layout.standard_size(), 2456);
    assert_eq!(layout.compacted_size(), (576 + 256 + 64 + 512 + 1024 + 8_usize).next_multiple_of(64) + 16);
    assert_eq!(Layout::new(0, 0, leaf).compacted_size(), 576);
    assert_eq!(Layout::new(0, 0, leaf).mxcsr_mask, 0xffbf);
}

#[test]
fn the_compacted_form_packs_the_requested_states() {
    let current = filled(ALL);
    let mut out = [0xee; 4096];
    let states = X87 | SSE | ZMM | PKRU;
    let size = layout(ALL).save(&current, states, &mut out).unwrap();
    assert_eq!(size, 576 + 512 + 1024 + 8);
    assert_eq!(number::<8>(&out, XSTATE_BV), states);
    assert_eq!(number::<8>(&out, XCOMP_BV), states | COMPACTED);
    assert_eq!(out[576..576 + 1536], current[896..896 + 1536]);
    assert_eq!(out[2112..2120], current[2432..2440]);
    assert_eq!(out[..24], current[..24]);
    assert!(out[size..].iter().all(|byte| *byte == 0));
}

#[test]
fn states_in_their_initial_configuration_read_as_initial_values() {
    let mut out = [0xee; 4096];
    layout(ALL).save(&filled(PKRU), ALL, &mut out).unwrap();
    assert_eq!(number::<8>(&out, XSTATE_BV), PKRU);
    assert_eq!((out[0], out[1], out[4]), (0x7f, 0x03, 0));
    assert_eq!(number::<4>(&out, MXCSR), u64::from(MXCSR_INIT));
    assert!(out[32..416].iter().chain(&out[576..2432]).all(|byte| *byte == 0));
}

#[test]
fn a_changed_mxcsr_makes_the_sse_state_present() {
    let mut current = filled(X87);
    put(&mut current, MXCSR, &0x1fa0_u32.to_le_bytes());
    let mut out = [0; 4096];
    layout(ALL).save(&current, ALL, &mut out).unwrap();
    assert_eq!((number::<8>(&out, XSTATE_BV), number::<4>(&out, MXCSR)), (X87 | SSE, 0x1fa0));
    assert!(out[SSE_REGISTERS].iter().all(|byte| *byte == 0));
    let mut again = filled(ALL);
    layout(ALL).restore(&out, ALL, &mut again).unwrap();
    assert_eq!(number::<4>(&again, MXCSR), 0x1fa0);
}

#[test]
fn restoring_some_states_keeps_the_others() {
    let mut current = filled(ALL);
    let before = current.clone();
    let mut area = filled(AVX);
    area[576..832].fill(0x5a);
    layout(ALL).restore(&area, AVX | PKRU, &mut current).unwrap();
    assert_eq!(number::<8>(&current, XSTATE_BV), ALL & !PKRU);
    assert_eq!(current[576..832], [0x5a; 256]);
    assert_eq!((&current[..512], &current[832..]), (&before[..512], &before[832..]));
}

#[test]
fn malformed_areas_are_refused_and_change_nothing() {
    let good = filled(ALL);
    let with = |range: Range<usize>, value: u64| {
        let mut area = good.clone();
        put(&mut area, range.clone(), &value.to_le_bytes()[..range.len()]);
        area
    };
    let cases = [
        (with(XSTATE_BV, ALL | CET), "a state outside of the layout"),
        (with(XCOMP_BV, 1), "a form that does not exist"),
        (with(XCOMP_BV, COMPACTED | X87), "present but not in the form"),
        (with(XCOMP_BV, COMPACTED | ALL | CET), "a form with unknown states"),
        (with(528..536, 1), "a reserved byte of the header"),
        (with(568..576, 1 << 63), "the last reserved byte"),
        (with(MXCSR, 1 << 16 | 1 << 18), "a reserved bit of MXCSR"),
        (good[..2439].to_vec(), "PKRU is cut off"),
        (good[..575].to_vec(), "the header is cut off"),
        (Vec::new(), "nothing at all"),
    ];
    for (area, reason) in cases {
        let mut current = filled(X87);
        let result = layout(ALL).restore(&area, ALL, &mut current);
        assert_eq!(result, Err(HvStatus::INVALID_PARAMETER), "{reason}");
        assert_eq!(current, filled(X87), "{reason}");
    }
}

#[test]
fn small_buffers_and_unknown_states_are_refused() {
    let layout = layout(ALL);
    assert_eq!(layout.save(&filled(ALL), ALL, &mut [0; 600]), Err(HvStatus::INSUFFICIENT_BUFFER));
    assert_eq!(layout.save(&filled(ALL), ALL | CET, &mut [0; 4096]), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(layout.restore(&filled(ALL), CET, &mut [0; 4096]), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(layout.restore(&filled(ALL), ALL, &mut [0; 600]), Err(HvStatus::INSUFFICIENT_BUFFER));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_saved_is_restored(present in 0..=ALL, supported in 0..=ALL) {
        let layout = layout(supported);
        let present = present & layout.states();
        let current = filled(present);
        let mut area = [0; 4096];
        let size = layout.save(&current, layout.states(), &mut area).unwrap();
        prop_assert_eq!(size, layout.compacted_size());
        let mut again = filled(0);
        again.iter_mut().for_each(|byte| *byte ^= 0xff);
        again[512..576].fill(0);
        layout.restore(&area[..size], layout.states(), &mut again).unwrap();
        prop_assert_eq!(number::<8>(&again, XSTATE_BV), present);
        for place in layout.places(present) {
            prop_assert_eq!(&again[place.standard.clone()], &current[place.standard]);
        }
        let mut second = [0; 4096];
        layout.save(&again, layout.states(), &mut second).unwrap();
        prop_assert_eq!(area, second);
    }

    #[test]
    fn hostile_areas_never_panic_and_never_leave_the_layout(
        mut area in prop::collection::vec(any::<u8>(), 0..3000),
        header in prop::option::of((0..=ALL, any::<bool>(), 0..=ALL)),
        states in any::<u64>(),
    ) {
        if let Some((present, is_compacted, form)) = header {
            put(&mut area, RESERVED, &[0; 48]);
            put(&mut area, MXCSR, &MXCSR_INIT.to_le_bytes());
            put(&mut area, XSTATE_BV, &(present & form).to_le_bytes());
            let form = if is_compacted { COMPACTED | form } else { 0 };
            put(&mut area, XCOMP_BV, &form.to_le_bytes());
        }
        let layout = layout(ALL);
        for states in [states, states & ALL, ALL] {
            let mut current = filled(ALL);
            let _ = layout.restore(&area, states, &mut current);
            prop_assert_eq!(number::<8>(&current, XSTATE_BV) & !ALL, 0);
            prop_assert_eq!(number::<8>(&current, XCOMP_BV), 0);
        }
    }
}
