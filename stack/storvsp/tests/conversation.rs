//! The whole conversation of a Linux guest with a SCSI controller.

use std::sync::Arc;

use crate::machine::{Data, Ended, Machine, disk, receive};
use storvsp::{
    backend::{Backend, MemoryBackend},
    controller::{Controller, UnitError},
};
use vmbus::{protocol::kind, ring::Signal};

const BLOCKS: usize = 4096;

fn memory_disk() -> Arc<MemoryBackend> {
    Arc::new(MemoryBackend::new(vec![0; BLOCKS * 512]))
}

fn read_10(lba: u16, blocks: u8) -> [u8; 10] {
    let [high, low] = lba.to_be_bytes();
    [0x28, 0, 0, 0, high, low, 0, 0, blocks, 0]
}

fn write_10(lba: u16, blocks: u8) -> [u8; 10] {
    let mut cdb = read_10(lba, blocks);
    cdb[0] = 0x2a;
    cdb
}

#[test]
fn linux_finds_the_disk_writes_reads_back_closes_and_leaves() {
    let storage = memory_disk();
    let mut machine = Machine::new(&[(0, storage.clone())]);
    machine.connect();
    let first = machine.root.first;
    let mut channel = machine.open(first);
    let properties = machine.initialize(&mut channel);
    assert_eq!(properties[4..6], [1, 0], "one sub-channel");
    assert_eq!(properties[8..16], [1, 0, 0, 0, 0, 0, 0x10, 0], "several channels, transfers of 1 MiB");

    let (ended, inquiry) = machine.scsi(&mut channel, 0, &[0x12, 0, 0, 0, 36, 0], Data::From(36));
    assert_eq!((ended, &inquiry[8..12]), (Ended::well(36), &b"Msft"[..]));
    let report_luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0];
    let (ended, luns) = machine.scsi(&mut channel, 0, &report_luns, Data::From(0x2000));
    assert_eq!((ended, luns[3]), (Ended::well(16), 8), "the residual says how much it was");
    let (ended, _) = machine.scsi(&mut channel, 0, &[0, 0, 0, 0, 0, 0], Data::None);
    assert_eq!(ended, Ended::well(0));
    let (ended, capacity) = machine.scsi(&mut channel, 0, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::From(8));
    assert_eq!((ended, &capacity[..]), (Ended::well(8), &[0, 0, 0x0f, 0xff, 0, 0, 2, 0][..]));

    let data: Vec<u8> = (0..32768u32).map(|at| (at % 249).to_le_bytes()[0]).collect();
    let (ended, _) = machine.scsi(&mut channel, 0, &write_10(100, 64), Data::To(&data));
    assert_eq!(ended, Ended::well(32768));
    let (ended, _) = machine.scsi(&mut channel, 0, &[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], Data::None);
    assert_eq!(ended, Ended::well(0));
    let (ended, back) = machine.scsi(&mut channel, 0, &read_10(100, 64), Data::From(32768));
    assert_eq!(ended, Ended::well(32768));
    assert!(back == data);
    assert!(storage.content()[51200..51200 + 32768] == data);

    machine.close(&channel);
    machine.post(kind::UNLOAD, &[]);
    machine.expect(kind::UNLOAD_RESPONSE);
    assert!(machine.server.is_idle() && machine.root.queues.is_empty());
    let complaints = machine.root.events.iter().filter(|event| event.to_string().contains("ignored"));
    assert_eq!(complaints.count(), 0);
}

#[test]
fn a_kexeced_kernel_finds_everything_as_new() {
    let (mut machine, mut channel) = Machine::ready(&[(0, memory_disk())]);
    machine.operate(&mut channel, 13, 1);
    machine.connect();
    assert!(machine.root.queues.is_empty(), "the old system's channel is closed");
    let mut channel = machine.open(machine.root.first);
    machine.initialize(&mut channel);
    assert_eq!(machine.operate(&mut channel, 13, 1).0, 0, "sub-channels can be asked for again");
    let (ended, _) = machine.scsi(&mut channel, 0, &read_10(0, 1), Data::From(512));
    assert_eq!(ended, Ended::well(512));
}

