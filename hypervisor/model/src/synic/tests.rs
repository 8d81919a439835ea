use std::{collections::VecDeque, vec::Vec};

use proptest::prelude::*;
use tlfs::synic::MessageFlags;

use super::*;

const SINT: SintIndex = SintIndex::VMBUS;

/// The pages of a guest.
struct Memory {
    slots: [HvMessage; 16],
    flags: [[bool; 2048]; 16],
    /// The guest empties the slot between the first look and the request for an end of message.
    races: bool,
    /// The event flags page is not mapped.
    is_away: bool,
}

impl Memory {
    fn new() -> Self {
        Self { slots: [HvMessage::ZEROED; 16], flags: [[false; 2048]; 16], races: false, is_away: false }
    }

    /// The guest takes the message out of a slot and says whether it has to end it.
    fn take(&mut self, sint: SintIndex) -> Option<(u32, bool)> {
        let message = core::mem::take(&mut self.slots[sint.0 as usize]);
        let kind = message.header.message_type;
        (kind != MessageType::NONE).then_some((kind.0, message.header.flags.message_pending()))
    }
}

impl MessagePage for Memory {
    fn message_type(&self, sint: SintIndex) -> MessageType {
        self.slots[sint.0 as usize].header.message_type
    }

    fn write(&mut self, sint: SintIndex, message: &HvMessage) {
        assert_eq!(self.message_type(sint), MessageType::NONE, "a full slot is never overwritten");
        self.slots[sint.0 as usize] = *message;
    }

    fn set_pending(&mut self, sint: SintIndex) {
        let slot = &mut self.slots[sint.0 as usize];
        if core::mem::take(&mut self.races) {
            *slot = HvMessage::ZEROED;
        }
        slot.header.flags = MessageFlags::new().with_message_pending(true);
    }
}

impl EventFlagsPage for Memory {
    fn set(&mut self, sint: SintIndex, flag: u16) -> Option<bool> {
        let flag = &mut self.flags[sint.0 as usize][flag as usize];
        (!self.is_away).then(|| !core::mem::replace(flag, true))
    }
}

fn message(kind: u32) -> HvMessage {
    HvMessage::new(MessageType(kind), 0, &[0u8; 8])
}

fn enabled() -> Synic<4> {
    let mut synic = Synic::new();
    for (msr, value) in
        [(msr::SCONTROL, 1), (msr::SIMP, 0x1001), (msr::SIEFP, 0x2001), (msr::SINT0 + SINT.0, 0x30)]
    {
        synic.write_msr(msr, value).unwrap();
    }
    synic
}

/// Queues a message and looks at the slots, as the VP does before it runs on.
fn post(
    synic: &mut Synic<4>,
    memory: &mut Memory,
    sint: SintIndex,
    message: &HvMessage,
) -> Result<Signal, HvStatus> {
    synic.post(sint, message)?;
    let mut seen = Signal::None;
    synic.scan(memory, |_, signal| seen = signal);
    Ok(seen)
}

const INTERRUPT: Signal = Signal::Interrupt { vector: 0x30, auto_eoi: false };

#[test]
fn a_message_goes_into_an_empty_slot_and_raises_the_interrupt() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    assert_eq!(post(&mut synic, &mut memory, SINT, &message(1)), Ok(INTERRUPT));
    assert_eq!(memory.take(SINT), Some((1, false)));
}

#[test]
fn a_message_behind_a_full_slot_waits_for_the_end_of_message() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    post(&mut synic, &mut memory, SINT, &message(1)).unwrap();
    assert_eq!(post(&mut synic, &mut memory, SINT, &message(2)), Ok(Signal::None));
    assert_eq!(post(&mut synic, &mut memory, SINT, &message(3)), Ok(Signal::None));
    assert_eq!(memory.take(SINT), Some((1, true)));
    assert_eq!(synic.write_msr(msr::EOM, 0), Ok(Effect::Scan));
    let mut signals = Vec::new();
    synic.scan(&mut memory, |sint, signal| signals.push((sint, signal)));
    assert_eq!(signals, [(SINT, INTERRUPT)]);
    assert_eq!(memory.take(SINT), Some((2, true)));
    synic.scan(&mut memory, |_, _| ());
    assert_eq!(memory.take(SINT), Some((3, false)));
    synic.scan(&mut memory, |_, _| panic!("nothing waits any more"));
}

