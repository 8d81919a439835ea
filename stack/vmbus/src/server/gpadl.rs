//! GPADLs: memory that the guest lends to a channel's device.

use super::{ChannelId, Complaint, Host, Server, state::Presence};
use crate::{
    protocol::{
        GpadlBody, GpadlCreated, GpadlHeader, GpadlTeardown, STATUS_SUCCESS, STATUS_UNSUCCESSFUL, kind,
        message,
    },
    ranges::Ranges,
};

/// The guest's name for memory that it lends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GpadlId(pub u32);

/// The most GPADLs at once: two for each channel that there can be.
pub const MAX_GPADLS: usize = 4096;
/// The most values (a page number or a range's header, 8 bytes each) of all GPADLs at once. They describe 4 GiB;
/// the largest user, a network adapter with 16 channels, lends about 64 MiB. It costs us 16 MiB at the most.
pub const MAX_GPADL_VALUES: usize = 1 << 20;
/// Bytes of a value.
const VALUE_BYTES: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gpadl {
    pub(super) channel: ChannelId,
    /// How many values there will be, which count against the limit from the beginning.
    announced: usize,
    phase: Phase,
    /// It is to be unmapped.
    pub(super) doom: Option<Doom>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Values are still to come.
    Arriving { values: Vec<u64>, ranges: u16 },
    /// The device has it.
    Mapped(Ranges),
    /// The device was asked to give it back.
    Unmapping,
}

/// Why a GPADL is unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    /// The guest asked, and waits for the answer.
    Asked,
    /// The channel or the connection ends.
    Dropped,
}

impl Gpadl {
    /// Whether the device has to be asked now to give it back.
    pub(super) fn start_unmapping(&mut self) -> bool {
        let start = self.doom.is_some() && matches!(self.phase, Phase::Mapped(_));
        if start {
            self.phase = Phase::Unmapping;
        }
        start
    }

    /// Its memory, if it may be used.
    pub(super) fn ranges(&self) -> Option<&Ranges> {
        match (&self.phase, self.doom) {
            (Phase::Mapped(ranges), None) => Some(ranges),
            _ => None,
        }
    }

    /// Adds values of one message; whether they are all there now, or `None` if they are too many or broken.
    fn take(&mut self, bytes: &[u8]) -> Option<bool> {
        let Phase::Arriving { values, .. } = &mut self.phase else { return None };
        let (new, rest) = bytes.as_chunks::<VALUE_BYTES>();
        if !rest.is_empty() || new.len() > self.announced - values.len() {
            return None;
        }
        values.extend(new.iter().map(|value| u64::from_le_bytes(*value)));
        Some(values.len() == self.announced)
    }
}

impl Server {
    pub(super) fn gpadl_header(
        &mut self,
        host: &mut impl Host,
        header: &GpadlHeader,
        values: &[u8],
    ) -> Result<(), Complaint> {
        let (channel, id) = (ChannelId(header.channel), GpadlId(header.gpadl));
        let result = self.announce_gpadl(header).and_then(|()| self.extend_gpadl(host, channel, id, values));
        if result.is_err() {
            self.post_created(host, channel, id, STATUS_UNSUCCESSFUL);
        }
        result
    }

    fn announce_gpadl(&mut self, header: &GpadlHeader) -> Result<(), Complaint> {
        let (channel, id) = (ChannelId(header.channel), GpadlId(header.gpadl));
        if self.channels.get(&channel).is_none_or(|channel| channel.presence != Presence::Offered) {
            return Err(Complaint::NoChannel(channel));
        }
        // Linux uses 0 for "none".
        if id.0 == 0 || self.gpadls.contains_key(&id) {
            return Err(Complaint::GpadlName(id));
        }
        let bytes = usize::from(header.bytes);
        if bytes == 0 || !bytes.is_multiple_of(VALUE_BYTES) {
            return Err(Complaint::GpadlLength(id));
        }
        let announced = bytes / VALUE_BYTES;
        if self.gpadls.len() >= MAX_GPADLS || self.values + announced > MAX_GPADL_VALUES {
            return Err(Complaint::GpadlLimit(id));
        }
        let phase = Phase::Arriving { values: Vec::new(), ranges: header.ranges };
        self.gpadls.insert(id, Gpadl { channel, announced, phase, doom: None });
        self.values += announced;
        Ok(())
    }

    /// GPADL_BODY. It names no channel; the GPADL knows it.
    pub(super) fn gpadl_body(
        &mut self,
        host: &mut impl Host,
        body: &GpadlBody,
        values: &[u8],
    ) -> Result<(), Complaint> {
        let id = GpadlId(body.gpadl);
        let arriving = |gpadl: &&Gpadl| matches!(gpadl.phase, Phase::Arriving { .. });
        let channel = self.gpadls.get(&id).filter(arriving).ok_or(Complaint::NoGpadl(id))?.channel;
        let result = self.extend_gpadl(host, channel, id, values);
        if result.is_err() {
            self.post_created(host, channel, id, STATUS_UNSUCCESSFUL);
        }
        result
    }

