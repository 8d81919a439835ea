//! The server of one channel's rings.
//!
//! The owner calls [`Queue::service`] when the guest signals, and again while it says that there is more;
//! [`Queue::complete`] when the storage is done with a request that it did not do at once. Each returns whether the
//! guest has to be signalled: once for all that happened, and not at all while it looks by itself.
//!
//! Before a channel is closed, no more requests are taken and those under way are waited for
//! ([`Queue::is_idle`]); then the queue is dropped, and the guest's memory is its own.
//!
//! What the guest can make a queue keep is bounded: [`MAX_JOBS`] requests under way, and as many answers that did not
//! fit into the ring; while there is one of those, no request is taken. The guest signals when there is room again, as
//! each does that sets the feature bit of its ring ([`vmbus::ring`]).

mod job;

use std::{collections::VecDeque, fmt, sync::Arc};

use vmbus::{
    memory::Memory,
    ranges::Ranges,
    ring::{Kind, Outgoing, Packet as RingPacket, RingError, Rings, Sent, Signal},
};
use zerocopy::{FromBytes, IntoBytes};

use self::job::{Ending, Jobs};
use crate::{
    backend::{IoError, Token},
    controller::Controller,
    protocol::{Packet, operation, status},
};

pub use self::job::MAX_JOBS;

/// The most bytes of a ring packet: 257 page numbers of the largest transfer and the request itself take 2152.
const MAX_PACKET_BYTES: u32 = 4096;

/// Which channel of its controller a queue serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The first, over which the controller is initialized.
    First,
    /// A sub-channel, for requests only.
    Sub,
}

/// Why a channel has to be withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its rings are broken.
    Ring(RingError),
    /// A packet is too short to be one of this protocol.
    Short {
        /// Its payload in bytes.
        bytes: usize,
    },
    /// A packet is of a kind that no driver of such a controller sends.
    Kind,
}

impl From<RingError> for Fault {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Short { bytes } => write!(f, "a request of {bytes} bytes is none"),
            Self::Kind => f.write_str("a packet is neither a request nor a completion"),
        }
    }
}

/// What the owner has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the guest may have to be signalled"]
pub struct Service {
    /// Whether the guest is to be signalled.
    pub signal: Signal,
    /// Whether [`Queue::service`] is to be called again without a signal of the guest.
    pub more: bool,
    /// How many sub-channels the guest wants to be offered, with indices from 1.
    pub subchannels: Option<u16>,
}

/// One channel.
pub struct Queue {
    controller: Arc<Controller>,
    memory: Arc<dyn Memory>,
    rings: Rings,
    role: Role,
    packet: RingPacket,
    jobs: Jobs,
    /// Answers that wait for room: transaction and packet.
    answers: VecDeque<(u64, Packet)>,
    /// The guest has to be told that units came or went.
    notice_due: bool,
    subchannels: Option<u16>,
    /// Requests were left in the ring because [`MAX_JOBS`] are under way.
    starved: bool,
}

impl Queue {
    /// Serves the rings in `gpadl`, which the guest opened with the second one at page `split`.
    ///
    /// # Errors
    /// There are no such rings.
    pub fn open(
        controller: Arc<Controller>,
        memory: Arc<dyn Memory>,
        role: Role,
        gpadl: &Ranges,
        split: u32,
    ) -> Result<Self, RingError> {
        let rings = Rings::open(&*memory, gpadl, split, MAX_PACKET_BYTES)?;
        if role == Role::First {
            controller.restart();
        }
        Ok(Self {
            controller,
            memory,
            rings,
            role,
            packet: RingPacket::default(),
            jobs: Jobs::default(),
            answers: VecDeque::new(),
            notice_due: false,
            subchannels: None,
            starved: false,
        })
    }

