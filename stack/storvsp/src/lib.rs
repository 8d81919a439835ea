//! Synthetic SCSI controllers for a partition's stock drivers (Linux `hv_storvsc`).
//!
//! From the guest to the disk:
//!
//! * [`queue`] serves the rings of one VMBus channel. A controller has one for its first channel and one for each
//!   sub-channel, and they may be served by different threads.
//! * [`controller`] is what they share: how far the guest has initialized the controller, and its disks.
//! * [`scsi`] is a direct-access block device as a pure state machine: a command goes in, and sense, data or operations
//!   on byte ranges come out.
//! * [`backend`] does those operations, at once or later: in memory, or on a file.
//!
//! [`protocol`] has the layouts of vstor, the protocol in the packets. It has no public specification; what is said
//! of it is from Linux `drivers/scsi/storvsc_drv.c`. SCSI is that of SPC-4 and SBC-3.
//!
//! A guest that sends nonsense within a packet gets a status that says so; one that breaks the rings loses the
//! channel ([`vmbus::ring::RingError`]).

pub mod backend;
pub mod controller;
pub mod protocol;
pub mod queue;
pub mod scsi;
