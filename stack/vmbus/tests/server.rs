//! The control plane, message by message.

use crate::bus::{Bus, Wish, offer};
use vmbus::{
    guid::Guid,
    protocol::{Version, feature, kind, message},
    server::{ChannelId, Complaint, Event, GpadlId, MessageTarget, OfferError, Opened},
};

const FAILED: u32 = 0xc000_0001;

#[test]
fn each_version_is_answered_as_its_guest_expects() {
    let cases: [(u32, &[u32]); 13] = [
        (0x0_000d, &[0, 0]),
        (0x1_0001, &[0, 0]),
        (0x2_0004, &[0, 0]),
        (0x3_0000, &[1, 0]),
        (0x4_0000, &[1, 0]),
        (0x4_0001, &[1, 0]),
        (0x5_0000, &[1, 4]),
        (0x5_0001, &[1, 4]),
        (0x5_0002, &[1, 4]),
        (0x5_0003, &[1, 4]),
        (0x6_0000, &[1, 4, 0]),
        (0x6_0001, &[0, 0]),
        (u32::MAX, &[0, 0]),
    ];
    for (number, answer) in cases {
        let mut bus = Bus::new();
        bus.contact(number);
        let (target, _) = bus.world.posted[0];
        assert_eq!(target, MessageTarget { vp: 1, sint: 2 }, "{number:#x}");
        assert_eq!(bus.heard_all(), [(kind::VERSION_RESPONSE, answer.to_vec())], "{number:#x}");
        let version = Version::supported(number);
        assert_eq!(bus.server.version(), version);
        assert_eq!(bus.world.events, [version.map_or(Event::VersionRefused(number), Event::Connected)]);
    }
}

#[test]
fn linux_comes_down_to_a_version_that_is_spoken() {
    let mut bus = Bus::new();
    for number in [0x7_0000, 0x6_0001, 0x5_0003] {
        bus.contact(number);
    }
    assert_eq!(bus.server.version(), Some(Version::V5_3));
    let supported: Vec<_> = bus.heard_all().iter().map(|(_, body)| body[0]).collect();
    assert_eq!(supported, [0, 0, 1]);
}

#[test]
fn features_of_version_6_are_those_that_both_sides_have() {
    let mut bus = Bus::new();
    let mut body = vec![0x6_0000, 0, 3, 0xffff_ffff, 0, 0, 0, 0];
    body.extend([0x0101_0101; 4]);
    bus.say(kind::INITIATE_CONTACT, &body);
    assert_eq!(bus.heard(), Some((kind::VERSION_RESPONSE, vec![1, 4, feature::SUPPORTED])));
    assert_eq!(bus.server.client(), Guid([1; 16]));
    body[3] = feature::GUEST_SPECIFIED_SIGNALS;
    bus.say(kind::INITIATE_CONTACT, &body);
    assert_eq!(bus.heard(), Some((kind::VERSION_RESPONSE, vec![1, 4, 1])));
    assert_eq!(bus.server.client(), Guid::default());
}

#[test]
fn a_contact_with_an_impossible_target_or_monitor_is_ignored() {
    let cases = [
        ([0x5_0003, 4, 2, 0, 0, 0, 0, 0], Complaint::Target { vp: 4, sint: 2 }),
        ([0x5_0003, 0, 0, 0, 0, 0, 0, 0], Complaint::Target { vp: 0, sint: 0 }),
        ([0x5_0003, 0, 16, 0, 0, 0, 0, 0], Complaint::Target { vp: 0, sint: 16 }),
        ([0x5_0003, 0, 0x102, 0, 0, 0, 0, 0], Complaint::Target { vp: 0, sint: 2 }),
        ([0x4_0000, u32::MAX, 0, 0, 0, 0, 0, 0], Complaint::Target { vp: u32::MAX, sint: 2 }),
        ([0x5_0003, 0, 2, 0, 0x1001, 0, 0x2000, 0], Complaint::MonitorPages),
        ([0x5_0003, 0, 2, 0, 0x1000, 0, 0x1000, 0], Complaint::MonitorPages),
    ];
    for (body, complaint) in cases {
        let mut bus = Bus::new();
        bus.say(kind::INITIATE_CONTACT, &body);
        assert_eq!(bus.complaints(), [complaint]);
        assert_eq!(bus.heard(), None);
        assert!(bus.server.is_idle());
    }
}

