//! Multiboot2 boot information (Multiboot2 specification §3.6): tags of 8-byte alignment in one block.

use super::{BootError, BootInfo, Loader, MemoryKind, MemoryRange, Module, text::TextRoom};
use crate::{acpi::RsdpSource, addr::Hpa, check::ensure};

/// What the loader leaves in EAX.
pub(super) const MAGIC: u32 = 0x36d7_6289;
/// Bytes of the block's own head, the first four of which are its length.
pub(super) const HEAD_BYTES: usize = 8;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_RSDP_1: u32 = 14;
const TAG_RSDP_2: u32 = 15;

/// A tag's type and payload.
type Tag<'a> = (u32, &'a [u8]);

/// Reads the block. `info` is all of it, by the length in its head.
///
/// # Errors
/// A tag ends outside the block, a list is too long, or there is no memory map.
pub(super) fn parse(info: &[u8], room: &mut TextRoom) -> Result<BootInfo, BootError> {
    let mut boot = BootInfo::new(Loader::Multiboot2);
    let mut rest = info.get(HEAD_BYTES..).ok_or(BootError::Truncated)?;
    while let Some((kind, payload)) = next_tag(&mut rest)? {
        match kind {
            TAG_COMMAND_LINE => boot.command_line = room.copy(payload.iter().copied())?,
            TAG_MODULE => boot.modules.push(module(payload, room)?)?,
            TAG_MEMORY_MAP => memory_map(payload, &mut boot)?,
            // A copy of the newer form is the better one.
            TAG_RSDP_1 if boot.rsdp.is_none() => boot.rsdp = Some(RsdpSource::copy(payload)),
            TAG_RSDP_2 => boot.rsdp = Some(RsdpSource::copy(payload)),
            _ => {}
        }
    }
    ensure(boot.memory.iter().next().is_some(), BootError::NoMemoryMap)?;
    Ok(boot)
}

fn next_tag<'a>(rest: &mut &'a [u8]) -> Result<Option<Tag<'a>>, BootError> {
    let kind = word(rest, 0)?;
    if kind == TAG_END {
        return Ok(None);
    }
    let size = word(rest, 4)? as usize;
    let payload = rest.get(8..size).ok_or(BootError::Truncated)?;
    let padded = size.next_multiple_of(8);
    *rest = rest.get(padded..).ok_or(BootError::Truncated)?;
    Ok(Some((kind, payload)))
}

fn module(payload: &[u8], room: &mut TextRoom) -> Result<Module, BootError> {
    let (start, end) = (u64::from(word(payload, 0)?), u64::from(word(payload, 4)?));
    let len = end.checked_sub(start).ok_or(BootError::Malformed)?;
    let name = room.copy(payload[8..].iter().copied())?;
    Ok(Module { start: Hpa(start), len, name })
}

fn memory_map(payload: &[u8], boot: &mut BootInfo) -> Result<(), BootError> {
    let entry_bytes = word(payload, 0)? as usize;
    ensure(entry_bytes >= 20, BootError::Malformed)?;
    let entries = payload.get(8..).ok_or(BootError::Truncated)?;
    for entry in entries.chunks_exact(entry_bytes) {
        let kind = MemoryKind(word(entry, 16)?);
        boot.memory.add(MemoryRange { start: Hpa(long(entry, 0)?), len: long(entry, 8)?, kind })?;
    }
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BootError> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Result<u64, BootError> {
    field(bytes, at).map(u64::from_le_bytes)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BootError> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(BootError::Truncated)
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::{BootError, BootInfo, Hpa, MemoryKind, parse};
    use crate::boot::text::test_room;

    fn tag(kind: u32, payload: &[u8]) -> Vec<u8> {
        let mut tag = [kind.to_le_bytes(), (payload.len() as u32 + 8).to_le_bytes()].concat();
        tag.extend(payload);
        tag.resize(tag.len().next_multiple_of(8), 0);
        tag
    }

    fn block(tags: &[Vec<u8>]) -> Vec<u8> {
        let mut block = vec![0; 8];
        block.extend(tags.concat());
        block
    }

    fn map_tag() -> Vec<u8> {
        let mut payload = [24_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        for (start, len, kind) in [(0x10_0000_u64, 0x1000_u64, 1_u32), (0, 0x9f000, 1), (0xf0000, 0x10000, 2)]
        {
            payload.extend([start.to_le_bytes(), len.to_le_bytes()].concat());
            payload.extend([kind.to_le_bytes(), [0; 4]].concat());
        }
        tag(6, &payload)
    }

    fn module_tag(start: u32, end: u32, name: &[u8]) -> Vec<u8> {
        tag(3, &[&start.to_le_bytes()[..], &end.to_le_bytes(), name].concat())
    }

    fn read(tags: &[Vec<u8>]) -> Result<BootInfo, BootError> {
        parse(&block(tags), &mut test_room(64))
    }

    #[test]
    fn a_complete_block_is_understood() {
        let end = tag(0, &[]);
        let boot = read(&[
            tag(1, b"log=serial\0"),
            module_tag(0x1000, 0x1800, b"kernel root=/dev/sda\0"),
            tag(21, &[1, 2, 3]),
            tag(14, b"RSD PTR old"),
            tag(15, b"RSD PTR new"),
            map_tag(),
            end,
        ])
        .unwrap();
        assert_eq!(boot.command_line, "log=serial");
        assert_eq!((boot.modules[0].start, boot.modules[0].len), (Hpa(0x1000), 0x800));
        assert_eq!(boot.modules[0].name, "kernel root=/dev/sda");
        assert_eq!(boot.rsdp, Some(crate::acpi::RsdpSource::copy(b"RSD PTR new")));
        let kinds: Vec<_> = boot.memory.iter().map(|range| (range.start.0, range.kind)).collect();
        let (usable, reserved) = (MemoryKind::USABLE, MemoryKind::RESERVED);
        assert_eq!(kinds, [(0, usable), (0xf0000, reserved), (0x10_0000, usable)]);
    }

    #[test]
    fn a_block_cut_anywhere_is_an_error_and_no_panic() {
        let whole = block(&[tag(1, b"text\0"), module_tag(1, 2, b"m\0"), map_tag(), tag(0, &[])]);
        for len in 0..whole.len() - 8 {
            assert!(parse(&whole[..len], &mut test_room(64)).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn nonsense_in_a_tag_is_an_error_and_no_panic() {
        let end = || tag(0, &[]);
        assert_eq!(read(&[module_tag(2, 1, b"\0"), end()]).unwrap_err(), BootError::Malformed);
        assert_eq!(read(&[tag(3, &[0; 4]), end()]).unwrap_err(), BootError::Truncated);
        assert_eq!(read(&[tag(6, &[0; 8]), end()]).unwrap_err(), BootError::Malformed);
        assert_eq!(read(&[end()]).unwrap_err(), BootError::NoMemoryMap);
        let mut short = tag(9, &[]);
        short[4] = 7;
        assert_eq!(read(&[short, end()]).unwrap_err(), BootError::Truncated);
        let many = vec![module_tag(0, 1, b"\0"); 17];
        assert_eq!(read(&many).unwrap_err(), BootError::TooMuch);
    }
}
