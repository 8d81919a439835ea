//! The end of the hypervisor: say why, stop every LP, and halt or leave the emulator.
#![expect(unsafe_code, reason = "the words of a stack are read for the report")]

use core::{
    arch::asm,
    panic::PanicInfo,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use crate::{apic, boot::image, cpu, log, lp, lp::stack, port, time, trap::Frame};

/// What a crash writes to the emulator's exit port: QEMU ends with twice this plus one, 85.
const EXIT_CODE: u8 = 42;
/// What a boot that cannot go on writes there: QEMU ends with 87.
const REFUSED_CODE: u8 = 43;
const EXIT_PORT: u16 = 0xf4;

/// Most return addresses that a report shows.
const TRACE: usize = 24;

/// Set when an LP has crashed: an NMI then stops the LP it reaches (`trap/stubs.S`).
pub(crate) static CRASHED: AtomicBool = AtomicBool::new(false);
/// The LP that reports the crash.
static REPORTER: AtomicU32 = AtomicU32::new(NOBODY);
const NOBODY: u32 = u32::MAX;
/// How long the report waits for the other LPs to stop.
const PATIENCE_US: u64 = 100_000;
/// How many LPs an NMI has stopped.
pub(crate) static STOPPED: AtomicU32 = AtomicU32::new(0);
/// Whether the emulator ends after a crash. Otherwise the machine stands still, for a debugger or a person.
static EXITS: AtomicBool = AtomicBool::new(false);

/// Lets the emulator end after a crash, with [`EXIT_CODE`].
pub fn exit_instead_of_halting() {
    EXITS.store(true, Ordering::Relaxed);
}

/// Reports a panic and ends the hypervisor. The kernel's panic handler calls this and nothing else.
pub fn panic(info: &PanicInfo) -> ! {
    begin();
    match info.location() {
        Some(place) => log::emergency(format_args!("hypervisor panic at {place}: {}", info.message())),
        None => log::emergency(format_args!("hypervisor panic: {}", info.message())),
    }
    let rsp: u64;
    // SAFETY: reading RSP has no effect.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    trace(rsp);
    end(EXIT_CODE)
}

/// Reports an exception in hypervisor code and ends the hypervisor.
pub(crate) fn exception(f: &Frame, cr2: u64) -> ! {
    // The exception may have come while GS was a guest's.
    if let Some(block) = lp::blocks().iter().find(|block| apic::is_ready() && block.apic_id == apic::id()) {
        block.own();
    }
    begin();
    let say = log::emergency;
    say(format_args!("exception {} (error {:#x}) in the hypervisor", f.vector, f.error));
    say(format_args!("rip {:016x} cs  {:04x} rflags {:08x} cr2 {cr2:016x}", f.rip, f.cs, f.rflags));
    say(format_args!("rsp {:016x} ss  {:04x} cr3 {:016x}", f.rsp, f.ss, cpu::register::cr3()));
    say(format_args!("rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", f.rax, f.rbx, f.rcx, f.rdx));
    say(format_args!("rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", f.rsi, f.rdi, f.rbp, f.r8));
    say(format_args!("r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", f.r9, f.r10, f.r11, f.r12));
    say(format_args!("r13 {:016x} r14 {:016x} r15 {:016x}", f.r13, f.r14, f.r15));
    trace(f.rsp);
    end(EXIT_CODE)
}

/// Stops every other LP. An LP that crashes after another did stops here, and one that crashes in its own report
/// reports no more.
fn begin() {
    let me = lp::this().0;
    if let Err(reporter) = REPORTER.compare_exchange(NOBODY, me, Ordering::SeqCst, Ordering::SeqCst) {
        if reporter == me {
            end(EXIT_CODE);
        }
        STOPPED.fetch_add(1, Ordering::Relaxed);
        halt();
    }
    CRASHED.store(true, Ordering::SeqCst);
    if apic::is_ready() {
        apic::send_nmi_to_others();
        let deadline = time::deadline_us(PATIENCE_US);
        while STOPPED.load(Ordering::Relaxed) + 1 < lp::count() && cpu::tsc() < deadline {
            cpu::pause();
        }
    }
}

/// Ends a boot that cannot go on, whose reason is in the log: halts, or leaves the emulator with [`REFUSED_CODE`].
pub fn refuse() -> ! {
    end(REFUSED_CODE)
}

/// Leaves the emulator if that is wanted and there is one, with an exit device at port 0xf4; otherwise halts.
fn end(code: u8) -> ! {
    if EXITS.load(Ordering::Relaxed) {
        port::outb(EXIT_PORT, code);
    }
    halt()
}

/// Shows the words of the stack from `rsp` on that point into the code: the return addresses, and some that
/// were once.
fn trace(rsp: u64) {
    let boot = image::boot_stack();
    let Some(stack) = stack::around(rsp).or(boot.contains(&rsp).then_some(boot)) else { return };
    let text = image::text();
    let words = (rsp.next_multiple_of(8).max(stack.start)..stack.end).step_by(8);
    let returns = words.map(read_stack).filter(|word| text.contains(word));
    for address in returns.take(TRACE) {
        log::emergency(format_args!("  {address:016x}"));
    }
}

fn read_stack(address: u64) -> u64 {
    let word: *const u64 = core::ptr::with_exposed_provenance(address as usize);
    // SAFETY: `trace` asks only for aligned words of a mapped stack.
    unsafe { word.read_volatile() }
}

/// Stops this LP for ever.
pub fn halt() -> ! {
    loop {
        // SAFETY: with IF clear only an NMI ends HLT, and the loop goes on.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
