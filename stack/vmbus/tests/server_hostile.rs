//! The control plane under guests that do anything, and devices that answer in any order.

use crate::bus::{Bus, Wish, offer};
use proptest::{collection::vec, prelude::*};
use vmbus::{
    protocol::Version,
    server::{ChannelId, Opened},
};

/// A step of guest, devices or root. Small numbers, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Say(u32, Vec<u32>),
    Lend(u32, u32, u64),
    Open(u32, u32),
    Contact(u32),
    Answer(usize, bool),
    Offer(u64, u16),
    Revoke(u32),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let version = prop::sample::select(vec![0x3_0000, 0x4_0001, 0x5_0003, 0x6_0000, 0x7_0000]);
    prop_oneof![
        4 => (0u32..26, vec(0u32..6, 0..50)).prop_map(|(kind, body)| Step::Say(kind, body)),
        1 => (0u32..26, vec(any::<u32>(), 0..58)).prop_map(|(kind, body)| Step::Say(kind, body)),
        4 => (1u32..5, 1u32..6, 1u64..60).prop_map(|(channel, id, pages)| Step::Lend(channel, id, pages)),
        4 => (1u32..5, 1u32..6).prop_map(|(channel, gpadl)| Step::Open(channel, gpadl)),
        1 => version.prop_map(Step::Contact),
        6 => (0usize..4, any::<bool>()).prop_map(|(which, yes)| Step::Answer(which, yes)),
        2 => (0u64..3, 0u16..3).prop_map(|(instance, sub)| Step::Offer(instance, sub)),
        1 => (1u32..6).prop_map(Step::Revoke),
        1 => Just(Step::Reset),
    ]
}

fn perform(bus: &mut Bus, step: Step) {
    match step {
        Step::Say(kind, body) => bus.say(kind, &body),
        Step::Lend(channel, id, pages) => {
            bus.lend(ChannelId(channel), id, &(0..pages).collect::<Vec<_>>());
        }
        Step::Open(channel, gpadl) => bus.ask_open(ChannelId(channel), gpadl, 2, 1),
        Step::Contact(version) => bus.contact(version),
        Step::Answer(which, yes) => {
            let len = bus.world.wishes.len();
            if len > 0 {
                bus.world.wishes.rotate_left(which % len);
                bus.answer_one(if yes { Opened::Yes } else { Opened::Refused });
            }
        }
        Step::Offer(instance, sub) => {
            let _ = bus.server.offer(&mut bus.world, offer(instance).subchannel(sub));
        }
        Step::Revoke(channel) => bus.server.revoke(&mut bus.world, ChannelId(channel)),
        Step::Reset => bus.server.reset(&mut bus.world),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The host in `bus.rs` checks each promise about opening, closing and memory on the way.
    #[test]
    fn whatever_happens_all_memory_comes_back_in_the_end(steps in vec(step(), 0..120)) {
        let mut bus = Bus::connected(Version::V6_0);
        bus.offered();
        for step in steps {
            let before = bus.world.posted.len();
            perform(&mut bus, step);
            prop_assert!(bus.world.posted.len() - before <= 16, "one step has bounded consequences");
        }
        bus.server.reset(&mut bus.world);
        let mut left = 10_000;
        while bus.answer_one(Opened::Yes).is_some() {
            left -= 1;
            prop_assert!(left > 0);
        }
        prop_assert!(bus.server.is_idle());
        prop_assert!(bus.world.mapped.is_empty() && bus.world.open.is_empty());
        prop_assert!(!bus.world.wishes.contains(&Wish::Open(ChannelId(1))));
    }

    #[test]
    fn any_bytes_are_survived(messages in vec(vec(any::<u8>(), 0..250), 0..40)) {
        let mut bus = Bus::connected(Version::V5_3);
        bus.opened();
        for message in messages {
            bus.server.receive(&mut bus.world, &message);
        }
    }
}