#[test]
fn without_a_connection_nothing_else_is_obeyed() {
    for kind in [3, 5, 7, 8, 9, 11, 13, 16, 21, 22] {
        let mut bus = Bus::new();
        bus.say(kind, &[1; 40]);
        assert_eq!(bus.complaints(), [Complaint::NotConnected], "{kind}");
        assert_eq!(bus.heard(), None);
    }
}

#[test]
fn messages_of_newer_versions_are_ignored_in_older_ones() {
    let cases = [
        (Version::V3_0, kind::TL_CONNECT_REQUEST),
        (Version::V3_0, kind::MODIFY_CHANNEL),
        (Version::V4_0, kind::MODIFY_CHANNEL),
    ];
    for (version, kind) in cases {
        let mut bus = Bus::connected(version);
        bus.say(kind, &[1; 12]);
        assert_eq!(bus.complaints(), [Complaint::Version]);
        assert_eq!(bus.heard(), None);
    }
}

#[test]
fn offers_are_told_once_and_then_as_they_come() {
    let mut bus = Bus::connected(Version::V5_3);
    let (first, second) = (bus.offer(1), bus.offer(2));
    assert_eq!(bus.heard(), None);
    bus.say(kind::REQUEST_OFFERS, &[]);
    for (channel, instance) in [(first, 1), (second, 2)] {
        let (_, message) = bus.world.posted.pop_front().unwrap();
        assert_eq!(message.len(), 196, "Linux: struct vmbus_channel_offer_channel");
        assert_eq!(message[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message[8..24], offer(1).interface.0);
        assert_eq!(message[24..40], offer(instance).instance.0);
        assert_eq!(message[184..188], channel.0.to_le_bytes());
        assert_eq!(message[188..192], [0, 0, 1, 0], "no monitor, and a dedicated connection");
        assert_eq!(message[192..], (0x2000 + channel.0).to_le_bytes());
    }
    assert_eq!(bus.heard(), Some((kind::ALL_OFFERS_DELIVERED, vec![])));
    bus.say(kind::REQUEST_OFFERS, &[]);
    assert_eq!(bus.complaints(), [Complaint::OffersAgain]);
    assert_eq!(bus.heard(), None);
    bus.offer(3);
    assert_eq!(bus.heard().unwrap().0, kind::OFFER_CHANNEL);
}

#[test]
fn the_same_channel_cannot_be_offered_twice_and_ids_run_out() {
    let mut bus = Bus::new();
    assert_eq!(bus.offer(0), ChannelId(1));
    assert_eq!(bus.server.offer(&mut bus.world, offer(0)), Err(OfferError::Exists));
    for instance in 1..2047 {
        bus.offer(instance);
    }
    assert_eq!(bus.server.offer(&mut bus.world, offer(5000)), Err(OfferError::NoId));
    bus.server.revoke(&mut bus.world, ChannelId(9));
    assert_eq!(bus.world.removed, [ChannelId(9)], "nobody knew of it");
    assert_eq!(bus.offer(5000), ChannelId(9));
}

#[test]
fn a_channel_opens_and_closes_and_gives_its_memory_back() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.lend(channel, 100, &[1, 2, 3, 4, 5]);
    bus.world.posted.clear();
    bus.ask_open(channel, 100, 2, 3);
    assert_eq!(bus.heard(), None, "the device has not answered");
    let (_, open, ring) = &bus.world.opens[0];
    assert_eq!((open.downstream_page, open.target_vp, open.sint), (2, Some(3), 2));
    assert_eq!((open.event_flag, open.connection), (1, 0x2001));
    assert_eq!(open.user_data, [0x2a; 120]);
    assert_eq!(ring.whole_pages(), Some(&[1, 2, 3, 4, 5][..]));
    assert_eq!(bus.answer(), [Wish::Open(channel)]);
    assert_eq!(bus.heard_all(), [(kind::OPEN_CHANNEL_RESULT, vec![channel.0, 77, 0])]);
    assert!(bus.server.open_of(channel).is_some());
    bus.ask_close(channel);
    bus.ask_teardown(channel, 100);
    assert_eq!(bus.complaints(), []);
    assert_eq!(bus.answer(), [Wish::Close(channel), Wish::Unmap(GpadlId(100))], "in this order");
    assert_eq!(bus.heard_all(), [(kind::GPADL_TORNDOWN, vec![100])]);
    assert!(bus.server.open_of(channel).is_none());
    // And again.
    bus.lend(channel, 101, &[1, 2, 3, 4]);
    bus.ask_open(channel, 101, 2, u32::MAX);
    bus.answer();
    assert_eq!(bus.server.open_of(channel).unwrap().target_vp, None);
}

