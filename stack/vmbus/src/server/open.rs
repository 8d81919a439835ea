//! Opening and closing channels, and where their signals go.

use super::{
    ChannelId, Complaint, GpadlId, Host, Server,
    contact::Session,
    state::{Presence, State},
};
use crate::protocol::{
    CHANNELS, CONNECTION_ID_BITS, MESSAGE_CONNECTION, MESSAGE_CONNECTION_5, ModifyChannel,
    ModifyChannelResponse, NO_TARGET_VP, OpenChannel, OpenResult, OpenSignals, SIGNAL_CONNECTION_BASE,
    STATUS_SUCCESS, STATUS_UNSUCCESSFUL, Version, feature, kind, message,
};

/// The fewest pages of a ring: the header and one page of data.
const MIN_RING_PAGES: usize = 2;

/// How a channel is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The memory of both rings.
    pub gpadl: GpadlId,
    /// First page of the ring to the guest; the ring to the host begins at page 0.
    pub downstream_page: u32,
    /// The VP that gets the channel's signals; none if the guest polls.
    pub target_vp: Option<u32>,
    /// The SINT of that VP.
    pub sint: u8,
    /// The event flag of that SINT.
    pub event_flag: u16,
    /// The connection that the guest signals.
    pub connection: u32,
    /// What the driver says to the device.
    pub user_data: [u8; 120],
    open_id: u32,
}

/// A device's answer to [`Host::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It serves the rings.
    Yes,
    /// It does not, and has said why to the log.
    Refused,
}

impl Server {
    pub(super) fn open_channel(
        &mut self,
        host: &mut impl Host,
        session: &Session,
        request: &OpenChannel,
        signals: Option<OpenSignals>,
    ) -> Result<(), Complaint> {
        let id = ChannelId(request.channel);
        let result = self.check_open(session, request, signals);
        match result {
            Ok(open) => {
                if let Some(ring) = self.gpadls.get(&open.gpadl).and_then(|gpadl| gpadl.ranges()) {
                    host.open(id, &open, ring);
                }
                if let Some(channel) = self.channels.get_mut(&id) {
                    channel.state = State::Opening { open, abandoned: false };
                }
                Ok(())
            }
            Err(complaint) => {
                self.post_result(host, id, request.open_id, STATUS_UNSUCCESSFUL);
                Err(complaint)
            }
        }
    }

    fn check_open(
        &self,
        session: &Session,
        request: &OpenChannel,
        signals: Option<OpenSignals>,
    ) -> Result<Open, Complaint> {
        let (id, gpadl) = (ChannelId(request.channel), GpadlId(request.ring_gpadl));
        let channel = self.channels.get(&id).ok_or(Complaint::NoChannel(id))?;
        if channel.presence != Presence::Offered || channel.state != State::Closed {
            return Err(Complaint::ChannelState(id));
        }
        let ring = self.gpadls.get(&gpadl).filter(|gpadl| gpadl.channel == id);
        let ring = ring.and_then(|gpadl| gpadl.ranges()).ok_or(Complaint::NoGpadl(gpadl))?;
        let split = request.downstream_page;
        let rings = ring.whole_pages().and_then(|pages| pages.split_at_checked(split as usize));
        if !rings.is_some_and(|(up, down)| up.len() >= MIN_RING_PAGES && down.len() >= MIN_RING_PAGES) {
            return Err(Complaint::Rings { channel: id, split });
        }
        let own = session.features & feature::GUEST_SPECIFIED_SIGNALS != 0;
        let (connection, event_flag) = self.check_signals(id, signals.filter(|_| own))?;
        Ok(Open {
            gpadl,
            downstream_page: split,
            target_vp: self.check_vp(id, request.target_vp)?,
            sint: session.target.sint,
            event_flag,
            connection,
            user_data: request.user_data,
            open_id: request.open_id,
        })
    }

    fn check_vp(&self, id: ChannelId, vp: u32) -> Result<Option<u32>, Complaint> {
        match vp {
            NO_TARGET_VP => Ok(None),
            vp if vp < self.vps => Ok(Some(vp)),
            _ => Err(Complaint::Signals(id)),
        }
    }

