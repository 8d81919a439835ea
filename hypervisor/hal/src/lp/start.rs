//! Starting the other LPs: INIT, start-up IPI, trampoline, Rust, parking place.
#![expect(unsafe_code, reason = "the trampoline is copied below 1 MiB, and its code enters Rust")]

use core::sync::atomic::{AtomicBool, Ordering};

use crate::{
    addr::{Hpa, PAGE_SIZE},
    apic,
    boot::{BootInfo, MemoryKind, paging::AddressSpace},
    cpu::{self, register},
    lp::{self, LpIndex, blocks, stack},
    mem::{
        boot::Span,
        direct,
        space::{Access, PageSize},
    },
    time,
};

const CR3: usize = PAGE_SIZE - 32;
const STACK: usize = PAGE_SIZE - 24;
const ENTRY: usize = PAGE_SIZE - 16;
const LP: usize = PAGE_SIZE - 8;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    include_str!("ap.S"),
    CR3 = const CR3, STACK = const STACK, ENTRY = const ENTRY, LP = const LP,
    options(att_syntax),
);

unsafe extern "C" {
    static ap_begin: u8;
    static ap_end: u8;
}

unsafe extern "Rust" {
    /// What the kernel named in [`entry`](crate::entry).
    safe fn hal_kernel_lp_main(lp: LpIndex) -> !;
}

/// Set when the parked LPs may go on.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Starts every other LP and parks it in the hypervisor. Boot only, once, on LP 0.
///
/// A page below 1 MiB is borrowed for the trampoline and restored.
///
/// # Panics
/// There is no usable page below 1 MiB, or an LP that the MADT calls enabled does not answer.
pub fn start_all(boot: &BootInfo) {
    if lp::count() == 1 {
        return;
    }
    let page = trampoline_page(boot).expect("usable memory below 1 MiB for starting processors");
    let space = AddressSpace::current();
    let place: *mut [u8; PAGE_SIZE] = direct(page);
    // SAFETY: the page is usable memory that nothing refers to.
    let saved = unsafe { place.read() };
    copy_trampoline(page);
    space.map(page.0, page, PAGE_SIZE as u64, Access::EXECUTE, PageSize::Small);
    for block in &blocks()[1..] {
        apic::send_init(block.apic_id);
    }
    time::delay_us(10_000);
    for lp in (1..lp::count()).map(LpIndex) {
        start(lp, page);
    }
    space.clear_lower_half();
    // SAFETY: every LP has left the page.
    unsafe { place.write(saved) };
}

/// Lets every parked LP enter the kernel.
pub fn release() {
    // Pairs with the acquire in `ap_start`: the LPs see all that boot wrote.
    RELEASED.store(true, Ordering::Release);
}

/// The highest page that is free below the legacy video memory.
fn trampoline_page(boot: &BootInfo) -> Option<Hpa> {
    const LEN: u64 = PAGE_SIZE as u64;
    let modules = || boot.modules.iter().map(|module| Span { start: module.start, len: module.len });
    (1..0xa0).rev().map(Hpa::from_page).find(|&start| {
        let mut used = boot.hypervisor.into_iter().chain(modules());
        boot.memory.covers(start, LEN, MemoryKind::USABLE)
            && !used.any(|span| span.overlaps(&Span { start, len: LEN }))
    })
}

fn copy_trampoline(page: Hpa) {
    let begin = &raw const ap_begin;
    let len = (&raw const ap_end).addr() - begin.addr();
    assert!(len <= CR3, "the trampoline's code ends below its parameters");
    // SAFETY: the code lies in the image, the page is ours, and the two are apart.
    unsafe { core::ptr::copy_nonoverlapping(begin, direct::<u8>(page), len) };
    set_parameter(page, CR3, register::cr3());
    set_parameter(page, ENTRY, (ap_start as extern "C" fn(u32) -> !) as usize as u64);
}

fn set_parameter(page: Hpa, offset: usize, value: u64) {
    // SAFETY: the offset is aligned and inside the page, which is ours.
    unsafe { direct::<u64>(Hpa(page.0 + offset as u64)).write_volatile(value) };
}

fn start(lp: LpIndex, page: Hpa) {
    let block = &blocks()[lp.0 as usize];
    set_parameter(page, STACK, stack::of(lp).main_top);
    set_parameter(page, LP, u64::from(lp.0));
    // A second start-up IPI is for processors that ignore the first (SDM 3A §9.4.4.1); one that is running
    // ignores it in turn.
    for patience_us in [100_000, 2_000_000] {
        apic::send_startup(block.apic_id, page);
        let deadline = time::deadline_us(patience_us);
        while cpu::tsc() < deadline {
            if block.online.load(Ordering::Acquire) {
                return;
            }
            cpu::pause();
        }
    }
    panic!("logical processor {} (APIC id {}) does not start", lp.0, block.apic_id);
}

/// Where the trampoline enters Rust, on the LP's own stack.
extern "C" fn ap_start(lp: u32) -> ! {
    let block = &blocks()[lp as usize];
    block.install();
    apic::enable();
    assert_eq!(apic::id(), block.apic_id, "the started processor has the APIC id that the MADT gave");
    block.online.store(true, Ordering::Release);
    while !RELEASED.load(Ordering::Acquire) {
        cpu::pause();
    }
    // SAFETY: the same tables; what is forgotten is the trampoline's mapping.
    unsafe { register::write_cr3(register::cr3()) };
    hal_kernel_lp_main(LpIndex(lp))
}
