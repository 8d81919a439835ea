//! The local APIC in both of its modes.
//!
//! A register's number is its offset in memory divided by 16, which is its MSR less 0x800 (SDM 3A "x2APIC Register
//! Address Space").

use core::sync::atomic::{
    AtomicU8, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use super::{cpu, memory, msr, percpu::Cpu, percpu::Fault, time};

/// Id of this APIC.
pub(crate) const ID: u32 = 0x02;
/// Version, and the number of local vectors.
pub(crate) const VERSION: u32 = 0x03;
/// Task priority.
pub(crate) const TPR: u32 = 0x08;
/// Processor priority.
pub(crate) const PPR: u32 = 0x0a;
/// End of interrupt.
pub(crate) const EOI: u32 = 0x0b;
/// Logical destination.
pub(crate) const LDR: u32 = 0x0d;
/// Destination format, in xAPIC mode only.
pub(crate) const DFR: u32 = 0x0e;
/// Spurious vector and software enable.
pub(crate) const SVR: u32 = 0x0f;
/// First of the eight in-service registers.
pub(crate) const ISR: u32 = 0x10;
/// First of the eight trigger mode registers.
pub(crate) const TMR: u32 = 0x18;
/// First of the eight request registers.
pub(crate) const IRR: u32 = 0x20;
/// Errors.
pub(crate) const ESR: u32 = 0x28;
/// Interrupt command, low half.
pub(crate) const ICR: u32 = 0x30;
/// Interrupt command, high half, in xAPIC mode only.
pub(crate) const ICR_HIGH: u32 = 0x31;
/// Local vector of the timer.
pub(crate) const LVT_TIMER: u32 = 0x32;
/// Local vector of errors.
pub(crate) const LVT_ERROR: u32 = 0x37;
/// The timer's initial count.
pub(crate) const INITIAL_COUNT: u32 = 0x38;
/// The timer's current count.
pub(crate) const CURRENT_COUNT: u32 = 0x39;
/// The timer's divider.
pub(crate) const DIVIDE: u32 = 0x3e;
/// Interrupt to oneself, in x2APIC mode only.
pub(crate) const SELF_IPI: u32 = 0x3f;

/// Software enable in [`SVR`].
pub(crate) const SVR_ENABLE: u32 = 1 << 8;
/// The vector of spurious interrupts, which are not ended.
pub(crate) const SPURIOUS: u8 = 0xff;
/// Mask in a local vector.
pub(crate) const MASKED: u32 = 1 << 16;
/// Periodic timer.
pub(crate) const PERIODIC: u32 = 1 << 17;
/// Timer by deadline.
pub(crate) const DEADLINE: u32 = 2 << 17;
/// [`DIVIDE`]: every tick.
pub(crate) const DIVIDE_BY_1: u32 = 0xb;

/// Level assert in the command, which all but INIT de-assert have.
pub(crate) const ASSERT: u32 = 1 << 14;
/// Logical destination in the command.
pub(crate) const LOGICAL: u32 = 1 << 11;
/// Delivery mode NMI in the command.
pub(crate) const NMI: u32 = 4 << 8;
/// Delivery mode INIT in the command.
pub(crate) const INIT: u32 = 5 << 8;
/// Delivery mode start-up in the command.
pub(crate) const STARTUP: u32 = 6 << 8;
/// Destination shorthand: the sender.
pub(crate) const TO_SELF: u32 = 1 << 18;
/// Destination shorthand: everyone.
pub(crate) const TO_ALL: u32 = 2 << 18;
/// Destination shorthand: everyone but the sender.
pub(crate) const TO_OTHERS: u32 = 3 << 18;

/// Base address with global enable, in [`msr::APIC_BASE`].
pub(crate) const BASE: u64 = 0xfee0_0000;
/// Global enable.
pub(crate) const BASE_ENABLE: u64 = 1 << 11;
/// x2APIC mode.
pub(crate) const BASE_X2APIC: u64 = 1 << 10;

/// How the registers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// By memory.
    XApic = 0,
    /// By MSRs.
    X2Apic = 1,
}