    /// Connection and event flag. A connection of the guest's choice must be no other channel's, nor the messages',
    /// because there is one port for each.
    fn check_signals(&self, id: ChannelId, signals: Option<OpenSignals>) -> Result<(u32, u16), Complaint> {
        let usual = SIGNAL_CONNECTION_BASE + id.0;
        let signals = signals.unwrap_or(OpenSignals { connection: 0, event_flag: 0, flags: 0 });
        let connection = if signals.connection == 0 { usual } else { signals.connection };
        // Ids are below the number of flags, which fits.
        let flag = if signals.event_flag == 0 { id.0 } else { signals.event_flag.into() };
        let reserved = [MESSAGE_CONNECTION, MESSAGE_CONNECTION_5].contains(&connection)
            || connection >> CONNECTION_ID_BITS != 0
            || (connection != usual
                && (SIGNAL_CONNECTION_BASE..SIGNAL_CONNECTION_BASE + CHANNELS).contains(&connection));
        let taken = self.channels.iter().any(|(other, channel)| {
            let open = match &channel.state {
                State::Closing(open) => Some(open),
                state => state.open(),
            };
            *other != id && open.is_some_and(|open| open.connection == connection)
        });
        match u16::try_from(flag) {
            Ok(event_flag) if flag < CHANNELS && !reserved && !taken => Ok((connection, event_flag)),
            _ => Err(Complaint::Signals(id)),
        }
    }

    /// The device's answer to [`Host::open`]; of no effect without it.
    pub fn opened(&mut self, host: &mut impl Host, id: ChannelId, answer: Opened) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let State::Opening { open, abandoned } = &channel.state else { return };
        let (open, abandoned) = (open.clone(), *abandoned);
        let open_id = open.open_id;
        channel.state = match (answer, abandoned) {
            (Opened::Yes, false) => State::Open(open),
            (Opened::Yes, true) => {
                host.close(id);
                State::Closing(open)
            }
            (Opened::Refused, _) => State::Closed,
        };
        if !abandoned {
            let status = if answer == Opened::Yes { STATUS_SUCCESS } else { STATUS_UNSUCCESSFUL };
            self.post_result(host, id, open_id, status);
        }
        self.settle(host, id);
        self.finish_reset(host);
    }

    /// CLOSECHANNEL, which has no answer; the guest goes on with GPADL_TEARDOWN.
    pub(super) fn close_channel(&mut self, host: &mut impl Host, id: ChannelId) -> Result<(), Complaint> {
        let channel = self.channels.get_mut(&id).ok_or(Complaint::NoChannel(id))?;
        match std::mem::replace(&mut channel.state, State::Closed) {
            State::Open(open) => {
                channel.state = State::Closing(open);
                host.close(id);
                Ok(())
            }
            State::Opening { open, abandoned: false } => {
                channel.state = State::Opening { open, abandoned: true };
                Ok(())
            }
            other => {
                channel.state = other;
                Err(Complaint::ChannelState(id))
            }
        }
    }

    /// The device has closed the channel: the answer to [`Host::close`], of no effect without it.
    pub fn closed(&mut self, host: &mut impl Host, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if !matches!(channel.state, State::Closing(_)) {
            return;
        }
        channel.state = State::Closed;
        self.revoke_subchannels(host, id);
        self.settle(host, id);
        self.finish_reset(host);
    }

    /// MODIFYCHANNEL: answered from version 5.3 on (Linux `vmbus_send_modifychannel`).
    pub(super) fn modify_channel(
        &mut self,
        host: &mut impl Host,
        session: &Session,
        request: &ModifyChannel,
    ) -> Result<(), Complaint> {
        let id = ChannelId(request.channel);
        let result = self.retarget(host, id, request.target_vp);
        if session.version >= Version::V5_3 {
            let status = if result.is_ok() { STATUS_SUCCESS } else { STATUS_UNSUCCESSFUL };
            let response = ModifyChannelResponse { channel: id.0, status };
            self.post(host, &message(kind::MODIFY_CHANNEL_RESPONSE, &response));
        }
        result
    }

    fn retarget(&mut self, host: &mut impl Host, id: ChannelId, vp: u32) -> Result<(), Complaint> {
        let target_vp = self.check_vp(id, vp)?;
        let channel = self.channels.get_mut(&id).ok_or(Complaint::NoChannel(id))?;
        match &mut channel.state {
            State::Open(open) => open.target_vp = target_vp,
            _ => return Err(Complaint::ChannelState(id)),
        }
        host.retarget(id, target_vp);
        Ok(())
    }

    fn post_result(&self, host: &mut impl Host, id: ChannelId, open_id: u32, status: u32) {
        let result = OpenResult { channel: id.0, open_id, status };
        self.post(host, &message(kind::OPEN_CHANNEL_RESULT, &result));
    }
}
