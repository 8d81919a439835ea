//! The local APIC in x2APIC mode (APM 2 §16; SDM 3A §11.12).
//!
//! The root owns the APIC of each LP while it runs there; the hypervisor sends interrupts with it, and takes
//! those that arrive between guests off the processor one at a time, unacknowledged, to hand them on.
#![expect(unsafe_code, reason = "APIC registers are MSRs, and interrupt windows change IF")]

use core::{
    arch::asm,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    addr::Hpa,
    cpu::{self, msr},
    lp::Block,
};

const BASE_ENABLED: u64 = 1 << 11;
const BASE_X2APIC: u64 = 1 << 10;

const ID: u32 = 0x802;
const TASK_PRIORITY: u32 = 0x808;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;
const ISR_FIRST: u32 = 0x810;
const TRIGGER_FIRST: u32 = 0x818;
const IRR_FIRST: u32 = 0x820;
const COMMAND: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const TIMER_INITIAL: u32 = 0x838;
const TIMER_CURRENT: u32 = 0x839;
const TIMER_DIVIDE: u32 = 0x83e;
const SELF_IPI: u32 = 0x83f;

const SOFTWARE_ENABLED: u64 = 1 << 8;
const SPURIOUS_VECTOR: u64 = 0xff;
const LVT_MASKED: u64 = 1 << 16;

const DELIVER_NMI: u64 = 0x400;
const DELIVER_INIT: u64 = 0x500;
const DELIVER_STARTUP: u64 = 0x600;
const ASSERT: u64 = 1 << 14;
const ALL_BUT_SELF: u64 = 3 << 18;

/// Set once LP 0's APIC is enabled: from then on it can stop the others.
static READY: AtomicBool = AtomicBool::new(false);

/// Puts this LP's APIC into x2APIC mode and enables it. The local vector table stays as it is.
///
/// # Panics
/// The processor has no x2APIC.
pub fn enable() {
    assert!(cpu::has_x2apic(), "this processor has no x2APIC, which the hypervisor needs");
    let base = msr::rdmsr(msr::APIC_BASE);
    // SAFETY: enabling in xAPIC mode first is the only legal way from the disabled state to x2APIC mode.
    unsafe { msr::wrmsr(msr::APIC_BASE, base | BASE_ENABLED) };
    // SAFETY: as above; hypervisor code uses no memory-mapped APIC register.
    unsafe { msr::wrmsr(msr::APIC_BASE, base | BASE_ENABLED | BASE_X2APIC) };
    write(SPURIOUS, SOFTWARE_ENABLED | SPURIOUS_VECTOR);
    READY.store(true, Ordering::Relaxed);
}

/// Whether [`enable`] was called on some LP.
pub(crate) fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// Returns this LP's x2APIC id.
pub fn id() -> u32 {
    msr::rdmsr(ID) as u32
}

/// Ends the interrupt of highest priority that is in service.
pub fn eoi() {
    write(EOI, 0);
}

/// Sends the interrupt `vector` to the LP with that id.
pub fn send_fixed(apic_id: u32, vector: u8) {
    send(apic_id, u64::from(vector));
}

/// Sends an NMI to the LP with that id.
pub fn send_nmi(apic_id: u32) {
    send(apic_id, DELIVER_NMI);
}

/// Sends the interrupt `vector` to this LP.
pub fn self_ipi(vector: u8) {
    write(SELF_IPI, u64::from(vector));
}

/// Sends what the root wrote to the interrupt command register. INIT and start-up are not passed on: they would take
/// an LP away from the hypervisor.
pub fn command(value: u64) {
    let delivery = value & 0x700;
    if delivery != DELIVER_INIT && delivery != DELIVER_STARTUP {
        write(COMMAND, value);
    }
}

/// Sends an NMI to every other LP.
pub(crate) fn send_nmi_to_others() {
    send(0, DELIVER_NMI | ALL_BUT_SELF);
}

/// Resets the LP with that id into the state that waits for a start-up IPI.
pub(crate) fn send_init(apic_id: u32) {
    send(apic_id, DELIVER_INIT | ASSERT);
}

