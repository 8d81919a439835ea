//! From a configuration to guest memory that is ready to run, and where the boot processor starts in it.
//!
//! Two kinds of kernels, recognized by their first bytes: a bzImage by the Linux boot protocol ([`bzimage`],
//! `Documentation/arch/x86/boot.rst`) and an ELF file by PVH ([`pvh`], Xen's `docs/misc/pvh.pandoc`).

mod bzimage;
mod file;
mod pvh;

use std::{fmt, path::PathBuf};

use control::VmConfig;
use vm_memory::{Bytes, GuestAddress};

use crate::{
    acpi,
    layout::{ACPI_TABLES, CMDLINE, GDT, MMIO_HOLE},
    memory::{self, GuestRam},
};
use file::{InputFile, Magic};

/// How the boot processor starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode with the first 4 GiB mapped to themselves.
    Long {
        /// First instruction.
        rip: u64,
        /// Page tables.
        cr3: u64,
        /// `struct boot_params`, in RSI.
        boot_params: u64,
    },
    /// 32-bit protected mode with flat segments and no paging.
    Protected {
        /// First instruction.
        eip: u64,
        /// `struct hvm_start_info`, in EBX; 0 for a bzImage.
        ebx: u64,
        /// `struct boot_params`, in ESI; 0 for PVH.
        esi: u64,
    },
}

/// Selector of the flat code segment in the table at [`GDT`].
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the flat data segment.
pub const DATA_SELECTOR: u16 = 0x18;
/// Selector of the task state segment, of which the processor's copy alone matters.
pub const TASK_SELECTOR: u16 = 0x20;
/// Bytes of the table at [`GDT`].
pub const GDT_LEN: u16 = 0x28;

/// Why a machine cannot be started with its files. Every message names the file and what to do.
#[derive(Debug)]
pub enum BootError {
    /// A file cannot be opened or read.
    Read(Magic, PathBuf, std::io::Error),
    /// Neither a bzImage nor an ELF file.
    NotAKernel(PathBuf),
    /// A kernel that ends before its own header says it does, or whose header contradicts itself.
    Broken(PathBuf, &'static str),
    /// A sound kernel of a kind that cannot be started here.
    Unsupported(PathBuf, &'static str),
    /// Guest memory does not hold it all. The need is a lower bound, in MiB.
    TooLittleMemory {
        /// What the configuration gives.
        have: u64,
        /// What loading alone takes.
        need: u64,
    },
    /// The host does not give the address space.
    NoHostMemory(u64, String),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(Magic::Kernel, path, error) => {
                write!(
                    f,
                    "cannot read the kernel {}: {error}; give a readable file with --kernel",
                    path.display()
                )
            }
            Self::Read(Magic::Initramfs, path, error) => write!(
                f,
                "cannot read the initramfs {}: {error}; give a readable file with --initramfs",
                path.display()
            ),
            Self::NotAKernel(path) => write!(
                f,
                "{} is no kernel: give an x86 bzImage, or an ELF vmlinux with a PVH entry, with --kernel",
                path.display()
            ),
            Self::Broken(path, what) => {
                write!(f, "the kernel {} is broken: {what}; copy it again or build it anew", path.display())
            }
            Self::Unsupported(path, what) => {
                write!(f, "the kernel {} cannot be started: {what}", path.display())
            }
            Self::TooLittleMemory { have, need } => write!(
                f,
                "{have} MiB of memory is too little for this kernel and initramfs: \
                 give at least {need} with --memory"
            ),
            Self::NoHostMemory(mib, error) => write!(
                f,
                "the host has no room for {mib} MiB of guest memory ({error}): \
                 give less with --memory or free some"
            ),
        }
    }
}

impl std::error::Error for BootError {}

/// Allocates guest memory and fills it with the kernel, its files and the tables.
///
/// # Errors
///
/// [`BootError`], before the host has given more than the files take.
pub fn load(config: &VmConfig) -> Result<(GuestRam, Entry), BootError> {
    let bytes = config.memory_mib.saturating_mul(1 << 20);
    let no_memory = |error| BootError::NoHostMemory(config.memory_mib, error);
    let ram = memory::allocate(bytes).map_err(no_memory)?;
    let kernel = InputFile::open(Magic::Kernel, &config.kernel)?;
    let initramfs = match &config.initramfs {
        Some(path) => Some(InputFile::open(Magic::Initramfs, path)?),
        None => None,
    };
    let loader = Loader { config, ram: &ram, bytes };
    let entry = if pvh::is_elf(&kernel)? {
        pvh::load(&loader, &kernel, initramfs.as_ref())?
    } else {
        bzimage::load(&loader, &kernel, initramfs.as_ref())?
    };
    loader.put(ACPI_TABLES, &acpi::tables(config.vps, !config.disks.is_empty()))?;
    loader.put(GDT, descriptors(entry).map(u64::to_le_bytes).as_flattened())?;
    Ok((ram, entry))
}

/// The segment descriptors of `entry`, for a kernel that reloads a selector before it has a table of its own.
fn descriptors(entry: Entry) -> [u64; 5] {
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    const TASK: u64 = 0x0000_8b00_0000_0067;
    let code = match entry {
        Entry::Long { .. } => 0x00af_9b00_0000_ffff,
        Entry::Protected { .. } => 0x00cf_9b00_0000_ffff,
    };
    [0, 0, code, DATA, TASK]
}

/// What both kinds of kernels need.
struct Loader<'a> {
    config: &'a VmConfig,
    ram: &'a GuestRam,
    /// Size of `ram`.
    bytes: u64,
}

impl Loader<'_> {
    /// End of the RAM below the hole, in which everything is loaded.
    fn low_end(&self) -> u64 {
        self.bytes.min(MMIO_HOLE)
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), BootError> {
        self.ram.write_slice(bytes, GuestAddress(at)).map_err(|_| self.too_little(at + bytes.len() as u64))
    }

    /// The command line with its terminator; returns its address.
    fn put_cmdline(&self) -> Result<u64, BootError> {
        let mut line = self.config.cmdline.clone().into_bytes();
        line.push(0);
        self.put(CMDLINE, &line)?;
        Ok(CMDLINE)
    }

    /// Puts the initramfs as high as it goes below `limit`, and above `kernel_end`.
    fn put_initramfs(&self, file: &InputFile, kernel_end: u64, limit: u64) -> Result<(u64, u64), BootError> {
        const PAGE: u64 = 4096;
        let top = self.low_end().min(limit) / PAGE * PAGE;
        let room = file.len().next_multiple_of(PAGE);
        match top.checked_sub(room) {
            Some(at) if at >= kernel_end => {
                file.copy(0, file.len(), self.ram, at)?;
                Ok((at, file.len()))
            }
            _ => Err(self.too_little(kernel_end + room)),
        }
    }

    fn too_little(&self, end: u64) -> BootError {
        BootError::TooLittleMemory { have: self.config.memory_mib, need: end.div_ceil(1 << 20) }
    }
}

#[cfg(test)]
mod tests;
