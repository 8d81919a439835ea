//! Where the sockets live.

use std::path::{Path, PathBuf};

use crate::VmName;

/// The directory of the daemon's socket and of the workers' consoles; `/run/bulkhead` unless told otherwise.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Where both programs look when neither an option nor `BULKHEAD_RUN_DIR` names a directory.
    pub const DEFAULT: &str = "/run/bulkhead";

    /// A run directory at `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The socket on which the daemon takes requests.
    pub fn control_socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The socket on which the worker of `name` hands out its console: raw bytes both ways, the scroll-back
    /// first. A client that closes its sending half gets the scroll-back and then the end of the stream.
    pub fn console(&self, name: &VmName) -> PathBuf {
        self.0.join(format!("{name}.console"))
    }

    /// The scroll-back that a worker which ended by itself leaves behind.
    pub fn console_log(&self, name: &VmName) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }
}
