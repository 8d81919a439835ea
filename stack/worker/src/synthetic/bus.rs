//! The bus's thread: the control plane, joined to the world.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use mshv_ioctls::MshvError;
use storvsp::{
    controller::Controller,
    queue::{Queue, Role},
};
use tlfs::{
    HvStatus,
    synic::{HvMessage, MessageType},
};
use vmbus::{
    memory::Memory,
    protocol::SYNIC_MESSAGE_TYPE,
    ranges::Ranges,
    server::{
        ChannelId, Event as BusEvent, GpadlId, Host, MessageTarget, Offer, Open, Opened, Refused, Server,
        SocketRequest,
    },
};
use zerocopy::FromZeros;

use super::{Event, Link, Post, channel::Channel, disk};
use crate::memory::GuestRam;

/// How soon a message is tried again for which the guest had no room, at first and at last: a guest that never makes
/// room is not worth much time.
const RETRY: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(100)];
/// A guest can cause any number of lines in the log; it gets this many in a second.
const LINES_A_SECOND: u32 = 5;

/// The bus with its control plane.
pub(super) struct Bus {
    server: Server,
    world: World,
    /// Messages of the guest that wait for those to the guest to leave.
    inbox: VecDeque<Vec<u8>>,
}

/// What the control plane wants told, once it has returned.
enum Answer {
    Opened(ChannelId, Opened),
    Closed(ChannelId),
    Unmapped(GpadlId),
    NoSocket(SocketRequest),
}

/// What a channel belongs to.
#[derive(Clone)]
struct Device {
    offer: Offer,
    role: Role,
    controller: Arc<Controller>,
}

/// All that is not the control plane.
struct World {
    link: Arc<dyn Link>,
    memory: Arc<dyn Memory>,
    post: Post,
    devices: BTreeMap<ChannelId, Device>,
    channels: BTreeMap<ChannelId, Channel>,
    outbox: VecDeque<(MessageTarget, HvMessage)>,
    answers: VecDeque<Answer>,
    log: Log,
}

impl Bus {
    pub(super) fn new(link: Arc<dyn Link>, ram: Arc<GuestRam>, vps: u32, post: Post) -> Self {
        let world = World {
            link,
            memory: ram,
            post,
            devices: BTreeMap::new(),
            channels: BTreeMap::new(),
            outbox: VecDeque::new(),
            answers: VecDeque::new(),
            log: Log::new(),
        };
        Self { server: Server::new(vps), world, inbox: VecDeque::new() }
    }

    /// Offers a controller.
    pub(super) fn offer(&mut self, controller: Arc<Controller>) {
        let offer = Controller::offer(disk::INSTANCE);
        self.add(Device { offer, role: Role::First, controller });
    }

    fn add(&mut self, device: Device) {
        match self.server.offer(&mut self.world, device.offer.clone()) {
            Ok(id) => {
                self.world.devices.insert(id, device);
            }
            Err(error) => tracing::warn!(%error, "a channel is not offered"),
        }
    }

    /// Until [`Event::Stop`].
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        let [mut retry, slowest] = RETRY;
        loop {
            let event = if self.world.outbox.is_empty() {
                [retry, _] = RETRY;
                events.recv().map_err(RecvTimeoutError::from)
            } else {
                events.recv_timeout(retry)
            };
            match event {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(event) => self.take(event),
                Err(RecvTimeoutError::Timeout) => retry = slowest.min(retry * 2),
            }
            self.settle();
        }
        let open = std::mem::take(&mut self.world.channels);
        open.values().for_each(Channel::ask_to_end);
        open.into_iter().for_each(|(id, channel)| self.world.end(id, channel));
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Message(message) => self.inbox.push_back(message),
            Event::Subchannels(channel, count) => self.offer_subchannels(channel, count),
            Event::Broken(channel, reason) => {
                self.world.log.warn(format_args!("the guest loses channel {}: {reason}", channel.0));
                self.server.revoke(&mut self.world, channel);
            }
            Event::Ended(channel) => {
                if let Some(open) = self.world.channels.remove(&channel) {
                    self.world.end(channel, open);
                }
                self.world.answers.push_back(Answer::Closed(channel));
            }
            Event::Stop => {}
        }
    }

    fn offer_subchannels(&mut self, first: ChannelId, count: u16) {
        let Some(device) = self.world.devices.get(&first).cloned() else { return };
        for index in 1..=count {
            let offer = device.offer.subchannel(index);
            self.add(Device { offer, role: Role::Sub, ..device.clone() });
        }
    }

    /// Does all that has become possible. The guest's next message is only looked at when those that the last one caused
    /// have left, which bounds how many there are.
    fn settle(&mut self) {
        loop {
            while let Some(answer) = self.world.answers.pop_front() {
                self.answer(answer);
            }
            self.world.send();
            if !self.world.outbox.is_empty() {
                return;
            }
            let Some(message) = self.inbox.pop_front() else { return };
            self.world.post.waiting.fetch_sub(1, Ordering::AcqRel);
            self.server.receive(&mut self.world, &message);
        }
    }

    fn answer(&mut self, answer: Answer) {
        let (server, world) = (&mut self.server, &mut self.world);
        match answer {
            Answer::Opened(channel, opened) => server.opened(world, channel, opened),
            Answer::Closed(channel) => server.closed(world, channel),
            Answer::Unmapped(gpadl) => server.gpadl_unmapped(world, gpadl),
            Answer::NoSocket(request) => server.refuse_socket(world, &request),
        }
    }
}

