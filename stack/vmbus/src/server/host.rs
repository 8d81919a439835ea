//! What the control plane wants from the rest of the stack.

use std::fmt;

use super::{ChannelId, GpadlId, MessageTarget, Open};
use crate::{
    guid::Guid,
    protocol::{Malformed, Version},
    ranges::{BadRange, Ranges},
};

/// A device does not want what it was asked; it has said why to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A guest's wish to connect a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRequest {
    /// The guest's end: the instance of the channel to offer.
    pub endpoint: Guid,
    /// The service: the interface of the channel to offer.
    pub service: Guid,
    /// The silo that the guest named, or zeros.
    pub silo: Guid,
    /// Which connection of the guest asked.
    pub generation: u64,
}

/// The world as the control plane sees it. No method may call the server back; what has to be answered is answered
/// afterwards.
pub trait Host {
    /// Sends a message of type [`crate::protocol::SYNIC_MESSAGE_TYPE`] to the guest. Messages stay in order; if the
    /// slot is taken, this one waits.
    fn post(&mut self, target: MessageTarget, message: &[u8]);

    /// The guest lent memory to the device of this channel. The device checks what it needs, and that it is RAM.
    ///
    /// # Errors
    /// The device cannot use it; the guest is told.
    fn map_gpadl(&mut self, channel: ChannelId, gpadl: GpadlId, ranges: &Ranges) -> Result<(), Refused>;

    /// The guest wants that memory back. Answered by [`super::Server::gpadl_unmapped`], after which the device does
    /// not touch it.
    fn unmap_gpadl(&mut self, channel: ChannelId, gpadl: GpadlId);

    /// The guest opens the channel; its rings are in `ring`. Answered by [`super::Server::opened`].
    fn open(&mut self, channel: ChannelId, open: &Open, ring: &Ranges);

    /// The channel, which was opened with success, is to be closed. Answered by [`super::Server::closed`], after which
    /// the device touches neither rings nor memory that requests named.
    fn close(&mut self, channel: ChannelId);

    /// Signals of the open channel go to another VP, or nowhere. No signal reaches the old VP after this returns.
    fn retarget(&mut self, channel: ChannelId, target_vp: Option<u32>);

    /// The guest connects a socket. The answer is an offer, or [`super::Server::refuse_socket`].
    fn connect_socket(&mut self, request: SocketRequest);

    /// The channel, which was revoked or belonged to a connection that ended, does not exist any more; its id may
    /// be used again.
    fn removed(&mut self, channel: ChannelId);

    /// Something that a person may want to know. A guest can cause any number of these.
    fn log(&mut self, event: Event);
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is a connection.
    Connected(Version),
    /// The guest wants a version of this number, which is not spoken.
    VersionRefused(u32),
    /// The guest ended the connection.
    Unloaded,
    /// The guest started anew without having ended the connection.
    Restarted,
    /// A message was not obeyed.
    Ignored(Complaint),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version =
            |f: &mut fmt::Formatter<'_>, number: u32| write!(f, "{}.{}", number >> 16, number & 0xffff);
        match self {
            Self::Connected(agreed) => {
                f.write_str("the guest connected to VMBus with version ")?;
                version(f, agreed.number())
            }
            Self::VersionRefused(number) => {
                f.write_str("the guest asked for VMBus version ")?;
                version(f, *number)?;
                f.write_str(", which is not spoken")
            }
            Self::Unloaded => f.write_str("the guest left VMBus"),
            Self::Restarted => f.write_str("the guest started anew without leaving VMBus"),
            Self::Ignored(complaint) => write!(f, "a VMBus message was ignored: {complaint}"),
        }
    }
}

/// Why a message was not obeyed. Where the protocol has an answer that says "no", the guest got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// It says nothing.
    Malformed(Malformed),
    /// There is no connection.
    NotConnected,
    /// What the guest had is still being cleaned up.
    Resetting,
    /// The version that was agreed on has no such message.
    Version,
    /// The target of messages is no VP, no SINT, or not in VTL 0.
    Target {
        /// The VP.
        vp: u32,
        /// The SINT.
        sint: u8,
    },
    /// The monitor pages are not two different pages.
    MonitorPages,
    /// Offers have been requested before.
    OffersAgain,
    /// The guest knows no channel of this id.
    NoChannel(ChannelId),
    /// The channel's state does not allow it.
    ChannelState(ChannelId),
    /// The channel's signals cannot be like that.
    Signals(ChannelId),
    /// The GPADL cannot hold the channel's rings, which are split at this page.
    Rings {
        /// The channel.
        channel: ChannelId,
        /// First page of the second ring.
        split: u32,
    },
    /// There is no such GPADL of that channel, or not in the state that this needs.
    NoGpadl(GpadlId),
    /// The GPADL exists already, or may not have this name.
    GpadlName(GpadlId),
    /// The guest has lent as much as it may.
    GpadlLimit(GpadlId),
    /// The GPADL's messages do not fit together.
    GpadlLength(GpadlId),
    /// The GPADL describes nothing possible.
    GpadlRanges(GpadlId, BadRange),
    /// The device refused the GPADL.
    GpadlRefused(GpadlId),
    /// The GPADL holds the rings of an open channel; it is torn down when that is closed.
    GpadlInUse(GpadlId),
}

impl From<Malformed> for Complaint {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::NotConnected => f.write_str("there is no connection"),
            Self::Resetting => f.write_str("the previous connection is being cleaned up"),
            Self::Version => f.write_str("the agreed version has no such message"),
            Self::Target { vp, sint } => write!(f, "messages cannot go to SINT {sint} of VP {vp}"),
            Self::MonitorPages => f.write_str("the monitor pages are not two pages"),
            Self::OffersAgain => f.write_str("offers were requested again"),
            Self::NoChannel(ChannelId(id)) => write!(f, "there is no channel {id}"),
            Self::ChannelState(ChannelId(id)) => write!(f, "the state of channel {id} does not allow it"),
            Self::Signals(ChannelId(id)) => write!(f, "the signals of channel {id} are impossible"),
            Self::Rings { channel: ChannelId(id), split } => {
                write!(f, "the rings of channel {id}, split at page {split}, do not fit their memory")
            }
            Self::NoGpadl(GpadlId(id)) => write!(f, "there is no GPADL {id:#x} for that"),
            Self::GpadlName(GpadlId(id)) => write!(f, "GPADL {id:#x} exists or is no name"),
            Self::GpadlLimit(GpadlId(id)) => write!(f, "GPADL {id:#x} is more than a guest may lend"),
            Self::GpadlLength(GpadlId(id)) => write!(f, "the messages of GPADL {id:#x} do not fit together"),
            Self::GpadlRanges(GpadlId(id), bad) => write!(f, "GPADL {id:#x}: {bad}"),
            Self::GpadlRefused(GpadlId(id)) => write!(f, "the device refused GPADL {id:#x}"),
            Self::GpadlInUse(GpadlId(id)) => write!(f, "GPADL {id:#x} holds the rings of an open channel"),
        }
    }
}
