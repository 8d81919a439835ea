//! What has no safe form: the marks, and a process that forks.
#![expect(unsafe_code, reason = "an instruction of its own choice, and fork, are beyond what Rust can check")]

use std::arch::asm;
use std::ffi::CStr;
use std::io;
use std::ptr;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Marks the begin of a region for the counting plugin: `nopl 0x51570001(%rax)`, the region in EAX.
pub(crate) fn mark_begin(region: u32) {
    // SAFETY: a long NOP changes nothing.
    unsafe { asm!("nop dword ptr [rax + 0x51570001]", in("eax") region, options(nostack, preserves_flags)) };
}

/// Marks the end of a region: `nopl 0x51570002(%rax)`, the region in EAX.
pub(crate) fn mark_end(region: u32) {
    // SAFETY: a long NOP changes nothing.
    unsafe { asm!("nop dword ptr [rax + 0x51570002]", in("eax") region, options(nostack, preserves_flags)) };
}

/// Forks a process that ends at once, or becomes the program `path` called with the argument `word`; waits for it.
///
/// # Errors
/// There is no process to be had, or it ends badly.
pub(crate) fn fork(program: Option<(&CStr, &CStr)>) -> Result<()> {
    // SAFETY: the new process does nothing but calls that are safe after a fork (POSIX, async-signal-safe).
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        if let Some((path, word)) = program {
            let arguments = [path.as_ptr(), word.as_ptr(), ptr::null()];
            // SAFETY: `path` and what `arguments` points to are strings with a NUL; the list ends with null.
            unsafe { libc::execv(path.as_ptr(), arguments.as_ptr()) };
        }
        // SAFETY: ends this process, without the handlers that belong to the parent.
        unsafe { libc::_exit(i32::from(program.is_some())) };
    }
    let pid = Pid::from_raw(pid.max(0)).ok_or_else(io::Error::last_os_error).context("cannot fork")?;
    let status = waitpid(Some(pid), WaitOptions::empty())?.context("a process vanished")?.1;
    ensure!(status.exit_status() == Some(0), "a process ended with {status:?}");
    Ok(())
}
