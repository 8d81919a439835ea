//! A partition with one SCSI controller: the root's side wired up as a worker would, and a guest that speaks like
//! Linux's `hv_vmbus` and `hv_storvsc`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    task::Poll,
};

use crate::ring::{COMPLETION, GPA_DIRECT, GuestRing, INBAND, PAGE, Received, gpa_direct, packet};
use storvsp::{
    backend::{Backend, Discard, IoError, Operation, Properties, Token},
    controller::{Controller, Disk},
    queue::{Fault, Queue, Role, Service},
    scsi::{Geometry, Identity},
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus::{
    guid::Guid,
    memory::Memory,
    protocol::{kind, message},
    ranges::{Ranges, Segment},
    ring::Signal,
    server::{ChannelId, Event, GpadlId, Host, MessageTarget, Open, Opened, Refused, Server, SocketRequest},
};

pub const INSTANCE: Guid = Guid::new(1, 2, 3, 4, 5);
const RAM_BYTES: usize = 16 << 20;

/// The root's side.
pub struct Root {
    pub memory: GuestMemoryMmap,
    pub controller: Arc<Controller>,
    pub first: ChannelId,
    pub queues: BTreeMap<ChannelId, Queue>,
    pub posted: VecDeque<Vec<u8>>,
    pub events: Vec<Event>,
    answers: VecDeque<Answer>,
}

enum Answer {
    Opened(ChannelId, Opened),
    Closed(ChannelId),
    Unmapped(GpadlId),
}

impl Host for Root {
    fn post(&mut self, _: MessageTarget, message: &[u8]) {
        self.posted.push_back(message.to_vec());
    }

    fn map_gpadl(&mut self, _: ChannelId, _: GpadlId, ranges: &Ranges) -> Result<(), Refused> {
        if ranges.is_ram(&self.memory) { Ok(()) } else { Err(Refused) }
    }

    fn unmap_gpadl(&mut self, _: ChannelId, gpadl: GpadlId) {
        self.answers.push_back(Answer::Unmapped(gpadl));
    }

    fn open(&mut self, channel: ChannelId, open: &Open, ring: &Ranges) {
        let role = if channel == self.first { Role::First } else { Role::Sub };
        let memory = Arc::new(self.memory.clone());
        let queue = Queue::open(self.controller.clone(), memory, role, ring, open.downstream_page);
        let opened = if queue.is_ok() { Opened::Yes } else { Opened::Refused };
        self.queues.extend(queue.ok().map(|queue| (channel, queue)));
        self.answers.push_back(Answer::Opened(channel, opened));
    }

    fn close(&mut self, channel: ChannelId) {
        let queue = self.queues.remove(&channel).unwrap();
        assert!(queue.is_idle(), "these tests close quiet channels");
        self.answers.push_back(Answer::Closed(channel));
    }

    fn retarget(&mut self, _: ChannelId, _: Option<u32>) {}

    fn connect_socket(&mut self, _: SocketRequest) {}

    fn removed(&mut self, _: ChannelId) {}

    fn log(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// An open channel, as the guest has it.
pub struct Channel {
    pub id: ChannelId,
    pub gpadl: u32,
    pub to_host: GuestRing,
    pub to_guest: GuestRing,
}

/// How a SCSI request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub srb_status: u8,
    pub scsi_status: u8,
    pub moved: u32,
    /// Key, code, qualifier.
    pub sense: Option<(u8, u8, u8)>,
}

impl Ended {
    pub fn well(moved: u32) -> Self {
        Self { srb_status: 1, scsi_status: 0, moved, sense: None }
    }

    pub fn port(srb_status: u8) -> Self {
        Self { srb_status, scsi_status: 0, moved: 0, sense: None }
    }

    pub fn check(key: u8, code: u8, qualifier: u8) -> Self {
        Self { srb_status: 0x84, scsi_status: 2, moved: 0, sense: Some((key, code, qualifier)) }
    }

    pub fn of(payload: &[u8]) -> Self {
        assert_eq!((payload[0], payload.len()), (1, 64), "COMPLETE_IO");
        let srb = &payload[12..];
        let moved = u32::from_le_bytes(srb[12..16].try_into().unwrap());
        let sense = (srb[9] > 0).then(|| (srb[18] & 0xf, srb[28], srb[29]));
        Self { srb_status: srb[2], scsi_status: srb[3], moved, sense }
    }
}

/// Where a request's data go.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    None,
    From(u32),
    To(&'a [u8]),
}

pub struct Machine {
    pub server: Server,
    pub root: Root,
    /// Pages from here on are free.
    next_page: u64,
    pub transactions: u64,
}

pub fn disk(backend: Arc<dyn Backend>) -> Disk {
    Disk::new(Identity([0x5a; 16]), Geometry::default(), backend)
}

impl Machine {
    /// A partition whose controller has these disks, before anything runs.
    pub fn new(disks: &[(u8, Arc<dyn Backend>)]) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM_BYTES)]).unwrap();
        let controller = Arc::new(Controller::new(1));
        for (lun, backend) in disks {
            controller.attach(*lun, disk(backend.clone())).unwrap();
        }
        let mut root = Root {
            memory,
            controller,
            first: ChannelId(0),
            queues: BTreeMap::new(),
            posted: VecDeque::new(),
            events: Vec::new(),
            answers: VecDeque::new(),
        };
        let mut server = Server::new(4);
        root.first = server.offer(&mut root, Controller::offer(INSTANCE)).unwrap();
        Self { server, root, next_page: 16, transactions: 0 }
    }

    /// One whose guest has opened the controller and initialized it.
    pub fn ready(disks: &[(u8, Arc<dyn Backend>)]) -> (Self, Channel) {
        let mut machine = Self::new(disks);
        machine.connect();
        let first = machine.root.first;
        let mut channel = machine.open(first);
        machine.initialize(&mut channel);
        (machine, channel)
    }

    pub fn pages(&mut self, count: u64) -> Vec<u64> {
        let first = self.next_page;
        self.next_page += count;
        assert!(self.next_page * PAGE <= RAM_BYTES as u64, "the tests have used all memory");
        (first..self.next_page).collect()
    }

    /// The guest posts a message, and the devices answer what comes of it.
    pub fn post(&mut self, kind: u32, body: &[u32]) {
        self.server.receive(&mut self.root, &message(kind, body));
        while let Some(answer) = self.root.answers.pop_front() {
            match answer {
                Answer::Opened(channel, opened) => self.server.opened(&mut self.root, channel, opened),
                Answer::Closed(channel) => self.server.closed(&mut self.root, channel),
                Answer::Unmapped(gpadl) => self.server.gpadl_unmapped(&mut self.root, gpadl),
            }
        }
    }

    /// The next message of the root, which is of this type.
    pub fn expect(&mut self, kind: u32) -> Vec<u32> {
        let message = self.root.posted.pop_front().unwrap_or_else(|| panic!("no message of type {kind}"));
        let words: Vec<u32> = message.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(words[0], kind);
        words[2..].to_vec()
    }

    pub fn connect(&mut self) {
        self.post(kind::INITIATE_CONTACT, &[0x5_0003, 0, 2, 0, 0x1000, 0, 0x2000, 0]);
        assert_eq!(self.expect(kind::VERSION_RESPONSE), [1, 4]);
        self.post(kind::REQUEST_OFFERS, &[]);
        let offer = self.expect(kind::OFFER_CHANNEL);
        assert_eq!(offer[0], 0xba61_63d9, "the interface of a SCSI controller");
        assert_eq!(offer[44], self.root.first.0);
        self.expect(kind::ALL_OFFERS_DELIVERED);
    }

    /// `vmbus_open` with rings of 32 KiB.
    pub fn open(&mut self, id: ChannelId) -> Channel {
        let pages = self.pages(16);
        let gpadl = 0xe1e10 + u32::try_from(pages[0]).unwrap();
        let numbers: Vec<u32> = pages.iter().flat_map(|page| [*page as u32, 0]).collect();
        let header = [id.0, gpadl, (8 + 8 * 16) | 1 << 16, 16 * 4096, 0];
        self.post(kind::GPADL_HEADER, &[&header[..], &numbers].concat());
        assert_eq!(self.expect(kind::GPADL_CREATED), [id.0, gpadl, 0]);
        let (up, down) = pages.split_at(8);
        let to_host = GuestRing::new(&self.root.memory, up);
        let to_guest = GuestRing::new(&self.root.memory, down);
        let mut open = vec![id.0, id.0, gpadl, 0, 8];
        open.resize(35, 0);
        self.post(kind::OPEN_CHANNEL, &open);
        assert_eq!(self.expect(kind::OPEN_CHANNEL_RESULT), [id.0, id.0, 0]);
        Channel { id, gpadl, to_host, to_guest }
    }

    /// `vmbus_close`.
    pub fn close(&mut self, channel: &Channel) {
        self.post(kind::CLOSE_CHANNEL, &[channel.id.0]);
        self.post(kind::GPADL_TEARDOWN, &[channel.id.0, channel.gpadl]);
        assert_eq!(self.expect(kind::GPADL_TORNDOWN), [channel.gpadl]);
    }

    pub fn queue(&mut self, channel: &Channel) -> &mut Queue {
        self.root.queues.get_mut(&channel.id).unwrap()
    }

    /// The guest signalled: the root serves the channel until it is done.
    pub fn signal(&mut self, channel: &Channel) -> Result<Service, Fault> {
        let mut sum = Service { signal: Signal::NotNeeded, more: true, subchannels: None };
        while sum.more {
            let service = self.queue(channel).service(4)?;
            let signal = if service.signal == Signal::Needed { service.signal } else { sum.signal };
            let subchannels = service.subchannels.or(sum.subchannels);
            sum = Service { signal, more: service.more, subchannels };
        }
        Ok(sum)
    }

    /// Sends without waiting.
    pub fn send(&mut self, channel: &Channel, bytes: &[u8]) -> Result<Service, Fault> {
        match channel.to_host.write(bytes).expect("the ring is full") {
            true => self.signal(channel),
            false => Ok(Service { signal: Signal::NotNeeded, more: false, subchannels: None }),
        }
    }

    /// `storvsc_execute_vstor_op`: sends an operation and waits; the answer's status and payload.
    pub fn operate(&mut self, channel: &mut Channel, operation: u32, value: u16) -> (u32, Vec<u8>) {
        let mut payload = vec![0; 64];
        payload[..4].copy_from_slice(&operation.to_le_bytes());
        payload[4] = 1;
        payload[12..14].copy_from_slice(&value.to_le_bytes());
        let service = self.send(channel, &packet(INBAND, 1, u64::MAX - 2, &[], &payload)).unwrap();
        assert_eq!(service.signal, Signal::Needed);
        let answer = receive(channel).unwrap();
        assert_eq!((answer.kind, answer.transaction), (COMPLETION, u64::MAX - 2));
        assert_eq!(answer.payload[..4], [1, 0, 0, 0]);
        let status = u32::from_le_bytes(answer.payload[8..12].try_into().unwrap());
        (status, answer.payload[12..].to_vec())
    }

    /// `storvsc_channel_init`; the properties.
    pub fn initialize(&mut self, channel: &mut Channel) -> Vec<u8> {
        assert_eq!(self.operate(channel, 7, 0).0, 0);
        assert_eq!(self.operate(channel, 9, 0x0602).0, 0);
        let (status, properties) = self.operate(channel, 10, 0);
        assert_eq!(status, 0);
        assert_eq!(self.operate(channel, 8, 0).0, 0);
        properties
    }

    /// A ring packet with a SCSI request on these pages (`storvsc_queuecommand`).
    pub fn request(&mut self, lun: u8, cdb: &[u8], data: Data<'_>, pages: &[u64]) -> Vec<u8> {
        self.transactions += 1;
        let (direction, bytes) = match data {
            Data::None => (2, 0),
            Data::From(bytes) => (1, bytes),
            Data::To(from) => {
                self.root.memory.write_slice(from, GuestAddress(pages[0] * PAGE)).unwrap();
                (0, u32::try_from(from.len()).unwrap())
            }
        };
        let payload = srb(lun, cdb, direction, bytes);
        match bytes {
            0 => packet(INBAND, 1, self.transactions, &[], &payload),
            bytes => packet(GPA_DIRECT, 1, self.transactions, &gpa_direct(bytes, 0, pages), &payload),
        }
    }

    /// Sends a request and waits for its end; what was read.
    pub fn scsi(&mut self, channel: &mut Channel, lun: u8, cdb: &[u8], data: Data<'_>) -> (Ended, Vec<u8>) {
        let bytes = match data {
            Data::None => 0,
            Data::From(bytes) => bytes as usize,
            Data::To(from) => from.len(),
        };
        let (first, count) = (self.next_page, (bytes as u64).div_ceil(PAGE));
        let pages = self.pages(count);
        self.next_page = first;
        let request = self.request(lun, cdb, data, &pages);
        let _ = self.send(channel, &request).unwrap();
        let answer = receive(channel).unwrap();
        assert_eq!(answer.transaction, self.transactions);
        let ended = Ended::of(&answer.payload);
        let mut read = vec![0; ended.moved as usize];
        if let Data::From(_) = data {
            self.root.memory.read_slice(&mut read, GuestAddress(first * PAGE)).unwrap();
        }
        (ended, read)
    }
}

