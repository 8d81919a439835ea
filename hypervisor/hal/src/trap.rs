//! Exceptions, NMIs and interrupts that arrive in hypervisor code (APM 2 §8).
//!
//! An exception is a bug of ours and ends the hypervisor. An NMI is counted: other LPs use it as a kick, and to
//! stop this LP after a crash. An interrupt is recorded for [`crate::apic`] and left in service.
#![expect(unsafe_code, reason = "the stubs are assembly and call into Rust")]

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    cpu::{
        register,
        segment::{CODE, IST_FATAL, IST_NMI, TableRegister},
    },
    crash,
    lp::{LpIndex, blocks},
};

const STUB_BYTES: u64 = 32;
const NMI: usize = 2;
const DOUBLE_FAULT: usize = 8;
const MACHINE_CHECK: usize = 18;
const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;

#[cfg(target_os = "none")]
core::arch::global_asm!(
    include_str!("trap/stubs.S"),
    TAKEN = const core::mem::offset_of!(crate::lp::Block, taken),
    NMI_COUNT = const core::mem::offset_of!(crate::lp::Block, nmi_count),
    crashed = sym crash::CRASHED,
    stopped = sym crash::STOPPED,
    exception = sym exception,
    options(att_syntax),
);

unsafe extern "C" {
    static trap_stubs: u8;
}

static IDT: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

/// What the stub of an exception leaves on the stack.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rbp: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rbx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// Fills the IDT, which all LPs share. Boot only, before any other LP runs.
pub(crate) fn fill() {
    let stubs = (&raw const trap_stubs).addr() as u64;
    for (vector, gate) in IDT.chunks_exact(2).enumerate() {
        let ist = match vector {
            NMI => IST_NMI,
            DOUBLE_FAULT | MACHINE_CHECK => IST_FATAL,
            _ => 0,
        };
        let stub = stubs + vector as u64 * STUB_BYTES;
        let low = stub & 0xffff | u64::from(CODE) << 16 | u64::from(ist) << 32 | (stub >> 16 & 0xffff) << 48;
        gate[0].store(low | PRESENT_INTERRUPT_GATE, Ordering::Relaxed);
        gate[1].store(stub >> 32, Ordering::Relaxed);
    }
}

/// Makes the IDT that of the running LP.
pub(crate) fn load() {
    let register = TableRegister { limit: size_of_val(&IDT) as u16 - 1, base: IDT.as_ptr().addr() as u64 };
    // SAFETY: every gate names a stub, and the table lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &raw const register, options(readonly, nostack, preserves_flags)) };
}

/// Returns how many NMIs `lp` took, modulo 2^32; 0 where there is no such LP.
pub fn nmi_count(lp: LpIndex) -> u32 {
    blocks().get(lp.0 as usize).map_or(0, |block| block.nmi_count.load(Ordering::Acquire))
}

/// Ends the hypervisor.
extern "C" fn exception(frame: &Frame) -> ! {
    crash::exception(frame, register::cr2())
}
