//! The rings against the guest's side of them.

use crate::guest_ring::{COMPLETION, GPA_DIRECT, GuestRing, INBAND, PAGE, gpa_direct, packet};
use proptest::{collection::vec, prelude::*};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus::{
    memory::NotRam,
    ranges::{BadRange, Ranges, Segment},
    ring::{Kind, Outgoing, Packet, RingError, Rings, Sent, Signal, TransferRange},
};

/// Pages of the GPADL: not in order, so that nothing relies on it.
const GPADL: [u64; 6] = [5, 9, 8, 3, 12, 11];
const SPLIT: u32 = 3;
const MAX_PACKET: u32 = 2048;

struct Machine {
    memory: GuestMemoryMmap,
    to_host: GuestRing,
    to_guest: GuestRing,
    rings: Rings,
    packet: Packet,
}

fn ram() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap()
}

fn gpadl(pages: &[u64]) -> Ranges {
    let mut ranges = Ranges::default();
    let header = pages.len() as u64 * PAGE;
    ranges.read(1, std::iter::once(header).chain(pages.iter().copied())).unwrap();
    ranges
}

impl Machine {
    fn new() -> Self {
        let memory = ram();
        let (up, down) = GPADL.split_at(SPLIT as usize);
        let (to_host, to_guest) = (GuestRing::new(&memory, up), GuestRing::new(&memory, down));
        let rings = Rings::open(&memory, &gpadl(&GPADL), SPLIT, MAX_PACKET).unwrap();
        Self { memory, to_host, to_guest, rings, packet: Packet::default() }
    }

    fn next(&mut self) -> Result<bool, RingError> {
        self.rings.incoming.next(&self.memory, &mut self.packet)
    }

    fn send(&mut self, packet: &Outgoing<'_>) -> Sent {
        self.rings.outgoing.send(&self.memory, packet).unwrap()
    }

    fn publish_sent(&mut self) -> Signal {
        self.rings.outgoing.publish(&self.memory).unwrap()
    }

    fn publish_read(&mut self) -> Signal {
        self.rings.incoming.publish(&self.memory).unwrap()
    }
}

#[test]
fn an_in_band_packet_arrives_as_it_was_sent() {
    let mut machine = Machine::new();
    assert_eq!(machine.next(), Ok(false));
    assert_eq!(machine.to_host.write(&packet(INBAND, 1, 77, &[], b"twelve bytes")), Some(true));
    assert_eq!(machine.next(), Ok(true));
    let packet = &machine.packet;
    assert_eq!((packet.kind(), packet.transaction(), packet.wants_completion()), (Kind::Inband, 77, true));
    assert_eq!(packet.payload(), b"twelve bytes\0\0\0\0");
    assert_eq!(packet.ranges().bytes(), 0);
    assert_eq!(machine.next(), Ok(false));
}

#[test]
fn a_gpa_direct_packet_names_memory_and_the_next_packet_does_not() {
    let mut machine = Machine::new();
    let header = gpa_direct(0x1800, 0x400, &[0x20, 0x21]);
    machine.to_host.write(&packet(GPA_DIRECT, 1, 1, &header, b"payload!"));
    machine.to_host.write(&packet(COMPLETION, 0, 2, &[], &[]));
    assert_eq!(machine.next(), Ok(true));
    assert_eq!(machine.packet.kind(), Kind::GpaDirect);
    assert_eq!(machine.packet.payload(), b"payload!");
    assert_eq!(machine.packet.ranges().segments(0, u64::MAX), [Segment { gpa: 0x2_0400, bytes: 0x1800 }]);
    assert_eq!(machine.next(), Ok(true));
    assert_eq!((machine.packet.kind(), machine.packet.ranges().bytes()), (Kind::Completion, 0));
}