/// The payload of EXECUTE_SRB.
pub fn srb(lun: u8, cdb: &[u8], direction: u8, bytes: u32) -> Vec<u8> {
    let mut payload = vec![3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    payload.extend([52, 0, 0, 0, 0, 0, 0, lun, u8::try_from(cdb.len()).unwrap(), 20, direction, 0]);
    payload.extend(bytes.to_le_bytes());
    payload.extend(cdb);
    payload.resize(64, 0);
    payload
}

/// The guest's interrupt handler: takes one packet.
pub fn receive(channel: &mut Channel) -> Option<Received> {
    let received = channel.to_guest.read();
    channel.to_guest.close_read();
    received
}

/// A backend that does nothing until it is told, and remembers what it was asked.
#[derive(Default)]
pub struct Slow {
    pub asked: Mutex<Vec<(Token, Operation)>>,
}

impl Slow {
    pub fn take(&self) -> Vec<(Token, Operation)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Backend for Slow {
    fn properties(&self) -> Properties {
        Properties { bytes: 1 << 20, read_only: false, discard: Discard::Zeroes }
    }

    fn submit(
        &self,
        token: Token,
        operation: &Operation,
        _: &dyn Memory,
        _: &[Segment],
    ) -> Poll<Result<(), IoError>> {
        self.asked.lock().unwrap().push((token, operation.clone()));
        Poll::Pending
    }
}
