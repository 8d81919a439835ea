//! A kernel or an initramfs on disk.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::memory::GuestRam;

/// What the file is meant to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// The file of `--kernel`.
    Kernel,
    /// The file of `--initramfs`.
    Initramfs,
}

/// An open file of known length. Reads beyond its end are errors that name it.
pub(super) struct InputFile {
    what: Magic,
    path: PathBuf,
    file: File,
    len: u64,
}

impl InputFile {
    pub(super) fn open(what: Magic, path: &Path) -> Result<Self, BootError> {
        let failed = |error| BootError::Read(what, path.to_owned(), error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("not a regular file")));
        }
        Ok(Self { what, path: path.to_owned(), file, len: metadata.len() })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn not_a_kernel(&self) -> BootError {
        BootError::NotAKernel(self.path.clone())
    }

    pub(super) fn broken(&self, what: &'static str) -> BootError {
        BootError::Broken(self.path.clone(), what)
    }

    pub(super) fn unsupported(&self, what: &'static str) -> BootError {
        BootError::Unsupported(self.path.clone(), what)
    }

    /// Up to `len` bytes at `at`; fewer where the file ends.
    pub(super) fn head(&self, at: u64, len: usize) -> Result<Vec<u8>, BootError> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(left)];
        self.file.read_exact_at(&mut bytes, at).map_err(|error| self.failed(error))?;
        Ok(bytes)
    }

    /// Copies `len` bytes at `at` of the file to guest memory.
    pub(super) fn copy(&self, at: u64, len: u64, ram: &GuestRam, to: u64) -> Result<(), BootError> {
        const CHUNK: u64 = 1 << 20;
        let mut done = 0;
        while done < len {
            let chunk = (len - done).min(CHUNK);
            let bytes = self.head(at + done, usize::try_from(chunk).unwrap_or(usize::MAX))?;
            if bytes.len() as u64 != chunk {
                return Err(self.failed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            ram.write_slice(&bytes, GuestAddress(to + done))
                .map_err(|error| self.failed(std::io::Error::other(error)))?;
            done += chunk;
        }
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> BootError {
        BootError::Read(self.what, self.path.clone(), error)
    }
}