    /// Adds values to a GPADL that arrives, and gives it to the device when it is complete. After an error it does
    /// not exist any more.
    fn extend_gpadl(
        &mut self,
        host: &mut impl Host,
        channel: ChannelId,
        id: GpadlId,
        values: &[u8],
    ) -> Result<(), Complaint> {
        let Some(gpadl) = self.gpadls.get_mut(&id) else { return Err(Complaint::NoGpadl(id)) };
        let result = match gpadl.take(values) {
            None => Err(Complaint::GpadlLength(id)),
            Some(false) => return Ok(()),
            Some(true) => gpadl.complete(host, channel, id),
        };
        match result {
            Ok(()) => self.post_created(host, channel, id, STATUS_SUCCESS),
            Err(_) => self.drop_gpadl(id),
        }
        result
    }

    /// GPADL_TEARDOWN.
    pub(super) fn gpadl_teardown(
        &mut self,
        host: &mut impl Host,
        teardown: &GpadlTeardown,
    ) -> Result<(), Complaint> {
        let (channel, id) = (ChannelId(teardown.channel), GpadlId(teardown.gpadl));
        let usable = |gpadl: &&mut Gpadl| gpadl.channel == channel && gpadl.doom.is_none();
        let gpadl = self.gpadls.get_mut(&id).filter(usable).ok_or(Complaint::NoGpadl(id))?;
        if let Phase::Arriving { .. } = gpadl.phase {
            self.drop_gpadl(id);
            self.post(host, &message(kind::GPADL_TORNDOWN, &id.0));
            return Ok(());
        }
        gpadl.doom = Some(Doom::Asked);
        self.settle(host, channel);
        // Linux closes a channel before it takes the rings back; one that does not is told when it has.
        match self.open_of(channel) {
            Some(open) if open.gpadl == id => Err(Complaint::GpadlInUse(id)),
            _ => Ok(()),
        }
    }

    /// The device does not use this memory any more: the answer to [`Host::unmap_gpadl`], of no effect without it.
    pub fn gpadl_unmapped(&mut self, host: &mut impl Host, id: GpadlId) {
        let Some(gpadl) = self.gpadls.get(&id).filter(|gpadl| gpadl.phase == Phase::Unmapping) else {
            return;
        };
        let (channel, doom) = (gpadl.channel, gpadl.doom);
        self.drop_gpadl(id);
        if doom == Some(Doom::Asked) {
            self.post(host, &message(kind::GPADL_TORNDOWN, &id.0));
        }
        self.settle(host, channel);
        self.finish_reset(host);
    }

    /// The memory of a channel is to go back, without a word to the guest.
    pub(super) fn doom_gpadls(&mut self, channel: ChannelId) {
        let of_channel = |gpadl: &Gpadl| gpadl.channel == channel;
        let arriving = |gpadl: &Gpadl| matches!(gpadl.phase, Phase::Arriving { .. });
        let unfinished: Vec<_> = self
            .gpadls
            .iter()
            .filter(|(_, gpadl)| of_channel(gpadl) && arriving(gpadl))
            .map(|(id, _)| *id)
            .collect();
        for id in unfinished {
            self.drop_gpadl(id);
        }
        for gpadl in self.gpadls.values_mut().filter(|gpadl| of_channel(gpadl)) {
            gpadl.doom.get_or_insert(Doom::Dropped);
        }
    }

    fn drop_gpadl(&mut self, id: GpadlId) {
        if let Some(gpadl) = self.gpadls.remove(&id) {
            self.values -= gpadl.announced;
        }
    }

    fn post_created(&self, host: &mut impl Host, channel: ChannelId, id: GpadlId, status: u32) {
        let created = GpadlCreated { channel: channel.0, gpadl: id.0, status };
        self.post(host, &message(kind::GPADL_CREATED, &created));
    }
}

impl Gpadl {
    /// All values are there: makes ranges of them and gives them to the device.
    fn complete(&mut self, host: &mut impl Host, channel: ChannelId, id: GpadlId) -> Result<(), Complaint> {
        let Phase::Arriving { values, ranges: count } = &self.phase else {
            return Err(Complaint::NoGpadl(id));
        };
        let mut ranges = Ranges::default();
        ranges
            .read(u32::from(*count), values.iter().copied())
            .map_err(|bad| Complaint::GpadlRanges(id, bad))?;
        host.map_gpadl(channel, id, &ranges).map_err(|_| Complaint::GpadlRefused(id))?;
        self.phase = Phase::Mapped(ranges);
        Ok(())
    }
}
