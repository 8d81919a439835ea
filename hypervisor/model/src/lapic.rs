//! The virtual local APIC of a child VP.
//!
//! The rules are those of SDM Vol. 3A "Advanced Programmable Interrupt Controller" and APM 2 §16 in the parts where the
//! two agree, with the three TLFS registers on top (`regs`). The model has no clock and sends nothing: time comes in
//! as an argument, and what another VP or the caller must do goes out as an [`Effect`].
//!
//! Every change ends in `evaluate`, which keeps the answer of [`Lapic::pending`] in one byte, so that the
//! question asked before each VM entry costs a load and a compare. Vectors below 16 are illegal, which frees 0 to mean
//! "none" in all three cached vectors.
//!
//! What is not here: ExtINT vectors (the caller's), and whom an IPI reaches ([`Lapic::matches`] answers for one VP).

mod icr;
mod lvt;
mod regs;
mod state;
mod timer;
mod vectors;

#[cfg(test)]
mod tests;

pub use icr::{Delivery, Destination, Ipi, Target};
pub use lvt::Source;

use crate::ensure;
use lvt::Lvt;
use timer::Timer;
use vectors::Vectors;

/// Where the registers appear in xAPIC mode, in bytes. The model refuses to move them: nested page tables belong to
/// the partition, so the page is the same for all its VPs, as TLFS 2.0 §13.2.1 allows.
pub const BASE_ADDRESS: u64 = 0xfee0_0000;

const BASE_BSP: u64 = 1 << 8;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;

const SVR_ENABLE: u32 = 1 << 8;
const SVR_RESET: u32 = 0xff;
const DFR_FLAT: u32 = 0xffff_ffff;

const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// The access is refused: the VP takes #GP(0), or the hypercall that made it fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// How the registers are reached, from IA32_APIC_BASE bits 11:10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No APIC: nothing is accepted and nothing is pending.
    Disabled,
    /// Registers in memory at [`BASE_ADDRESS`], 8-bit ids.
    XApic,
    /// Registers in MSRs 0x800 to 0x83f, 32-bit ids.
    X2Apic,
}

/// Whether an interrupt needs its EOI reported ([`Effect::LevelEoi`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Edge,
    Level,
}

/// What the partition's processor features offer beyond a plain xAPIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// CPUID 1 ECX.21; `HV_PARTITION_CREATION_FLAG_X2APIC_CAPABLE`.
    pub x2apic: bool,
    /// CPUID 1 ECX.24: the TSC-deadline mode of the timer.
    pub tsc_deadline: bool,
}

/// What a register write asks of the caller. The caller looks at [`Lapic::pending`] after any write, whatever this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Effect {
    /// Nothing outside this APIC changed.
    None,
    /// Send this to the VPs it names.
    Ipi(Ipi),
    /// A level-triggered interrupt with this vector ended (TLFS: APIC EOI intercept).
    LevelEoi(u8),
}

/// One VP's local APIC. See the module's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lapic {
    /// Deliverable vector, or 0. Derived: see `evaluate`.
    next: u8,
    /// Highest vector of `irr`, or 0. Derived.
    top_irr: u8,
    /// Highest vector of `isr`, or 0. Derived.
    top_isr: u8,
    tpr: u8,
    mode: Mode,
    is_bsp: bool,
    features: Features,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    id: u32,
    svr: u32,
    /// Only xAPIC mode's; in x2APIC mode it follows from `id`.
    ldr: u32,
    dfr: u32,
    /// What a read of the ESR returns: the errors up to the last write of it.
    esr: u32,
    /// Errors since then.
    errors: u32,
    icr_low: u32,
    icr_high: u32,
    lvt: Lvt,
    timer: Timer,
}