#[test]
fn sub_channels_serve_requests_of_the_same_disks_and_nothing_else() {
    let (mut machine, mut channel) = Machine::ready(&[(0, memory_disk())]);
    let mut payload = vec![13, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    payload.resize(64, 0);
    let request = crate::ring::packet(6, 1, 5, &[], &payload);
    let service = machine.send(&channel, &request).unwrap();
    assert_eq!(service.subchannels, Some(1));
    assert_eq!(receive(&mut channel).unwrap().payload[8..12], [0; 4]);

    let offer = Controller::offer(crate::machine::INSTANCE).subchannel(1);
    let sub = machine.server.offer(&mut machine.root, offer).unwrap();
    assert_eq!(machine.expect(kind::OFFER_CHANNEL)[44], sub.0);
    let mut sub = machine.open(sub);
    let block = [9; 512];
    assert_eq!(machine.scsi(&mut sub, 0, &write_10(7, 1), Data::To(&block)).0, Ended::well(512));
    assert_eq!(machine.scsi(&mut channel, 0, &read_10(7, 1), Data::From(512)).1, block);
    assert_ne!(machine.operate(&mut sub, 7, 0).0, 0, "only the first channel initializes");

    machine.close(&sub);
    machine.post(kind::CLOSE_CHANNEL, &[channel.id.0]);
    assert_eq!(machine.expect(kind::RESCIND_CHANNEL_OFFER), [sub.id.0]);
    machine.post(kind::RELID_RELEASED, &[sub.id.0]);
}

#[test]
fn initialization_has_its_order() {
    let (begin, version, properties, end, subchannels, reset) =
        ((7, 0), (9, 0x0602), (10, 0), (8, 0), (13, 1), (6, 0));
    // What is done before, what is asked, and whether it is granted.
    type Step = (u32, u16);
    let cases: [(&[Step], Step, bool); 17] = [
        (&[], begin, true),
        (&[], version, false),
        (&[], properties, false),
        (&[], end, false),
        (&[], subchannels, false),
        (&[], reset, false),
        (&[begin], begin, false),
        (&[begin], (9, 0x0600), true),
        (&[begin], (9, 0x0501), true),
        (&[begin], (9, 0x0402), false),
        (&[begin], end, false),
        (&[begin, version], version, false),
        (&[begin, version, end], properties, true),
        (&[begin, version, end], reset, true),
        (&[begin, version, end], (13, 2), false),
        (&[begin, version, end], (13, 0), false),
        (&[begin, version, end, subchannels], subchannels, false),
    ];
    for (before, asked, granted) in cases {
        let mut machine = Machine::new(&[]);
        machine.connect();
        let mut channel = machine.open(machine.root.first);
        for (operation, value) in before {
            assert_eq!(machine.operate(&mut channel, *operation, *value).0, 0);
        }
        let (status, _) = machine.operate(&mut channel, asked.0, asked.1);
        assert_eq!(status == 0, granted, "{before:?} {asked:?}: {status:#x}");
    }
}

#[test]
fn operations_that_do_not_exist_are_not_supported() {
    let (mut machine, mut channel) = Machine::ready(&[]);
    for operation in [0, 1, 2, 11, 12, 14, u32::MAX] {
        assert_eq!(machine.operate(&mut channel, operation, 0).0, 0xc000_00bb);
    }
}

#[test]
fn units_come_and_go_while_the_guest_runs() {
    let (mut machine, mut channel) = Machine::ready(&[(0, memory_disk())]);
    let controller = machine.root.controller.clone();
    assert_eq!(controller.attach(0, disk(memory_disk())), Err(UnitError::Taken(0)));
    assert_eq!(controller.attach(64, disk(memory_disk())), Err(UnitError::TooHigh(64)));
    controller.attach(3, disk(memory_disk())).unwrap();
    assert_eq!(machine.queue(&channel).notify_units_changed().unwrap().signal, Signal::Needed);
    let notice = receive(&mut channel).unwrap();
    assert_eq!((notice.kind, notice.flags, notice.transaction, notice.payload[0]), (6, 0, 0, 11));
    assert_eq!(machine.scsi(&mut channel, 3, &read_10(0, 1), Data::From(512)).0, Ended::well(512));

    assert!(controller.detach(3) && !controller.detach(3));
    let test_unit_ready = [0; 6];
    assert_eq!(machine.scsi(&mut channel, 3, &test_unit_ready, Data::None).0, Ended::port(0x20));
    let (ended, inquiry) = machine.scsi(&mut channel, 3, &[0x12, 0, 0, 0, 36, 0], Data::From(36));
    assert_eq!((ended, inquiry[0]), (Ended::well(36), 0x7f));
}

#[test]
fn a_resized_disk_tells_its_guest_to_look_again() {
    let storage = memory_disk();
    let (mut machine, mut channel) = Machine::ready(&[(0, storage.clone())]);
    assert!(!machine.root.controller.resized(5));
    storage.resize(2 * BLOCKS * 512);
    assert!(machine.root.controller.resized(0));
    let last = u16::try_from(2 * BLOCKS - 1).unwrap();
    let (ended, _) = machine.scsi(&mut channel, 0, &read_10(last, 1), Data::From(512));
    assert_eq!(ended, Ended::check(6, 0x2a, 9));
    let (ended, _) = machine.scsi(&mut channel, 0, &read_10(last, 1), Data::From(512));
    assert_eq!(ended, Ended::well(512));
}

#[test]
fn a_read_only_disk_says_so() {
    let storage: Arc<dyn Backend> = Arc::new(MemoryBackend::read_only(vec![0; BLOCKS * 512]));
    let (mut machine, mut channel) = Machine::ready(&[(0, storage)]);
    let (ended, _) = machine.scsi(&mut channel, 0, &write_10(0, 1), Data::To(&[1; 512]));
    assert_eq!(ended, Ended::check(7, 0x27, 0));
}

#[test]
fn discarding_and_repeating_reach_the_storage() {
    let storage = memory_disk();
    let (mut machine, mut channel) = Machine::ready(&[(0, storage.clone())]);
    let same = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 4, 0, 0];
    assert_eq!(machine.scsi(&mut channel, 0, &same, Data::To(&[3; 512])).0, Ended::well(512));
    assert_eq!(storage.content()[4096..4096 + 2048], [3; 2048]);
    let list = [&[0, 22, 0, 16, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
    let unmap = [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0];
    assert_eq!(machine.scsi(&mut channel, 0, &unmap, Data::To(&list)).0, Ended::well(24));
    let content = storage.content();
    assert_eq!((&content[4096..4608], &content[4608..5120]), (&[3; 512][..], &[0; 512][..]));
    assert_eq!(content[5120..6144], [3; 1024]);
}
