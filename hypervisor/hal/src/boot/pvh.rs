//! The start information of a PVH boot (Xen `public/arch-x86/hvm/start_info.h`): a structure that points at the
//! command line, the modules and the memory map.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{BootError, BootInfo, Loader, MemoryKind, MemoryRange, Module, text::TextRoom};
use crate::{acpi::RsdpSource, addr::Hpa, check::ensure};

/// The first word of the structure.
pub(super) const MAGIC: u32 = 0x336e_c578;
/// Longer text than this has lost its end.
const MAX_TEXT: u64 = 4096;

/// Copies physical memory; `None` where none is in reach.
type Read<'a> = &'a dyn Fn(Hpa, &mut [u8]) -> Option<()>;

#[derive(FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    range_count: u32,
    reserved: u32,
}

#[derive(FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct ModuleEntry {
    start: u64,
    len: u64,
    name: u64,
    reserved: u64,
}

#[derive(FromBytes, Immutable, IntoBytes)]
#[repr(C)]
struct RangeEntry {
    start: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// Reads the structure at `info`.
///
/// # Errors
/// Something is out of reach or too long, or the structure is too old to have a memory map.
pub(super) fn parse(info: Hpa, read: Read, room: &mut TextRoom) -> Result<BootInfo, BootError> {
    let info: StartInfo = copy(read, info)?;
    ensure(info.magic == MAGIC, BootError::Malformed)?;
    ensure(info.version != 0 && info.range_count != 0, BootError::NoMemoryMap)?;
    let mut boot = BootInfo::new(Loader::Pvh);
    boot.command_line = text(info.command_line, read, room)?;
    boot.rsdp = (info.rsdp != 0).then_some(RsdpSource::At(Hpa(info.rsdp)));
    for index in 0..info.module_count {
        let ModuleEntry { start, len, name, .. } = element(read, info.modules, index)?;
        boot.modules.push(Module { start: Hpa(start), len, name: text(name, read, room)? })?;
    }
    for index in 0..info.range_count {
        let RangeEntry { start, len, kind, .. } = element(read, info.memory_map, index)?;
        boot.memory.add(MemoryRange { start: Hpa(start), len, kind: MemoryKind(kind) })?;
    }
    Ok(boot)
}

fn element<T: FromBytes + IntoBytes>(read: Read, array: u64, index: u32) -> Result<T, BootError> {
    let offset = u64::from(index) * size_of::<T>() as u64;
    copy(read, Hpa(array).checked_add(offset).ok_or(BootError::Truncated)?)
}

fn copy<T: FromBytes + IntoBytes>(read: Read, at: Hpa) -> Result<T, BootError> {
    let mut value = T::new_zeroed();
    read(at, value.as_mut_bytes()).ok_or(BootError::Truncated)?;
    Ok(value)
}

/// Copies the text at `at`; the loader's null pointer is no text.
fn text(at: u64, read: Read, room: &mut TextRoom) -> Result<&'static str, BootError> {
    let byte = |offset| copy::<u8>(read, Hpa(at).checked_add(offset)?).ok();
    let len = if at == 0 { 0 } else { MAX_TEXT };
    room.copy((0..len).map_while(byte))
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::{
        BootError, BootInfo, Hpa, IntoBytes, MAGIC, MemoryKind, ModuleEntry, RangeEntry, RsdpSource,
        StartInfo, parse,
    };
    use crate::boot::text::test_room;

    const BASE: u64 = 0x1000;

    fn start_info() -> StartInfo {
        StartInfo {
            magic: MAGIC,
            version: 1,
            flags: 0,
            module_count: 1,
            modules: BASE + 0x100,
            command_line: BASE + 0x200,
            rsdp: 0xf5000,
            memory_map: BASE + 0x300,
            range_count: 2,
            reserved: 0,
        }
    }

    fn memory(info: &StartInfo) -> Vec<u8> {
        let module = ModuleEntry { start: 0x7000_0000, len: 0x1234, name: BASE + 0x280, reserved: 0 };
        let ranges = [
            RangeEntry { start: 0, len: 0x9fc00, kind: 1, reserved: 0 },
            RangeEntry { start: 0xf0000, len: 0x10000, kind: 2, reserved: 0 },
        ];
        let mut memory = vec![0; 0x400];
        for (at, bytes) in [
            (0, info.as_bytes()),
            (0x100, module.as_bytes()),
            (0x200, b"panic=exit"),
            (0x280, b"bundle"),
            (0x300, ranges.as_bytes()),
        ] {
            memory[at..at + bytes.len()].copy_from_slice(bytes);
        }
        memory
    }

    fn read(memory: &[u8]) -> Result<BootInfo, BootError> {
        let reader = |at: Hpa, into: &mut [u8]| {
            let from = memory.get(usize::try_from(at.0.checked_sub(BASE)?).ok()?..)?.get(..into.len())?;
            into.copy_from_slice(from);
            Some(())
        };
        parse(Hpa(BASE), &reader, &mut test_room(64))
    }

    #[test]
    fn a_complete_structure_is_understood() {
        let boot = read(&memory(&start_info())).unwrap();
        assert_eq!((boot.command_line, boot.rsdp), ("panic=exit", Some(RsdpSource::At(Hpa(0xf5000)))));
        assert_eq!((boot.modules[0].start, boot.modules[0].len), (Hpa(0x7000_0000), 0x1234));
        assert_eq!(boot.modules[0].name, "bundle");
        assert_eq!(
            boot.memory.iter().map(|range| range.kind).collect::<Vec<_>>(),
            [MemoryKind::USABLE, MemoryKind::RESERVED]
        );
    }

    #[test]
    fn pointers_out_of_reach_are_errors() {
        for spoil in [
            |info: &mut StartInfo| info.modules = u64::MAX - 8,
            |info: &mut StartInfo| info.memory_map = 8,
            |info: &mut StartInfo| info.range_count = 100,
        ] {
            let mut info = start_info();
            spoil(&mut info);
            assert_eq!(read(&memory(&info)).unwrap_err(), BootError::Truncated);
        }
        assert_eq!(read(&[]).unwrap_err(), BootError::Truncated);
    }

    #[test]
    fn a_structure_without_map_or_magic_is_refused() {
        let mut info = start_info();
        info.version = 0;
        assert_eq!(read(&memory(&info)).unwrap_err(), BootError::NoMemoryMap);
        info.magic = 0;
        assert_eq!(read(&memory(&info)).unwrap_err(), BootError::Malformed);
    }
}