#[test]
fn a_slot_emptied_before_the_request_for_end_of_message_is_used_at_once() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    post(&mut synic, &mut memory, SINT, &message(1)).unwrap();
    memory.races = true;
    assert_eq!(post(&mut synic, &mut memory, SINT, &message(2)), Ok(INTERRUPT));
    assert_eq!(memory.take(SINT), Some((2, false)));
}

#[test]
fn a_full_queue_refuses_without_losing_a_message() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    for kind in 1..=5 {
        post(&mut synic, &mut memory, SINT, &message(kind)).unwrap();
    }
    assert_eq!(post(&mut synic, &mut memory, SINT, &message(6)), Err(HvStatus::INSUFFICIENT_BUFFERS));
    for kind in 1..=5 {
        assert_eq!(memory.take(SINT), Some((kind, kind != 5)));
        synic.scan(&mut memory, |_, _| ());
    }
}

#[test]
fn a_message_with_its_own_buffer_goes_behind_the_queue() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    assert_eq!(synic.offer(&mut memory, SINT, &message(1)), Offer::Delivered(INTERRUPT));
    assert_eq!(synic.offer(&mut memory, SINT, &message(3)), Offer::Busy);
    post(&mut synic, &mut memory, SINT, &message(2)).unwrap();
    assert_eq!(memory.take(SINT), Some((1, true)));
    assert_eq!(synic.offer(&mut memory, SINT, &message(3)), Offer::Busy);
    synic.scan(&mut memory, |_, _| ());
    assert_eq!(synic.offer(&mut memory, SINT, &message(3)), Offer::Busy);
    assert_eq!(memory.take(SINT), Some((2, true)));
    assert_eq!(synic.offer(&mut memory, SINT, &message(3)), Offer::Delivered(INTERRUPT));
}

#[test]
fn masked_and_polled_sources_take_messages_without_an_interrupt() {
    for value in [0x1_0000, 0x4_0030] {
        let (mut synic, mut memory) = (enabled(), Memory::new());
        synic.write_msr(msr::SINT0 + SINT.0, value).unwrap();
        assert_eq!(post(&mut synic, &mut memory, SINT, &message(1)), Ok(Signal::None));
        assert_eq!(memory.take(SINT), Some((1, false)));
    }
}

#[test]
fn a_disabled_controller_or_page_takes_nothing() {
    for msr in [msr::SCONTROL, msr::SIMP] {
        let (mut synic, mut memory) = (enabled(), Memory::new());
        synic.write_msr(msr, 0).unwrap();
        assert_eq!(post(&mut synic, &mut memory, SINT, &message(1)), Err(HvStatus::INVALID_SYNIC_STATE));
        assert_eq!(synic.offer(&mut memory, SINT, &message(1)), Offer::Off);
    }
    for (msr, value) in [(msr::SCONTROL, 0), (msr::SIEFP, 0), (msr::SINT0 + SINT.0, 0x1_0030)] {
        let (mut synic, mut memory) = (enabled(), Memory::new());
        synic.write_msr(msr, value).unwrap();
        assert_eq!(synic.signal_event(&mut memory, SINT, 0), Err(HvStatus::INVALID_SYNIC_STATE));
    }
}

#[test]
fn an_event_flag_interrupts_only_when_newly_set() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    synic.write_msr(msr::SINT0 + SINT.0, 0x2_0030).unwrap();
    let interrupt = Signal::Interrupt { vector: 0x30, auto_eoi: true };
    assert_eq!(synic.signal_event(&mut memory, SINT, 2047), Ok(Some(interrupt)));
    assert_eq!(synic.signal_event(&mut memory, SINT, 2047), Ok(None));
    assert_eq!(synic.signal_event(&mut memory, SINT, 2048), Err(HvStatus::INVALID_PARAMETER));
    assert_eq!(synic.signal_event(&mut memory, SintIndex(16), 0), Err(HvStatus::INVALID_PARAMETER));
}