#[test]
fn transfer_page_packets_say_the_same_on_both_sides() {
    let mut machine = Machine::new();
    let pieces = [TransferRange { bytes: 60, offset: 0x1000 }, TransferRange { bytes: 1514, offset: 0x2000 }];
    let outgoing = Outgoing::transfer_pages(5, 0xcafe, &pieces, b"rndis").with_completion();
    assert_eq!(machine.send(&outgoing), Sent::Yes);
    assert_eq!(machine.publish_sent(), Signal::Needed);
    let received = machine.to_guest.read().unwrap();
    assert_eq!((received.kind, received.flags, received.transaction), (7, 1, 5));
    assert_eq!(received.header[..8], [0xfe, 0xca, 0, 0, 2, 0, 0, 0]);
    assert_eq!(received.payload, b"rndis\0\0\0");
    // Back to the host, which reads the same.
    machine.to_host.write(&packet(7, 0, 5, &received.header, &received.payload));
    assert_eq!(machine.next(), Ok(true));
    assert_eq!(machine.packet.kind(), Kind::TransferPages { set: 0xcafe });
    assert_eq!(machine.packet.pieces(), pieces);
}

#[test]
fn the_guest_is_signalled_once_for_a_batch_and_only_when_it_had_read_all() {
    let mut machine = Machine::new();
    for transaction in 0..3 {
        assert_eq!(machine.send(&Outgoing::completion(transaction, b"x")), Sent::Yes);
    }
    assert!(machine.to_guest.read().is_none(), "nothing is visible before it is published");
    assert_eq!(machine.publish_sent(), Signal::Needed);
    assert_eq!(machine.publish_sent(), Signal::NotNeeded);
    assert_eq!(machine.send(&Outgoing::completion(3, b"x")), Sent::Yes);
    assert_eq!(machine.publish_sent(), Signal::NotNeeded, "the guest has not come to the end yet");
    for transaction in 0..4 {
        assert_eq!(machine.to_guest.read().unwrap().transaction, transaction);
    }
    machine.to_guest.close_read();
    machine.to_guest.set(8, 1);
    assert_eq!(machine.send(&Outgoing::completion(4, b"x")), Sent::Yes);
    assert_eq!(machine.publish_sent(), Signal::NotNeeded, "the guest polls");
}

#[test]
fn a_full_ring_makes_the_guest_signal_when_there_is_room() {
    let mut machine = Machine::new();
    let payload = [7; 1000];
    let mut sent = 0;
    while machine.send(&Outgoing::message(0, &payload)) == Sent::Yes {
        sent += 1;
    }
    assert_eq!(sent, 7, "8192 bytes hold seven packets of 1024 and one byte is always free");
    assert_eq!(machine.publish_sent(), Signal::Needed);
    assert_eq!(machine.to_guest.get(12), 1024);
    machine.to_guest.read().unwrap();
    assert!(machine.to_guest.close_read(), "the guest signals that there is room");
    assert_eq!(machine.send(&Outgoing::message(0, &payload)), Sent::Yes);
    assert_eq!(machine.to_guest.get(12), 0);
}

#[test]
fn a_waiting_guest_is_signalled_exactly_when_its_packet_fits() {
    let mut machine = Machine::new();
    let small = packet(INBAND, 0, 0, &[], &[1; 1000]);
    while machine.to_host.write(&small).is_some() {}
    machine.to_host.set(12, 2048);
    for expected in [Signal::NotNeeded, Signal::Needed, Signal::NotNeeded] {
        assert_eq!(machine.next(), Ok(true));
        assert_eq!(machine.publish_read(), expected);
    }
    machine.to_host.set(64, 0);
    machine.to_host.set(12, 4096);
    assert_eq!(machine.next(), Ok(true));
    assert_eq!(machine.publish_read(), Signal::NotNeeded, "a guest without the feature polls");
}

