//! Disk content that is no content by accident: the same for every test, with a checksum the guest compares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools;

/// Size of a disk with the pattern, in bytes.
pub(crate) const BYTES: usize = 16 << 20;

/// Writes the pattern to `path`.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(path: PathBuf) -> Result<PathBuf> {
    // Marsaglia's xorshift with 64 bits: no two sectors are alike.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut bytes = Vec::with_capacity(BYTES);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The SHA-256 of a file as hexadecimal text.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let line = tools::output(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_string())
}
