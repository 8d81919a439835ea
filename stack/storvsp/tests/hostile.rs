//! Hostile bytes through the real ring.

use std::sync::Arc;

use crate::{
    machine::{Ended, Machine, receive, srb},
    ring::{GPA_DIRECT, INBAND, gpa_direct, packet},
};
use proptest::{collection::vec, prelude::*};
use storvsp::backend::MemoryBackend;

const DISK_BYTES: usize = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_packets_are_answered_or_cost_the_channel(
        packets in vec((vec(prop_oneof![Just(0u8), any::<u8>()], 52), 0u32..15, any::<bool>(), 0u16..3), 0..30),
        ranges in vec((0u32..9000, 0u32..5000, vec(0u64..6000, 0..4)), 0..3)
    ) {
        let storage = Arc::new(MemoryBackend::new(vec![0; DISK_BYTES]));
        let (mut machine, mut channel) = Machine::ready(&[(0, storage.clone())]);
        for (body, operation, direct, flags) in packets {
            let payload = [&operation.to_le_bytes()[..], &[0; 8], &body].concat();
            let bytes = if direct {
                let mut header = vec![0; 4];
                header.extend(u32::try_from(ranges.len()).unwrap().to_le_bytes());
                for (bytes, offset, pages) in &ranges {
                    header.extend(bytes.to_le_bytes());
                    header.extend(offset.to_le_bytes());
                    header.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
                }
                packet(GPA_DIRECT, flags, 1, &header, &payload)
            } else {
                packet(INBAND, flags, 1, &[], &payload)
            };
            if machine.send(&channel, &bytes).is_err() {
                break;
            }
            while receive(&mut channel).is_some() {}
        }
        prop_assert_eq!(storage.content().len(), DISK_BYTES);
    }

    #[test]
    fn any_request_moves_at_most_what_it_has_room_for(
        opcode in prop::sample::select(vec![0x03u8, 0x08, 0x0a, 0x12, 0x1a, 0x25, 0x28, 0x2a, 0x42, 0x5a, 0x88,
                                            0x8a, 0x93, 0x9e, 0xa0, 0xa8, 0xaa]),
        rest in vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 15), direction in 0u8..3, room in 0u32..70_000
    ) {
        let storage = Arc::new(MemoryBackend::new(vec![5; DISK_BYTES]));
        let (mut machine, mut channel) = Machine::ready(&[(0, storage)]);
        let cdb = [&[opcode], &rest[..]].concat();
        let pages: Vec<u64> = (1000..1018).collect();
        let header = gpa_direct(18 * 4096, 0, &pages);
        let payload = srb(0, &cdb, direction, room);
        let _ = machine.send(&channel, &packet(GPA_DIRECT, 1, 1, &header, &payload)).unwrap();
        let ended = Ended::of(&receive(&mut channel).unwrap().payload);
        prop_assert!(ended.moved <= room);
        prop_assert!(receive(&mut channel).is_none());
    }

    #[test]
    fn any_ring_content_is_survived(write in 0u32..0x1000, bytes in vec(any::<u8>(), 0..0x1000)) {
        let (mut machine, channel) = Machine::ready(&[]);
        channel.to_host.poke(channel.to_host.get(0), &bytes);
        channel.to_host.set(0, write * 8);
        let _ = machine.signal(&channel);
    }
}