#[test]
fn packets_that_come_while_masked_are_seen_when_the_mask_goes() {
    let mut machine = Machine::new();
    machine.rings.incoming.mask(&machine.memory).unwrap();
    assert_eq!(machine.to_host.write(&packet(INBAND, 0, 0, &[], &[])), Some(false));
    assert!(machine.rings.incoming.unmask(&machine.memory).unwrap());
    assert_eq!(machine.next(), Ok(true));
    assert_eq!(machine.publish_read(), Signal::NotNeeded);
    assert!(!machine.rings.incoming.unmask(&machine.memory).unwrap());
    // The guest signals at once: it sees that all was taken.
    assert_eq!(machine.to_host.write(&packet(INBAND, 0, 0, &[], &[])), Some(true));
}

#[test]
fn a_copy_of_the_rings_goes_on_where_they_were() {
    let mut machine = Machine::new();
    machine.to_host.write(&packet(INBAND, 0, 1, &[], &[]));
    machine.to_host.write(&packet(INBAND, 0, 2, &[], &[]));
    assert_eq!(machine.next(), Ok(true));
    machine.rings = machine.rings.clone();
    assert_eq!(machine.next(), Ok(true));
    assert_eq!(machine.packet.transaction(), 2);
}

#[test]
fn broken_rings_are_refused_with_their_reason() {
    type Break = fn(&GuestRing);
    let cases: [(Break, RingError); 12] = [
        (|ring| ring.set(0, 0x2000), RingError::Index(0x2000)),
        (|ring| ring.set(0, 4), RingError::Index(4)),
        (|ring| ring.set(0, 16), RingError::Truncated { available: 16 }),
        (|ring| put(ring, &[0; 16]), RingError::Lengths { payload: 0, packet: 0 }),
        (|ring| put(ring, &descriptor(INBAND, 1, 2, 0)), RingError::Lengths { payload: 8, packet: 16 }),
        (|ring| put(ring, &descriptor(INBAND, 3, 2, 0)), RingError::Lengths { payload: 24, packet: 16 }),
        (|ring| put(ring, &descriptor(INBAND, 2, 3, 0)), RingError::Lengths { payload: 16, packet: 24 }),
        (
            |ring| put(ring, &packet(INBAND, 0, 0, &[], &[0; 2040])),
            RingError::Lengths { payload: 16, packet: 2056 },
        ),
        (|ring| put(ring, &packet(8, 0, 0, &[], &[])), RingError::Kind(8)),
        (|ring| put(ring, &packet(GPA_DIRECT, 0, 0, &[], &[])), RingError::Ranges(BadRange::Short)),
        (
            |ring| put(ring, &packet(GPA_DIRECT, 0, 0, &gpa_direct(4097, 0, &[1]), &[])),
            RingError::Ranges(BadRange::Short),
        ),
        (
            |ring| put(ring, &packet(7, 0, 0, &[0, 0, 0, 0, 1, 0, 0, 0], &[])),
            RingError::Ranges(BadRange::Short),
        ),
    ];
    for (break_it, expected) in cases {
        let mut machine = Machine::new();
        break_it(&machine.to_host);
        assert_eq!(machine.next(), Err(expected));
    }
}

fn put(ring: &GuestRing, packet: &[u8]) {
    ring.write(packet).unwrap();
}

fn descriptor(kind: u16, offset: u16, len: u16, flags: u16) -> Vec<u8> {
    let mut bytes: Vec<u8> = [kind, offset, len, flags].iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend([0; 8]);
    bytes
}

#[test]
fn a_read_index_that_the_guest_breaks_stops_the_sender() {
    let mut machine = Machine::new();
    machine.to_guest.set(4, 0x2000);
    let result = machine.rings.outgoing.send(&machine.memory, &Outgoing::message(0, &[]));
    assert_eq!(result, Err(RingError::Index(0x2000)));
}

#[test]
fn a_packet_that_can_never_fit_is_an_error_and_not_a_wait() {
    let mut machine = Machine::new();
    for len in [8192 - 24, 600_000] {
        let payload = vec![0; len];
        let result = machine.rings.outgoing.send(&machine.memory, &Outgoing::message(0, &payload));
        assert!(matches!(result, Err(RingError::TooLarge { .. })), "{len}");
    }
}

