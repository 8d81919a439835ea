//! Synthetic devices: the VMBus server of one machine, and what brings it to `/dev/mshv`.
//!
//! | thread | does |
//! |---|---|
//! | a processor's | takes a message that the guest posts ([`Post::message`]) and leaves it to the bus |
//! | the bus ([`bus`]) | the control plane: one message of the guest after the other, answers of the channels |
//! | a channel's ([`channel`]) | serves the rings of one open channel; the guest wakes it by an event descriptor |
//!
//! Guest to host, a message is an intercepted hypercall and a signal is a doorbell, which no processor's thread sees
//! (`docs/adr/0010-guest-to-host-signals.md`). Host to guest, both are one hypercall.

mod bus;
mod channel;
pub mod disk;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use storvsp::controller::Controller;
use tlfs::HvStatus;
use vmbus::{
    protocol::{MESSAGE_CONNECTION, MESSAGE_CONNECTION_5},
    server::ChannelId,
};

use crate::{memory::GuestRam, partition::Partition};

/// The most messages of the guest that wait for the bus. A guest that posts more hears that there is no room, and
/// tries again (Linux `drivers/hv/connection.c:vmbus_post_msg`).
const MAX_WAITING: usize = 16;

/// What the bus's thread is told.
enum Event {
    /// The guest posted a message to the server.
    Message(Vec<u8>),
    /// The driver of a controller's first channel wants sub-channels.
    Subchannels(ChannelId, u16),
    /// A guest broke a channel's rings: for what reason.
    Broken(ChannelId, String),
    /// A channel's thread has ended and uses the guest's memory no more.
    Ended(ChannelId),
    /// The machine ends.
    Stop,
}

/// Where processors leave what the guest posts.
#[derive(Clone)]
pub struct Post {
    events: Sender<Event>,
    waiting: Arc<AtomicUsize>,
}

impl Post {
    /// Takes a message that was posted to `connection`, and returns the status for the guest.
    pub fn message(&self, connection: u32, payload: &[u8]) -> HvStatus {
        if ![MESSAGE_CONNECTION, MESSAGE_CONNECTION_5].contains(&connection) {
            return HvStatus::INVALID_CONNECTION_ID;
        }
        let room = |waiting| (waiting < MAX_WAITING).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
            return HvStatus::INSUFFICIENT_BUFFERS;
        }
        match self.events.send(Event::Message(payload.to_vec())) {
            Ok(()) => HvStatus::SUCCESS,
            // The machine is ending.
            Err(_) => HvStatus::INVALID_CONNECTION_ID,
        }
    }
}

/// The synthetic devices of one life of a machine.
pub struct Synthetic {
    post: Post,
    bus: Option<JoinHandle<()>>,
}

impl Synthetic {
    /// Offers a SCSI controller on a bus of its own. Before the processors run.
    ///
    /// # Errors
    ///
    /// When the host has no thread left.
    pub fn start(
        partition: Partition,
        ram: Arc<GuestRam>,
        vps: u32,
        controller: Arc<Controller>,
    ) -> io::Result<Self> {
        let (sender, events) = mpsc::channel();
        let post = Post { events: sender, waiting: Arc::new(AtomicUsize::new(0)) };
        let mut bus = bus::Bus::new(partition, ram, vps, post.clone());
        bus.offer(controller);
        let bus = thread::Builder::new().name("vmbus".into()).spawn(move || bus.run(&events))?;
        Ok(Self { post, bus: Some(bus) })
    }

    /// Where processors leave what the guest posts.
    pub fn post(&self) -> Post {
        self.post.clone()
    }
}

impl Drop for Synthetic {
    /// Ends the channels, and with them all use of the guest's memory.
    fn drop(&mut self) {
        let told = self.post.events.send(Event::Stop);
        if let Some(bus) = self.bus.take()
            && (told.is_err() | bus.join().is_err())
        {
            tracing::error!("the thread of the bus has panicked");
        }
    }
}