impl Lapic {
    /// An APIC as after power-up: xAPIC mode, software-disabled.
    pub const fn new(apic_id: u32, is_bsp: bool, features: Features) -> Self {
        Self {
            next: 0,
            top_irr: 0,
            top_isr: 0,
            tpr: 0,
            mode: Mode::XApic,
            is_bsp,
            features,
            irr: Vectors::NONE,
            isr: Vectors::NONE,
            tmr: Vectors::NONE,
            id: apic_id,
            svr: SVR_RESET,
            ldr: 0,
            dfr: DFR_FLAT,
            esr: 0,
            errors: 0,
            icr_low: 0,
            icr_high: 0,
            lvt: Lvt::RESET,
            timer: Timer::STOPPED,
        }
    }

    /// INIT: everything but the id and IA32_APIC_BASE returns to the power-up value (SDM "Local APIC State After It
    /// Receives an INIT-Deassert", "x2APIC State Transitions").
    pub fn reset_init(&mut self) {
        *self = Self { mode: self.mode, ..Self::new(self.id, self.is_bsp, self.features) };
    }

    /// The id the VP was created with. Guests cannot change it (the SDM lets a processor make the register read-only).
    pub fn id(&self) -> u32 {
        self.id
    }

    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// IA32_APIC_BASE (MSR 0x1b).
    pub fn base(&self) -> u64 {
        let mode = match self.mode {
            Mode::Disabled => 0,
            Mode::XApic => BASE_ENABLE,
            Mode::X2Apic => BASE_ENABLE | BASE_X2APIC,
        };
        BASE_ADDRESS | mode | if self.is_bsp { BASE_BSP } else { 0 }
    }

    /// Writes IA32_APIC_BASE. Timer and pending interrupts are lost when the APIC is turned off. The BSP bit is
    /// accepted and ignored: which VP boots is the partition's affair.
    ///
    /// # Errors
    /// Reserved bits, another address, x2APIC where it is not offered, and the transitions the SDM forbids ("x2APIC
    /// State Transitions"): x2APIC is entered from xAPIC only and left to disabled only.
    pub fn set_base(&mut self, value: u64) -> Result<(), GeneralProtection> {
        ensure(value & !(BASE_BSP | BASE_X2APIC | BASE_ENABLE) == BASE_ADDRESS, GeneralProtection)?;
        let mode = match (value & BASE_ENABLE != 0, value & BASE_X2APIC != 0) {
            (false, false) => Mode::Disabled,
            (true, false) => Mode::XApic,
            (true, true) => Mode::X2Apic,
            (false, true) => return Err(GeneralProtection),
        };
        match (self.mode, mode) {
            (from, to) if from == to => {}
            (_, Mode::Disabled) => self.reset_init(),
            (Mode::Disabled, Mode::XApic) => {}
            (Mode::XApic, Mode::X2Apic) if self.features.x2apic => self.icr_high = 0,
            _ => return Err(GeneralProtection),
        }
        self.mode = mode;
        self.evaluate();
        Ok(())
    }

    /// Accepts a fixed interrupt into the IRR; says whether it did. A software-disabled APIC drops it, an illegal
    /// vector is recorded in the ESR. Repeating a vector that is already requested merges with it.
    pub fn request(&mut self, vector: u8, trigger: Trigger) -> bool {
        if !self.enabled() {
            return false;
        }
        if vector < 16 {
            self.error(ESR_RECEIVE_ILLEGAL_VECTOR);
            return false;
        }
        self.latch(vector, trigger);
        true
    }

