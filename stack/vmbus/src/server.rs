//! The control plane: which channels there are, and who uses them.
//!
//! [`Server`] is a state machine without I/O, threads or time. The guest's messages go in by [`Server::receive`], the
//! devices' answers by [`Server::opened`], [`Server::closed`] and [`Server::gpadl_unmapped`], and everything that is
//! to happen comes out of the one trait [`Host`]. It is plain data: a clone of it goes on where it was.
//!
//! **The life of a channel.** A device offers it ([`Server::offer`]); a guest that asked for offers hears of it,
//! describes memory for its rings (a GPADL), opens it, uses it, closes it, takes its memory back. Every
//! [`Host::open`] is answered by one `opened`, every [`Host::close`] by one `closed`, every [`Host::unmap_gpadl`] by
//! one `gpadl_unmapped`, and nothing else of the same kind happens to the channel before. So a device has the
//! time to wait for its I/O, and no answer can reach a later channel of the same id.
//!
//! **Memory first.** The guest hears that memory is its own again (GPADL_TORNDOWN, RESCIND, UNLOAD_RESPONSE, or the answer
//! to a new INITIATE_CONTACT) only after the device has said that it uses it no more. A GPADL that holds the rings
//! of an open channel is torn down when the channel has been closed.
//!
//! **A guest that starts anew.** INITIATE_CONTACT in mid-conversation means that the old system is gone (kexec, a
//! crash kernel, a reset that we did not see). All is closed and unmapped first, and the answer to the last one of
//! these messages is given when that is done.
//!
//! **Limits.** What a guest can make this keep is bounded by [`MAX_GPADLS`], [`MAX_GPADL_VALUES`] and the number of
//! channels, which devices offer. One message causes at most one message per channel; an embedder that hands in the
//! next message of the guest only when those of the previous one have left bounds its queue as well.

mod contact;
mod gpadl;
mod host;
mod offers;
mod open;
mod state;

use std::collections::BTreeMap;

pub use self::{
    contact::MessageTarget,
    gpadl::{GpadlId, MAX_GPADL_VALUES, MAX_GPADLS},
    host::{Complaint, Event, Host, Refused, SocketRequest},
    offers::{Offer, OfferError},
    open::{Open, Opened},
    state::ChannelId,
};
use self::{
    contact::{Connection, Session},
    gpadl::Gpadl,
    state::Channel,
};
use crate::protocol::{Incoming, Version};

/// The control plane of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How many VPs there are; their indices are below it.
    vps: u32,
    connection: Connection,
    /// Counts connections, so that an answer to an older one is recognized.
    generation: u64,
    channels: BTreeMap<ChannelId, Channel>,
    gpadls: BTreeMap<GpadlId, Gpadl>,
    /// Values that all GPADLs announced.
    values: usize,
}

impl Server {
    /// A bus without channels, for a partition with this many VPs.
    pub fn new(vps: u32) -> Self {
        Self {
            vps,
            connection: Connection::Disconnected,
            generation: 0,
            channels: BTreeMap::new(),
            gpadls: BTreeMap::new(),
            values: 0,
        }
    }

    /// Takes a message that the guest posted to one of the message connections. `message` is a copy.
    pub fn receive(&mut self, host: &mut impl Host, message: &[u8]) {
        if let Err(complaint) = self.dispatch(host, message) {
            host.log(Event::Ignored(complaint));
        }
    }

    fn dispatch(&mut self, host: &mut impl Host, message: &[u8]) -> Result<(), Complaint> {
        let message = Incoming::parse(message)?;
        if let Incoming::InitiateContact(contact, client) = message {
            return self.initiate_contact(host, &contact, client);
        }
        let session = *self.session()?;
        let since = |version| if session.version >= version { Ok(()) } else { Err(Complaint::Version) };
        match message {
            // Handled above, since it needs no connection.
            Incoming::InitiateContact(..) => Ok(()),
            Incoming::RequestOffers => self.request_offers(host),
            Incoming::OpenChannel(open, signals) => self.open_channel(host, &session, &open, signals),
            Incoming::CloseChannel(channel) => self.close_channel(host, ChannelId(channel)),
            Incoming::GpadlHeader(header, values) => self.gpadl_header(host, &header, values),
            Incoming::GpadlBody(body, values) => self.gpadl_body(host, &body, values),
            Incoming::GpadlTeardown(teardown) => self.gpadl_teardown(host, &teardown),
            Incoming::RelidReleased(channel) => self.relid_released(host, ChannelId(channel)),
            Incoming::Unload => {
                self.unload(host, &session);
                Ok(())
            }
            Incoming::TlConnectRequest(request, silo) => {
                since(Version::V4_0)?;
                let silo = silo.filter(|_| session.version >= Version::V5_2).unwrap_or_default();
                let (endpoint, service) = (request.endpoint, request.service);
                let generation = self.generation;
                host.connect_socket(SocketRequest { endpoint, service, silo, generation });
                Ok(())
            }
            Incoming::ModifyChannel(modify) => {
                since(Version::V4_1)?;
                self.modify_channel(host, &session, &modify)
            }
        }
    }

    /// The version that was agreed on, if there is a connection.
    pub fn version(&self) -> Option<Version> {
        self.session().ok().map(|session| session.version)
    }

    /// How the channel is open, if it is; also while it is being opened.
    pub fn open_of(&self, channel: ChannelId) -> Option<&Open> {
        self.channels.get(&channel).and_then(|channel| channel.state.open())
    }

    fn session(&self) -> Result<&Session, Complaint> {
        match &self.connection {
            Connection::Connected(session) => Ok(session),
            Connection::Disconnected => Err(Complaint::NotConnected),
            Connection::Resetting(_) => Err(Complaint::Resetting),
        }
    }

    /// Posts a message, if there is somebody to read it.
    fn post(&self, host: &mut impl Host, message: &[u8]) {
        if let Connection::Connected(session) = &self.connection {
            host.post(session.target, message);
        }
    }
}
