//! Ports and connections: where they are kept, and what passes over them.
//!
//! They lie in frames of their owner's own pool, so a partition pays for what it uses. The root is a partition like
//! others here ([`Party`]). Messages wait at the VP that receives them (`model::synic`).
//!
//! Lock order: a root VP's `synic`, one partition's endpoints, pool. A path from sender to receiver copies what it finds
//! in the one's endpoints before it looks into the other's.

mod delivery;
mod ring;

pub use delivery::{check_vp, forget};
pub use ring::{refill, ring};

use hal::{
    mem::{NoMemory, PageBox, PoolId},
    sync::Guard,
};
use model::port::{self, Connection, Port, Table};
use tlfs::{CallCode, ConnectionId, HvStatus, PartitionId, synic::PostMessageInput};

use crate::{
    partition::{self, PartitionRef},
    root::{self, root},
};

const PAGES: usize = 35;

/// At most 35 frames with `N` entries each. A frame stays until the partition ends.
pub struct Slots<T, const N: usize> {
    pool: PoolId,
    pages: [Option<PageBox<[Option<T>; N]>>; PAGES],
}

impl<T, const N: usize> Slots<T, N> {
    const fn new(pool: PoolId) -> Self {
        Self { pool, pages: [const { None }; PAGES] }
    }

    /// All entries, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut().flatten())
    }
}

impl<T, const N: usize> Table<T> for Slots<T, N> {
    fn iter<'a>(&'a self) -> impl Iterator<Item = &'a T>
    where
        T: 'a,
    {
        self.pages.iter().flatten().flat_map(|page| page.iter().flatten())
    }

    fn insert(&mut self, entry: T) -> Result<(), HvStatus> {
        let mut places = self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut());
        if let Some(place) = places.find(|place| place.is_none()) {
            *place = Some(entry);
            return Ok(());
        }
        let page = self.pages.iter_mut().find(|page| page.is_none()).ok_or(HvStatus::NO_RESOURCES)?;
        let mut fresh = [const { None }; N];
        fresh[0] = Some(entry);
        *page = Some(PageBox::new(self.pool, fresh).map_err(|NoMemory| HvStatus::INSUFFICIENT_MEMORY)?);
        Ok(())
    }

    fn remove(&mut self, is_it: impl Fn(&T) -> bool) -> Option<T> {
        let mut places = self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut());
        places.find_map(|place| place.take_if(|entry| is_it(entry)))
    }
}

/// The ports and the connections of one partition.
pub type Endpoints = port::Endpoints<Slots<Port, 120>, Slots<Connection, 84>>;

/// No ports and no connections; `pool` will pay for them.
pub const fn none(pool: PoolId) -> Endpoints {
    Endpoints { ports: Slots::new(pool), connections: Slots::new(pool) }
}

/// A partition that sends or receives; `None` is the root.
pub type Party = Option<PartitionRef>;

/// Finds a partition on which `call` may be made now.
///
/// # Errors
/// `INVALID_PARTITION_ID`, `INVALID_PARTITION_STATE`.
pub fn party(id: PartitionId, call: CallCode) -> Result<Party, HvStatus> {
    match id {
        PartitionId::SELF | root::ID => Ok(None),
        id => partition::find_for(id, call).map(Some),
    }
}

/// The id of a partition.
pub fn id_of(party: &Party) -> PartitionId {
    party.as_ref().map_or(root::ID, |partition| partition.id)
}

/// The endpoints of a partition.
pub fn endpoints(party: &Party) -> Guard<'_, Endpoints> {
    party.as_ref().map_or(&root().endpoints, |partition| &partition.endpoints).lock()
}

/// The same, for something new: what comes after finalization has cleared them would outlive it.
///
/// # Errors
/// `INVALID_PARTITION_STATE`.
pub fn open_endpoints(party: &Party, call: CallCode) -> Result<Guard<'_, Endpoints>, HvStatus> {
    let endpoints = endpoints(party);
    party.as_ref().map_or(Ok(()), |partition| partition.state().permit(call))?;
    Ok(endpoints)
}

/// Posts a message over a connection of `sender`.
///
/// # Errors
/// Those of TLFS hypercalls/HvCallPostMessage.
pub fn post(sender: &Party, input: &PostMessageInput) -> Result<(), HvStatus> {
    port::check_message(input)?;
    let (owner, port) = target(sender, input.connection_id)?;
    delivery::post(&owner, &port, &port.message(input)?)
}

/// Signals an event over a connection of `sender`; without such a connection, rings the doorbell that watches its address
/// (docs/adr/0010).
///
/// # Errors
/// Those of TLFS hypercalls/HvCallSignalEvent.
pub fn signal(sender: &Party, id: ConnectionId, flag: u16) -> Result<(), HvStatus> {
    match target(sender, id) {
        Ok((owner, port)) => delivery::signal(&owner, &port, port.flag(flag)?),
        Err(HvStatus::INVALID_CONNECTION_ID) => {
            let address = id.event_doorbell().ok_or(HvStatus::INVALID_CONNECTION_ID)?;
            let rung = endpoints(sender).rung(address, 8, flag.into());
            rung.map(ring).ok_or(HvStatus::INVALID_CONNECTION_ID)
        }
        Err(status) => Err(status),
    }
}

fn target(sender: &Party, id: ConnectionId) -> Result<(Party, Port), HvStatus> {
    let connection = endpoints(sender).connection(id)?;
    let owner =
        party(connection.port_owner, CallCode::POST_MESSAGE).map_err(|_| HvStatus::INVALID_PORT_ID)?;
    let port = endpoints(&owner).port(connection.port, id_of(sender))?;
    Ok((owner, port))
}
