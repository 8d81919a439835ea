//! Where a disk's bytes are.

mod file;
mod memory;

use std::{fmt, io, task::Poll};

pub use self::{
    file::{Access, FileBackend},
    memory::MemoryBackend,
};
use vmbus::{
    memory::{Memory, NotRam},
    ranges::Segment,
};

/// Names a request that is under way in one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// Which of the queue's places it has.
    pub slot: u32,
    /// Counts the requests in that place, so that a late answer finds nobody.
    pub generation: u32,
}

/// What is to be done. Offsets and lengths are in bytes and within the disk; lengths are not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads into the request's memory.
    Read {
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Writes from the request's memory.
    Write {
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Puts all writes that have been completed on stable storage.
    Flush,
    /// Forgets the content. It reads as zeros if [`Discard::Zeroes`] says so, else as anything.
    Discard {
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Writes zeros, by whatever means.
    Zero {
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
    },
    /// Writes this block again and again.
    Fill {
        /// Where.
        offset: u64,
        /// How much: a multiple of the pattern's length.
        bytes: u64,
        /// One block.
        pattern: Vec<u8>,
    },
}

/// What becomes of discarded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// They cannot be discarded.
    Unsupported,
    /// They read as anything.
    Anything,
    /// They read as zeros.
    Zeroes,
}

/// What kind of storage it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether writes fail.
    pub read_only: bool,
    /// What discarding does.
    pub discard: Discard,
}

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoError {
    /// There is no room for new data; what is there is whole.
    Full,
    /// The storage failed.
    Medium,
    /// The guest's memory is not there.
    Memory(NotRam),
}

impl From<NotRam> for IoError {
    fn from(error: NotRam) -> Self {
        Self::Memory(error)
    }
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full
            }
            _ => Self::Medium,
        }
    }
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the storage is full"),
            Self::Medium => f.write_str("the storage failed"),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

/// Storage of one disk, for any number of queues at once.
pub trait Backend: Send + Sync {
    /// What it is. The length may change with time; the rest does not.
    fn properties(&self) -> Properties;

    /// Starts an operation on the memory of these segments, which together have the operation's length (and are
    /// none for operations without data). It is done when this says so, or when the owner of the backend hands the
    /// token to [`crate::queue::Queue::complete`]; until then the segments may be used.
    fn submit(
        &self,
        token: Token,
        operation: &Operation,
        memory: &dyn Memory,
        segments: &[Segment],
    ) -> Poll<Result<(), IoError>>;
}
