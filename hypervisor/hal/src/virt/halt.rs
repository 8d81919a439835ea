//! Halting an LP unless there is a reason not to, without sleeping over the reason.
//!
//! A maskable interrupt cannot fall between STI and HLT. An NMI can fall between the check of the flag and HLT;
//! its handler (`trap/stubs.S`) then continues behind HLT, by the two labels here.

use core::{arch::naked_asm, mem::offset_of, sync::atomic::AtomicBool};

use crate::lp::Block;

/// Halts until an interrupt or NMI arrives, unless `flag` is set. Returns the vector of the interrupt that was
/// taken; it is left in service.
pub(super) fn halt_unless(flag: &AtomicBool) -> Option<u8> {
    // SAFETY: the stubs of interrupts and NMIs change nothing but this LP's block, and return with IF clear.
    let taken = unsafe { halt(flag) };
    u8::try_from(taken).ok().filter(|&vector| vector != 0)
}

#[unsafe(naked)]
unsafe extern "sysv64" fn halt(flag: &AtomicBool) -> u32 {
    naked_asm!(
        "mov dword ptr gs:[{taken}], 0",
        ".global halt_window_begin",
        "halt_window_begin:",
        "cmp byte ptr [rdi], 0",
        "jne 2f",
        "sti",
        "hlt",
        ".global halt_window_end",
        "halt_window_end:",
        "2:",
        "cli",
        "mov eax, gs:[{taken}]",
        "ret",
        taken = const offset_of!(Block, taken),
    )
}