#[test]
fn wrong_opens_are_answered_with_failure() {
    let one = ChannelId(1);
    let cases = [
        ([9, 100, 2, 0], Complaint::NoChannel(ChannelId(9))),
        ([1, 101, 2, 0], Complaint::NoGpadl(GpadlId(101))),
        ([1, 100, 0, 0], Complaint::Rings { channel: one, split: 0 }),
        ([1, 100, 1, 0], Complaint::Rings { channel: one, split: 1 }),
        ([1, 100, 3, 0], Complaint::Rings { channel: one, split: 3 }),
        ([1, 100, u32::MAX, 0], Complaint::Rings { channel: one, split: u32::MAX }),
        ([1, 200, 2, 0], Complaint::NoGpadl(GpadlId(200))),
        ([1, 100, 2, 4], Complaint::Signals(one)),
    ];
    for ([channel, gpadl, split, vp], complaint) in cases {
        let mut bus = Bus::connected(Version::V5_3);
        let other = bus.offer(2);
        let first = bus.offered();
        assert_eq!((other, first), (ChannelId(1), ChannelId(2)));
        bus.lend(other, 100, &[1, 2, 3, 4]);
        bus.lend(first, 200, &[1, 2, 3, 4]);
        bus.world.posted.clear();
        bus.ask_open(ChannelId(channel), gpadl, split, vp);
        assert_eq!(bus.complaints(), [complaint]);
        assert_eq!(bus.heard_all(), [(kind::OPEN_CHANNEL_RESULT, vec![channel, 77, FAILED])]);
        assert!(bus.world.wishes.is_empty());
    }
}

#[test]
fn an_open_channel_cannot_be_opened_again_and_a_closed_one_not_closed() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.ask_open(channel, 100, 2, 0);
    assert_eq!(bus.heard(), Some((kind::OPEN_CHANNEL_RESULT, vec![channel.0, 77, FAILED])));
    bus.ask_close(channel);
    bus.ask_close(channel);
    bus.answer();
    bus.ask_close(channel);
    bus.ask_close(ChannelId(50));
    let state = Complaint::ChannelState(channel);
    assert_eq!(bus.complaints(), [state, state, state, Complaint::NoChannel(ChannelId(50))]);
}

#[test]
fn a_device_that_refuses_leaves_the_channel_closed() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.lend(channel, 100, &[1, 2, 3, 4]);
    bus.world.posted.clear();
    bus.ask_open(channel, 100, 2, 0);
    bus.answer_one(Opened::Refused);
    assert_eq!(bus.heard(), Some((kind::OPEN_CHANNEL_RESULT, vec![channel.0, 77, FAILED])));
    bus.ask_open(channel, 100, 2, 0);
    bus.answer();
    assert_eq!(bus.heard(), Some((kind::OPEN_CHANNEL_RESULT, vec![channel.0, 77, 0])));
}

#[test]
fn a_channel_that_is_closed_while_it_opens_is_closed_without_a_result() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.lend(channel, 100, &[1, 2, 3, 4]);
    bus.world.posted.clear();
    bus.ask_open(channel, 100, 2, 0);
    bus.ask_close(channel);
    assert_eq!(bus.answer(), [Wish::Open(channel), Wish::Close(channel)]);
    assert_eq!(bus.heard(), None);
}

