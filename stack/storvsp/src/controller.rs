//! A SCSI controller: what its channels share.
//!
//! Units are on bus 0, target 0, as on Hyper-V; Linux scans more of both and finds nothing there.
//!
//! Locks: a controller's state, then a disk's target; neither is held while the storage works.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    backend::Backend,
    protocol::{self, Properties, SUPPORTS_MULTI_CHANNEL, VERSIONS, operation, status},
    scsi::{Geometry, Identity, MAX_TRANSFER_BYTES, Target},
};
use vmbus::{guid::Guid, server::Offer};
use zerocopy::IntoBytes;

/// The most units of a controller (as on Hyper-V).
pub const MAX_UNITS: u8 = 64;

/// A disk of a controller.
pub struct Disk {
    pub(crate) target: Mutex<Target>,
    pub(crate) backend: Arc<dyn Backend>,
}

impl Disk {
    /// A disk on this storage.
    pub fn new(identity: Identity, geometry: Geometry, backend: Arc<dyn Backend>) -> Self {
        let target = Mutex::new(Target::new(identity, geometry, backend.properties()));
        Self { target, backend }
    }

    pub(crate) fn target(&self) -> MutexGuard<'_, Target> {
        // A target is whole between two commands, whoever panicked.
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a disk cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// The number is taken.
    Taken(u8),
    /// There are no units of this number.
    TooHigh(u8),
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(lun) => write!(f, "unit {lun} is taken"),
            Self::TooHigh(lun) => write!(f, "unit {lun} is beyond the last one, {}", MAX_UNITS - 1),
        }
    }
}

/// How far the guest's driver is (Linux `storvsc_channel_init`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Nothing,
    Begun,
    VersionAgreed,
    Ready,
}

struct State {
    progress: Progress,
    /// Sub-channels have been asked for, which may be done once.
    subchannels_asked: bool,
    disks: BTreeMap<u8, Arc<Disk>>,
}

/// A controller.
pub struct Controller {
    max_subchannels: u16,
    state: Mutex<State>,
}

/// The answer to a packet about the controller itself.
pub(crate) struct Answer {
    pub(crate) status: u32,
    pub(crate) payload: [u8; 52],
    /// How many sub-channels the guest wants to be offered.
    pub(crate) subchannels: Option<u16>,
}

impl Answer {
    fn status(status: u32) -> Self {
        Self { status, payload: [0; 52], subchannels: None }
    }

    fn ok_if(right: bool) -> Self {
        Self::status(if right { status::SUCCESS } else { status::INVALID_DEVICE_STATE })
    }
}

impl Controller {
    /// A controller without disks. One sub-channel for four VPs is what Hyper-V gives and Linux asks for at
    /// the most.
    pub fn new(max_subchannels: u16) -> Self {
        let state = State { progress: Progress::Nothing, subchannels_asked: false, disks: BTreeMap::new() };
        Self { max_subchannels, state: Mutex::new(state) }
    }

    /// What to offer for its first channel; `instance` tells controllers apart.
    pub fn offer(instance: Guid) -> Offer {
        Offer::device(protocol::INTERFACE, instance)
    }

    /// Adds a disk. A guest that runs hears of it by [`crate::queue::Queue::notify_units_changed`].
    ///
    /// # Errors
    /// The number is taken or too high.
    pub fn attach(&self, lun: u8, disk: Disk) -> Result<(), UnitError> {
        if lun >= MAX_UNITS {
            return Err(UnitError::TooHigh(lun));
        }
        let mut state = self.state();
        if state.disks.contains_key(&lun) {
            return Err(UnitError::Taken(lun));
        }
        state.disks.insert(lun, Arc::new(disk));
        Ok(())
    }

    /// Takes a disk away; requests that are under way end as they would. Returns whether there was one.
    pub fn detach(&self, lun: u8) -> bool {
        self.state().disks.remove(&lun).is_some()
    }

    /// The length of a disk's storage changed; its guest hears of it with the next command. Returns whether there is
    /// such a disk.
    pub fn resized(&self, lun: u8) -> bool {
        let disk = self.state().disks.get(&lun).cloned();
        disk.is_some_and(|disk| {
            disk.target().resize(disk.backend.properties().bytes);
            true
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first channel was opened: the guest's driver begins anew.
    pub(crate) fn restart(&self) {
        let mut state = self.state();
        state.progress = Progress::Nothing;
        state.subchannels_asked = false;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state().progress == Progress::Ready
    }

    pub(crate) fn disk(&self, lun: u8) -> Option<Arc<Disk>> {
        self.state().disks.get(&lun).cloned()
    }

    pub(crate) fn luns(&self) -> Vec<u8> {
        self.state().disks.keys().copied().collect()
    }

    /// Answers a packet of the first channel that is no SCSI request.
    pub(crate) fn control(&self, packet: &protocol::Packet) -> Answer {
        let mut state = self.state();
        let [low, high, ..] = packet.payload;
        let number = u16::from_le_bytes([low, high]);
        match (packet.operation, state.progress) {
            (operation::BEGIN_INITIALIZATION, progress) => {
                let right = progress == Progress::Nothing;
                if right {
                    state.progress = Progress::Begun;
                }
                Answer::ok_if(right)
            }
            (operation::QUERY_PROTOCOL_VERSION, Progress::Begun) => {
                if !VERSIONS.contains(&number) {
                    return Answer::status(status::REVISION_MISMATCH);
                }
                state.progress = Progress::VersionAgreed;
                Answer::ok_if(true)
            }
            (operation::QUERY_PROPERTIES, Progress::VersionAgreed | Progress::Ready) => self.properties(),
            (operation::END_INITIALIZATION, Progress::VersionAgreed) => {
                state.progress = Progress::Ready;
                Answer::ok_if(true)
            }
            (operation::CREATE_SUB_CHANNELS, Progress::Ready) if !state.subchannels_asked => {
                if number == 0 || number > self.max_subchannels {
                    return Answer::status(status::INVALID_PARAMETER);
                }
                state.subchannels_asked = true;
                Answer { subchannels: Some(number), ..Answer::ok_if(true) }
            }
            // Requests end by themselves and nothing can hang here, so a reset has nothing to do; Linux waits for the
            // rest of its requests after it (`storvsc_host_reset_handler`).
            (operation::RESET_LUN | operation::RESET_ADAPTER | operation::RESET_BUS, Progress::Ready) => {
                Answer::ok_if(true)
            }
            (
                operation::QUERY_PROTOCOL_VERSION
                | operation::QUERY_PROPERTIES
                | operation::END_INITIALIZATION
                | operation::CREATE_SUB_CHANNELS
                | operation::RESET_LUN
                | operation::RESET_ADAPTER
                | operation::RESET_BUS,
                _,
            ) => Answer::ok_if(false),
            _ => Answer::status(status::NOT_SUPPORTED),
        }
    }

    fn properties(&self) -> Answer {
        let properties = Properties {
            reserved: 0,
            max_subchannels: self.max_subchannels,
            reserved_2: 0,
            flags: if self.max_subchannels > 0 { SUPPORTS_MULTI_CHANNEL } else { 0 },
            max_transfer_bytes: MAX_TRANSFER_BYTES,
            reserved_3: [0; 2],
        };
        let mut answer = Answer::ok_if(true);
        let bytes = properties.as_bytes();
        answer.payload[..bytes.len()].copy_from_slice(bytes);
        answer
    }
}

/// A SCSI request of a packet.
pub(crate) fn srb(packet: &protocol::Packet) -> protocol::Srb {
    zerocopy::transmute!(packet.payload)
}
