//! The world switch itself (APM 2 §15.5, §15.6).

use core::arch::{asm, naked_asm};

use crate::virt::Gprs;

/// Closes the global interrupt flag: nothing, not even an NMI, arrives until the guest runs or [`open`].
pub(super) fn close() {
    // SAFETY: EFER.SVME is set on every processor before the first guest; CLGI changes only GIF.
    unsafe { asm!("clgi", options(nostack, preserves_flags)) };
}

/// Opens the global interrupt flag. IF stays 0, so only NMIs and machine checks arrive.
pub(super) fn open() {
    // SAFETY: as in `close`; the hypervisor's GS base and TSS are loaded again by now, which the NMI handler needs.
    unsafe { asm!("stgi", options(nostack, preserves_flags)) };
}

/// Saves what VMLOAD will later restore for the host. Once per processor.
pub(super) fn save_host(host_vmcb: u64) {
    // SAFETY: `host_vmcb` is an owned frame of this processor; VMSAVE writes only there.
    unsafe { asm!("vmsave rax", in("rax") host_vmcb, options(nostack, preserves_flags)) };
}

/// Runs the guest of `vmcb` until its next exit. RAX and RSP travel in the VMCB, the other registers in `gprs`.
///
/// # Safety
/// GIF is 0; `vmcb` and `host_vmcb` are physical addresses of owned frames that hold a checked VMCB and this
/// processor's [`save_host`] area; the VMCB's maps and nested tables are valid.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn run(vmcb: u64, gprs: *mut Gprs, host_vmcb: u64) {
    naked_asm!(
        ".irp saved, rbx, rbp, r12, r13, r14, r15, rdx, rsi",
        "push \\saved",
        ".endr",
        "mov rax, rdi",
        "vmload rax",
        "mov rcx, [rsi + 8]",
        "mov rdx, [rsi + 16]",
        "mov rbx, [rsi + 24]",
        "mov rbp, [rsi + 40]",
        "mov rdi, [rsi + 56]",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "mov r\\n, [rsi + 8 * \\n]",
        ".endr",
        "mov rsi, [rsi + 48]",
        // A guest with virtual interrupt masking leaves for a physical interrupt only if the host's IF was set
        // (APM 2 §15.21.1). With GIF clear, none arrives here.
        "sti",
        "vmrun rax",
        "cli",
        "vmsave rax",
        // RAX and RSP are the host's again; all else is the guest's.
        "xchg rsi, [rsp]",
        "mov [rsi + 8], rcx",
        "mov [rsi + 16], rdx",
        "mov [rsi + 24], rbx",
        "mov [rsi + 40], rbp",
        "mov [rsi + 56], rdi",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "mov [rsi + 8 * \\n], r\\n",
        ".endr",
        "pop rcx",
        "mov [rsi + 48], rcx",
        "pop rax",
        "vmload rax",
        ".irp saved, r15, r14, r13, r12, rbp, rbx",
        "pop \\saved",
        ".endr",
        "cld",
        "ret",
    )
}
