//! Offers: how channels come and go.

use std::fmt;

use super::{
    ChannelId, Complaint, Connection, Host, Server,
    state::{Channel, Presence, State},
};
use crate::{
    guid::Guid,
    protocol::{CHANNELS, OfferChannel, SIGNAL_CONNECTION_BASE, kind, message, offer_flag},
};

/// What a channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the device is: it selects the guest's driver.
    pub interface: Guid,
    /// Which of its kind it is.
    pub instance: Guid,
    /// 0 for the device's first channel, then counted up.
    pub subchannel: u16,
    /// [`offer_flag`].
    pub flags: u16,
    /// How much MMIO space the guest is to find for the device, in MiB.
    pub mmio_megabytes: u16,
    /// Bytes that the driver of such a device expects.
    pub user_defined: [u8; 120],
}

impl Offer {
    /// The first channel of an ordinary device.
    pub fn device(interface: Guid, instance: Guid) -> Self {
        let flags = offer_flag::ENUMERATE_DEVICE_INTERFACE;
        Self { interface, instance, subchannel: 0, flags, mmio_megabytes: 0, user_defined: [0; 120] }
    }

    /// The same device's channel with this index.
    pub fn subchannel(&self, index: u16) -> Self {
        Self { subchannel: index, ..self.clone() }
    }

    /// Whether it ends with the guest's connection. The guest asks for sub-channels and sockets anew.
    fn is_transient(&self) -> bool {
        self.subchannel != 0 || self.flags & offer_flag::SOCKET != 0
    }

    fn same_device(&self, other: &Self) -> bool {
        self.interface == other.interface && self.instance == other.instance
    }

    fn message(&self, id: ChannelId) -> Vec<u8> {
        let offer = OfferChannel {
            interface: self.interface,
            instance: self.instance,
            reserved: [0; 4],
            flags: self.flags,
            mmio_megabytes: self.mmio_megabytes,
            user_defined: self.user_defined,
            subchannel: self.subchannel,
            reserved_2: 0,
            channel: id.0,
            // No monitor page is used: each signal goes by the channel's own connection, at once.
            monitor: 0,
            monitor_allocated: 0,
            dedicated: 1,
            connection: SIGNAL_CONNECTION_BASE + id.0,
        };
        message(kind::OFFER_CHANNEL, &offer)
    }
}

/// Why a channel cannot be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferError {
    /// All ids are taken, those included that the guest has not released.
    NoId,
    /// The same channel of the same device exists. Linux warns of such an offer and ignores it
    /// (`vmbus_process_offer`).
    Exists,
}

impl fmt::Display for OfferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoId => "all channel ids are taken",
            Self::Exists => "there is such a channel",
        })
    }
}

impl Server {
    /// Adds a channel, and tells the guest if it has asked for offers.
    ///
    /// # Errors
    /// There is no id, or there is such a channel.
    pub fn offer(&mut self, host: &mut impl Host, offer: Offer) -> Result<ChannelId, OfferError> {
        let same = |channel: &Channel| {
            channel.offer.same_device(&offer)
                && channel.offer.subchannel == offer.subchannel
                && channel.presence != Presence::Withdrawn
        };
        if self.channels.values().any(same) {
            return Err(OfferError::Exists);
        }
        let mut ids = (1..CHANNELS).map(ChannelId);
        let id = ids.find(|id| !self.channels.contains_key(id)).ok_or(OfferError::NoId)?;
        self.channels.insert(id, Channel { offer, presence: Presence::Hidden, state: State::Closed });
        if matches!(&self.connection, Connection::Connected(session) if session.offers_sent) {
            self.announce(host, id);
        }
        Ok(id)
    }

    /// Takes a channel away, and the device's sub-channels with its first one: closes it, waits until the guest's
    /// memory is unused, and tells the guest. [`Host::removed`] follows when the id is free, which is when
    /// the guest has released it. Also what to do with a channel whose guest broke the rings.
    pub fn revoke(&mut self, host: &mut impl Host, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let known = match channel.presence {
            Presence::Hidden | Presence::Released => false,
            Presence::Offered => true,
            Presence::Leaving { .. } | Presence::Withdrawn => return,
        };
        channel.presence = Presence::Leaving { known };
        self.shut(host, id);
        self.revoke_subchannels(host, id);
        self.settle(host, id);
    }

    /// Takes the sub-channels of a first channel away. A guest that closes a device expects this, and asks for new
    /// ones when it opens it again (Linux `vmbus_disconnect_ring` waits for it).
    pub(super) fn revoke_subchannels(&mut self, host: &mut impl Host, id: ChannelId) {
        let Some(offer) = self.channels.get(&id).map(|channel| &channel.offer) else { return };
        if offer.subchannel != 0 {
            return;
        }
        let is_sub = |channel: &Channel| channel.offer.subchannel != 0 && channel.offer.same_device(offer);
        let subs: Vec<_> =
            self.channels.iter().filter(|(_, channel)| is_sub(channel)).map(|(id, _)| *id).collect();
        for sub in subs {
            self.revoke(host, sub);
        }
    }

    fn announce(&mut self, host: &mut impl Host, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.presence = Presence::Offered;
            let offer = channel.offer.message(id);
            self.post(host, &offer);
        }
    }

    /// REQUESTOFFERS: once for each connection, since a guest could otherwise have us talk without end.
    pub(super) fn request_offers(&mut self, host: &mut impl Host) -> Result<(), Complaint> {
        match &mut self.connection {
            Connection::Connected(session) if !session.offers_sent => session.offers_sent = true,
            _ => return Err(Complaint::OffersAgain),
        }
        for id in self.ids() {
            if self.channels.get(&id).is_some_and(|channel| channel.presence == Presence::Hidden) {
                self.announce(host, id);
            }
        }
        self.post(host, &message(kind::ALL_OFFERS_DELIVERED, &[0u8; 0]));
        Ok(())
    }

    /// RELID_RELEASED: the guest has forgotten a channel, mostly one that was withdrawn.
    pub(super) fn relid_released(&mut self, host: &mut impl Host, id: ChannelId) -> Result<(), Complaint> {
        let channel = self.channels.get_mut(&id).ok_or(Complaint::NoChannel(id))?;
        match (channel.presence, &channel.state) {
            (Presence::Withdrawn, _) => self.remove(host, id),
            (Presence::Offered, State::Closed) => {
                channel.presence = Presence::Released;
                self.doom_gpadls(id);
                self.settle(host, id);
            }
            _ => return Err(Complaint::ChannelState(id)),
        }
        Ok(())
    }

    /// After the connection has ended and all is closed: what the guest knew of channels.
    pub(super) fn forget_guest(&mut self, host: &mut impl Host) {
        for id in self.ids() {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let gone = matches!(channel.presence, Presence::Leaving { .. } | Presence::Withdrawn);
            if gone || channel.offer.is_transient() {
                self.remove(host, id);
            } else {
                channel.presence = Presence::Hidden;
            }
        }
    }
}
