//! MSRs of a child: those of the processor, of its local APIC and of the TLFS.
//!
//! RDMSR and WRMSR exit for all MSRs but those that the processor switches with the guest
//! ([`crate::root::msr::CHILD_OWN`]). What nobody knows goes to the parent if it asked for that, else faults, or
//! reads as zero and ignores writes, as the parent chose (partition property `UnimplementedMsrAction`).

pub mod storage;

use core::sync::atomic::Ordering;

use hal::{
    cpu::msr::{APIC_BASE, DEBUGCTL, EFER, PAT, TSC, X2APIC_FIRST, X2APIC_LAST},
    virt::{Event, RAX, RCX, RDX, Register},
};
use model::{ensure, lapic::GeneralProtection};
use tlfs::{
    intercept::{InterceptAccess, MsrIntercept},
    synic::MessageType,
    vp::UnimplementedMsrAction,
};

use super::{ChildCpu, Next, RESUME};
use crate::{
    hypercall::Unmapped,
    root::msr::{set_read, to_write},
    vp::guest_tsc,
};

pub use storage::Msrs;

const TSC_DEADLINE: u32 = 0x6e0;
const SYNTHETIC_FIRST: u32 = 0x4000_0000;
const SYNTHETIC_LAST: u32 = 0x4000_01ff;
/// Where AMD processors load microcode from: nothing here ever does.
const PATCH_LOADER: u32 = 0xc001_0020;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const CR0_PG: u64 = 1 << 31;
/// LBR, BTF and the pin controls (APM 2 §13.1.1.6).
const DEBUGCTL_BITS: u64 = 0x3f;

/// Why an access is not carried out.
pub(super) enum Stop {
    /// The VP takes #GP(0).
    Fault,
    /// Nobody knows the MSR.
    Unknown,
    /// A page of the child's is needed first; then the instruction is made again.
    Unmapped(Unmapped),
}

impl From<GeneralProtection> for Stop {
    fn from(_: GeneralProtection) -> Self {
        Self::Fault
    }
}

impl From<Unmapped> for Stop {
    fn from(unmapped: Unmapped) -> Self {
        Self::Unmapped(unmapped)
    }
}

impl ChildCpu<'_> {
    /// Carries out the RDMSR or WRMSR that exited.
    pub(super) fn msr(&mut self, write: bool) -> Next {
        let number = self.ctx.vcpu.gprs()[RCX] as u32;
        let result = if write {
            self.write_msr(number, to_write(&self.ctx.vcpu))
        } else {
            self.read_msr(number).map(|value| {
                set_read(&mut self.ctx.vcpu, value);
                RESUME
            })
        };
        match result {
            Ok(next) => {
                self.ctx.vcpu.skip_instruction(2);
                next
            }
            Err(Stop::Fault) => {
                self.ctx.vcpu.inject(Event::PROTECTION);
                RESUME
            }
            Err(Stop::Unknown) => self.unknown_msr(number, write),
            Err(Stop::Unmapped(unmapped)) => self.need(unmapped),
        }
    }

    fn unknown_msr(&mut self, number: u32, write: bool) -> Next {
        let partition = &self.vp.partition;
        if partition.intercepts.has_msr(write) {
            let access = if write { InterceptAccess::WRITE } else { InterceptAccess::READ };
            let [rax, rdx] = [RAX, RDX].map(|number| self.ctx.vcpu.gprs()[number]);
            let header = self.header(access, 2);
            let message = MsrIntercept { header, msr_number: number, rax, rdx, ..MsrIntercept::ZEROED };
            return self.report(MessageType::X64_MSR_INTERCEPT, &message);
        }
        let action = partition.properties.unimplemented_msr.load(Ordering::Relaxed);
        if action != u64::from(UnimplementedMsrAction::IGNORE_WRITE_READ_ZERO.0) {
            self.ctx.vcpu.inject(Event::PROTECTION);
            return RESUME;
        }
        if !write {
            set_read(&mut self.ctx.vcpu, 0);
        }
        self.ctx.vcpu.skip_instruction(2);
        RESUME
    }

    fn write_msr(&mut self, number: u32, value: u64) -> Result<Next, Stop> {
        let effect = match number {
            X2APIC_FIRST..=X2APIC_LAST => self.vp.lapic.lock().write_msr(number, value, guest_tsc())?,
            SYNTHETIC_FIRST..=SYNTHETIC_LAST => return self.write_synthetic(number, value),
            _ => return self.write_processor(number, value).map(|()| RESUME),
        };
        Ok(self.apic_effect(effect))
    }

    fn write_processor(&mut self, number: u32, value: u64) -> Result<(), Stop> {
        let vcpu = &mut self.ctx.vcpu;
        let done = match number {
            EFER => self.write_efer(value),
            PAT => vcpu.set(Register::Pat, value),
            DEBUGCTL => value & !DEBUGCTL_BITS == 0 && vcpu.set(Register::DebugCtl, value),
            APIC_BASE => self.vp.lapic.lock().set_base(value).is_ok(),
            TSC_DEADLINE => self.vp.lapic.lock().set_tsc_deadline(value).is_ok(),
            // All VPs see the machine's counter, which does not move.
            TSC | PATCH_LOADER => true,
            _ if self.ctx.extra.msrs.get(number).is_some() => self.ctx.extra.msrs.set(number, value),
            _ => return Err(Stop::Unknown),
        };
        ensure(done, Stop::Fault)
    }

    /// LMA follows from LME and CR0.PG and is not written; LME cannot change under paging (APM 2 §14.6.1).
    fn write_efer(&mut self, value: u64) -> bool {
        let vcpu = &mut self.ctx.vcpu;
        let old = vcpu.get(Register::Efer);
        if (old ^ value) & EFER_LME != 0 && vcpu.get(Register::Cr0) & CR0_PG != 0 {
            return false;
        }
        vcpu.set(Register::Efer, value & !EFER_LMA | old & EFER_LMA)
    }

    fn read_msr(&mut self, number: u32) -> Result<u64, Stop> {
        Ok(match number {
            X2APIC_FIRST..=X2APIC_LAST => self.vp.lapic.lock().read_msr(number, guest_tsc())?,
            TSC_DEADLINE => self.vp.lapic.lock().tsc_deadline()?,
            SYNTHETIC_FIRST..=SYNTHETIC_LAST => self.read_synthetic(number)?,
            TSC => guest_tsc(),
            EFER => self.ctx.vcpu.get(Register::Efer),
            PAT => self.ctx.vcpu.get(Register::Pat),
            DEBUGCTL => self.ctx.vcpu.get(Register::DebugCtl),
            APIC_BASE => self.vp.lapic.lock().base(),
            _ => self.ctx.extra.msrs.get(number).ok_or(Stop::Unknown)?,
        })
    }
}
