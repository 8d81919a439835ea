//! A child's doorbells: where its stores ring instead of going to its device model.
//!
//! They lie in frames of the child's own pool, a frame for every [`PER_PAGE`] of them, so a virtual machine with
//! many queues pays for what it uses. Ringing, the root's side of it, is in [`ring`](mod@ring).

#[cfg(freestanding)]
mod ring;

#[cfg(freestanding)]
pub use ring::{PORTS, refill, ring};

use hal::{
    addr::PAGE_SIZE,
    mem::{NoMemory, PageBox, PoolId},
};
use model::doorbell::Doorbell;
use tlfs::{ConnectionId, HvStatus, PortId, port::DoorbellConnectionInfo};

const PER_PAGE: usize = 100;
const PAGES: usize = 8;

/// A connection to a doorbell port.
#[derive(Clone, Copy)]
struct Connection {
    id: ConnectionId,
    port: PortId,
    doorbell: Doorbell,
}

/// The doorbells of a partition.
pub struct Doorbells([Option<PageBox<[Option<Connection>; PER_PAGE]>>; PAGES]);

impl Doorbells {
    /// No doorbells.
    pub const fn new() -> Self {
        Self([const { None }; PAGES])
    }

    /// Removes all of them and gives their frames back.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.0.iter().flatten().flat_map(|page| page.iter().flatten())
    }

    /// Connects `id` to `port`, so that the store that `info` describes rings it. `pool` pays.
    ///
    /// # Errors
    /// `INVALID_CONNECTION_ID` for an id in use or with reserved bits, `INVALID_PORT_ID` for a port that is
    /// connected already, `INVALID_PARAMETER` for a trigger that cannot be, `INSUFFICIENT_MEMORY`, `NO_RESOURCES`
    /// beyond what a partition may have.
    pub fn connect(
        &mut self,
        pool: PoolId,
        id: ConnectionId,
        port: PortId,
        info: &DoorbellConnectionInfo,
    ) -> Result<(), HvStatus> {
        let doorbell = Doorbell::new(info)?;
        if id.0 & !ConnectionId::MASK != 0 || self.iter().any(|other| other.id == id) {
            return Err(HvStatus::INVALID_CONNECTION_ID);
        }
        if self.iter().any(|other| other.port == port) {
            return Err(HvStatus::INVALID_PORT_ID);
        }
        let connection = Some(Connection { id, port, doorbell });
        let mut pages = self.0.iter_mut().flatten();
        if let Some(place) = pages.find_map(|page| page.iter_mut().find(|place| place.is_none())) {
            *place = connection;
            return Ok(());
        }
        let page = self.0.iter_mut().find(|page| page.is_none()).ok_or(HvStatus::NO_RESOURCES)?;
        let mut fresh = [None; PER_PAGE];
        fresh[0] = connection;
        *page = Some(PageBox::new(pool, fresh).map_err(|NoMemory| HvStatus::INSUFFICIENT_MEMORY)?);
        Ok(())
    }

    /// Removes a connection. Its frame stays until the partition ends.
    ///
    /// # Errors
    /// `INVALID_CONNECTION_ID` if there is none.
    pub fn disconnect(&mut self, id: ConnectionId) -> Result<(), HvStatus> {
        let mut places = self.0.iter_mut().flatten().flat_map(|page| page.iter_mut());
        let place = places.find(|place| place.is_some_and(|connection| connection.id == id));
        place.and_then(Option::take).map(drop).ok_or(HvStatus::INVALID_CONNECTION_ID)
    }

    /// The port that a store of the low `size` bytes of `value` to `gpa` rings; the first connected, where several
    /// watch the same store. (Linux refuses such ioeventfds, unless one of the two takes any size.)
    pub fn hit(&self, gpa: u64, size: u8, value: u64) -> Option<PortId> {
        self.iter().find(|connection| connection.doorbell.rings(gpa, size, value)).map(|hit| hit.port)
    }

    /// Whether a doorbell is in the page of `gpa`.
    pub fn covers_page(&self, gpa: u64) -> bool {
        let page = |gpa: u64| gpa / PAGE_SIZE as u64;
        self.iter().any(|connection| page(connection.doorbell.gpa()) == page(gpa))
    }
}
