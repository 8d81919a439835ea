//! The machine below the cases: processors, memory, interrupts and the hypervisor's doors, as safe functions.
//!
//! All memory that cases touch is made of atomics, so that neither another processor nor an overlay page of the
//! hypervisor can break Rust's rules. Functions that change the processor's state are safe to call because this
//! kernel has no state of its own that they reach: page tables, stacks and descriptor tables are this module's, and
//! it hands out no way to move them. A case that writes a control register or an MSR gets what it asks for.
#![expect(unsafe_code, reason = "a kernel speaks to the processor by assembly and by address")]

pub(crate) mod apic;
pub(crate) mod cpu;
pub(crate) mod hypercall;
pub(crate) mod ioapic;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod msr;
pub(crate) mod paging;
pub(crate) mod percpu;
pub(crate) mod port;
pub(crate) mod smp;
pub(crate) mod state;
pub(crate) mod time;
mod trap;
pub(crate) mod user;

use core::{arch::global_asm, fmt::Write, panic::PanicInfo};

use percpu::MAX_VPS;
use port::Console;

/// Bytes of each processor's stack.
const STACK_BYTES: usize = 32 << 10;

global_asm!(
    include_str!("rt/boot.S"),
    STACK_BYTES = const STACK_BYTES,
    MAX_VPS = const MAX_VPS,
    start = sym start,
    start_secondary = sym smp::start_secondary,
    options(att_syntax)
);

/// The boot processor's first Rust code; `info` is the address of the PVH start information.
extern "C" fn start(info: u64) -> ! {
    port::silence_legacy_interrupts();
    trap::fill();
    percpu::load(0);
    let machine = machine::Machine::discover(info);
    crate::cases::run(machine);
    port::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // The console takes everything.
    let _ = writeln!(Console, "CASE guest: FAILED {info}");
    port::power_off()
}