#[test]
fn signals_are_the_guests_choice_with_that_feature_only() {
    // Connection and flag that the guest asks for; what it gets, or nothing.
    let cases = [
        (0x77_0001, 5, Some((0x77_0001, 5))),
        (0, 0, Some((0x2001, 1))),
        (0x2001, 2047, Some((0x2001, 2047))),
        (0x2002, 0, None),
        (1, 0, None),
        (4, 0, None),
        (1 << 24, 0, None),
        (0x77_0001, 2048, None),
    ];
    for (connection, flag, expected) in cases {
        for features in [0, feature::GUEST_SPECIFIED_SIGNALS] {
            let mut bus = Bus::new();
            bus.say(kind::INITIATE_CONTACT, &[0x6_0000, 0, 2, features, 0, 0, 0, 0]);
            let channel = bus.offered();
            bus.lend(channel, 100, &[1, 2, 3, 4]);
            let mut body = vec![channel.0, 77, 100, 0, 2];
            body.resize(35, 0);
            bus.say(kind::OPEN_CHANNEL, &[&body[..], &[connection, flag]].concat());
            let expected = if features == 0 { Some((0x2001, 1)) } else { expected };
            let got = bus.server.open_of(channel).map(|open| (open.connection, open.event_flag));
            assert_eq!(got, expected, "{connection:#x} {flag} {features}");
        }
    }
}

#[test]
fn two_channels_cannot_share_a_connection() {
    let mut bus = Bus::new();
    bus.say(kind::INITIATE_CONTACT, &[0x6_0000, 0, 2, 1, 0, 0, 0, 0]);
    bus.offer(2);
    bus.offered();
    let mut body = vec![1, 77, 101, 0, 2];
    body.resize(35, 0);
    body.extend([0x77_0001, 0]);
    for channel in [1, 2] {
        bus.lend(ChannelId(channel), 100 + channel, &[1, 2, 3, 4]);
        (body[0], body[2]) = (channel, 100 + channel);
        bus.say(kind::OPEN_CHANNEL, &body);
    }
    assert_eq!(bus.complaints(), [Complaint::Signals(ChannelId(2))]);
}

#[test]
fn a_target_vp_changes_and_newer_guests_are_told() {
    for version in [Version::V4_1, Version::V5_2, Version::V5_3, Version::V6_0] {
        let mut bus = Bus::connected(version);
        let channel = bus.opened();
        let cases = [
            (channel.0, 3, None),
            (channel.0, u32::MAX, None),
            (channel.0, 4, Some(Complaint::Signals(channel))),
            (9, 0, Some(Complaint::NoChannel(ChannelId(9)))),
        ];
        for (id, vp, complaint) in cases {
            bus.say(kind::MODIFY_CHANNEL, &[id, vp]);
            let status = if complaint.is_none() { 0 } else { FAILED };
            let answer =
                (version >= Version::V5_3).then(|| (kind::MODIFY_CHANNEL_RESPONSE, vec![id, status]));
            assert_eq!(bus.heard(), answer);
            assert_eq!(bus.complaints(), Vec::from_iter(complaint));
        }
        assert_eq!(bus.world.retargeted, [(channel, Some(3)), (channel, None)]);
        bus.ask_close(channel);
        bus.say(kind::MODIFY_CHANNEL, &[channel.0, 0]);
        assert_eq!(bus.complaints(), [Complaint::ChannelState(channel)]);
    }
}

#[test]
fn a_channel_is_withdrawn_when_its_memory_is_unused_and_its_id_is_free_when_released() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.server.revoke(&mut bus.world, channel);
    bus.server.revoke(&mut bus.world, channel);
    assert_eq!(bus.heard(), None, "the device is not ready");
    assert_eq!(bus.answer(), [Wish::Close(channel), Wish::Unmap(GpadlId(100))]);
    assert_eq!(bus.heard_all(), [(kind::RESCIND_CHANNEL_OFFER, vec![channel.0])]);
    bus.ask_open(channel, 100, 2, 0);
    assert_eq!(bus.complaints(), [Complaint::ChannelState(channel)]);
    assert_ne!(bus.offer(1), channel, "the id is still the guest's");
    bus.say(kind::RELID_RELEASED, &[channel.0]);
    assert_eq!(bus.world.removed, [channel]);
    assert_eq!(bus.offer(9), channel);
}

