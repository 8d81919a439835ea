//! The registers as the guest reaches them: by memory in xAPIC mode, by MSRs 0x800 to 0x83f in x2APIC mode, and three
//! of them by the TLFS's MSRs in both.
//!
//! A register's number is its MSR less 0x800, or its offset in memory divided by 16; the two agree. What differs is the
//! answer to a bad access: memory forgives and notes an illegal register in the ESR, an MSR raises #GP.

use tlfs::msr as synthetic;

use super::icr::{ICR_STATUS, ICR_STORED, x2apic_ldr};
use super::lvt::{ENTRIES, Lvt};
use super::timer::Timer;
use super::{ESR_ILLEGAL_REGISTER, Effect, GeneralProtection, Lapic, Mode, SVR_ENABLE};
use crate::ensure;

/// Version 0x14 (an integrated APIC), six LVT entries, no EOI broadcast suppression.
pub(super) const VERSION: u32 = 0x0005_0014;
pub(super) const SVR_STORED: u32 = 0x3ff;
pub(super) const LDR_STORED: u32 = 0xff00_0000;
pub(super) const DFR_ONES: u32 = 0x0fff_ffff;

const ID: u16 = 0x02;
const VERSION_REGISTER: u16 = 0x03;
const TPR: u16 = 0x08;
const APR: u16 = 0x09;
const PPR: u16 = 0x0a;
const EOI: u16 = 0x0b;
const REMOTE_READ: u16 = 0x0c;
const LDR: u16 = 0x0d;
const DFR: u16 = 0x0e;
const SVR: u16 = 0x0f;
const ISR: u16 = 0x10;
const TMR: u16 = 0x18;
const IRR: u16 = 0x20;
const ESR: u16 = 0x28;
const ICR: u16 = 0x30;
const ICR_HIGH: u16 = 0x31;
const LVT: u16 = 0x32;
const LVT_THERMAL: u16 = 0x33;
const LVT_ERROR: u16 = 0x37;
const INITIAL_COUNT: u16 = 0x38;
const CURRENT_COUNT: u16 = 0x39;
const DIVIDE: u16 = 0x3e;
const SELF_IPI: u16 = 0x3f;

const X2APIC_MSRS: u32 = 0x800;

impl Lapic {
    /// Reads an x2APIC register, MSRs 0x800 to 0x8ff. `now` is the time on the timer's input clock.
    ///
    /// # Errors
    /// Another mode; an MSR that is no register or cannot be read.
    pub fn read_msr(&self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        match register {
            APR | EOI | REMOTE_READ | DFR | ICR_HIGH => Err(GeneralProtection),
            ICR => Ok(self.icr()),
            _ => self.load(register, now).map(u64::from).ok_or(GeneralProtection),
        }
    }

    /// Writes an x2APIC register, MSRs 0x800 to 0x8ff.
    ///
    /// # Errors
    /// Another mode; an MSR that is no register or cannot be written; a reserved bit set.
    pub fn write_msr(&mut self, msr: u32, value: u64, now: u64) -> Result<Effect, GeneralProtection> {
        let register = self.x2apic_register(msr)?;
        if register == ICR {
            ensure(value as u32 & !(ICR_STORED | ICR_STATUS) == 0, GeneralProtection)?;
            return Ok(self.write_icr(value));
        }
        let writable = self.x2apic_writable(register).ok_or(GeneralProtection)?;
        let value = u32::try_from(value).map_err(|_| GeneralProtection)?;
        ensure(value & !writable == 0, GeneralProtection)?;
        if register == SELF_IPI {
            self.send_self(value as u8);
            return Ok(Effect::None);
        }
        Ok(self.store(register, value, now))
    }

    /// Reads the register `offset` bytes into the APIC page. An offset that is no register reads as zero and is noted in
    /// the ESR. In the other modes there is no such page, and the answer is all ones.
    pub fn read_mmio(&mut self, offset: u16, now: u64) -> u32 {
        if self.mode != Mode::XApic {
            return u32::MAX;
        }
        let value = if offset.is_multiple_of(16) { self.load(offset / 16, now) } else { None };
        value.unwrap_or_else(|| {
            self.error(ESR_ILLEGAL_REGISTER);
            0
        })
    }

    /// Writes the register `offset` bytes into the APIC page. Read-only registers and reserved bits ignore it.
    pub fn write_mmio(&mut self, offset: u16, value: u32, now: u64) -> Effect {
        if self.mode != Mode::XApic {
            return Effect::None;
        }
        let register = offset / 16;
        let exists = matches!(register, ID | VERSION_REGISTER | TPR..=ESR | ICR..=CURRENT_COUNT | DIVIDE);
        if !exists || !offset.is_multiple_of(16) {
            self.error(ESR_ILLEGAL_REGISTER);
            return Effect::None;
        }
        match register {
            ICR => self.write_icr(u64::from(value) | u64::from(self.icr_high) << 32),
            _ => self.store(register, value, now),
        }
    }