/// Starts the LP with that id, if it waits for it, at the page `entry` below 1 MiB.
pub(crate) fn send_startup(apic_id: u32, entry: Hpa) {
    send(apic_id, DELIVER_STARTUP | entry.page() & 0xff);
}

fn send(apic_id: u32, command: u64) {
    // Writing the command register does not wait for earlier stores, which the receiver is to see
    // (SDM 3A §11.12.3).
    // SAFETY: fences have no effect but order.
    unsafe { asm!("mfence", "lfence", options(nostack, preserves_flags)) };
    write(COMMAND, u64::from(apic_id) << 32 | command);
}

fn write(register: u32, value: u64) {
    // SAFETY: what an APIC can do to this LP is interrupt it, which IF, or a handler, covers.
    unsafe { msr::wrmsr(register, value) };
}

/// Whether the interrupt `vector` waits to be taken.
pub fn irr(vector: u8) -> bool {
    is_set(IRR_FIRST, vector)
}

/// Whether the interrupt `vector` is in service.
pub fn isr(vector: u8) -> bool {
    is_set(ISR_FIRST, vector)
}

/// Whether any interrupt waits that the APIC itself has accepted.
pub fn has_interrupt() -> bool {
    (0..8).any(|word| msr::rdmsr(IRR_FIRST + word) != 0)
}

/// Lets the interrupt `vector`, which [`take_interrupt`] took, wait again. A line that is level-triggered does so itself
/// while it is asserted, and a self-IPI would make the APIC take it for an edge.
pub fn put_back(vector: u8) {
    let is_level = is_set(TRIGGER_FIRST, vector);
    eoi();
    if !is_level {
        self_ipi(vector);
    }
}

fn is_set(first: u32, vector: u8) -> bool {
    msr::rdmsr(first + u32::from(vector / 32)) & 1 << (vector % 32) != 0
}

/// Makes the APIC look again whether an interrupt waits, by writing the task priority that it has.
///
/// QEMU's emulation changes the word of pending interrupts at a VMRUN with V_IRQ set without its lock, and so can lose
/// the mark that another processor set in it; the APIC itself still knows (shared/reference/tcg/tcg.md).
pub(crate) fn look_again() {
    write(TASK_PRIORITY, msr::rdmsr(TASK_PRIORITY));
}

/// The registers of the APIC timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerRegisters {
    /// Local vector table entry: vector, mask and mode.
    pub lvt: u32,
    /// Initial count.
    pub initial: u32,
    /// Current count; not restored by [`timer_write`], which starts from `initial`.
    pub current: u32,
    /// Divide configuration.
    pub divide: u32,
}

/// Returns this LP's timer registers.
pub fn timer_read() -> TimerRegisters {
    let read = |register| msr::rdmsr(register) as u32;
    TimerRegisters {
        lvt: read(LVT_TIMER),
        initial: read(TIMER_INITIAL),
        current: read(TIMER_CURRENT),
        divide: read(TIMER_DIVIDE),
    }
}

/// Sets this LP's timer, which starts counting down from `initial`.
pub fn timer_write(timer: &TimerRegisters) {
    write(TIMER_DIVIDE, u64::from(timer.divide));
    write(LVT_TIMER, u64::from(timer.lvt));
    write(TIMER_INITIAL, u64::from(timer.initial));
}

/// Stops this LP's timer and masks its interrupt. One that is pending already stays so.
pub fn timer_stop() {
    write(LVT_TIMER, LVT_MASKED);
    write(TIMER_INITIAL, 0);
}

/// Lets one pending interrupt in, if there is any, and returns its vector. It is left in service: whoever
/// handles it ends it. IF is clear before and after; GIF must be set.
pub fn take_interrupt() -> Option<u8> {
    let vector: u32;
    // SAFETY: the stub of an interrupt changes nothing but `taken`, and returns with IF clear. STI takes effect
    // after the instruction that follows it.
    unsafe {
        asm!(
            "mov dword ptr gs:[{taken}], 0",
            "sti",
            "nop",
            "cli",
            "mov {vector:e}, gs:[{taken}]",
            taken = const core::mem::offset_of!(Block, taken),
            vector = out(reg) vector,
        );
    }
    u8::try_from(vector).ok().filter(|&vector| vector != 0)
}
