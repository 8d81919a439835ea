//! The state of one channel, and what brings it forward.

use super::{Connection, Host, Open, Server, gpadl::Doom, offers::Offer};
use crate::protocol::{kind, message};

/// A channel's id: what Linux calls its relid, its bit among the event flags, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) offer: Offer,
    pub(super) presence: Presence,
    pub(super) state: State,
}

/// What the guest knows of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Nothing.
    Hidden,
    /// It may use it.
    Offered,
    /// It said that it forgot it (Linux does so when it cannot make a device of it).
    Released,
    /// The device takes it away, and is still closing it.
    Leaving {
        /// The guest has heard of it.
        known: bool,
    },
    /// The guest was told that it is gone, and has not released the id.
    Withdrawn,
}

/// What the device does with a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Opening {
        open: Open,
        /// It is to be closed at once, and the guest waits for no result.
        abandoned: bool,
    },
    Open(Open),
    Closing(Open),
}

impl State {
    pub(super) fn open(&self) -> Option<&Open> {
        match self {
            Self::Closed | Self::Closing(_) => None,
            Self::Opening { open, .. } | Self::Open(open) => Some(open),
        }
    }
}

impl Server {
    /// Starts to close whatever is open of a channel; nobody is told when it is done.
    pub(super) fn shut(&mut self, host: &mut impl Host, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.state = match std::mem::replace(&mut channel.state, State::Closed) {
            State::Open(open) => {
                host.close(id);
                State::Closing(open)
            }
            State::Opening { open, .. } => State::Opening { open, abandoned: true },
            other => other,
        };
        self.doom_gpadls(id);
    }

    /// Does what has become possible for a channel after something ended: memory goes back when the device is closed,
    /// and a channel that leaves goes when its memory has gone.
    pub(super) fn settle(&mut self, host: &mut impl Host, id: ChannelId) {
        let Some(channel) = self.channels.get(&id) else { return };
        let mut lent = false;
        for (name, gpadl) in self.gpadls.iter_mut().filter(|(_, gpadl)| gpadl.channel == id) {
            lent = true;
            let free = match &channel.state {
                State::Closed => true,
                State::Closing(_) => false,
                State::Opening { open, .. } | State::Open(open) => {
                    gpadl.doom == Some(Doom::Asked) && open.gpadl != *name
                }
            };
            if free && gpadl.start_unmapping() {
                host.unmap_gpadl(id, *name);
            }
        }
        if let Presence::Leaving { known } = channel.presence
            && channel.state == State::Closed
            && !lent
        {
            self.withdraw(host, id, known);
        }
    }

    /// Tells the guest that a channel is gone, if it ever knew.
    fn withdraw(&mut self, host: &mut impl Host, id: ChannelId, known: bool) {
        if known && matches!(self.connection, Connection::Connected(_)) {
            self.post(host, &message(kind::RESCIND_CHANNEL_OFFER, &id.0));
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.presence = Presence::Withdrawn;
            }
        } else {
            self.remove(host, id);
        }
    }

    pub(super) fn remove(&mut self, host: &mut impl Host, id: ChannelId) {
        if self.channels.remove(&id).is_some() {
            host.removed(id);
        }
    }

    pub(super) fn ids(&self) -> Vec<ChannelId> {
        self.channels.keys().copied().collect()
    }
}