impl World {
    /// Waits for a channel's thread and says what the channel has cost.
    fn end(&mut self, id: ChannelId, channel: Channel) {
        self.log.info(format_args!("channel {} is closed {}", id.0, channel.end()));
    }

    /// Sends what waits, as far as the guest has room.
    fn send(&mut self) {
        while let Some((target, message)) = self.outbox.front() {
            match self.link.post(target.vp, target.sint, message) {
                Ok(()) => {}
                Err(MshvError::Hypercall { status_raw, .. })
                    if status_raw == HvStatus::INSUFFICIENT_BUFFERS.0 =>
                {
                    return;
                }
                Err(error) => tracing::debug!(%error, "the guest takes no message"),
            }
            self.outbox.pop_front();
        }
    }

    fn serve(&mut self, id: ChannelId, open: &Open, ring: &Ranges) -> Result<Channel, String> {
        let device = self.devices.get(&id).ok_or("it belongs to no device")?;
        let memory = self.memory.clone();
        let queue = Queue::open(device.controller.clone(), memory, device.role, ring, open.downstream_page)
            .map_err(|error| error.to_string())?;
        Channel::start(id, self.link.clone(), open, queue, self.post.events.clone())
            .map_err(|error| error.to_string())
    }
}

impl Host for World {
    fn post(&mut self, target: MessageTarget, message: &[u8]) {
        let mut slot = HvMessage::new_zeroed();
        slot.header.message_type = MessageType(SYNIC_MESSAGE_TYPE);
        slot.header.payload_size = u8::try_from(message.len()).unwrap_or(u8::MAX);
        match slot.payload.get_mut(..message.len()) {
            Some(payload) => payload.copy_from_slice(message),
            None => return tracing::error!(bytes = message.len(), "a message of the bus is too long"),
        }
        self.outbox.push_back((target, slot));
    }

    fn map_gpadl(&mut self, channel: ChannelId, _: GpadlId, ranges: &Ranges) -> Result<(), Refused> {
        let is_ram = ranges
            .segments(0, ranges.bytes())
            .iter()
            .all(|segment| self.memory.is_ram(segment.gpa, segment.bytes.into()));
        if is_ram {
            return Ok(());
        }
        self.log.warn(format_args!("the guest lends channel {} what is not its RAM", channel.0));
        Err(Refused)
    }

    fn unmap_gpadl(&mut self, _: ChannelId, gpadl: GpadlId) {
        // Rings are used by an open channel only, and that is closed first.
        self.answers.push_back(Answer::Unmapped(gpadl));
    }

    fn open(&mut self, channel: ChannelId, open: &Open, ring: &Ranges) {
        let opened = match self.serve(channel, open, ring) {
            Ok(served) => {
                self.channels.insert(channel, served);
                Opened::Yes
            }
            Err(reason) => {
                self.log.warn(format_args!("channel {} cannot be opened: {reason}", channel.0));
                Opened::Refused
            }
        };
        self.answers.push_back(Answer::Opened(channel, opened));
    }

    fn close(&mut self, channel: ChannelId) {
        match self.channels.get(&channel) {
            Some(open) => open.ask_to_end(),
            None => self.answers.push_back(Answer::Closed(channel)),
        }
    }

    fn retarget(&mut self, channel: ChannelId, target_vp: Option<u32>) {
        if let Some(open) = self.channels.get(&channel) {
            open.retarget(target_vp);
        }
    }

    fn connect_socket(&mut self, request: SocketRequest) {
        self.answers.push_back(Answer::NoSocket(request));
    }

    fn removed(&mut self, channel: ChannelId) {
        self.devices.remove(&channel);
    }

    fn log(&mut self, event: BusEvent) {
        match event {
            BusEvent::Ignored(_) | BusEvent::VersionRefused(_) => self.log.warn(format_args!("{event}")),
            _ => self.log.info(format_args!("{event}")),
        }
    }
}

/// What a guest's doings put into the log, so often and no more.
struct Log {
    since: Instant,
    said: u32,
}

impl Log {
    fn new() -> Self {
        Self { since: Instant::now(), said: 0 }
    }

    fn info(&mut self, what: fmt::Arguments<'_>) {
        if let Some(rest) = self.ration(Instant::now()) {
            tracing::info!("{what}{rest}");
        }
    }

    fn warn(&mut self, what: fmt::Arguments<'_>) {
        if let Some(rest) = self.ration(Instant::now()) {
            tracing::warn!("{what}{rest}");
        }
    }

    /// Whether a line may be logged now, and what it ends with.
    fn ration(&mut self, now: Instant) -> Option<&'static str> {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self { since: now, said: 0 };
        }
        self.said = self.said.saturating_add(1);
        match self.said {
            ..LINES_A_SECOND => Some(""),
            LINES_A_SECOND => Some("; more lines of this second are left out"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_gets_five_lines_a_second_and_the_last_says_that_there_were_more() {
        let mut log = Log::new();
        let begin = log.since;
        let lines: Vec<_> = (0..1000).filter_map(|_| log.ration(begin)).collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[3].is_empty() && lines[4].contains("left out"));
        assert_eq!(log.ration(begin + Duration::from_millis(999)), None);
        assert_eq!(log.ration(begin + Duration::from_secs(1)), Some(""));
    }
}
