//! Code that is not 64-bit kernel code: user mode, and 32-bit mode.

use core::arch::asm;

use tlfs::HypercallOutput;

use super::{
    cpu::attempt,
    memory::Page,
    paging::{USER, Window},
    percpu::{self, CODE, CODE_32, Cpu, Fault, USER_CODE, USER_DATA},
};

/// Room that is left to the caller on the stack that exceptions of user mode get.
const OWN_STACK: u64 = 4096;
const FLAGS: u64 = 0x202;

/// Runs machine code in user mode until it faults, with `first` in RAX and `second` in RCX.
pub(crate) fn run(window: &Window, code: &[u8], first: u64, second: u64) -> Fault {
    const SLOTS: [usize; 2] = [500, 501];
    let [text, stack] = [Page::take(), Page::take()];
    for (index, chunk) in code.chunks(8).enumerate() {
        let mut word = [0xcc; 8];
        word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        text.set(index, u64::from_le_bytes(word));
    }
    window.map(SLOTS[0], text, USER);
    window.map(SLOTS[1], stack, USER);
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    percpu::set_kernel_stack(Cpu::current(), (rsp - OWN_STACK) & !15);
    let end = attempt!(
        "push {ss}", "push {rsp}", "push {flags}", "push {cs}", "push {rip}", "iretq";
        ss = in(reg) USER_DATA, rsp = in(reg) Window::address(SLOTS[1]) + 4096, flags = in(reg) FLAGS,
        cs = in(reg) USER_CODE, rip = in(reg) Window::address(SLOTS[0]),
        inout("rax") first => _, inout("rcx") second => _, out("rdx") _, out("r8") _
    );
    match end {
        Err(fault) => fault,
        Ok(()) => panic!("user mode has no way back but a fault"),
    }
}

/// Makes a hypercall from 32-bit code at `page`, with the parameters in pairs of registers (TLFS "Hypercall Register
/// Conventions").
pub(crate) fn call_32(page: u64, control: u64, input: u64, output: u64) -> Result<HypercallOutput, Fault> {
    let cpu = Cpu::current();
    cpu.expect_fault();
    let (mut high, mut low) = (control >> 32, control & 0xffff_ffff);
    // The way back, as 32-bit RETF pops it.
    let back = CODE << 32;
    // SAFETY: image and stack are below 4 GiB; RBX and RBP are put back, also after a fault, which resumes at 2 with
    // all registers but RIP and RSP as they were.
    unsafe {
        asm!(
            "mov r12, rbx", "mov r13, rbp",
            "lea r11, [rip + 2f]", "mov gs:[8], r11", "mov gs:[16], rsp",
            "mov rbx, r8", "mov rbp, r9",
            "lea r11, [rip + 4f]", "or r11, r14", "push r11",
            "push {code}", "lea r11, [rip + 3f]", "push r11",
            "mov r11, 0x10", "mov ds, r11", "mov es, r11",
            "retfq",
            ".code32", "3:", "call ebp", "retf", ".code64",
            "4:", "2:", "mov qword ptr gs:[8], 0", "mov rsp, gs:[16]",
            "mov rbx, r12", "mov rbp, r13",
            code = const CODE_32,
            inout("rax") low, inout("rdx") high, inout("rcx") input & 0xffff_ffff => _,
            inout("rsi") output & 0xffff_ffff => _, inout("rdi") output >> 32 => _,
            in("r8") input >> 32, in("r9") page, in("r14") back,
            out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r15") _,
        );
    }
    cpu.fault()?;
    Ok(HypercallOutput::from_bits(high << 32 | low & 0xffff_ffff))
}