/// What [`start`] brings every processor into.
static MODE: AtomicU8 = AtomicU8::new(Mode::XApic as u8);

/// Chooses the mode for all processors that start from now on.
pub(crate) fn choose(mode: Mode) {
    MODE.store(mode as u8, SeqCst);
}

/// The mode of the running processor.
pub(crate) fn mode() -> Mode {
    if Cpu::current().apic.load(Relaxed) == 0 { Mode::XApic } else { Mode::X2Apic }
}

/// Whether the processor has x2APIC mode.
pub(crate) fn has_x2apic() -> bool {
    cpu::cpuid(1, 0).ecx & 1 << 21 != 0
}

/// Whether the timer has deadlines.
pub(crate) fn has_deadline() -> bool {
    cpu::cpuid(1, 0).ecx & 1 << 24 != 0
}

/// Records that the running processor is in `mode` by now.
pub(crate) fn note_mode(mode: Mode) {
    Cpu::current().apic.store(mode as u8, Relaxed);
}

/// Brings the running processor, whose APIC is as after reset, into the chosen mode.
pub(crate) fn start() {
    let x2apic = MODE.load(SeqCst) == Mode::X2Apic as u8;
    let base = msr::read(msr::APIC_BASE);
    if x2apic && base & BASE_X2APIC == 0 {
        msr::write(msr::APIC_BASE, base | BASE_ENABLE | BASE_X2APIC);
    }
    note_mode(if x2apic { Mode::X2Apic } else { Mode::XApic });
}

/// Enables the APIC by software, and lets all priorities in.
pub(crate) fn enable() {
    write(SVR, SVR_ENABLE | u32::from(SPURIOUS));
    write(TPR, 0);
}

fn place(register: u32) -> &'static AtomicU32 {
    memory::device(BASE + u64::from(register) * 16)
}

/// Reads a register in the processor's mode.
pub(crate) fn read(register: u32) -> u32 {
    match mode() {
        Mode::XApic => place(register).load(Relaxed),
        Mode::X2Apic => msr::read(msr::X2APIC + register) as u32,
    }
}

/// Writes a register in the processor's mode.
pub(crate) fn write(register: u32, value: u32) {
    match mode() {
        Mode::XApic => place(register).store(value, Relaxed),
        Mode::X2Apic => msr::write(msr::X2APIC + register, value.into()),
    }
}

/// Reads a register by its MSR.
pub(crate) fn read_msr(register: u32) -> Result<u64, Fault> {
    msr::try_read(msr::X2APIC + register)
}

/// Writes a register by its MSR.
pub(crate) fn write_msr(register: u32, value: u64) -> Result<(), Fault> {
    msr::try_write(msr::X2APIC + register, value)
}

/// The id of this APIC.
pub(crate) fn id() -> u32 {
    match mode() {
        Mode::XApic => read(ID) >> 24,
        Mode::X2Apic => read(ID),
    }
}

/// Sends an interrupt command.
pub(crate) fn command(destination: u32, low: u32) {
    match mode() {
        Mode::X2Apic => {
            msr::write(msr::X2APIC + ICR, u64::from(destination) << 32 | u64::from(low | ASSERT));
        }
        Mode::XApic => {
            const PENDING: u32 = 1 << 12;
            write(ICR_HIGH, destination << 24);
            write(ICR, low | ASSERT);
            time::until(1_000_000, || read(ICR) & PENDING == 0);
        }
    }
}

/// Sends a fixed interrupt to a processor.
pub(crate) fn send(index: usize, vector: u8) {
    command(index as u32, vector.into());
}

/// Ends the interrupt in service.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Whether a vector's bit is set in the eight registers from `first` on.
pub(crate) fn has(first: u32, vector: u8) -> bool {
    read(first + u32::from(vector) / 32) & 1 << (vector % 32) != 0
}

/// Clears the error register and reads what has come together since the last time.
pub(crate) fn errors() -> u32 {
    write(ESR, 0);
    read(ESR)
}
