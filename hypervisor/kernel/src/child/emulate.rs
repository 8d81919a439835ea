//! Instructions on memory that is not there: the local APIC's page in xAPIC mode, and doorbells.

use hal::{
    addr::{Gpa, PAGE_SIZE},
    virt::{GpaFault, Register, SegmentName},
};
use model::{
    insn::{self, Decoded, Registers},
    intercept::{InstructionBytes, mode},
    lapic::{self, Mode},
};

use tlfs::{
    intercept::{ExceptionInfo, ExceptionIntercept, InterceptAccess},
    synic::MessageType,
};

use super::{ChildCpu, Next, RESUME, intercept::segment};
use crate::{port, vp::guest_tsc};

impl ChildCpu<'_> {
    /// A guest-physical address that the child cannot use as it tried to.
    pub(super) fn gpa_fault(&mut self, fault: &GpaFault) -> Next {
        let page = Gpa(fault.gpa.0 & !(PAGE_SIZE as u64 - 1));
        let is_apic = page.0 == lapic::BASE_ADDRESS && self.vp.lapic.lock().mode() == Mode::XApic;
        let is_doorbell =
            fault.write && !fault.present && self.vp.partition.endpoints.lock().has_doorbell_in_page(page.0);
        let is_data = !fault.execute && !fault.in_page_walk;
        if !fault.present && self.vp.partition.space.translate(page).is_some() {
            // Another VP's fault had it mapped meanwhile.
            return RESUME;
        }
        let mut instruction = InstructionBytes::default();
        // The root needs the instruction only to emulate a device; to map memory, the address will do.
        if is_data && (is_apic || is_doorbell || !fault.present) {
            match self.fetch() {
                Ok(fetched) => instruction = fetched,
                Err(unmapped) => return self.need(unmapped),
            }
        }
        if is_apic && is_data {
            return self.apic_access(fault, instruction);
        }
        if is_doorbell && self.ring_doorbell(fault, instruction) {
            return RESUME;
        }
        self.report_memory(fault.gpa, fault.write, fault.execute, instruction)
    }

    fn decode(&self, instruction: InstructionBytes) -> Option<(Decoded, Registers)> {
        let vcpu = &self.ctx.vcpu;
        let registers = Registers {
            gpr: *vcpu.gprs(),
            rip: vcpu.get(Register::Rip),
            rflags: vcpu.get(Register::Rflags),
            segment_base: SegmentName::GENERAL.map(|name| vcpu.segment(name).base),
        };
        let code = segment(vcpu.segment(SegmentName::Cs)).attributes;
        let mode = mode(vcpu.get(Register::Efer), code);
        let decoded = insn::decode(instruction.get(), mode, &registers).ok()?;
        Some((decoded, registers))
    }

    fn finish(&mut self, registers: &Registers) {
        let vcpu = self.vcpu();
        *vcpu.gprs_mut() = registers.gpr;
        vcpu.set(Register::Rip, registers.rip);
        vcpu.set(Register::Rflags, registers.rflags);
        vcpu.set_interrupt_shadow(false);
    }

    /// An access to the local APIC's page. Registers are 32 bits wide at multiples of 16 bytes; what else an
    /// instruction does there is undefined, and reads as zero here.
    fn apic_access(&mut self, fault: &GpaFault, instruction: InstructionBytes) -> Next {
        let Some((decoded, mut registers)) = self.decode(instruction) else {
            return self.report_memory(fault.gpa, fault.write, false, instruction);
        };
        // The bytes may not be those that faulted: the operand must lead to the page that did.
        let offset = fault.gpa.offset() as u16;
        let operand = decoded.read.or(decoded.write);
        if !operand.is_some_and(|gva| self.leads_to(gva, fault)) {
            return RESUME;
        }
        let now = guest_tsc();
        let is_register = offset.is_multiple_of(16) && decoded.size == 4;
        let value = match decoded.read {
            Some(_) if is_register => u64::from(self.vp.lapic.lock().read_mmio(offset, now)),
            _ => 0,
        };
        let written = decoded.complete(value, &mut registers);
        self.finish(&registers);
        match written {
            Some(value) if is_register => {
                let effect = self.vp.lapic.lock().write_mmio(offset, value as u32, now);
                self.apic_effect(effect)
            }
            _ => RESUME,
        }
    }

    /// A store to a doorbell's address. `false`: no doorbell is meant, the root has to see the store.
    fn ring_doorbell(&mut self, fault: &GpaFault, instruction: InstructionBytes) -> bool {
        let Some((decoded, mut registers)) = self.decode(instruction) else { return false };
        if decoded.read.is_some() || !decoded.write.is_some_and(|gva| self.leads_to(gva, fault)) {
            return false;
        }
        let Some(value) = decoded.complete(0, &mut registers) else { return false };
        let hit = self.vp.partition.endpoints.lock().rung(fault.gpa.0, decoded.size, value);
        let Some(port) = hit else { return false };
        self.finish(&registers);
        port::ring(port);
        true
    }

    fn leads_to(&self, gva: u64, fault: &GpaFault) -> bool {
        self.translate(gva, fault.write).is_ok_and(|found| found == fault.gpa)
    }

    /// Reports an exception that the parent asked to see.
    pub(super) fn report_exception(&mut self, vector: u8, error: u32) -> Next {
        const PAGE_FAULT: u8 = 14;
        const DEBUG: u8 = 1;
        const WITH_ERROR_CODE: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;
        let vcpu = &self.ctx.vcpu;
        let has_error = WITH_ERROR_CODE >> vector & 1 != 0;
        let message = ExceptionIntercept {
            header: self.header(InterceptAccess::EXECUTE, 0),
            exception_vector: vector.into(),
            exception_info: ExceptionInfo::new().with_error_code_valid(has_error),
            error_code: if has_error { error } else { 0 },
            exception_parameter: match vector {
                PAGE_FAULT => vcpu.get(Register::Cr2),
                DEBUG => vcpu.get(Register::Dr6),
                _ => 0,
            },
            ds: segment(vcpu.segment(SegmentName::Ds)),
            ss: segment(vcpu.segment(SegmentName::Ss)),
            gp: *vcpu.gprs(),
            ..ExceptionIntercept::ZEROED
        };
        self.report(MessageType::X64_EXCEPTION_INTERCEPT, &message)
    }
}
