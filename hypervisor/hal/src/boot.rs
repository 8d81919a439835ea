//! From the loader to the kernel: what the machine is, learned once, in one form for every loader.
//!
//! All text is copied out of the loader's memory, so that nothing of the loader's own but the modules is needed any more.

mod entry;
pub(crate) mod image;
mod map;
mod multiboot2;
pub(crate) mod paging;
mod pvh;
mod text;

pub use map::{MemoryKind, MemoryMap, MemoryRange};

use crate::{
    acpi::RsdpSource,
    addr::Hpa,
    list::{Full, List},
    mem::boot::Span,
};

/// Most modules that a loader may pass.
pub const MAX_MODULES: usize = 16;

/// Which boot protocol brought the hypervisor here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// The Xen PVH entry, as `qemu -kernel` uses it.
    Pvh,
    /// Multiboot2, as GRUB speaks it.
    Multiboot2,
}

/// A file that the loader put into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Its first byte.
    pub start: Hpa,
    /// Its length in bytes.
    pub len: u64,
    /// The text the loader was given with it.
    pub name: &'static str,
}

/// What the loader and the firmware say about the machine.
#[derive(Clone, Debug)]
pub struct BootInfo {
    /// The boot protocol.
    pub loader: Loader,
    /// The hypervisor's command line.
    pub command_line: &'static str,
    /// The firmware's memory map.
    pub memory: MemoryMap,
    /// Files, in the loader's order.
    pub modules: List<Module, MAX_MODULES>,
    /// Where the ACPI tables begin, if the loader says so.
    pub rsdp: Option<RsdpSource>,
    /// Memory that is the hypervisor's for ever: its region and its image.
    pub hypervisor: [Span; 2],
}

impl BootInfo {
    fn new(loader: Loader) -> Self {
        Self {
            loader,
            command_line: "",
            memory: MemoryMap::default(),
            modules: List::default(),
            rsdp: None,
            hypervisor: [Span::EMPTY; 2],
        }
    }
}

/// The loader's information is not what its protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The magic number is no known loader's.
    UnknownLoader(u32),
    /// A structure ends early or names memory that is out of reach.
    Truncated,
    /// A structure's magic number, version or size is wrong.
    Malformed,
    /// More modules, memory ranges or text than there is room for.
    TooMuch,
    /// There is no memory map.
    NoMemoryMap,
}

impl From<Full> for BootError {
    fn from(_: Full) -> Self {
        Self::TooMuch
    }
}

/// Copies what lies in physical memory, below 4 GiB, as the firmware or the loader left it. Reports whether all of it
/// is there. Boot only.
#[cfg(target_os = "none")]
pub fn read_physical(start: Hpa, into: &mut [u8]) -> bool {
    paging::read_low(start, into).is_some()
}

/// Names the functions that the hypervisor enters the kernel at: `fn(BootInfo) -> !` on LP 0, and
/// `fn(LpIndex) -> !` on every other LP once it is released.
#[macro_export]
macro_rules! entry {
    ($main:path, $lp_main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn hal_kernel_main(boot: $crate::boot::BootInfo) -> ! {
                $main(boot)
            }

            #[unsafe(no_mangle)]
            extern "Rust" fn hal_kernel_lp_main(lp: $crate::lp::LpIndex) -> ! {
                $lp_main(lp)
            }
        };
    };
}