    /// Takes at most `budget` packets and does what they say.
    ///
    /// # Errors
    /// The channel has to be withdrawn.
    pub fn service(&mut self, budget: usize) -> Result<Service, Fault> {
        self.rings.incoming.mask(&*self.memory)?;
        self.flush()?;
        self.starved = false;
        let mut taken = 0;
        let drained = loop {
            // The guest signals when there is room for answers, whatever the mask says.
            if taken == budget || !self.answers.is_empty() {
                break false;
            }
            if self.jobs.is_full() {
                self.starved = true;
                break false;
            }
            if !self.rings.incoming.next(&*self.memory, &mut self.packet)? {
                break true;
            }
            taken += 1;
            self.handle()?;
        };
        let room = self.rings.incoming.publish(&*self.memory)?;
        let more = if drained { self.rings.incoming.unmask(&*self.memory)? } else { taken == budget };
        self.publish(room, more)
    }

    /// The storage is done with a request. An answer that nobody waits for is ignored.
    ///
    /// # Errors
    /// The channel has to be withdrawn.
    pub fn complete(&mut self, token: Token, result: Result<(), IoError>) -> Result<Service, Fault> {
        if let Some(ending) = self.jobs.resume(&*self.memory, token, result) {
            self.end(ending)?;
        }
        let more = std::mem::take(&mut self.starved);
        self.publish(Signal::NotNeeded, more)
    }

    /// Tells the guest to look for units that came or went (Linux `storvsc_on_receive`); for the first channel.
    ///
    /// # Errors
    /// The channel has to be withdrawn.
    pub fn notify_units_changed(&mut self) -> Result<Service, Fault> {
        self.notice_due = true;
        self.flush()?;
        self.publish(Signal::NotNeeded, false)
    }

    /// Whether no request is under way in the storage.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Lets the guest see what was done. `room`: whether it waits for the room of what was taken.
    fn publish(&mut self, room: Signal, more: bool) -> Result<Service, Fault> {
        let packets = self.rings.outgoing.publish(&*self.memory)?;
        let signal = if room == Signal::Needed { room } else { packets };
        Ok(Service { signal, more, subchannels: self.subchannels.take() })
    }

    /// Sends what has waited for room, as far as there is some.
    fn flush(&mut self) -> Result<(), Fault> {
        while let Some((transaction, packet)) = self.answers.front() {
            let answer = Outgoing::completion(*transaction, packet.as_bytes());
            if self.rings.outgoing.send(&*self.memory, &answer)? == Sent::Full {
                return Ok(());
            }
            self.answers.pop_front();
        }
        if self.notice_due {
            let notice =
                Packet { operation: operation::ENUMERATE_BUS, flags: 0, status: 0, payload: [0; 52] };
            // Transaction 0 is not one of the guest's.
            let message = Outgoing::message(0, notice.as_bytes());
            self.notice_due = self.rings.outgoing.send(&*self.memory, &message)? == Sent::Full;
        }
        Ok(())
    }

    fn handle(&mut self) -> Result<(), Fault> {
        match self.packet.kind() {
            Kind::Inband | Kind::GpaDirect => {}
            // Nothing that is sent asks for one.
            Kind::Completion => return Ok(()),
            Kind::TransferPages { .. } => return Err(Fault::Kind),
        }
        let payload = self.packet.payload();
        let (packet, _) =
            Packet::read_from_prefix(payload).map_err(|_| Fault::Short { bytes: payload.len() })?;
        let transaction = self.packet.wants_completion().then(|| self.packet.transaction());
        let ending = if packet.operation == operation::EXECUTE_SRB {
            let ranges = self.packet.ranges();
            self.jobs.execute(&self.controller, &*self.memory, transaction, packet, ranges)
        } else {
            Some(Ending { transaction, packet: self.control(packet) })
        };
        ending.map_or(Ok(()), |ending| self.end(ending))
    }

    fn control(&mut self, packet: Packet) -> Packet {
        let mut answer = packet;
        answer.operation = operation::COMPLETE_IO;
        if self.role == Role::Sub {
            answer.status = status::INVALID_DEVICE_STATE;
            return answer;
        }
        let control = self.controller.control(&packet);
        answer.status = control.status;
        if packet.operation == operation::QUERY_PROPERTIES {
            answer.payload = control.payload;
        }
        self.subchannels = control.subchannels.or(self.subchannels);
        answer
    }

    fn end(&mut self, ending: Ending) -> Result<(), Fault> {
        if let Some(transaction) = ending.transaction {
            self.answers.push_back((transaction, ending.packet));
            self.flush()?;
        }
        Ok(())
    }
}
