//! The hypervisor's log as it lies in the machine's memory, for a machine that cannot tell it any more.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::monitor::Monitor;
use crate::tools;

/// What the image is linked at, less where it is loaded (`hypervisor/kernel/linker.ld`).
const LINKED_MINUS_LOADED: u64 = 0xffff_ffff_8000_0000;

/// Reads the log of a machine that runs `image`; `scratch` is a file for the memory's content.
///
/// # Errors
/// The image has no such symbols, or the monitor does not answer.
pub(crate) fn read(monitor: &mut Monitor, image: &Path, scratch: &Path) -> Result<String> {
    let table = tools::output(Command::new("nm").args(["-C", "-S"]).arg(image))?;
    let (ring, length) = symbol(&table, "hal::log::RING").context("the image has no log")?;
    let (written, eight) = symbol(&table, "hal::log::WRITTEN").context("the image has no log")?;
    let written = memory(monitor, written, eight, scratch)?;
    let written = written.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let bytes = memory(monitor, ring, length, scratch)?;
    fs::remove_file(scratch)?;
    Ok(unroll(&bytes, written))
}

/// The oldest byte comes first.
fn unroll(ring: &[u8], written: u64) -> String {
    let (newest, oldest) = match usize::try_from(written) {
        Ok(written) if written <= ring.len() => (&ring[..written], &ring[..0]),
        _ => ring.split_at(written as usize % ring.len()),
    };
    format!("{}{}", String::from_utf8_lossy(oldest), String::from_utf8_lossy(newest))
}

/// The linked address and the size of a symbol, from what `nm -S` prints.
fn symbol(table: &str, name: &str) -> Option<(u64, u64)> {
    let line = table.lines().find(|line| line.ends_with(&format!(" {name}")))?;
    let mut numbers = line.split_whitespace().map(|word| u64::from_str_radix(word, 16).ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The content of the machine's memory at a linked address.
fn memory(monitor: &mut Monitor, linked: u64, length: u64, scratch: &Path) -> Result<Vec<u8>> {
    let physical = linked.wrapping_sub(LINKED_MINUS_LOADED);
    monitor.human(&format!("pmemsave {physical:#x} {length} \"{}\"", scratch.display()))?;
    fs::read(scratch).context("QEMU saved no memory")
}

#[cfg(test)]
mod tests {
    use super::{symbol, unroll};

    #[test]
    fn symbols_have_address_and_size() {
        let table = "ffffffff802b2000 0000000000010000 b hal::log::RING\nffffffff80000000 t other\n";
        assert_eq!(symbol(table, "hal::log::RING"), Some((0xffff_ffff_802b_2000, 0x1_0000)));
        assert_eq!(symbol(table, "RING"), None);
    }

    #[test]
    fn ring_begins_behind_its_newest_byte() {
        assert_eq!(unroll(b"abc\0", 3), "abc");
        assert_eq!(unroll(b"efcd", 6), "cdef");
    }
}