#[test]
fn a_guest_that_forgets_a_channel_cannot_use_it_until_it_reconnects() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.lend(channel, 100, &[1, 2, 3, 4]);
    bus.say(kind::RELID_RELEASED, &[channel.0]);
    bus.answer();
    bus.lend(channel, 101, &[1]);
    bus.say(kind::RELID_RELEASED, &[channel.0]);
    assert_eq!(bus.complaints(), [Complaint::NoChannel(channel), Complaint::ChannelState(channel)]);
    bus.contact(0x5_0003);
    bus.world.posted.clear();
    bus.say(kind::REQUEST_OFFERS, &[]);
    assert_eq!(bus.heard().unwrap().0, kind::OFFER_CHANNEL);
}

#[test]
fn an_open_channel_cannot_be_forgotten() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.say(kind::RELID_RELEASED, &[channel.0]);
    assert_eq!(bus.complaints(), [Complaint::ChannelState(channel)]);
}

#[test]
fn sub_channels_go_with_the_first_channel_and_come_anew() {
    let mut bus = Bus::connected(Version::V5_3);
    let first = bus.opened();
    let sub = bus.server.offer(&mut bus.world, offer(1).subchannel(1)).unwrap();
    let (_, body) = bus.heard().unwrap();
    assert_eq!(body[43] & 0xffff, 1, "the index of the sub-channel");
    bus.lend(sub, 200, &[5, 6, 7, 8]);
    bus.ask_open(sub, 200, 2, 2);
    bus.answer();
    bus.world.posted.clear();
    // As Linux does: sub-channels first.
    bus.ask_close(sub);
    bus.ask_teardown(sub, 200);
    bus.ask_close(first);
    bus.answer();
    let heard: Vec<_> = bus.heard_all();
    assert_eq!(heard, [(kind::GPADL_TORNDOWN, vec![200]), (kind::RESCIND_CHANNEL_OFFER, vec![sub.0])]);
    bus.say(kind::RELID_RELEASED, &[sub.0]);
    assert_eq!(bus.world.removed, [sub]);
    assert!(bus.server.offer(&mut bus.world, offer(1).subchannel(1)).is_ok());
}

#[test]
fn unload_is_answered_when_all_is_closed() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.server.offer(&mut bus.world, offer(1).subchannel(1)).unwrap();
    bus.world.posted.clear();
    bus.say(kind::UNLOAD, &[]);
    assert!(!bus.server.is_idle());
    bus.say(kind::REQUEST_OFFERS, &[]);
    assert_eq!(bus.complaints(), [Complaint::Resetting]);
    assert_eq!(bus.answer(), [Wish::Close(channel), Wish::Unmap(GpadlId(100))]);
    assert_eq!(bus.heard_all(), [(kind::UNLOAD_RESPONSE, vec![])]);
    assert!(bus.server.is_idle());
    assert_eq!(bus.world.removed, [ChannelId(2)], "the sub-channel went with the connection");
}

#[test]
fn a_new_contact_in_mid_conversation_is_answered_after_the_clean_up_and_only_the_last_one() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.lend(channel, 200, &[9]);
    bus.say(kind::GPADL_HEADER, &[channel.0, 201, 65528 | 1 << 16]);
    bus.world.posted.clear();
    bus.say(kind::UNLOAD, &[]);
    bus.contact(0x7_0000);
    bus.contact(0x4_0001);
    assert_eq!(bus.heard(), None);
    bus.answer();
    assert_eq!(bus.heard_all(), [(kind::VERSION_RESPONSE, vec![1, 0])]);
    assert_eq!(bus.server.version(), Some(Version::V4_1));
    assert!(bus.world.mapped.is_empty());
    bus.say(kind::REQUEST_OFFERS, &[]);
    assert_eq!(bus.heard().unwrap().0, kind::OFFER_CHANNEL);
    bus.lend(channel, 100, &[1, 2, 3, 4]);
    bus.ask_open(channel, 100, 2, 0);
    bus.answer();
    assert_eq!(bus.heard_all().last(), Some(&(kind::OPEN_CHANNEL_RESULT, vec![channel.0, 77, 0])));
}

