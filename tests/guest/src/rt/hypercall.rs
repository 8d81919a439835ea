//! Hypercalls: the page, and the calling conventions (TLFS hypercall-interface).

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tlfs::{
    CallCode, HvStatus, HypercallOutput,
    msr::{GUEST_OS_ID, HYPERCALL},
};

use super::{cpu::attempt, memory::Page, msr, percpu::Fault};

/// Who we are: an open source system of no known kind.
pub(crate) const OS_ID: u64 = 0xff << 56 | 1;
/// The register-based convention.
pub(crate) const FAST: u64 = 1 << 16;

/// Address of the hypercall page.
static PAGE: AtomicU64 = AtomicU64::new(0);

/// Names this system and enables a hypercall page, whose underlying page is returned.
pub(crate) fn enable() -> &'static Page {
    let page = Page::take();
    msr::write(GUEST_OS_ID, OS_ID);
    msr::write(HYPERCALL, page.address() | 1);
    PAGE.store(page.address(), SeqCst);
    page
}

/// Says where the hypercall page is, for a case that places it itself.
pub(crate) fn set_page(address: u64) {
    PAGE.store(address, SeqCst);
}

/// The control word of a call with repetitions.
pub(crate) fn rep(code: CallCode, count: u64, start: u64) -> u64 {
    u64::from(code.0) | count << 32 | start << 48
}

/// The control word of a call with a variable header of so many words.
pub(crate) fn variable(control: u64, words: u64) -> u64 {
    control | words << 17
}

/// Makes a call with the three registers as given; the result word, or the fault.
pub(crate) fn try_call(control: u64, input: u64, output: u64) -> Result<HypercallOutput, Fault> {
    let mut result = 0_u64;
    attempt!("call {page}"; page = in(reg) PAGE.load(SeqCst), inout("rcx") control => _, inout("rdx") input => _,
        inout("r8") output => _, inout("rax") result, out("r9") _, out("r10") _)?;
    Ok(HypercallOutput::from_bits(result))
}

/// Makes a call that does not fault.
#[track_caller]
pub(crate) fn call(control: u64, input: u64, output: u64) -> HypercallOutput {
    match try_call(control, input, output) {
        Ok(result) => result,
        Err(fault) => panic!("hypercall {control:#x} raised {fault}"),
    }
}

/// Makes a register-based call.
#[track_caller]
pub(crate) fn fast(code: CallCode, first: u64, second: u64) -> HvStatus {
    call(u64::from(code.0) | FAST, first, second).status()
}

/// Makes a memory-based call whose input is `words` in `page`.
#[track_caller]
pub(crate) fn slow(control: u64, page: &Page, words: &[u64]) -> HypercallOutput {
    page.put(words);
    call(control, page.address(), 0)
}

/// What a call without the page comes to, by the instruction of AMD and by that of Intel.
pub(crate) fn by_instruction() -> [Result<(), Fault>; 2] {
    let control = u64::from(CallCode::NOTIFY_LONG_SPIN_WAIT.0) | FAST;
    [
        attempt!("vmmcall"; inout("rax") 0_u64 => _, inout("rcx") control => _, in("rdx") 0, in("r8") 0),
        attempt!("vmcall"; inout("rax") 0_u64 => _, inout("rcx") control => _, in("rdx") 0, in("r8") 0),
    ]
}

/// Makes a call with RAX, RCX, RDX, R8 and then R9, R10, R12 to R15, RSI, RDI as given, and tells what they are
/// afterwards.
pub(crate) fn with_registers(parameters: [&mut u64; 4], others: &mut [u64; 8]) -> Result<(), Fault> {
    let [rax, rcx, rdx, r8] = parameters;
    let [r9, r10, r12, r13, r14, r15, rsi, rdi] = others;
    attempt!("call [rip + {page}]"; page = sym PAGE, inout("rax") *rax, inout("rcx") *rcx, inout("rdx") *rdx,
        inout("r8") *r8, inout("r9") *r9, inout("r10") *r10, inout("r12") *r12, inout("r13") *r13,
        inout("r14") *r14, inout("r15") *r15, inout("rsi") *rsi, inout("rdi") *rdi)
}
