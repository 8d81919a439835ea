//! The first Rust code: learns the machine, makes the final address space, and enters the kernel on LP 0's own
//! stack.
#![expect(unsafe_code, reason = "entered from assembly, and changes stacks")]

use core::{arch::asm, fmt, iter, slice, sync::atomic::Ordering};

use super::{
    BootError, BootInfo, MAX_MODULES, MemoryKind, image,
    map::MAX_RANGES,
    multiboot2,
    paging::{self, FOUR_GIB},
    pvh,
    text::TextRoom,
};
use crate::{
    acpi::{self, AcpiError, Madt, RsdpSource},
    addr::Hpa,
    apic,
    check::ensure,
    cpu, crash, log,
    lp::{self, Block, LpIndex, stack},
    mem::{
        self,
        boot::{Span, TooLittleMemory},
        direct,
    },
    pic, serial,
    sync::{Guard, Once, SpinLock},
    time, trap,
};

const MULTIBOOT2_HEADER_MAGIC: u32 = 0xe852_50d6;
const STACK_BYTES: usize = 64 << 10;
const TEXT_BYTES: usize = 8 << 10;
/// What the kernel may take of the boot reserve, for itself and for each LP.
const KERNEL_BYTES: u64 = 2 << 20;
const KERNEL_BYTES_PER_LP: u64 = 128 << 10;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    include_str!("entry.S"),
    HEADER_MAGIC = const MULTIBOOT2_HEADER_MAGIC,
    PVH_MAGIC = const pvh::MAGIC,
    VMA = const image::KERNEL_VMA,
    DIRECT_MAP_SLOT = const mem::DIRECT_MAP_BASE >> 39 & 511,
    STACK_BYTES = const STACK_BYTES,
    start = sym start,
    options(att_syntax),
);

unsafe extern "Rust" {
    /// What the kernel named in [`entry`](crate::entry).
    safe fn hal_kernel_main(boot: BootInfo) -> !;
}

static BOOT: Once<BootInfo> = Once::new();
static TEXT: SpinLock<[u8; TEXT_BYTES]> = SpinLock::new([0; TEXT_BYTES]);
static EARLY_BLOCK: Once<Block> = Once::new();

/// Where the assembly enters Rust, with 4 GiB mapped and on a stack that is not used after this.
extern "C" fn start(magic: u32, info: u32) -> ! {
    time::begin();
    install_early_block();
    serial::init();
    let boot = prepare(magic, Hpa(u64::from(info))).unwrap_or_else(|reason| {
        log::attach_serial();
        crate::error!("cannot start: {reason}");
        crash::refuse()
    });
    assert!(BOOT.set(boot).is_ok(), "the machine boots once");
    enter(stack::of(LpIndex(0)).main_top)
}

/// Why the machine cannot be used.
#[derive(Debug)]
enum CannotBoot {
    Loader(BootError),
    Acpi(AcpiError),
    NoMadt,
    NoX2Apic,
    Memory(TooLittleMemory),
}

impl fmt::Display for CannotBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loader(error) => write!(f, "the loader's information is of no use ({error:?})"),
            Self::Acpi(error) => write!(f, "the firmware's ACPI tables are of no use ({error:?})"),
            Self::NoMadt => write!(f, "the firmware's ACPI tables do not list the processors"),
            Self::NoX2Apic => {
                write!(
                    f,
                    "this processor has no x2APIC, or the firmware disabled it: enable x2APIC, or with QEMU add +x2apic to -cpu"
                )
            }
            Self::Memory(TooLittleMemory(bytes)) => {
                write!(f, "no {} MiB of memory are free in one piece below 4 GiB: add memory", bytes >> 20)
            }
        }
    }
}

/// Everything up to the final address space. The order: the memory map tells where the hypervisor can be, the
/// MADT how much room it takes.
fn prepare(magic: u32, info: Hpa) -> Result<BootInfo, CannotBoot> {
    let mut boot = read_loader(magic, info).map_err(CannotBoot::Loader)?;
    if boot.command_line.split(' ').any(|option| option == "panic=exit") {
        // The kernel reads the options; this one serves the failures before that too.
        crash::exit_instead_of_halting();
    }
    boot.rsdp = boot.rsdp.or_else(|| RsdpSource::search(read_or_zeros));
    let tables = acpi::discover(boot.rsdp, read_or_zeros).map_err(CannotBoot::Acpi)?;
    let madt = tables.madt().ok_or(CannotBoot::NoMadt)?;
    pic::silence();
    ensure(cpu::has_x2apic(), CannotBoot::NoX2Apic)?;
    apic::enable();
    let ids = || iter::once(apic::id()).chain(others(&madt, apic::id()));
    let lps = ids().count();
    reserve(&mut boot, lps as u64).map_err(CannotBoot::Memory)?;
    stack::map_all(&paging::build(&boot.memory), lps as u32);
    lp::create(lps, ids());
    time::calibrate(tables.fadt().as_ref());
    Ok(boot)
}