    /// Reads HV_X64_MSR_ICR or HV_X64_MSR_TPR.
    ///
    /// # Errors
    /// HV_X64_MSR_EOI, which is write-only; another MSR; the APIC is disabled.
    pub fn read_hv_msr(&self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            _ if self.mode == Mode::Disabled => Err(GeneralProtection),
            synthetic::ICR => Ok(self.icr()),
            synthetic::TPR => Ok(self.tpr.into()),
            _ => Err(GeneralProtection),
        }
    }

    /// Writes HV_X64_MSR_EOI, HV_X64_MSR_ICR or HV_X64_MSR_TPR. The value of an EOI is ignored. The ICR has the layout
    /// of the APIC's mode; the TLFS, older than x2APIC, leaves that open, and Linux uses this MSR in xAPIC mode only.
    ///
    /// # Errors
    /// Another MSR; a TPR above 0xff; the APIC is disabled.
    pub fn write_hv_msr(&mut self, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
        match msr {
            _ if self.mode == Mode::Disabled => Err(GeneralProtection),
            synthetic::EOI => Ok(self.write_eoi()),
            synthetic::ICR => Ok(self.write_icr(value)),
            synthetic::TPR => {
                self.set_tpr(u8::try_from(value).map_err(|_| GeneralProtection)?);
                Ok(Effect::None)
            }
            _ => Err(GeneralProtection),
        }
    }

    fn x2apic_register(&self, msr: u32) -> Result<u16, GeneralProtection> {
        let register = msr.wrapping_sub(X2APIC_MSRS);
        match u16::try_from(register) {
            Ok(register) if self.mode == Mode::X2Apic => Ok(register),
            _ => Err(GeneralProtection),
        }
    }

    /// The bits of a register that x2APIC software may set; `None` for one that cannot be written so. The ICR is apart.
    fn x2apic_writable(&self, register: u16) -> Option<u32> {
        Some(match register {
            TPR | SELF_IPI => 0xff,
            EOI | ESR => 0,
            SVR => SVR_STORED,
            LVT..=LVT_ERROR => Lvt::writable(usize::from(register - LVT), self.features.tsc_deadline),
            INITIAL_COUNT => u32::MAX,
            DIVIDE => Timer::DIVIDE_MASK,
            _ => return None,
        })
    }

    /// A register as read in the current mode; `None` if there is no such register in memory.
    fn load(&self, register: u16, now: u64) -> Option<u32> {
        Some(match register {
            ID => self.id_register(),
            VERSION_REGISTER => VERSION,
            TPR => self.tpr.into(),
            PPR => self.ppr().into(),
            // Arbitration and remote read died with the APIC bus; the EOI register is write-only.
            APR | EOI | REMOTE_READ => 0,
            LDR => self.ldr_register(),
            DFR => self.dfr,
            SVR => self.svr,
            ISR..TMR => self.isr.register(usize::from(register - ISR)),
            TMR..IRR => self.tmr.register(usize::from(register - TMR)),
            IRR..ESR => self.irr.register(usize::from(register - IRR)),
            ESR => self.esr,
            ICR => self.icr_low,
            ICR_HIGH => self.icr_high,
            LVT..=LVT_ERROR => self.lvt.register(usize::from(register - LVT)),
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.current_count(now),
            DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// Writes any register but the ICR's lower half; those that are read-only stay as they are.
    fn store(&mut self, register: u16, value: u32, now: u64) -> Effect {
        match register {
            TPR => self.set_tpr(value as u8),
            EOI => return self.write_eoi(),
            LDR => self.ldr = value & LDR_STORED,
            DFR => self.dfr = value | DFR_ONES,
            SVR => self.write_svr(value, now),
            ESR => self.esr = core::mem::take(&mut self.errors),
            ICR_HIGH => self.icr_high = value & LDR_STORED,
            LVT => self.write_lvt_timer(value, now),
            LVT_THERMAL..=LVT_ERROR => self.set_lvt(usize::from(register - LVT), value),
            INITIAL_COUNT => self.write_initial_count(value, now),
            DIVIDE => self.write_divide(value, now),
            _ => {}
        }
        Effect::None
    }

    pub(super) fn id_register(&self) -> u32 {
        if self.mode == Mode::X2Apic { self.id } else { self.id << 24 }
    }

    pub(super) fn ldr_register(&self) -> u32 {
        if self.mode == Mode::X2Apic { x2apic_ldr(self.id) } else { self.ldr }
    }

    /// Stores an LVT entry; a software-disabled APIC keeps it masked.
    pub(super) fn set_lvt(&mut self, index: usize, value: u32) {
        self.lvt.set_register(index, value, self.features.tsc_deadline);
        if self.svr & SVR_ENABLE == 0 {
            self.lvt.mask_all();
        }
    }

    fn icr(&self) -> u64 {
        u64::from(self.icr_low) | u64::from(self.icr_high) << 32
    }

    fn write_icr(&mut self, value: u64) -> Effect {
        let high = (value >> 32) as u32;
        self.icr_high = if self.mode == Mode::X2Apic { high } else { high & LDR_STORED };
        self.icr_low = value as u32 & ICR_STORED;
        self.send()
    }

    fn write_eoi(&mut self) -> Effect {
        self.eoi().map_or(Effect::None, Effect::LevelEoi)
    }

    /// Turning the APIC off by software masks the whole LVT (SDM "Local APIC State After It Has Been Software Disabled").
    fn write_svr(&mut self, value: u32, now: u64) {
        self.timer_expire(now);
        self.svr = value & SVR_STORED;
        if self.svr & SVR_ENABLE == 0 {
            self.lvt.mask_all();
        }
        self.evaluate();
    }
}

const _: () = assert!(LVT as usize + ENTRIES == LVT_ERROR as usize + 1);
