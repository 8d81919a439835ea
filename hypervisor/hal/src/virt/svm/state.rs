//! The guest's architectural registers in the VMCB: one name, one place.

use super::{Vcpu, event, vmcb::Segment};
use crate::{
    cpu::register,
    virt::{Register, SegmentName, fpu},
};

const EFER_SVME: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;
/// What a guest may set in EFER: SCE, LME, LMA, NXE, FFXSR.
const EFER_GUEST: u64 = 1 | 1 << 8 | EFER_LMA | 1 << 11 | 1 << 14;
const RESET_PAT: u64 = 0x0007_0406_0007_0406;
const RFLAGS_FIXED: u64 = 2;

impl Vcpu {
    /// Puts the processor into its state after RESET (APM 2 §14.1.3). Controls stay.
    pub fn reset(&mut self) {
        self.gprs = [0; 16];
        self.gprs[crate::virt::RDX] = 0x0080_0f12;
        self.extended.reset();
        self.debug = [0; 4];
        self.tsc_aux = 0;
        self.init();
        self.set(Register::Pat, RESET_PAT);
        self.set(Register::Efer, 0);
    }

    /// Puts the processor into its state after INIT: as RESET, but extended state and most MSRs stay.
    pub fn init(&mut self) {
        let real =
            |selector: u16, base: u64, attributes: u16| Segment { selector, attributes, limit: 0xffff, base };
        let block = self.block_mut();
        block.control.event = 0;
        block.control.shadow = 0;
        let save = &mut block.save;
        save.segments = [real(0, 0, 0x93); 6];
        save.segments[1] = real(0xf000, 0xffff_0000, 0x9b);
        save.gdtr = real(0, 0, 0);
        save.idtr = real(0, 0, 0);
        save.ldtr = real(0, 0, 0x82);
        save.tr = real(0, 0, 0x8b);
        save.cpl = 0;
        save.cr0 = 0x6000_0010;
        save.cr2 = 0;
        save.cr3 = 0;
        save.cr4 = 0;
        save.dr6 = 0xffff_0ff0;
        save.dr7 = 0x400;
        save.rflags = RFLAGS_FIXED;
        save.rip = 0xfff0;
        save.efer = EFER_SVME;
        save.debug_ctl = 0;
        self.withdraw_interrupt();
        self.exit_on_iret(false);
        self.set_task_priority(0);
    }

    /// Reads a register. Extended ones ([`Register::Xcr0`], [`Register::TscAux`], DR0 to DR3) are those saved at
    /// the last switch.
    pub fn get(&self, name: Register) -> u64 {
        let block = self.block();
        let save = &block.save;
        match name {
            Register::Rip => save.rip,
            Register::Rflags => save.rflags,
            Register::Cr0 => save.cr0,
            Register::Cr2 => save.cr2,
            Register::Cr3 => save.cr3,
            Register::Cr4 => save.cr4,
            Register::Dr0 => self.debug[0],
            Register::Dr1 => self.debug[1],
            Register::Dr2 => self.debug[2],
            Register::Dr3 => self.debug[3],
            Register::Dr6 => save.dr6,
            Register::Dr7 => save.dr7,
            Register::Efer => save.efer & !EFER_SVME,
            Register::Pat => save.pat,
            Register::Star => save.star,
            Register::Lstar => save.lstar,
            Register::Cstar => save.cstar,
            Register::Sfmask => save.sfmask,
            Register::KernelGsBase => save.kernel_gs_base,
            Register::SysenterCs => save.sysenter_cs,
            Register::SysenterEsp => save.sysenter_esp,
            Register::SysenterEip => save.sysenter_eip,
            Register::TscAux => self.tsc_aux,
            Register::TscOffset => block.control.tsc_offset,
            Register::Xcr0 => self.extended.xcr0,
            Register::DebugCtl => save.debug_ctl,
        }
    }

    /// Writes a register. What the processor could not enter the guest with is masked or refused (`false`).
    pub fn set(&mut self, name: Register, value: u64) -> bool {
        match name {
            Register::Dr0 => self.debug[0] = value,
            Register::Dr1 => self.debug[1] = value,
            Register::Dr2 => self.debug[2] = value,
            Register::Dr3 => self.debug[3] = value,
            Register::TscAux => self.tsc_aux = value,
            Register::Xcr0 if fpu::is_valid_xcr0(value) => self.extended.xcr0 = value,
            Register::Xcr0 => return false,
            Register::Efer if value & !EFER_GUEST != 0 => return false,
            Register::Pat if !is_valid_pat(value) => return false,
            Register::Cr0 | Register::Dr6 | Register::Dr7 if value >> 32 != 0 => return false,
            _ => *self.word(name) = masked(name, value),
        }
        true
    }

