//! The control plane: memory that a guest lends.

use crate::bus::{Bus, Wish};
use vmbus::{
    protocol::{Version, kind},
    ranges::BadRange,
    server::{ChannelId, Complaint, GpadlId, MAX_GPADL_VALUES},
};

const FAILED: u32 = 0xc000_0001;

#[test]
fn a_gpadl_arrives_in_as_many_messages_as_it_needs() {
    for pages in [1, 26, 27, 54, 55, 4096, 8190] {
        let mut bus = Bus::connected(Version::V5_3);
        let channel = bus.offered();
        let numbers: Vec<u64> = (0..pages).map(|page| 0x10_0000 + page * 3).collect();
        bus.lend(channel, 0xe1e10, &numbers);
        assert_eq!(bus.heard_all(), [(kind::GPADL_CREATED, vec![channel.0, 0xe1e10, 0])], "{pages}");
        assert_eq!(bus.world.mapped.len(), 1);
        bus.ask_teardown(channel, 0xe1e10);
        assert_eq!(bus.heard(), None, "the device still has it");
        assert_eq!(bus.answer(), [Wish::Unmap(GpadlId(0xe1e10))]);
        assert_eq!(bus.heard_all(), [(kind::GPADL_TORNDOWN, vec![0xe1e10])]);
    }
}

#[test]
fn wrong_gpadls_are_refused_with_their_reason() {
    let gpadl = GpadlId(5);
    let page = 4096;
    let cases: [(&[u32], Complaint); 11] = [
        (&[9, 5, 16 | 1 << 16, page, 0, 1, 0], Complaint::NoChannel(ChannelId(9))),
        (&[1, 0, 16 | 1 << 16, page, 0, 1, 0], Complaint::GpadlName(GpadlId(0))),
        (&[1, 5, 1 << 16], Complaint::GpadlLength(gpadl)),
        (&[1, 5, 15 | 1 << 16, page, 0, 1, 0], Complaint::GpadlLength(gpadl)),
        (&[1, 5, 8 | 1 << 16, page, 0, 1, 0], Complaint::GpadlLength(gpadl)),
        (&[1, 5, 16 | 1 << 16, page, 0, 1], Complaint::GpadlLength(gpadl)),
        (&[1, 5, 16, page, 0, 1, 0], Complaint::GpadlRanges(gpadl, BadRange::NoRange)),
        (&[1, 5, 16 | 2 << 16, page, 0, 1, 0], Complaint::GpadlRanges(gpadl, BadRange::Short)),
        (&[1, 5, 16 | 1 << 16, page + 1, 0, 1, 0], Complaint::GpadlRanges(gpadl, BadRange::Short)),
        (&[1, 5, 16 | 1 << 16, 1, page, 1, 0], Complaint::GpadlRanges(gpadl, BadRange::Offset(page))),
        (&[1, 5, 16 | 1 << 16, 0, 0, 1, 0], Complaint::GpadlRanges(gpadl, BadRange::Empty)),
    ];
    for (body, complaint) in cases {
        let mut bus = Bus::connected(Version::V5_3);
        bus.offered();
        bus.say(kind::GPADL_HEADER, body);
        assert_eq!(bus.complaints(), [complaint]);
        assert_eq!(bus.heard_all(), [(kind::GPADL_CREATED, vec![body[0], body[1], FAILED])]);
        bus.lend(ChannelId(1), 5, &[1]);
        assert_eq!(
            bus.heard(),
            Some((kind::GPADL_CREATED, vec![1, 5, 0])),
            "the name is free after {body:?}"
        );
    }
}

#[test]
fn gpadl_bodies_must_belong_to_a_gpadl_that_arrives() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.say(kind::GPADL_BODY, &[0, 5, 1, 0]);
    bus.lend(channel, 5, &[1]);
    bus.say(kind::GPADL_BODY, &[0, 5, 1, 0]);
    assert_eq!(bus.complaints(), [Complaint::NoGpadl(GpadlId(5)); 2]);
    bus.lend(channel, 5, &[1]);
    assert_eq!(bus.complaints(), [Complaint::GpadlName(GpadlId(5))]);
    // One that gets more than it announced is gone.
    bus.say(kind::GPADL_HEADER, &[channel.0, 6, 24 | 1 << 16, 8192, 0, 1, 0]);
    bus.say(kind::GPADL_BODY, &[0, 6, 2, 0, 3, 0]);
    assert_eq!(bus.complaints(), [Complaint::GpadlLength(GpadlId(6))]);
    bus.ask_teardown(channel, 6);
    assert_eq!(bus.complaints(), [Complaint::NoGpadl(GpadlId(6))]);
    // One that is torn down before it is complete was never mapped.
    bus.world.posted.clear();
    bus.say(kind::GPADL_HEADER, &[channel.0, 7, 24 | 1 << 16, 8192, 0, 1, 0]);
    bus.ask_teardown(channel, 7);
    assert_eq!(bus.heard_all(), [(kind::GPADL_TORNDOWN, vec![7])]);
    assert!(bus.world.wishes.is_empty());
}

#[test]
fn a_guest_cannot_lend_more_than_the_limit_even_if_nothing_of_it_arrives() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    let values = 8191;
    let fit = MAX_GPADL_VALUES / values;
    for gpadl in 1..=u32::try_from(fit).unwrap() {
        bus.say(kind::GPADL_HEADER, &[channel.0, gpadl, 65528 | 1 << 16]);
    }
    assert_eq!(bus.complaints(), []);
    bus.say(kind::GPADL_HEADER, &[channel.0, 9999, 65528 | 1 << 16]);
    assert_eq!(bus.complaints(), [Complaint::GpadlLimit(GpadlId(9999))]);
    bus.ask_teardown(channel, 1);
    bus.say(kind::GPADL_HEADER, &[channel.0, 9999, 65528 | 1 << 16]);
    assert_eq!(bus.complaints(), []);
}

#[test]
fn a_gpadl_that_the_device_refuses_is_not_created() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.world.refuse_gpadls = true;
    bus.lend(channel, 5, &[1]);
    assert_eq!(bus.heard(), Some((kind::GPADL_CREATED, vec![channel.0, 5, FAILED])));
    assert_eq!(bus.complaints(), [Complaint::GpadlRefused(GpadlId(5))]);
}

#[test]
fn rings_that_are_torn_down_while_open_go_back_after_the_close() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.lend(channel, 200, &[9]);
    bus.world.posted.clear();
    bus.ask_teardown(channel, 100);
    assert_eq!(bus.complaints(), [Complaint::GpadlInUse(GpadlId(100))]);
    assert_eq!(bus.answer(), []);
    bus.ask_teardown(channel, 100);
    assert_eq!(bus.complaints(), [Complaint::NoGpadl(GpadlId(100))], "once is enough");
    // Other memory of the channel does not wait.
    bus.ask_teardown(channel, 200);
    assert_eq!(bus.answer(), [Wish::Unmap(GpadlId(200))]);
    bus.ask_close(channel);
    assert_eq!(bus.answer(), [Wish::Close(channel), Wish::Unmap(GpadlId(100))]);
    assert_eq!(bus.heard_all(), [(kind::GPADL_TORNDOWN, vec![200]), (kind::GPADL_TORNDOWN, vec![100])]);
}
