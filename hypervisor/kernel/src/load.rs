//! Starting the root partition's Linux: from the loader's modules to a kernel that only needs to be entered.
//!
//! All of it is arithmetic on a [`Memory`], so it runs on a host. Nothing is written before everything is
//! checked and has its place, except the page of ACPI tables, which is the hypervisor's own.

use core::fmt;

use hal::{
    acpi::RsdpSource,
    addr::{Hpa, PAGE_SIZE},
    boot::{MemoryMap, Module},
    mem::{boot::Span, space::MapError},
};
use model::ensure;

mod acpi;
mod bundle;
mod e820;
mod linux;
#[cfg(test)]
mod tests;

use bundle::Bundle;
use e820::{E820, Wanted};
use linux::{BootParams, Kernel};

/// Physical memory. Each call reports whether all of its range is memory; if not, it did nothing.
pub(crate) trait Memory {
    /// Reads bytes.
    fn read(&self, at: Hpa, into: &mut [u8]) -> bool;
    /// Writes bytes.
    fn write(&mut self, at: Hpa, from: &[u8]) -> bool;
    /// Copies `len` bytes; the two ranges may overlap.
    fn copy(&mut self, from: Hpa, to: Hpa, len: u64) -> bool;
    /// Fills with zeros.
    fn zero(&mut self, at: Hpa, len: u64) -> bool;
}

/// The machine as the loader left it.
pub(crate) struct Machine<'a> {
    /// The loader's files.
    pub(crate) modules: &'a [Module],
    /// The firmware's memory map.
    pub(crate) memory: &'a MemoryMap,
    /// What the root must not use although the map calls it usable: the hypervisor's image and region.
    pub(crate) hypervisor: &'a [Span],
    /// The firmware's ACPI root pointer.
    pub(crate) rsdp: RsdpSource,
    /// A page of the hypervisor that the root may read, for ACPI tables.
    pub(crate) spare: Hpa,
}

/// A kernel that is ready to be entered by the 32-bit boot protocol (Linux Documentation/arch/x86/boot.rst):
/// protected mode without paging, flat 4 GiB CS 0x10 and DS, ES, SS 0x18, interrupts disabled, EBX, EBP and EDI 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RootImage {
    /// The value of EIP.
    pub(crate) entry: u64,
    /// The value of ESI.
    pub(crate) boot_params: u64,
    /// The memory that the kernel unpacks itself in.
    pub(crate) kernel: Span,
    /// The initramfs; empty if there is none.
    pub(crate) initramfs: Span,
    /// The ACPI root pointer that the root is given.
    pub(crate) rsdp: Hpa,
}

impl fmt::Display for RootImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, initramfs, rsdp, boot_params, .. } = self;
        write!(f, "kernel at {:?} ({} KiB), ", kernel.start, kernel.len >> 10)?;
        write!(f, "initramfs at {:?} ({} KiB), ", initramfs.start, initramfs.len >> 10)?;
        write!(f, "boot parameters at {boot_params:#x}, ACPI at {rsdp:?}")
    }
}

/// Why the root cannot be started; as text, also what to do about it. Lengths and offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    NoBundle,
    BadBundle(u64),
    NoKernel,
    CommandLineTooLong(usize),
    /// The loader or firmware names an address where no memory is.
    OutOfReach(Hpa),
    NotLinux,
    KernelTooOld(u16),
    BadKernel,
    /// The kernel should have the first length, and has the second.
    KernelTruncated(u64, u64),
    NoRoom(&'static str, u64),
    MapTooLong,
    BadAcpi,
    AcpiTooLong,
    /// The root's own memory.
    Memory(MapError),
}