#[test]
fn flags_of_a_page_that_is_away_are_set_once_it_is_back() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    memory.is_away = true;
    for flag in [7, 7, 8] {
        assert_eq!(synic.signal_event(&mut memory, SINT, flag), Ok(Some(Signal::None)));
    }
    memory.is_away = false;
    assert!(synic.has_late_flags());
    memory.flags[2][8] = true;
    let mut signals = Vec::new();
    synic.set_late_flags(&mut memory, |signal| signals.push(signal));
    assert_eq!((signals.as_slice(), memory.flags[2][7]), (&[INTERRUPT, Signal::None][..], true));
    assert!(!synic.has_late_flags());
    memory.is_away = true;
    for flag in 0..16 {
        synic.signal_event(&mut memory, SINT, flag).unwrap();
    }
    assert_eq!(synic.signal_event(&mut memory, SINT, 16), Err(HvStatus::INSUFFICIENT_BUFFERS));
}

#[test]
fn deleting_a_port_frees_its_messages_only() {
    let (mut synic, mut memory) = (enabled(), Memory::new());
    for (kind, port) in [(1, 7), (2, 8), (3, 7), (4, 8)] {
        synic.post(SINT, &HvMessage::new(MessageType(kind), port, &[0u8; 8])).unwrap();
    }
    synic.forget(PortId(7));
    for kind in [2, 4] {
        synic.scan(&mut memory, |_, _| ());
        assert_eq!(memory.take(SINT), Some((kind, kind == 2)));
    }
    synic.scan(&mut memory, |_, _| panic!("nothing waits any more"));
}

#[test]
fn an_unmasked_source_needs_a_valid_vector() {
    let mut synic = enabled();
    assert_eq!(synic.read_msr(msr::SINT0), Ok(0x1_0000));
    assert_eq!(synic.write_msr(msr::SINT0, 15), Err(GeneralProtection));
    assert_eq!(synic.write_msr(msr::SINT0, 0x1_0000), Ok(Effect::None));
    assert_eq!(synic.write_msr(msr::SINT15, 16), Ok(Effect::None));
}

#[test]
fn the_version_is_read_only_and_a_child_has_no_event_ring() {
    let mut synic = enabled();
    assert_eq!(synic.read_msr(msr::SVERSION), Ok(1));
    assert_eq!(synic.write_msr(msr::SVERSION, 1), Err(GeneralProtection));
    assert_eq!(synic.read_msr(msr::SIRBP), Err(GeneralProtection));
    assert_eq!(synic.read_msr(0x4000_008f), Err(GeneralProtection));
    assert_eq!(synic.read_msr(msr::EOM), Ok(0));
}

#[derive(Clone, Debug)]
enum Step {
    Post(u32),
    Take(u32),
    Eom,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![(0u32..3).prop_map(Step::Post), (0u32..3).prop_map(Step::Take), Just(Step::Eom)]
}

proptest! {
    #[test]
    fn messages_arrive_once_and_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let (mut synic, mut memory) = (enabled(), Memory::new());
        let mut expected: [VecDeque<u32>; 3] = Default::default();
        for (kind, step) in (1u32..).zip(steps) {
            match step {
                Step::Post(sint) => {
                    if post(&mut synic, &mut memory, SintIndex(sint), &message(kind)).is_ok() {
                        expected[sint as usize].push_back(kind);
                    }
                }
                Step::Take(sint) => {
                    if let Some((kind, pending)) = memory.take(SintIndex(sint)) {
                        prop_assert_eq!(Some(kind), expected[sint as usize].pop_front());
                        prop_assert!(pending || expected[sint as usize].is_empty());
                    }
                }
                Step::Eom => synic.scan(&mut memory, |_, _| ()),
            }
        }
        for sint in (0..3).map(SintIndex) {
            while let Some(kind) = expected[sint.0 as usize].pop_front() {
                synic.scan(&mut memory, |_, _| ());
                prop_assert_eq!(memory.take(sint).map(|(taken, _)| taken), Some(kind));
            }
        }
    }

    #[test]
    fn no_register_access_panics(msr in 0x4000_0070u32..0x4000_00b0, value: u64) {
        let mut synic = enabled();
        if synic.write_msr(msr, value).is_ok() {
            prop_assert!(synic.read_msr(msr).is_ok());
        }
    }
}
