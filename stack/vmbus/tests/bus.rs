//! A host that records what the control plane wants and answers when told, and the messages of a Linux guest.

use std::collections::{BTreeSet, VecDeque};

use vmbus::{
    PAGE_BYTES,
    guid::Guid,
    protocol::{Version, kind, message},
    ranges::Ranges,
    server::{
        ChannelId, Complaint, Event, GpadlId, Host, MessageTarget, Offer, Open, Opened, Refused, Server,
        SocketRequest,
    },
};

/// A wish of the server that a device has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Open(ChannelId),
    Close(ChannelId),
    Unmap(GpadlId),
}

/// What the server said. It fails when the server breaks its own promises.
#[derive(Default)]
pub struct World {
    pub posted: VecDeque<(MessageTarget, Vec<u8>)>,
    pub wishes: VecDeque<Wish>,
    pub events: Vec<Event>,
    pub mapped: BTreeSet<GpadlId>,
    pub open: BTreeSet<ChannelId>,
    pub removed: Vec<ChannelId>,
    pub retargeted: Vec<(ChannelId, Option<u32>)>,
    pub sockets: Vec<SocketRequest>,
    pub refuse_gpadls: bool,
    pub opens: Vec<(ChannelId, Open, Ranges)>,
}

impl Host for World {
    fn post(&mut self, target: MessageTarget, message: &[u8]) {
        assert!((8..=240).contains(&message.len()));
        self.posted.push_back((target, message.to_vec()));
    }

    fn map_gpadl(&mut self, _: ChannelId, gpadl: GpadlId, _: &Ranges) -> Result<(), Refused> {
        if self.refuse_gpadls {
            return Err(Refused);
        }
        assert!(self.mapped.insert(gpadl), "mapped twice");
        Ok(())
    }

    fn unmap_gpadl(&mut self, _: ChannelId, gpadl: GpadlId) {
        assert!(self.mapped.contains(&gpadl));
        self.wishes.push_back(Wish::Unmap(gpadl));
    }

    fn open(&mut self, channel: ChannelId, open: &Open, ring: &Ranges) {
        assert!(self.mapped.contains(&open.gpadl), "the rings are not mapped");
        assert!(!self.open.contains(&channel), "opened twice");
        self.opens.push((channel, open.clone(), ring.clone()));
        self.wishes.push_back(Wish::Open(channel));
    }

    fn close(&mut self, channel: ChannelId) {
        assert!(self.open.remove(&channel), "closed without being open");
        self.wishes.push_back(Wish::Close(channel));
    }

    fn retarget(&mut self, channel: ChannelId, target_vp: Option<u32>) {
        self.retargeted.push((channel, target_vp));
    }

    fn connect_socket(&mut self, request: SocketRequest) {
        self.sockets.push(request);
    }

    fn removed(&mut self, channel: ChannelId) {
        assert!(!self.open.contains(&channel), "removed while open");
        self.removed.push(channel);
    }

    fn log(&mut self, event: Event) {
        assert!(!event.to_string().is_empty());
        self.events.push(event);
    }
}

/// A server in its world.
pub struct Bus {
    pub server: Server,
    pub world: World,
}

impl Bus {
    pub const VPS: u32 = 4;

    pub fn new() -> Self {
        Self { server: Server::new(Self::VPS), world: World::default() }
    }

    /// A bus whose guest has negotiated this version.
    pub fn connected(version: Version) -> Self {
        let mut bus = Self::new();
        bus.contact(version.number());
        bus.world.posted.clear();
        bus.world.events.clear();
        bus
    }

    /// The guest posts a message.
    pub fn say(&mut self, kind: u32, body: &[u32]) {
        self.server.receive(&mut self.world, &message(kind, body));
    }

    pub fn contact(&mut self, version: u32) {
        let sint = if version >= 0x5_0000 { 2 } else { 0x7000 };
        self.say(kind::INITIATE_CONTACT, &[version, 1, sint, 0, 0x8000, 0, 0x9000, 0]);
    }

