//! A disk in this process's memory: for tests, and for scratch disks.

use std::{sync::RwLock, task::Poll};

use super::{Backend, Discard, IoError, Operation, Properties, Token};
use vmbus::{memory::Memory, ranges::Segment};

/// Bytes that are gone with the process. What is flushed is as durable as what is not.
#[derive(Debug)]
pub struct MemoryBackend {
    bytes: RwLock<Vec<u8>>,
    read_only: bool,
}

impl MemoryBackend {
    /// A disk of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), read_only: false }
    }

    /// A disk of these bytes that cannot be written.
    pub fn read_only(bytes: Vec<u8>) -> Self {
        Self { bytes: RwLock::new(bytes), read_only: true }
    }

    /// What is on the disk.
    pub fn content(&self) -> Vec<u8> {
        self.bytes.read().map(|bytes| bytes.clone()).unwrap_or_default()
    }

    /// Makes the disk longer or shorter; new bytes are 0.
    pub fn resize(&self, bytes: usize) {
        if let Ok(mut content) = self.bytes.write() {
            content.resize(bytes, 0);
        }
    }

    fn perform(
        &self,
        operation: &Operation,
        memory: &dyn Memory,
        segments: &[Segment],
    ) -> Result<(), IoError> {
        let mut content = self.bytes.write().map_err(|_| IoError::Medium)?;
        match operation {
            Operation::Flush => {}
            Operation::Discard { offset, bytes } | Operation::Zero { offset, bytes } => {
                part(&mut content, *offset, *bytes)?.fill(0);
            }
            Operation::Fill { offset, bytes, pattern } => {
                for block in part(&mut content, *offset, *bytes)?.chunks_mut(pattern.len().max(1)) {
                    block.copy_from_slice(&pattern[..block.len()]);
                }
            }
            Operation::Read { offset, bytes } => {
                let mut rest = &*part(&mut content, *offset, *bytes)?;
                for segment in segments {
                    let (now, later) =
                        rest.split_at_checked(segment.bytes as usize).ok_or(IoError::Medium)?;
                    memory.write(segment.gpa, now)?;
                    rest = later;
                }
            }
            Operation::Write { offset, bytes } => {
                let mut rest = part(&mut content, *offset, *bytes)?;
                for segment in segments {
                    let (now, later) =
                        rest.split_at_mut_checked(segment.bytes as usize).ok_or(IoError::Medium)?;
                    memory.read(segment.gpa, now)?;
                    rest = later;
                }
            }
        }
        Ok(())
    }
}

/// Those bytes of the disk.
fn part(content: &mut [u8], offset: u64, bytes: u64) -> Result<&mut [u8], IoError> {
    let start = usize::try_from(offset).map_err(|_| IoError::Medium)?;
    let end = usize::try_from(offset.saturating_add(bytes)).map_err(|_| IoError::Medium)?;
    content.get_mut(start..end).ok_or(IoError::Medium)
}

impl Backend for MemoryBackend {
    fn properties(&self) -> Properties {
        let bytes = self.bytes.read().map(|bytes| bytes.len()).unwrap_or_default();
        Properties { bytes: bytes as u64, read_only: self.read_only, discard: Discard::Zeroes }
    }

    fn submit(
        &self,
        _: Token,
        operation: &Operation,
        memory: &dyn Memory,
        segments: &[Segment],
    ) -> Poll<Result<(), IoError>> {
        Poll::Ready(self.perform(operation, memory, segments))
    }
}
