//! Requests that are wrong, slow, or too many.

use std::sync::Arc;

use crate::{
    machine::{Channel, Data, Ended, Machine, Slow, receive, srb},
    ring::{GPA_DIRECT, INBAND, gpa_direct, packet},
};
use storvsp::{
    backend::{IoError, MemoryBackend, Operation, Token},
    queue::{Fault, MAX_JOBS},
};
use vmbus::ring::{RingError, Signal};

const READ_ONE: [u8; 10] = [0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const WRITE_ONE_FUA: [u8; 10] = [0x2a, 8, 0, 0, 0, 0, 0, 0, 1, 0];

fn ready() -> (Machine, Channel) {
    Machine::ready(&[(0, Arc::new(MemoryBackend::new(vec![7; 1 << 20])))])
}

fn slow() -> (Machine, Channel, Arc<Slow>) {
    let backend = Arc::new(Slow::default());
    let (machine, channel) = Machine::ready(&[(0, backend.clone())]);
    (machine, channel, backend)
}

fn ended(channel: &mut Channel) -> Option<(u64, Ended)> {
    receive(channel).map(|answer| (answer.transaction, Ended::of(&answer.payload)))
}

#[test]
fn requests_that_make_no_sense_are_answered_and_the_channel_lives() {
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    let page = gpa_direct(4096, 0, &[500]);
    // Header of the ring packet, payload, and what comes of it.
    let mut wrong_path = srb(0, &READ_ONE, 1, 512);
    wrong_path[12 + 5] = 1;
    // No units there: a list of nothing but its head.
    let mut other_luns = srb(0, &[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 1, 256);
    other_luns[12 + 5] = 1;
    let mut long_command = srb(0, &READ_ONE, 1, 512);
    long_command[12 + 8] = 17;
    let mut no_command = srb(0, &READ_ONE, 1, 512);
    no_command[12 + 8] = 0;
    let mut other_target = srb(0, &inquiry, 1, 36);
    other_target[12 + 6] = 1;
    let cases: [(&[u8], Vec<u8>, Ended); 15] = [
        (&page, srb(0, &READ_ONE, 1, 512), Ended::well(512)),
        (&page, srb(0, &READ_ONE, 1, 4096), Ended::well(512)),
        (&page, srb(0, &READ_ONE, 1, 511), Ended::port(0x12)),
        (&page, srb(0, &READ_ONE, 0, 512), Ended::port(6)),
        (&page, srb(0, &READ_ONE, 1, 4097), Ended::port(6)),
        (&page, srb(9, &READ_ONE, 1, 512), Ended::port(0x20)),
        (&page, wrong_path, Ended::port(8)),
        (&page, other_luns, Ended::well(8)),
        (&page, long_command, Ended::port(6)),
        (&page, no_command, Ended::port(6)),
        (&page, other_target, Ended::well(36)),
        (&page, srb(9, &inquiry, 0, 36), Ended::port(6)),
        (&page, srb(0, &[0x5f; 10], 0, 512), Ended::check(5, 0x20, 0)),
        (&gpa_direct(512, 0, &[0xff_ffff]), srb(0, &READ_ONE, 1, 512), Ended::port(6)),
        (&gpa_direct(512, 0, &[0xff_ffff]), srb(0, &inquiry, 1, 36), Ended::port(6)),
    ];
    let (mut machine, mut channel) = ready();
    for (header, payload, expected) in cases {
        let _ = machine.send(&channel, &packet(GPA_DIRECT, 1, 44, header, &payload)).unwrap();
        assert_eq!(ended(&mut channel), Some((44, expected)), "{payload:02x?}");
    }
}

#[test]
fn sense_is_cut_to_the_room_that_there_is() {
    let (mut machine, mut channel) = ready();
    let mut payload = srb(0, &[0x5f; 10], 1, 0);
    payload[12 + 9] = 3;
    let _ = machine.send(&channel, &packet(INBAND, 1, 1, &[], &payload)).unwrap();
    let answer = receive(&mut channel).unwrap().payload;
    assert_eq!((answer[12 + 9], &answer[28..48]), (3, &[&[0x70, 0, 5][..], &[0; 17]].concat()[..]));
}

#[test]
fn requests_before_the_end_of_initialization_are_refused() {
    let mut machine = Machine::new(&[]);
    machine.connect();
    let mut channel = machine.open(machine.root.first);
    let _ = machine.send(&channel, &packet(INBAND, 1, 1, &[], &srb(0, &[0; 6], 2, 0))).unwrap();
    let answer = receive(&mut channel).unwrap().payload;
    assert_eq!((answer[8..12].to_vec(), answer[14]), (0xc000_0184u32.to_le_bytes().to_vec(), 6));
}

#[test]
fn a_request_without_the_flag_is_done_and_not_answered() {
    let (mut machine, mut channel) = ready();
    let request = packet(GPA_DIRECT, 0, 1, &gpa_direct(512, 0, &[500]), &srb(0, &READ_ONE, 1, 512));
    let service = machine.send(&channel, &request).unwrap();
    assert_eq!((service.signal, ended(&mut channel)), (Signal::NotNeeded, None));
}

#[test]
fn broken_packets_cost_the_channel_and_say_why() {
    let cases = [
        (packet(INBAND, 1, 1, &[], &[3; 56]), Fault::Short { bytes: 56 }),
        (packet(7, 1, 1, &[0; 8], &[0; 64]), Fault::Kind),
        (packet(4, 1, 1, &[], &[0; 64]), Fault::Ring(RingError::Kind(4))),
        (
            packet(INBAND, 1, 1, &[], &[0; 4096]),
            Fault::Ring(RingError::Lengths { payload: 16, packet: 4112 }),
        ),
    ];
    for (bytes, fault) in cases {
        let (mut machine, channel) = ready();
        assert_eq!(machine.send(&channel, &bytes), Err(fault));
        assert!(!fault.to_string().is_empty());
    }
    let (mut machine, channel) = ready();
    assert!(machine.send(&channel, &packet(11, 0, 1, &[], &[])).is_ok(), "a stray completion is nothing");
}

#[test]
fn slow_requests_end_in_the_order_of_the_storage() {
    let (mut machine, mut channel, backend) = slow();
    for lba in 0..3u8 {
        let mut cdb = READ_ONE;
        cdb[5] = lba;
        let request = machine.request(0, &cdb, Data::From(512), &[500]);
        let _ = machine.send(&channel, &request).unwrap();
    }
    // The guest has not been signalled and nothing was read from the ring but requests.
    let _ = machine.signal(&channel).unwrap();
    let asked = backend.take();
    assert_eq!(asked[2].1, Operation::Read { offset: 1024, bytes: 512 });
    assert!(!machine.queue(&channel).is_idle());
    let done = machine.queue(&channel).complete(asked[2].0, Ok(())).unwrap();
    assert_eq!(done.signal, Signal::Needed);
    let first = machine.queue(&channel).complete(asked[0].0, Err(IoError::Medium)).unwrap();
    assert_eq!(first.signal, Signal::NotNeeded, "the guest has not read the first answer yet");
    let _ = machine.queue(&channel).complete(asked[1].0, Err(IoError::Full)).unwrap();
    assert_eq!(ended(&mut channel), Some((3, Ended::well(512))));
    assert_eq!(ended(&mut channel), Some((1, Ended::check(3, 0x11, 0))));
    assert_eq!(ended(&mut channel), Some((2, Ended::check(7, 0x27, 7))));
    assert!(machine.queue(&channel).is_idle());
}

#[test]
fn answers_of_the_storage_that_nobody_waits_for_are_ignored() {
    let (mut machine, mut channel, backend) = slow();
    let request = machine.request(0, &READ_ONE, Data::From(512), &[500]);
    let _ = machine.send(&channel, &request).unwrap();
    let token = backend.take()[0].0;
    let late = Token { generation: token.generation.wrapping_add(1), ..token };
    let nowhere = Token { slot: 5000, generation: 0 };
    for wrong in [late, nowhere] {
        let _ = machine.queue(&channel).complete(wrong, Ok(())).unwrap();
        assert_eq!(ended(&mut channel), None);
    }
    for _ in 0..2 {
        let _ = machine.queue(&channel).complete(token, Ok(())).unwrap();
    }
    assert_eq!(ended(&mut channel), Some((1, Ended::well(512))));
    assert_eq!(ended(&mut channel), None, "one answer for one request");
}

#[test]
fn a_write_with_fua_is_flushed_before_it_is_answered() {
    let (mut machine, mut channel, backend) = slow();
    let request = machine.request(0, &WRITE_ONE_FUA, Data::To(&[1; 512]), &[500]);
    let _ = machine.send(&channel, &request).unwrap();
    let [(token, Operation::Write { offset: 0, bytes: 512 })] = backend.take()[..] else { panic!() };
    let _ = machine.queue(&channel).complete(token, Ok(())).unwrap();
    let [(token, Operation::Flush)] = backend.take()[..] else { panic!() };
    assert_eq!(ended(&mut channel), None);
    let _ = machine.queue(&channel).complete(token, Ok(())).unwrap();
    assert_eq!(ended(&mut channel), Some((1, Ended::well(512))));
}

#[test]
fn answers_wait_for_a_guest_that_does_not_read_and_none_is_lost() {
    let (mut machine, mut channel) = ready();
    let (mut sent, mut seen) = (0, 0);
    // The ring to the guest holds 325 answers of 88 bytes; the guest goes on sending until nothing moves.
    while sent < 2000 {
        let request = packet(INBAND, 1, sent + 1, &[], &srb(0, &[0; 6], 2, 0));
        match channel.to_host.write(&request) {
            Some(true) => drop(machine.signal(&channel).unwrap()),
            Some(false) => {}
            None => break,
        }
        sent += 1;
    }
    assert!((600..1000).contains(&sent), "both rings are full after {sent}");
    while seen < sent {
        let answer = channel.to_guest.read();
        if channel.to_guest.close_read() || answer.is_none() {
            let _ = machine.signal(&channel).unwrap();
        }
        if let Some(answer) = answer {
            seen += 1;
            assert_eq!(answer.transaction, seen);
        }
    }
}

#[test]
fn a_guest_cannot_have_more_requests_under_way_than_the_limit() {
    let (mut machine, mut channel, backend) = slow();
    for transaction in 0..MAX_JOBS as u64 + 10 {
        let header = gpa_direct(512, 0, &[500]);
        let request = packet(GPA_DIRECT, 1, transaction, &header, &srb(0, &READ_ONE, 1, 512));
        let _ = machine.send(&channel, &request).unwrap();
        let _ = machine.signal(&channel).unwrap();
    }
    let asked = backend.take();
    assert_eq!(asked.len(), MAX_JOBS);
    let service = machine.queue(&channel).complete(asked[0].0, Ok(())).unwrap();
    assert!(service.more, "there is room for one of those that were left");
    let _ = machine.signal(&channel).unwrap();
    assert_eq!(backend.take().len(), 1);
    assert_eq!(ended(&mut channel), Some((0, Ended::well(512))));
}