fn read_or_zeros(start: Hpa, into: &mut [u8]) {
    if paging::read_low(start, into).is_none() {
        into.fill(0);
    }
}

/// Lets exceptions be reported from here on, with stacks in the lower half of the boot stack.
fn install_early_block() {
    const PART: u64 = STACK_BYTES as u64 / 4;
    trap::fill();
    let bottom = image::boot_stack().start;
    let block = Block::new(0, 0, bottom + PART, bottom + 2 * PART);
    if let Ok(block) = EARLY_BLOCK.set(block) {
        block.install();
    }
}

fn read_loader(magic: u32, info: Hpa) -> Result<BootInfo, BootError> {
    let text: &mut [u8; TEXT_BYTES] = Guard::leak(TEXT.lock());
    let mut room = TextRoom::new(text);
    match magic {
        pvh::MAGIC => pvh::parse(info, &paging::read_low, &mut room),
        multiboot2::MAGIC => multiboot2::parse(multiboot2_block(info)?, &mut room),
        other => Err(BootError::UnknownLoader(other)),
    }
}

/// The block that GRUB leaves, by the length in its first word.
fn multiboot2_block(info: Hpa) -> Result<&'static [u8], BootError> {
    let mut len = [0; 4];
    paging::read_low(info, &mut len).ok_or(BootError::Truncated)?;
    let len = u32::from_le_bytes(len);
    ensure(info.0 + u64::from(len) <= FOUR_GIB, BootError::Truncated)?;
    // SAFETY: the bytes are mapped, and nothing writes memory until all of the block is consumed.
    Ok(unsafe { slice::from_raw_parts(direct::<u8>(info), len as usize) })
}

/// The ids of the processors to start: enabled, listed for the first time, and not this one.
fn others(madt: &Madt, this: u32) -> impl Iterator<Item = u32> {
    let is_first = |index: usize, id: u32| !madt.processors().take(index).any(|other| other == id);
    let listed = madt.processors().enumerate();
    listed.filter(move |&(index, id)| id != this && is_first(index, id)).map(|(_, id)| id)
}

/// Notes what must not be overwritten, and carves the hypervisor's region from the rest.
fn reserve(boot: &mut BootInfo, lps: u64) -> Result<(), TooLittleMemory> {
    let image = image::all();
    let image = Span { start: image::physical(image.start), len: image.end - image.start };
    let mut keep = [Span::EMPTY; MAX_MODULES + 1];
    let modules = boot.modules.iter().map(|module| Span { start: module.start, len: module.len });
    for (span, kept) in keep.iter_mut().zip(iter::once(image).chain(modules)) {
        *span = kept;
    }
    let mut usable = [Span::EMPTY; MAX_RANGES];
    for (span, range) in usable.iter_mut().zip(boot.memory.of_kind(MemoryKind::USABLE)) {
        *span = Span { start: range.start, len: range.len };
    }
    let per_lp = stack::BYTES_PER_LP + size_of::<Block>() as u64 + KERNEL_BYTES_PER_LP;
    let bytes = paging::reserve_bytes(&boot.memory) + KERNEL_BYTES + lps * per_lp;
    mem::boot::init(&usable, &keep, image, bytes)?;
    boot.hypervisor = [mem::boot::region(), image];
    Ok(())
}

/// Leaves the stack that boot began on.
fn enter(stack_top: u64) -> ! {
    // SAFETY: the stack is mapped and unused, and nothing on the old one is needed: what `finish` needs is static.
    unsafe {
        asm!(
            "mov rsp, {}", "xor ebp, ebp", "push rbp", "jmp {}",
            in(reg) stack_top, sym finish, options(noreturn),
        );
    }
}

extern "C" fn finish() -> ! {
    if let Some(block) = lp::blocks().first() {
        block.install();
        block.online.store(true, Ordering::Release);
    }
    hal_kernel_main(BOOT.get().expect("boot information was stored").clone())
}
