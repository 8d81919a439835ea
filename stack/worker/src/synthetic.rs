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
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
};

use mshv_ioctls::MshvError;
use storvsp::controller::Controller;
use tlfs::{HvStatus, synic::HvMessage};
use vmbus::{
    protocol::{MESSAGE_CONNECTION, MESSAGE_CONNECTION_5},
    server::ChannelId,
};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    memory::GuestRam,
    signal::{Outcome, Signal},
};

/// The most messages of the guest that wait for the bus. A guest that posts more hears that there is no room, and
/// tries again (Linux `drivers/hv/connection.c:vmbus_post_msg`).
const MAX_WAITING: usize = 16;

/// The ways to a guest and from it: what of a partition synthetic devices use.
pub trait Link: Send + Sync {
    /// Posts a message to a source of the guest's VP.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn post(&self, vp: u32, sint: u8, message: &HvMessage) -> Result<(), MshvError>;

    /// Sets an event flag of a source of the guest's VP.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn signal(&self, vp: u32, sint: u8, flag: u16) -> Result<(), MshvError>;

    /// Rings `bell` when the guest signals `connection`.
    ///
    /// # Errors
    ///
    /// What the kernel or the hypervisor says.
    fn ring(&self, bell: &EventFd, connection: u32) -> Result<(), MshvError>;

    /// Rings it no more.
    fn unring(&self, bell: &EventFd, connection: u32);
}

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
    /// Offers a SCSI controller on a bus of its own. Before the processors run. A defect of the bus ends the machine
    /// by `signal`.
    ///
    /// # Errors
    ///
    /// When the host has no thread left.
    pub fn start(
        link: Arc<dyn Link>,
        ram: Arc<GuestRam>,
        vps: u32,
        controller: Arc<Controller>,
        signal: Arc<Signal>,
    ) -> io::Result<Self> {
        let (sender, events) = mpsc::channel();
        let post = Post { events: sender, waiting: Arc::new(AtomicUsize::new(0)) };
        let mut bus = bus::Bus::new(link, ram, vps, post.clone());
        bus.offer(controller);
        let bus = thread::Builder::new().name("vmbus".into()).spawn(move || {
            // The guest would otherwise wait for an answer for ever. What unwinds ends the channels.
            if panic::catch_unwind(AssertUnwindSafe(|| bus.run(&events))).is_err() {
                let defect = "VMBus: the worker has a defect; its log has the place";
                signal.raise(Outcome::Failed(defect.into()));
            }
        })?;
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
        // A bus that has ended already has ended badly, and said so.
        let _ = self.post.events.send(Event::Stop);
        if let Some(bus) = self.bus.take() {
            let _ = bus.join();
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