#[test]
fn a_guest_that_starts_anew_while_a_channel_opens_finds_it_closed() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.offered();
    bus.lend(channel, 100, &[1, 2, 3, 4]);
    bus.ask_open(channel, 100, 2, 0);
    bus.world.posted.clear();
    bus.contact(0x5_0003);
    assert_eq!(bus.answer(), [Wish::Open(channel), Wish::Close(channel), Wish::Unmap(GpadlId(100))]);
    assert_eq!(bus.heard_all(), [(kind::VERSION_RESPONSE, vec![1, 4])]);
    assert_eq!(bus.world.events.first(), Some(&Event::Restarted));
}

#[test]
fn a_reset_of_the_partition_says_nothing_to_anybody() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.server.revoke(&mut bus.world, channel);
    bus.server.reset(&mut bus.world);
    bus.answer();
    assert!(bus.server.is_idle());
    assert_eq!(bus.heard(), None);
    assert_eq!(bus.world.removed, [channel], "it was leaving, and nobody is left to release it");
}

#[test]
fn sockets_are_asked_for_and_refused_in_the_same_connection_only() {
    let mut bus = Bus::connected(Version::V5_2);
    let mut request = vec![0x0101_0101; 4];
    request.extend([0x0202_0202; 4]);
    request.extend([0x0303_0303; 4]);
    bus.say(kind::TL_CONNECT_REQUEST, &request);
    let socket = bus.world.sockets[0];
    assert_eq!((socket.endpoint, socket.service), (Guid([1; 16]), Guid([2; 16])));
    assert_eq!(socket.silo, Guid([3; 16]));
    bus.server.refuse_socket(&mut bus.world, &socket);
    let answer = [&request[..8], &[0xc000_0236]].concat();
    assert_eq!(bus.heard_all(), [(kind::TL_CONNECT_RESULT, answer)]);
    bus.contact(0x4_0000);
    bus.world.posted.clear();
    bus.server.refuse_socket(&mut bus.world, &socket);
    bus.say(kind::TL_CONNECT_REQUEST, &request);
    let socket = bus.world.sockets[1];
    assert_eq!(socket.silo, Guid::default(), "4.0 knows no silos");
    bus.server.refuse_socket(&mut bus.world, &socket);
    assert_eq!(bus.heard(), None, "nor an answer");
}

#[test]
fn a_copy_of_the_server_goes_on_where_it_was() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    bus.ask_close(channel);
    bus.ask_teardown(channel, 100);
    let copy = bus.server.clone();
    assert_eq!(copy, bus.server);
    bus.server = copy;
    bus.answer();
    assert_eq!(bus.heard_all(), [(kind::GPADL_TORNDOWN, vec![100])]);
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let mut bus = Bus::connected(Version::V5_3);
    let channel = bus.opened();
    let before = bus.server.clone();
    for id in [channel, ChannelId(99)] {
        bus.server.opened(&mut bus.world, id, Opened::Yes);
        bus.server.closed(&mut bus.world, id);
    }
    bus.server.gpadl_unmapped(&mut bus.world, GpadlId(100));
    bus.server.gpadl_unmapped(&mut bus.world, GpadlId(7));
    assert_eq!(bus.server, before);
}

#[test]
fn every_message_that_no_guest_sends_is_reported() {
    let mut bus = Bus::connected(Version::V5_3);
    bus.server.receive(&mut bus.world, &[]);
    bus.server.receive(&mut bus.world, &message(99, &[0u8; 8]));
    bus.server.receive(&mut bus.world, &[0; 241]);
    assert_eq!(bus.complaints().len(), 3);
}