    fn word(&mut self, name: Register) -> &mut u64 {
        let block = self.block_mut();
        let save = &mut block.save;
        match name {
            Register::Rip => &mut save.rip,
            Register::Rflags => &mut save.rflags,
            Register::Cr0 => &mut save.cr0,
            Register::Cr3 => &mut save.cr3,
            Register::Cr4 => &mut save.cr4,
            Register::Dr6 => &mut save.dr6,
            Register::Dr7 => &mut save.dr7,
            Register::Efer => &mut save.efer,
            Register::Pat => &mut save.pat,
            Register::Star => &mut save.star,
            Register::Lstar => &mut save.lstar,
            Register::Cstar => &mut save.cstar,
            Register::Sfmask => &mut save.sfmask,
            Register::KernelGsBase => &mut save.kernel_gs_base,
            Register::SysenterCs => &mut save.sysenter_cs,
            Register::SysenterEsp => &mut save.sysenter_esp,
            Register::SysenterEip => &mut save.sysenter_eip,
            Register::TscOffset => &mut block.control.tsc_offset,
            Register::DebugCtl => &mut save.debug_ctl,
            _ => &mut save.cr2,
        }
    }

    /// Reads a segment or table register.
    pub fn segment(&self, name: SegmentName) -> Segment {
        let save = &self.block().save;
        match name {
            SegmentName::Gdtr => save.gdtr,
            SegmentName::Ldtr => save.ldtr,
            SegmentName::Idtr => save.idtr,
            SegmentName::Tr => save.tr,
            general => save.segments.get(general as usize).copied().unwrap_or_default(),
        }
    }

    /// Writes a segment or table register. Loading SS sets the privilege level, as on a switch of stacks.
    pub fn set_segment(&mut self, name: SegmentName, value: Segment) {
        let save = &mut self.block_mut().save;
        match name {
            SegmentName::Gdtr => save.gdtr = value,
            SegmentName::Ldtr => save.ldtr = value,
            SegmentName::Idtr => save.idtr = value,
            SegmentName::Tr => save.tr = value,
            general => {
                if general == SegmentName::Ss {
                    save.cpl = (value.attributes >> 5) as u8 & 3;
                }
                if let Some(place) = save.segments.get_mut(general as usize) {
                    *place = value;
                }
            }
        }
    }

    /// The current privilege level.
    pub fn privilege(&self) -> u8 {
        self.block().save.cpl
    }

    /// Whether the processor runs 64-bit code: long mode, with such a code segment.
    pub fn runs_64_bit_code(&self) -> bool {
        const LONG_CODE: u16 = 1 << 9;
        let save = &self.block().save;
        save.efer & EFER_LMA != 0 && save.segments[SegmentName::Cs as usize].attributes & LONG_CODE != 0
    }

    /// Whether the processor is in protected mode, of whatever kind.
    pub fn is_protected(&self) -> bool {
        self.block().save.cr0 & 1 != 0
    }

    /// Whether the last instruction holds off interrupts for one more (STI, MOV SS).
    pub fn has_interrupt_shadow(&self) -> bool {
        self.block().control.shadow & 1 != 0
    }

    /// Sets or clears the interrupt shadow.
    pub fn set_interrupt_shadow(&mut self, on: bool) {
        self.block_mut().control.shadow = u64::from(on);
    }

    /// The event that waits for the next entry, in the vendor-neutral layout that both vendors share: vector in
    /// 7:0, type in 10:8, error-code valid in 11, valid in 31, error code in 63:32.
    pub fn pending_event(&self) -> Option<u64> {
        Some(self.block().control.event).filter(|e| e & event::VALID != 0)
    }

    /// Sets or clears the waiting event; the layout is that of [`Self::pending_event`].
    pub fn set_pending_event(&mut self, word: Option<u64>) {
        self.block_mut().control.event = word.map_or(0, |w| (w | event::VALID) & event::DEFINED);
    }

    /// Sets XCR0 while the guest's extended state is loaded. `false`: the value is not one the guest may set.
    pub fn write_xcr0(&mut self, value: u64) -> bool {
        let valid = fpu::is_valid_xcr0(value);
        if valid {
            // SAFETY: a subset of what the processor has; the state behind it is the guest's.
            unsafe { register::xsetbv(value) };
            self.extended.xcr0 = value;
        }
        valid
    }
}

/// A guest value made fit for VMRUN (APM 2 §15.5.1).
fn masked(name: Register, value: u64) -> u64 {
    match name {
        Register::Efer => value & EFER_GUEST | EFER_SVME,
        Register::Rflags => value & 0x003f_7fd5 | RFLAGS_FIXED,
        Register::Cr0 => value | 0x10,
        _ => value,
    }
}

/// Whether each of the eight fields is a memory type (APM 2 §7.8.1).
fn is_valid_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|field| matches!(field, 0 | 1 | 4..=7))
}