impl From<MapError> for Error {
    fn from(error: MapError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NoBundle => "no boot bundle: pass -initrd (QEMU), or modules kernel and initramfs (GRUB)",
            Self::NoKernel => "the boot bundle has no entry named kernel: build it with cargo xtask run",
            Self::NotLinux => "the root's kernel is no Linux bzImage: pass arch/x86/boot/bzImage",
            Self::BadKernel => "the root's kernel has a damaged boot header: build it again",
            Self::MapTooLong => "the memory map has more ranges than Linux accepts: report the machine",
            Self::BadAcpi => "the ACPI root tables are damaged: update the firmware",
            Self::AcpiTooLong => "the ACPI root table is larger than a page: report the machine",
            Self::BadBundle(at) => {
                return write!(
                    f,
                    "the boot bundle is no newc archive at byte {at}: build it with cargo xtask run"
                );
            }
            Self::Memory(error) => {
                return write!(f, "the root's memory cannot be set up ({error:?}): report this machine");
            }
            Self::CommandLineTooLong(len) => {
                return write!(f, "the root's command line has {len} bytes: shorten it");
            }
            Self::OutOfReach(at) => {
                return write!(f, "the loader or firmware names {at:?}, where no memory is: report it");
            }
            Self::KernelTooOld(version) => {
                let (major, minor) = (version >> 8, version & 0xff);
                return write!(f, "the root's kernel has boot protocol {major}.{minor}: use 2.12 or later");
            }
            Self::KernelTruncated(want, have) => {
                return write!(f, "the root's kernel ends at byte {have} of {want}: copy or build it again");
            }
            Self::NoRoom(what, len) => {
                let len = len.div_ceil(1024);
                return write!(
                    f,
                    "no {len} KiB of free memory in one piece for the root's {what}: add memory"
                );
            }
        })
    }
}

/// Puts the root's kernel, initramfs and boot parameters where Linux wants them.
///
/// # Errors
/// The modules are not what they should be, or do not fit.
pub(crate) fn load(memory: &mut impl Memory, machine: &Machine) -> Result<RootImage, Error> {
    let bundle = bundle::find(memory, machine.modules)?;
    let kernel = Kernel::read(memory, bundle.kernel, bundle.command_line.len())?;
    let map = E820::new(machine.memory, machine.hypervisor, machine.spare)?;
    let layout = Layout::new(&kernel, &bundle, &map)?;
    let rsdp = acpi::hide(memory, machine.rsdp, machine.spare)?;

    copy(memory, kernel.body, layout.stage)?;
    copy(memory, bundle.initramfs, layout.initramfs.start)?;
    copy(memory, Span { start: layout.stage, ..kernel.body }, layout.kernel.start)?;
    // Last, because the modules may lie where the parameters go.
    let (entry, initramfs, command_line) = (layout.kernel.start, layout.initramfs, &bundle.command_line);
    let params = BootParams { entry, initramfs, command_line, rsdp, map: &map };
    kernel.write_boot_params(memory, layout.parameters, &params)?;
    Ok(RootImage { entry: entry.0, boot_params: layout.parameters.0, kernel: layout.kernel, initramfs, rsdp })
}

/// Where everything goes.
struct Layout {
    kernel: Span,
    initramfs: Span,
    /// Where the kernel waits until the initramfs has moved, so that neither overwrites what has yet to move.
    stage: Hpa,
    parameters: Hpa,
}

impl Layout {
    fn new(kernel: &Kernel, bundle: &Bundle, map: &E820) -> Result<Self, Error> {
        let page = PAGE_SIZE as u64;
        let highest = |what, len, end, avoid: &[Span]| {
            let place = map.highest(&Wanted { len, align: page, avoid }, page..end);
            place.ok_or(Error::NoRoom(what, len))
        };
        let kernel_at = kernel.place(map)?;
        let mut initramfs = bundle.initramfs;
        if initramfs.len > 0 {
            initramfs.start = highest("initramfs", initramfs.len, kernel.initramfs_end(), &[kernel_at])?;
        }
        let image = kernel.body;
        let stage = if image.overlaps(&initramfs) {
            highest("kernel while it moves", image.len, linux::REACH, &[initramfs, bundle.initramfs])?
        } else {
            image.start
        };
        // Where firmware leaves nothing below its own data, any place will do.
        let parameters = |end| highest("parameters", linux::PARAMETER_BYTES, end, &[kernel_at, initramfs]);
        let parameters = parameters(0x9_0000).or_else(|_| parameters(linux::REACH))?;
        Ok(Self { kernel: kernel_at, initramfs, stage, parameters })
    }
}

fn copy(memory: &mut impl Memory, from: Span, to: Hpa) -> Result<(), Error> {
    let is_there = from.len == 0 || from.start == to;
    reached(is_there || memory.copy(from.start, to, from.len), from.start)
}

/// Turns [`Memory`]'s answer into an error.
fn reached(done: bool, at: Hpa) -> Result<(), Error> {
    ensure(done, Error::OutOfReach(at))
}

/// Reads `N` bytes, `offset` bytes from `base`.
fn read<const N: usize>(memory: &impl Memory, base: Hpa, offset: u64) -> Result<[u8; N], Error> {
    let at = base.checked_add(offset).ok_or(Error::OutOfReach(base))?;
    let mut bytes = [0; N];
    reached(memory.read(at, &mut bytes), at)?;
    Ok(bytes)
}
