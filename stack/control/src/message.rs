//! The messages of both links.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{DiskConfig, VmConfig, VmName};

/// What a command asks of the daemon. One connection carries one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Check the configuration (with its files) and remember it under its name.
    Create(VmConfig),
    /// Start a worker; answered when the processors run or the start has failed.
    Start {
        /// Which machine.
        name: VmName,
    },
    /// Press the power button, and end the worker after `timeout_s` seconds if that had no effect; answered
    /// when the worker is gone. With 0 the button is not pressed at all.
    Stop {
        /// Which machine.
        name: VmName,
        /// Seconds to wait for the guest.
        timeout_s: u64,
    },
    /// End the worker, if there is one, and forget the name; answered when the name is free.
    Destroy {
        /// Which machine.
        name: VmName,
    },
    /// The state of one machine, as soon as it is not running.
    Wait {
        /// Which machine.
        name: VmName,
    },
    /// The state of one machine and of its processors, now.
    Show {
        /// Which machine.
        name: VmName,
    },
    /// The state of all machines.
    List,
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It is done.
    Done,
    /// Answer to [`Request::List`], by name.
    List(Vec<VmStatus>),
    /// Answer to [`Request::Wait`] and [`Request::Show`].
    Status(VmStatus),
    /// It could not be done: one line that names the thing and what to do.
    Error(String),
}

/// Where a virtual machine is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Known, never started.
    Created,
    /// Has a worker.
    Running,
    /// Switched itself off, or was stopped.
    Stopped,
    /// Ended in a way nobody asked for. Its name is free for [`Request::Create`].
    Failed {
        /// What happened, in one line.
        reason: String,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created"),
            Self::Running => f.write_str("running"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

/// One line of `bulkhead list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its name.
    pub name: VmName,
    /// Its state, with the reason of a failure.
    #[serde(flatten)]
    pub state: State,
    /// Number of virtual processors.
    pub vps: u32,
    /// Guest memory in MiB.
    pub memory_mib: u64,
    /// Seconds since the processors started, while they run.
    pub uptime_s: Option<u64>,
    /// Process id of the worker, while there is one.
    pub pid: Option<u32>,
    /// Exits that reached the worker since it started.
    pub exits: u64,
    /// How often the guest has reset itself since the worker started.
    pub resets: u64,
    /// Its disks, in the order of their units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskConfig>,
    /// What the processors are doing, in answer to [`Request::Show`] of a running machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processors: Vec<VpState>,
}

/// A virtual processor, stopped for a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VpState {
    /// Its index.
    pub vp: u32,
    /// Next instruction.
    pub rip: u64,
    /// Stack.
    pub rsp: u64,
    /// Flags; bit 9 says whether it takes interrupts.
    pub rflags: u64,
    /// Page tables.
    pub cr3: u64,
    /// Exits of this processor that reached the worker since the last reset.
    pub exits: u64,
}

/// What the daemon asks of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerRequest {
    /// Read the files, lay out guest memory, answer and end. Needs no hypervisor.
    Check(VmConfig),
    /// Create the partition and run it.
    Start {
        /// What to run.
        config: VmConfig,
        /// Where to listen for console clients.
        console: PathBuf,
        /// Where to leave the scroll-back at the end.
        log: PathBuf,
    },
    /// Press the ACPI power button.
    PowerButton,
    /// Send [`WorkerEvent::Stats`].
    Stats {
        /// With the state of the processors, each of which is stopped for that.
        processors: bool,
    },
}

/// What a worker reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerEvent {
    /// The configuration can be started.
    Checked,
    /// The configuration cannot be started: one line that says why.
    Refused(String),
    /// The processors run.
    Running,
    /// Answer to [`WorkerRequest::Stats`].
    Stats {
        /// Exits that reached the worker.
        exits: u64,
        /// Resets of the guest.
        resets: u64,
        /// Empty unless it was asked for; a processor that does not stop in time is missing.
        processors: Vec<VpState>,
    },
    /// The last message of a worker that ends by itself.
    Ended(Ending),
}

/// Why a worker ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The guest switched itself off.
    PowerOff,
    /// The guest or the worker cannot go on: one line that says why.
    Failed(String),
}
