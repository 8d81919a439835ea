//! The connection as a whole: contact, versions, reset and unload.

use super::{Complaint, Event, Host, Server, SocketRequest, state::State};
use crate::{
    PAGE_BYTES,
    guid::Guid,
    protocol::{
        DEFAULT_SINT, InitiateContact, MESSAGE_CONNECTION_5, STATUS_CONNECTION_REFUSED, TlConnectResult,
        Version, VersionResponse, feature, kind, message,
    },
};

/// The number of SINTs of a VP (TLFS: `HV_SYNIC_SINT_COUNT`).
const SINTS: u8 = 16;

/// Where the guest wants its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageTarget {
    /// The VP's index.
    pub vp: u32,
    /// The SINT, which is also that of all channels' signals.
    pub sint: u8,
}

/// What was agreed on with the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) version: Version,
    pub(super) target: MessageTarget,
    pub(super) features: u32,
    pub(super) client: Guid,
    pub(super) offers_sent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Connection {
    Disconnected,
    Connected(Session),
    /// All is being closed, and then this happens.
    Resetting(After),
}

/// What follows a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// The guest that left hears so.
    Unloaded(MessageTarget),
    /// The guest's wish for a connection is answered.
    Contact(Contact),
}

/// A checked INITIATE_CONTACT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    number: u32,
    target: MessageTarget,
    features: u32,
    client: Guid,
}

impl Contact {
    fn check(message: &InitiateContact, client: Option<Guid>, vps: u32) -> Result<Self, Complaint> {
        let [sint, vtl, _, _, features @ ..] = message.target_info.to_le_bytes();
        let (number, vp) = (message.version, message.target_vp);
        // Up to 4.1 the same bytes are an address that nobody needs.
        let (sint, vtl) = if number >= Version::V5_0.number() { (sint, vtl) } else { (DEFAULT_SINT, 0) };
        // SINT 0 is the hypervisor's (TLFS, "SynIC interrupt sources").
        if vp >= vps || sint == 0 || sint >= SINTS || vtl != 0 {
            return Err(Complaint::Target { vp, sint });
        }
        let pages = [message.parent_to_child_monitor, message.child_to_parent_monitor];
        let aligned = pages.iter().all(|page| page.is_multiple_of(PAGE_BYTES.into()));
        // A guest that wants no monitor says 0 twice. None is used in any case, as no offer has a monitor bit.
        if !aligned || (pages[0] == pages[1] && pages[0] != 0) {
            return Err(Complaint::MonitorPages);
        }
        let has_features = number >= Version::V6_0.number();
        let features = if has_features { u32::from_le_bytes(features) & feature::SUPPORTED } else { 0 };
        let client = client.filter(|_| features & feature::CLIENT_ID != 0).unwrap_or_default();
        Ok(Self { number, target: MessageTarget { vp, sint }, features, client })
    }
}

impl Server {
    pub(super) fn initiate_contact(
        &mut self,
        host: &mut impl Host,
        message: &InitiateContact,
        client: Option<Guid>,
    ) -> Result<(), Complaint> {
        let contact = Contact::check(message, client, self.vps)?;
        if matches!(self.connection, Connection::Connected(_)) {
            host.log(Event::Restarted);
        }
        self.start_reset(host, After::Contact(contact));
        Ok(())
    }

    pub(super) fn unload(&mut self, host: &mut impl Host, session: &Session) {
        host.log(Event::Unloaded);
        self.start_reset(host, After::Unloaded(session.target));
    }

    /// The partition was reset: nobody is told anything. It is done when [`Server::is_idle`].
    pub fn reset(&mut self, host: &mut impl Host) {
        self.start_reset(host, After::Nothing);
    }

    /// Whether there is no connection, and no device uses the guest's memory.
    pub fn is_idle(&self) -> bool {
        self.connection == Connection::Disconnected
    }

    /// The GUID by which the guest's driver named itself; zeros if it did not.
    pub fn client(&self) -> Guid {
        self.session().map(|session| session.client).unwrap_or_default()
    }

    /// Closes all. A later wish replaces an earlier one that still waits: whoever had it is gone.
    fn start_reset(&mut self, host: &mut impl Host, after: After) {
        self.connection = Connection::Resetting(after);
        for id in self.ids() {
            self.shut(host, id);
            self.settle(host, id);
        }
        self.finish_reset(host);
    }

    /// Ends a reset, if there is one and all is closed.
    pub(super) fn finish_reset(&mut self, host: &mut impl Host) {
        let Connection::Resetting(after) = self.connection else { return };
        let closed = self.channels.values().all(|channel| channel.state == State::Closed);
        if !closed || !self.gpadls.is_empty() {
            return;
        }
        self.connection = Connection::Disconnected;
        self.generation += 1;
        self.forget_guest(host);
        match after {
            After::Nothing => {}
            After::Unloaded(target) => host.post(target, &message(kind::UNLOAD_RESPONSE, &[0u8; 0])),
            After::Contact(contact) => self.answer(host, &contact),
        }
    }

    fn answer(&mut self, host: &mut impl Host, contact: &Contact) {
        let version = Version::supported(contact.number);
        let connection = match version {
            Some(version) if version >= Version::V5_0 => MESSAGE_CONNECTION_5,
            _ => 0,
        };
        let supported = u8::from(version.is_some());
        let response = VersionResponse { supported, state: 0, padding: 0, connection };
        let mut answer = message(kind::VERSION_RESPONSE, &response);
        match version {
            Some(version) => {
                if version >= Version::V6_0 {
                    answer.extend(contact.features.to_le_bytes());
                }
                let Contact { target, features, client, .. } = *contact;
                let session = Session { version, target, features, client, offers_sent: false };
                self.connection = Connection::Connected(session);
                host.log(Event::Connected(version));
            }
            None => host.log(Event::VersionRefused(contact.number)),
        }
        host.post(contact.target, &answer);
    }

    /// Tells the guest that nobody listens to its socket; one that has left meanwhile is not told, nor one
    /// whose version has no such answer and that waits for its own timeout.
    pub fn refuse_socket(&self, host: &mut impl Host, request: &SocketRequest) {
        let current = request.generation == self.generation;
        if current && self.version().is_some_and(|version| version >= Version::V4_1) {
            let SocketRequest { endpoint, service, .. } = *request;
            let result = TlConnectResult { endpoint, service, status: STATUS_CONNECTION_REFUSED };
            self.post(host, &message(kind::TL_CONNECT_RESULT, &result));
        }
    }
}