    /// The vector to inject now: the highest requested one, if its class is above the PPR's and the APIC is enabled.
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        if self.next == 0 { None } else { Some(self.next) }
    }

    /// Whether any interrupt is requested, if only for later: that of the guest idle state, which a processor may enter
    /// while it handles an interrupt, and from which one of the same class has to wake it.
    #[inline]
    pub fn has_request(&self) -> bool {
        self.top_irr != 0
    }

    /// `vector` was acknowledged, and the processor did not deliver it: it is requested again.
    pub fn take_back(&mut self, vector: u8) {
        self.isr.remove(vector);
        self.top_isr = self.isr.highest();
        self.irr.insert(vector);
        self.top_irr = self.top_irr.max(vector);
        self.evaluate();
    }

    /// `vector` was injected: it moves from the IRR to the ISR.
    pub fn acknowledge(&mut self, vector: u8) {
        self.isr.insert(vector);
        self.top_isr = self.top_isr.max(vector);
        self.unrequest(vector);
    }

    /// `vector` was injected for a SINT with auto-EOI: it leaves the IRR and never is in service (TLFS `AutoEOI`).
    pub fn acknowledge_auto_eoi(&mut self, vector: u8) {
        self.unrequest(vector);
    }

    /// Ends the highest interrupt in service; returns its vector if it was level-triggered. EOI with nothing in service
    /// does nothing.
    pub fn eoi(&mut self) -> Option<u8> {
        let vector = self.top_isr;
        if vector == 0 {
            return None;
        }
        self.isr.remove(vector);
        self.top_isr = self.isr.highest();
        self.evaluate();
        self.tmr.contains(vector).then_some(vector)
    }

    /// Whether the hypervisor may set "No EOI required" in the VP assist page: the interrupt in service is
    /// edge-triggered and nothing waits for its end (TLFS 2.0 §13.3.4.1). The bit must go when this turns false.
    #[inline]
    pub fn eoi_assist_allowed(&self) -> bool {
        self.top_isr != 0 && self.top_irr == 0 && !self.tmr.contains(self.top_isr)
    }

    #[inline]
    pub fn set_tpr(&mut self, value: u8) {
        if self.tpr != value {
            self.tpr = value;
            self.evaluate();
        }
    }

    /// CR8 as the VP reads it, 0 to 15.
    #[inline]
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    /// Writes CR8, which clears the lower half of the TPR.
    ///
    /// # Errors
    /// Any of bits 63:4 is set.
    pub fn set_cr8(&mut self, value: u64) -> Result<(), GeneralProtection> {
        let class = u8::try_from(value).ok().filter(|class| *class < 16).ok_or(GeneralProtection)?;
        self.set_tpr(class << 4);
        Ok(())
    }

    /// The processor priority: the TPR or the class in service, whichever is higher.
    pub fn ppr(&self) -> u8 {
        if self.tpr >> 4 >= self.top_isr >> 4 { self.tpr } else { self.top_isr & 0xf0 }
    }

    fn enabled(&self) -> bool {
        self.svr & SVR_ENABLE != 0 && self.mode != Mode::Disabled
    }

    fn latch(&mut self, vector: u8, trigger: Trigger) {
        self.irr.insert(vector);
        match trigger {
            Trigger::Edge => self.tmr.remove(vector),
            Trigger::Level => self.tmr.insert(vector),
        }
        if vector > self.top_irr {
            self.top_irr = vector;
            self.evaluate();
        }
    }

    fn unrequest(&mut self, vector: u8) {
        self.irr.remove(vector);
        self.top_irr = self.irr.highest();
        self.evaluate();
    }

    /// Records an error and raises the error interrupt for it. An illegal vector in the LVT entry itself is one more
    /// error but no more interrupts.
    fn error(&mut self, bit: u32) {
        let is_new = self.errors & bit == 0;
        self.errors |= bit;
        let entry = self.lvt.error();
        if !is_new || entry.masked() || !self.enabled() {
            return;
        }
        match entry.vector() {
            0..16 => self.errors |= ESR_RECEIVE_ILLEGAL_VECTOR,
            vector => self.latch(vector, Trigger::Edge),
        }
    }

    /// Recomputes `next` from the cached tops. The SDM leaves requests of a software-disabled APIC "held"; here they
    /// wait until it is enabled again.
    fn evaluate(&mut self) {
        let class = self.top_irr >> 4;
        let deliverable = class > self.tpr >> 4 && class > self.top_isr >> 4 && self.enabled();
        self.next = if deliverable { self.top_irr } else { 0 };
    }
}