    pub fn offer(&mut self, instance: u64) -> ChannelId {
        self.server.offer(&mut self.world, offer(instance)).unwrap()
    }

    /// A channel that the guest knows.
    pub fn offered(&mut self) -> ChannelId {
        let channel = self.offer(1);
        self.say(kind::REQUEST_OFFERS, &[]);
        self.world.posted.clear();
        channel
    }

    /// Announces memory of these pages as Linux does (`create_gpadl_header`).
    pub fn lend(&mut self, channel: ChannelId, gpadl: u32, pages: &[u64]) {
        let count = u32::try_from(pages.len()).unwrap();
        let words: Vec<u32> = pages.iter().flat_map(|page| [*page as u32, (*page >> 32) as u32]).collect();
        let mut chunks = vec![&words[..words.len().min(52)]];
        chunks.extend(words.get(52..).unwrap_or_default().chunks(56));
        let mut body = vec![channel.0, gpadl, (8 + 8 * count) | 1 << 16, count * PAGE_BYTES, 0];
        body.extend(chunks[0]);
        self.say(kind::GPADL_HEADER, &body);
        for chunk in &chunks[1..] {
            self.say(kind::GPADL_BODY, &[&[0, gpadl], *chunk].concat());
        }
    }

    pub fn ask_open(&mut self, channel: ChannelId, gpadl: u32, split: u32, target_vp: u32) {
        let mut body = vec![channel.0, 77, gpadl, target_vp, split];
        body.resize(35, 0x2a2a_2a2a);
        self.say(kind::OPEN_CHANNEL, &body);
    }

    /// A channel that is open, with its rings in GPADL 100.
    pub fn opened(&mut self) -> ChannelId {
        let channel = self.offered();
        self.lend(channel, 100, &[1, 2, 3, 4]);
        self.ask_open(channel, 100, 2, 1);
        self.answer();
        self.world.posted.clear();
        channel
    }

    pub fn ask_close(&mut self, channel: ChannelId) {
        self.say(kind::CLOSE_CHANNEL, &[channel.0]);
    }

    pub fn ask_teardown(&mut self, channel: ChannelId, gpadl: u32) {
        self.say(kind::GPADL_TEARDOWN, &[channel.0, gpadl]);
    }

    /// The devices do the oldest wish.
    pub fn answer_one(&mut self, opened: Opened) -> Option<Wish> {
        let wish = self.world.wishes.pop_front()?;
        match wish {
            Wish::Open(channel) => {
                if opened == Opened::Yes {
                    self.world.open.insert(channel);
                }
                self.server.opened(&mut self.world, channel, opened);
            }
            Wish::Close(channel) => self.server.closed(&mut self.world, channel),
            Wish::Unmap(gpadl) => {
                self.world.mapped.remove(&gpadl);
                self.server.gpadl_unmapped(&mut self.world, gpadl);
            }
        }
        Some(wish)
    }

    /// The devices do all that is wished; what it was.
    pub fn answer(&mut self) -> Vec<Wish> {
        std::iter::from_fn(|| self.answer_one(Opened::Yes)).collect()
    }

    /// The next message to the guest: its type and the 32-bit words after the header.
    pub fn heard(&mut self) -> Option<(u32, Vec<u32>)> {
        let (_, message) = self.world.posted.pop_front()?;
        let words: Vec<u32> = message.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        Some((words[0], words[2..].to_vec()))
    }

    pub fn heard_all(&mut self) -> Vec<(u32, Vec<u32>)> {
        std::iter::from_fn(|| self.heard()).collect()
    }

    pub fn complaints(&mut self) -> Vec<Complaint> {
        let complaint = |event| match event {
            Event::Ignored(complaint) => Some(complaint),
            _ => None,
        };
        std::mem::take(&mut self.world.events).into_iter().filter_map(complaint).collect()
    }
}

pub fn offer(instance: u64) -> Offer {
    Offer::device(Guid::new(0xba61_63d9, 0x04a1, 0x4d29, 0xb605, 1), Guid::new(1, 2, 3, 4, instance))
}
