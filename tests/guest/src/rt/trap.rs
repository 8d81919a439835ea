//! Exceptions and interrupts: where they arrive.

use core::{
    arch::{asm, global_asm},
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    cpu,
    percpu::{CODE, Cpu, DATA, Fault, TableRegister},
    port::{self, Console},
};

/// The vector of non-maskable interrupts.
pub(super) const NMI: u8 = 2;
const STUB_BYTES: u64 = 16;
const FIRST_INTERRUPT: u8 = 32;
/// Trap and resume flags.
const SINGLE_STEP: u64 = 1 << 8;
const INTERRUPT_GATE: u64 = 0x8e << 40;

global_asm!(include_str!("trap.S"), trap = sym trap, options(att_syntax));

unsafe extern "C" {
    static trap_stubs: u8;
}

static IDT: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

/// What a stub leaves on the stack.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Fills the table, which all processors share.
pub(super) fn fill() {
    let stubs = (&raw const trap_stubs).addr() as u64;
    for (vector, gate) in IDT.chunks_exact(2).enumerate() {
        let stub = stubs + vector as u64 * STUB_BYTES;
        let low = stub & 0xffff | CODE << 16 | (stub >> 16 & 0xffff) << 48;
        gate[0].store(low | INTERRUPT_GATE, Relaxed);
        gate[1].store(stub >> 32, Relaxed);
    }
}

/// Makes the table that of the running processor.
pub(super) fn load() {
    let register = TableRegister { limit: size_of_val(&IDT) as u16 - 1, base: IDT.as_ptr().addr() as u64 };
    // SAFETY: every gate names a stub, and the table lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const register, options(readonly, nostack, preserves_flags)) };
}

/// Every exception and interrupt. A fault that a case provoked resumes where the case said; any other ends the
/// machine.
extern "C" fn trap(frame: &mut Frame) {
    let stamp = cpu::tsc();
    let vector = frame.vector as u8;
    let own = Cpu::current();
    if vector >= FIRST_INTERRUPT || vector == NMI {
        own.take_interrupt(vector, stamp);
        return;
    }
    let fault = Fault { vector, error: frame.error as u32, address: cpu::cr2(), rip: frame.rip };
    match own.take_fault(fault) {
        Some((rip, rsp)) => {
            (frame.rip, frame.cs, frame.rsp, frame.ss) = (rip, CODE, rsp, DATA);
            frame.rflags &= !SINGLE_STEP;
        }
        None => {
            // The console takes everything.
            let _ = writeln!(
                Console,
                "CASE guest: FAILED processor {} took {fault}, RSP {:#x}",
                own.index(),
                frame.rsp
            );
            port::power_off();
        }
    }
}
