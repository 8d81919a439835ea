//! A bzImage by the Linux/x86 boot protocol: setup header, `struct boot_params` ("zero page"), 64-bit or
//! 32-bit entry.
//!
//! Offsets are those of the setup header within the file, which are also those within `struct boot_params`.

use super::{BootError, Entry, InputFile, Loader};
use crate::{
    layout::{ACPI_TABLES, PAGE_TABLES, ZERO_PAGE},
    memory,
};

const SECTOR: u64 = 512;
const SETUP_HEADER: usize = 0x1f1;
const SYSSIZE: usize = 0x1f4;
const VIDEO_MODE: usize = 0x1fa;
const HEADER_LEN: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;
/// Fields of `struct boot_params` outside the header.
const ACPI_RSDP_ADDR: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;

/// The first version of the protocol with `xloadflags`; Linux 3.8.
const OLDEST: u64 = 0x020c;
/// `loadflags`: the code is loaded at 1 MiB or above.
const LOADED_HIGH: u64 = 1 << 0;
/// `xloadflags`: there is a 64-bit entry 0x200 bytes into the code.
const KERNEL_64: u64 = 1 << 0;
const ENTRY_64: u64 = 0x200;
/// `type_of_loader` of a boot loader that has no number.
const UNDEFINED_LOADER: u8 = 0xff;
/// `vid_mode` that asks for none in particular.
const NORMAL_VIDEO_MODE: u16 = 0xffff;

/// A setup header that has been checked against its file.
struct Header<'a> {
    bytes: Vec<u8>,
    file: &'a InputFile,
}

impl<'a> Header<'a> {
    fn read(file: &'a InputFile) -> Result<Self, BootError> {
        let header = Self { bytes: file.head(0, ZERO_PAGE_LEN)?, file };
        if header.bytes.len() < INIT_SIZE + 4 || &header.bytes[MAGIC..MAGIC + 4] != b"HdrS" {
            return Err(file.not_a_kernel());
        }
        if header.field(VERSION, 2) < OLDEST || header.field(LOADFLAGS, 1) & LOADED_HIGH == 0 {
            return Err(file.unsupported("it is older than Linux 3.8; use a newer one"));
        }
        // `syssize` is rounded up to 16 bytes, which the file need not be.
        let code = file.len().saturating_sub(header.code_offset());
        let payload = header.field(PAYLOAD_OFFSET, 4) + header.field(PAYLOAD_LENGTH, 4);
        if code + 15 < header.field(SYSSIZE, 4) * 16 || code < payload || code <= ENTRY_64 {
            return Err(file.broken("the file ends before the kernel does"));
        }
        Ok(header)
    }

    fn field(&self, at: usize, size: usize) -> u64 {
        self.bytes[at..at + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Where the protected-mode code starts in the file; 0 sectors of setup code mean 4.
    fn code_offset(&self) -> u64 {
        let sectors = match self.field(SETUP_HEADER, 1) {
            0 => 4,
            sectors => sectors,
        };
        (sectors + 1) * SECTOR
    }

    /// Where the code is loaded, and how much memory it takes there until it has set up its own.
    fn placement(&self) -> (u64, u64) {
        let at = if self.field(RELOCATABLE, 1) != 0 {
            self.field(PREF_ADDRESS, 8)
        } else {
            self.field(CODE32_START, 4)
        };
        (at, self.field(INIT_SIZE, 4).max(self.file.len() - self.code_offset()))
    }

    /// The header's bytes, which the zero page takes over.
    fn copied(&self) -> &[u8] {
        let end = MAGIC + usize::from(self.bytes[HEADER_LEN]);
        &self.bytes[SETUP_HEADER..end.min(self.bytes.len())]
    }
}

const ZERO_PAGE_LEN: usize = 4096;

/// Loads `kernel` and `initramfs`.
pub(super) fn load(
    loader: &Loader<'_>,
    kernel: &InputFile,
    initramfs: Option<&InputFile>,
) -> Result<Entry, BootError> {
    let header = Header::read(kernel)?;
    if loader.config.cmdline.len() as u64 > header.field(CMDLINE_SIZE, 4) {
        return Err(kernel.unsupported("its command line is shorter than the one of --cmdline; shorten that"));
    }
    let (at, len) = header.placement();
    let end =
        at.checked_add(len).ok_or_else(|| kernel.broken("its header names an impossible load address"))?;
    if end > loader.low_end() {
        return Err(loader.too_little(end));
    }
    kernel.copy(header.code_offset(), kernel.len() - header.code_offset(), loader.ram, at)?;
    let ramdisk = match initramfs {
        Some(file) => loader.put_initramfs(file, end, header.field(INITRD_ADDR_MAX, 4) + 1)?,
        None => (0, 0),
    };
    let cmdline = loader.put_cmdline()?;
    loader.put(ZERO_PAGE, &zero_page(&header, loader.bytes, cmdline, ramdisk))?;
    if header.field(XLOADFLAGS, 2) & KERNEL_64 == 0 {
        return Ok(Entry::Protected { eip: at, ebx: 0, esi: ZERO_PAGE });
    }
    loader.put(PAGE_TABLES, &identity_tables())?;
    Ok(Entry::Long { rip: at + ENTRY_64, cr3: PAGE_TABLES, boot_params: ZERO_PAGE })
}

/// `struct boot_params`. The addresses in it are below 4 GiB because everything is loaded below the hole.
fn zero_page(header: &Header<'_>, ram: u64, cmdline: u64, ramdisk: (u64, u64)) -> Vec<u8> {
    let mut page = vec![0; ZERO_PAGE_LEN];
    let copied = header.copied();
    page[SETUP_HEADER..SETUP_HEADER + copied.len()].copy_from_slice(copied);
    let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
    put(VIDEO_MODE, &NORMAL_VIDEO_MODE.to_le_bytes());
    put(TYPE_OF_LOADER, &[UNDEFINED_LOADER]);
    put(RAMDISK_IMAGE, &ramdisk.0.to_le_bytes()[..4]);
    put(RAMDISK_SIZE, &ramdisk.1.to_le_bytes()[..4]);
    put(CMD_LINE_PTR, &cmdline.to_le_bytes()[..4]);
    put(ACPI_RSDP_ADDR, &ACPI_TABLES.to_le_bytes());
    let map = memory::map(ram);
    put(E820_ENTRIES, &map.len().to_le_bytes()[..1]);
    for (index, range) in map.iter().enumerate() {
        let at = E820_TABLE + 20 * index;
        put(at, &range.start.to_le_bytes());
        put(at + 8, &range.len.to_le_bytes());
        put(at + 16, &(range.kind as u32).to_le_bytes());
    }
    page
}

/// One PML4, one PDPT and four page directories at [`PAGE_TABLES`], which map the first 4 GiB to themselves
/// by pages of 2 MiB.
fn identity_tables() -> Vec<u8> {
    const TABLE: u64 = 0x1000;
    const PRESENT_WRITABLE: u64 = 0b11;
    const LARGE: u64 = 1 << 7;
    let mut entries = vec![0u64; 6 * 512];
    entries[0] = (PAGE_TABLES + TABLE) | PRESENT_WRITABLE;
    for directory in 0..4 {
        entries[512 + directory] = (PAGE_TABLES + (2 + directory as u64) * TABLE) | PRESENT_WRITABLE;
    }
    for (page, entry) in entries[1024..].iter_mut().enumerate() {
        *entry = (page as u64) << 21 | LARGE | PRESENT_WRITABLE;
    }
    entries.into_iter().flat_map(u64::to_le_bytes).collect()
}