#[test]
fn a_gpadl_must_hold_both_rings_in_ram() {
    let memory = ram();
    for split in [0, 1, 5, 6, 7, u32::MAX] {
        let result = Rings::open(&memory, &gpadl(&GPADL), split, MAX_PACKET);
        assert_eq!(result, Err(RingError::Layout { split }), "{split}");
    }
    let outside = [1, 2, 0x5000, 3];
    assert_eq!(
        Rings::open(&memory, &gpadl(&outside), 2, MAX_PACKET),
        Err(RingError::Memory(NotRam { gpa: 0x500_0000 }))
    );
}

proptest! {
    #[test]
    fn whatever_is_in_the_ring_is_read_or_refused(
        header in vec(any::<u32>(), 20), data in vec(any::<u8>(), 0x2000), write in 0u32..0x400
    ) {
        let mut machine = Machine::new();
        for (at, value) in (0u64..).zip(&header) {
            machine.to_host.set(4 * at, *value);
        }
        machine.to_host.poke(0, &data);
        // A plausible index, or nothing would be read.
        machine.to_host.set(0, write * 8);
        for _ in 0..0x2000 {
            if machine.next() != Ok(true) {
                break;
            }
        }
        let _ = machine.rings.incoming.publish(&machine.memory);
        let _ = machine.rings.incoming.unmask(&machine.memory);
        let _ = machine.rings.outgoing.publish(&machine.memory);
    }

    #[test]
    fn descriptors_with_any_lengths_never_read_beyond_the_ring(
        kind in prop::sample::select(vec![6u16, 7, 9, 11]), offset in 0u16..20, len in 0u16..40,
        words in vec(any::<u64>(), 40)
    ) {
        let mut machine = Machine::new();
        let mut bytes = descriptor(kind, offset, len, 0);
        bytes.extend(words.iter().flat_map(|word| (word & 0x3_0000_3fff).to_le_bytes()));
        machine.to_host.write(&bytes);
        let _ = machine.next();
    }

    #[test]
    fn any_stream_arrives_in_order_on_the_other_side(sizes in vec(0usize..1500, 1..60), batch in 1usize..8) {
        let mut machine = Machine::new();
        let mut expected = 0;
        for (index, size) in sizes.iter().enumerate() {
            let payload: Vec<u8> = (0..*size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let sent = packet(INBAND, 0, index as u64, &[], &payload);
            while machine.to_host.write(&sent).is_none() {
                echo_all(&mut machine, &mut expected);
            }
            if index % batch == 0 {
                echo_all(&mut machine, &mut expected);
            }
        }
        echo_all(&mut machine, &mut expected);
        prop_assert_eq!(expected, sizes.len() as u64);
    }
}

/// The host sends all that there is back to the guest, which reads it; `expected` counts what it read.
fn echo_all(machine: &mut Machine, expected: &mut u64) {
    while machine.next().unwrap() {
        let payload = machine.packet.payload().to_vec();
        let outgoing = Outgoing::completion(machine.packet.transaction(), &payload);
        while machine.send(&outgoing) == Sent::Full {
            read_all(machine, expected);
        }
    }
    let _ = machine.publish_read();
    read_all(machine, expected);
}

fn read_all(machine: &mut Machine, expected: &mut u64) {
    let _ = machine.publish_sent();
    while let Some(received) = machine.to_guest.read() {
        assert_eq!(received.transaction, *expected);
        assert!((0u8..251).cycle().zip(&received.payload).all(|(want, got)| *got == want || *got == 0));
        *expected += 1;
    }
    machine.to_guest.close_read();
}

#[test]
fn the_guest_changing_a_packet_after_it_was_read_changes_nothing() {
    let mut machine = Machine::new();
    machine.to_host.write(&packet(INBAND, 0, 9, &[], b"original"));
    assert_eq!(machine.next(), Ok(true));
    machine.memory.write_slice(&[0xff; 64], GuestAddress(GPADL[1] * PAGE)).unwrap();
    assert_eq!(machine.packet.payload(), b"original");
    assert_eq!(machine.next(), Ok(false));
}
