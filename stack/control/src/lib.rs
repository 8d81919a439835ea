//! What the command line, the daemon and the workers say to each other.
//!
//! Three parties, two links, one encoding:
//!
//! - `bulkhead` to `bulkheadd`: a [`Request`] and its [`Response`] over the daemon's UNIX socket.
//! - `bulkheadd` to a `bulkhead-worker`: [`WorkerRequest`]s down, [`WorkerEvent`]s up, over a socket pair
//!   which is the worker's standard input.
//!
//! Both carry length-prefixed JSON ([`codec`]). The console's bytes do not pass through the daemon: every
//! worker listens on a socket of its own ([`RunDir::console`]).

pub mod codec;
mod config;
mod message;
mod paths;

pub use config::{ConfigError, DiskConfig, MAX_VPS, MIN_MEMORY_MIB, VmConfig, VmName};
pub use message::{Ending, Request, Response, State, VmStatus, VpState, WorkerEvent, WorkerRequest};
pub use paths::RunDir;
