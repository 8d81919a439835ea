//! The Linux x86 boot protocol (Linux Documentation/arch/x86/boot.rst, zero-page.rst), 32-bit entry.

use hal::{
    addr::{Hpa, PAGE_SIZE},
    mem::boot::Span,
};
use model::ensure;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    Error, Memory,
    e820::{E820, Wanted},
    reached, read,
};

/// The 32-bit entry reaches no address from here on.
pub(super) const REACH: u64 = 4 << 30;
/// Bytes of the boot parameters and, on the page behind them, the command line.
pub(super) const PARAMETER_BYTES: u64 = 2 * PAGE_SIZE as u64;

const OLDEST: u16 = 0x20c;
const LOADED_HIGH: u8 = 1;
const CAN_USE_HEAP: u8 = 0x80;
/// A loader without a number of its own.
const UNKNOWN_LOADER: u8 = 0xff;
const NORMAL_VIDEO: u16 = 0xffff;
const SECTOR: u64 = 512;

// Offsets in the boot parameters.
const ACPI_RSDP: u64 = 0x70;
const E820_COUNT: u64 = 0x1e8;
const HEADER: u64 = 0x1f1;
const E820_TABLE: u64 = 0x2d0;
const E820_ENTRY_BYTES: u64 = 20;
/// Offset from the header to the byte at 0x201, which says how many bytes of header follow the byte at 0x202.
const JUMP: usize = 0x202 - HEADER as usize;

/// The setup header, at the same offset in the image and in the boot parameters. What a kernel's header does not
/// have is zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
struct SetupHeader {
    setup_sects: u8,
    root_flags: u16,
    /// In units of 16 bytes.
    syssize: u32,
    ram_size: u16,
    vid_mode: u16,
    root_dev: u16,
    boot_flag: u16,
    jump: [u8; 2],
    header: [u8; 4],
    version: u16,
    realmode: [u8; 8],
    type_of_loader: u8,
    loadflags: u8,
    setup_move_size: u16,
    code32_start: u32,
    ramdisk_image: u32,
    ramdisk_size: u32,
    heap: [u8; 8],
    cmd_line_ptr: u32,
    /// The last byte's address.
    initrd_addr_max: u32,
    kernel_alignment: u32,
    relocatable_kernel: u8,
    min_alignment: u8,
    xloadflags: u16,
    /// Without the final zero.
    cmdline_size: u32,
    subarch_payload_setup_data: [u8; 28],
    pref_address: u64,
    init_size: u32,
    newer: [u8; 0x2c],
}

const _: () = assert!(size_of::<SetupHeader>() == 0x290 - HEADER as usize);
const _: () = assert!(core::mem::offset_of!(SetupHeader, init_size) == 0x260 - HEADER as usize);

/// A kernel image that was checked.
pub(super) struct Kernel {
    header: SetupHeader,
    /// The protected-mode part, where the loader left it.
    pub(super) body: Span,
}

/// What the kernel is told.
pub(super) struct BootParams<'a> {
    pub(super) entry: Hpa,
    pub(super) initramfs: Span,
    pub(super) command_line: &'a [u8],
    pub(super) rsdp: Hpa,
    pub(super) map: &'a E820,
}

impl Kernel {
    /// Checks the bzImage at `image`, which is to have a command line of `command_line_len` bytes.
    pub(super) fn read(memory: &impl Memory, image: Span, command_line_len: usize) -> Result<Self, Error> {
        ensure(image.len >= HEADER + size_of::<SetupHeader>() as u64, Error::NotLinux)?;
        let mut bytes: [u8; size_of::<SetupHeader>()] = read(memory, image.start, HEADER)?;
        let end = JUMP + usize::from(bytes.get(JUMP - 1).copied().unwrap_or_default());
        bytes.iter_mut().skip(end).for_each(|byte| *byte = 0);
        let header = SetupHeader::read_from_bytes(&bytes).map_err(|_| Error::NotLinux)?;
        ensure(header.header == *b"HdrS" && header.boot_flag == 0xaa55, Error::NotLinux)?;
        ensure(header.version >= OLDEST, Error::KernelTooOld(header.version))?;
        let alignment = header.kernel_alignment;
        let is_sane = alignment.is_power_of_two() && header.init_size != 0 && header.pref_address < REACH;
        ensure(is_sane && header.loadflags & LOADED_HIGH != 0, Error::BadKernel)?;
        // By the protocol's history, 0 stands for 4.
        let sectors = if header.setup_sects == 0 { 4 } else { header.setup_sects };
        let offset = (u64::from(sectors) + 1) * SECTOR;
        let len = u64::from(header.syssize) * 16;
        ensure(offset + len <= image.len, Error::KernelTruncated(offset + len, image.len))?;
        ensure(
            command_line_len <= header.cmdline_size as usize,
            Error::CommandLineTooLong(command_line_len),
        )?;
        Ok(Self { header, body: Span { start: Hpa(image.start.0 + offset), len } })
    }

    /// The first address that the initramfs must not reach.
    pub(super) fn initramfs_end(&self) -> u64 {
        u64::from(self.header.initrd_addr_max) + 1
    }

    /// Finds the memory to load and unpack the kernel in.
    ///
    /// A relocatable kernel loaded below its preferred address moves up to it, and one that is not aligned moves
    /// up to its alignment; so it is loaded where it stays, and needs `init_size` bytes only there.
    pub(super) fn place(&self, map: &E820) -> Result<Span, Error> {
        let len = u64::from(self.header.init_size).max(self.body.len);
        let preferred = self.header.pref_address.max(1 << 20);
        let is_relocatable = self.header.relocatable_kernel != 0;
        let end = if is_relocatable { REACH } else { preferred + len };
        let wanted = Wanted { len, align: u64::from(self.header.kernel_alignment), avoid: &[] };
        let start = map.lowest(&wanted, preferred..end).ok_or(Error::NoRoom("kernel", len))?;
        Ok(Span { start, len })
    }

    /// Writes the boot parameters to the page at `page` and the command line to the page behind it.
    pub(super) fn write_boot_params(
        &self,
        memory: &mut impl Memory,
        page: Hpa,
        params: &BootParams,
    ) -> Result<(), Error> {
        let command_line = Hpa(page.0 + PAGE_SIZE as u64);
        // All of these lie below `REACH`.
        let header = SetupHeader {
            vid_mode: NORMAL_VIDEO,
            type_of_loader: UNKNOWN_LOADER,
            loadflags: self.header.loadflags & !CAN_USE_HEAP,
            code32_start: params.entry.0 as u32,
            ramdisk_image: params.initramfs.start.0 as u32,
            ramdisk_size: params.initramfs.len as u32,
            cmd_line_ptr: command_line.0 as u32,
            ..self.header
        };
        let count = params.map.iter().count() as u8;
        let mut done = memory.zero(page, PARAMETER_BYTES)
            && memory.write(Hpa(page.0 + ACPI_RSDP), &params.rsdp.0.to_le_bytes())
            && memory.write(Hpa(page.0 + HEADER), header.as_bytes())
            && memory.write(Hpa(page.0 + E820_COUNT), &[count])
            && memory.write(command_line, params.command_line);
        let places = (page.0 + E820_TABLE..).step_by(E820_ENTRY_BYTES as usize);
        for (at, range) in places.zip(params.map.iter()) {
            done &= memory.write(Hpa(at), &range.start.0.to_le_bytes())
                && memory.write(Hpa(at + 8), &range.len.to_le_bytes())
                && memory.write(Hpa(at + 16), &range.kind.0.to_le_bytes());
        }
        reached(done, page)
    }
}
