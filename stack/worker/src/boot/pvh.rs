//! An ELF kernel by PVH: 32-bit entry from a Xen note, `struct hvm_start_info` in EBX.

use super::{BootError, Entry, InputFile, Loader};
use crate::{
    layout::{ACPI_TABLES, PVH_INFO},
    memory,
};

const ELF_HEADER: usize = 64;
const ELF_MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const MACHINE_X86_64: u64 = 62;
const PROGRAM_HEADER: u64 = 56;
const PT_LOAD: u64 = 1;
const PT_NOTE: u64 = 4;
/// More program headers than any kernel has.
const MAX_HEADERS: u64 = 128;
/// Longer notes than any kernel has.
const MAX_NOTES: u64 = 1 << 16;

/// The note `XEN_ELFNOTE_PHYS32_ENTRY`.
const PHYS32_ENTRY: u64 = 18;
const START_MAGIC: u32 = 0x336e_c578;
const START_INFO: u64 = 56;
const MODULE: u64 = 32;

/// Whether `file` starts like an ELF file.
pub(super) fn is_elf(file: &InputFile) -> Result<bool, BootError> {
    Ok(file.head(0, ELF_MAGIC.len())? == ELF_MAGIC)
}

/// Loads `kernel` and `initramfs`.
pub(super) fn load(
    loader: &Loader<'_>,
    kernel: &InputFile,
    initramfs: Option<&InputFile>,
) -> Result<Entry, BootError> {
    let mut entry = None;
    let mut end = 0;
    for segment in segments(kernel)? {
        match segment.kind {
            PT_LOAD => end = end.max(segment.load(loader, kernel)?),
            PT_NOTE => entry = entry.or(segment.entry(kernel)?),
            _ => {}
        }
    }
    let Some(eip) = entry else {
        return Err(
            kernel.unsupported("it has no PVH entry; build it with CONFIG_PVH=y, or give its bzImage")
        );
    };
    if end == 0 {
        return Err(kernel.broken("no part of it is to be loaded"));
    }
    let module = match initramfs {
        Some(file) => Some(loader.put_initramfs(file, end, u64::MAX)?),
        None => None,
    };
    let cmdline = loader.put_cmdline()?;
    loader.put(PVH_INFO, &start_info(loader.bytes, cmdline, module))?;
    Ok(Entry::Protected { eip, ebx: PVH_INFO, esi: 0 })
}

struct Segment {
    kind: u64,
    offset: u64,
    physical: u64,
    in_file: u64,
    in_memory: u64,
    align: u64,
}

/// Little-endian field; 0 where the bytes end, which no caller takes for a valid value.
fn field(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes
        .get(at..at + size)
        .map_or(0, |field| field.iter().rev().fold(0, |v, byte| v << 8 | u64::from(*byte)))
}

fn segments(kernel: &InputFile) -> Result<Vec<Segment>, BootError> {
    let header = kernel.head(0, ELF_HEADER)?;
    if header.len() < ELF_HEADER {
        return Err(kernel.broken("the file ends before the kernel does"));
    }
    if header[4] != CLASS_64 || header[5] != LITTLE_ENDIAN || field(&header, 18, 2) != MACHINE_X86_64 {
        return Err(kernel.unsupported("it is not an x86-64 ELF file; use one that is"));
    }
    let (offset, size, count) = (field(&header, 32, 8), field(&header, 54, 2), field(&header, 56, 2));
    if size != PROGRAM_HEADER || count == 0 || count > MAX_HEADERS {
        return Err(kernel.broken("its ELF header has no sensible program headers"));
    }
    let want = usize::try_from(size * count).unwrap_or(usize::MAX);
    let table = kernel.head(offset, want)?;
    if table.len() < want {
        return Err(kernel.broken("the file ends before the kernel does"));
    }
    Ok(table.chunks_exact(PROGRAM_HEADER as usize).map(Segment::parse).collect())
}

impl Segment {
    fn parse(bytes: &[u8]) -> Self {
        Self {
            kind: field(bytes, 0, 4),
            offset: field(bytes, 8, 8),
            physical: field(bytes, 24, 8),
            in_file: field(bytes, 32, 8),
            in_memory: field(bytes, 40, 8),
            align: field(bytes, 48, 8),
        }
    }

    /// Copies the segment; what is longer in memory stays zero. Returns its end.
    fn load(&self, loader: &Loader<'_>, kernel: &InputFile) -> Result<u64, BootError> {
        if self.offset.checked_add(self.in_file).is_none_or(|end| end > kernel.len()) {
            return Err(kernel.broken("the file ends before the kernel does"));
        }
        let end = self.physical.checked_add(self.in_memory.max(self.in_file));
        let end = end.ok_or_else(|| kernel.broken("its header names an impossible load address"))?;
        if end > loader.low_end() {
            return Err(loader.too_little(end));
        }
        kernel.copy(self.offset, self.in_file, loader.ram, self.physical)?;
        Ok(end)
    }

    /// The PVH entry, if this note segment has it.
    fn entry(&self, kernel: &InputFile) -> Result<Option<u64>, BootError> {
        let notes = kernel.head(self.offset, usize::try_from(self.in_file.min(MAX_NOTES)).unwrap_or(0))?;
        // Notes are aligned to four bytes unless the segment says eight.
        let align = if self.align == 8 { 8 } else { 4 };
        let mut rest = notes.as_slice();
        while let Some((head, body)) = rest.split_at_checked(12) {
            let [name_len, value_len, kind] = [0, 4, 8].map(|at| field(head, at, 4));
            let name_room = (name_len as usize).next_multiple_of(align);
            let value_room = (value_len as usize).next_multiple_of(align);
            if kind == PHYS32_ENTRY && body.starts_with(b"Xen\0") {
                let value = body.get(name_room..).unwrap_or_default();
                let size = (value_len as usize).min(8);
                return Ok(Some(field(value, 0, size)).filter(|entry| *entry != 0));
            }
            rest = body.get(name_room + value_room..).unwrap_or_default();
        }
        Ok(None)
    }
}

/// `struct hvm_start_info` version 1 with the module list and the memory map behind it.
fn start_info(ram: u64, cmdline: u64, module: Option<(u64, u64)>) -> Vec<u8> {
    let map = memory::map(ram);
    let modules = PVH_INFO + START_INFO;
    let ranges = modules + MODULE;
    let mut info = Vec::new();
    info.extend(START_MAGIC.to_le_bytes());
    info.extend(1u32.to_le_bytes());
    info.extend(0u32.to_le_bytes());
    info.extend(u32::from(module.is_some()).to_le_bytes());
    info.extend(
        [if module.is_some() { modules } else { 0 }, cmdline, ACPI_TABLES, ranges]
            .map(u64::to_le_bytes)
            .as_flattened(),
    );
    info.extend([map.len().to_le_bytes()[0], 0, 0, 0, 0, 0, 0, 0]);
    let (at, len) = module.unwrap_or_default();
    info.extend([at, len, 0, 0].map(u64::to_le_bytes).as_flattened());
    for range in map {
        info.extend([range.start, range.len].map(u64::to_le_bytes).as_flattened());
        info.extend((range.kind as u32).to_le_bytes());
        info.extend(0u32.to_le_bytes());
    }
    info
}
