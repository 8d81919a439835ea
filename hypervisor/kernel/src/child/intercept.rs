//! Telling the root why a VP stopped: the intercept message page and the register page.

use hal::{
    addr::Gpa,
    virt::{IoExit, R8, RAX, RBX, RCX, RDX, Register, Segment, SegmentName},
};
use model::intercept::{InstructionBytes, MemoryFacts, PortFacts, VpFacts, attributes_from_svm};
use tlfs::{
    intercept::InterceptAccess,
    register::SegmentRegister,
    synic::{HvMessage, MessageType},
    vp::{RegisterClasses, VpRegisterPage},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{ChildCpu, Ended, Next, end, registers};
use crate::{
    partition::VpRef,
    vp::{Context, Vp},
};

const GPRS_WITHOUT_RSP: [usize; 2] = [6, 7];
/// The classes that the root changed are in the upper half of the register page's first word.
const DIRTY_SHIFT: u32 = 32;

impl ChildCpu<'_> {
    /// What any exit knows of the VP.
    pub(super) fn facts(&self, instruction_length: u8) -> VpFacts {
        let vcpu = &self.ctx.vcpu;
        VpFacts {
            partition_id: self.vp.partition.id,
            vp_index: self.vp.index,
            cpl: vcpu.privilege(),
            cr0: vcpu.get(Register::Cr0),
            cr8: self.ctx.task_priority,
            efer: vcpu.get(Register::Efer),
            dr7: vcpu.get(Register::Dr7),
            cs: segment(vcpu.segment(SegmentName::Cs)),
            rip: vcpu.get(Register::Rip),
            rflags: vcpu.get(Register::Rflags),
            instruction_length,
            is_interruption_pending: vcpu.has_event(),
            is_interrupt_shadowed: vcpu.has_interrupt_shadow(),
        }
    }

    /// Ends the dispatch with `message` for the root. The VP stays where it is until the root resumes it.
    pub(super) fn report(&mut self, message: &HvMessage) -> Next {
        if let Some(page) = &self.vp.pages.lock().intercept {
            page.write(0, message.as_bytes());
        }
        self.ctx.intercept_suspended = true;
        end(Ended::Intercept)
    }

    /// Reports an access to memory that the root has to see: it maps the page, or emulates a device.
    pub(super) fn report_memory(&mut self, gpa: Gpa, write: bool, execute: bool) -> Next {
        self.report_memory_with(gpa, write, execute, InstructionBytes::default())
    }

    /// The same with the instruction, so that the root's virtual machine monitor need not fetch it.
    pub(super) fn report_memory_with(
        &mut self,
        gpa: Gpa,
        write: bool,
        execute: bool,
        bytes: InstructionBytes,
    ) -> Next {
        let access = match (write, execute) {
            (true, _) => InterceptAccess::WRITE,
            (_, true) => InterceptAccess::EXECUTE,
            _ => InterceptAccess::READ,
        };
        let facts =
            MemoryFacts { message_type: MessageType::GPA_INTERCEPT, access, gpa: gpa.0, gva: None, bytes };
        let message = self.facts(0).memory(&facts);
        self.report(&message)
    }

    /// Reports a port access.
    pub(super) fn report_port(&mut self, io: &IoExit) -> Next {
        let length = io.next_rip.wrapping_sub(self.ctx.vcpu.get(Register::Rip)) as u8;
        let mut bytes = [0; 15];
        let mut fetched = 0;
        if io.string {
            match self.fetch(&mut bytes) {
                Ok(count) => fetched = count,
                Err(unmapped) => return self.need(unmapped),
            }
        }
        let vcpu = &self.ctx.vcpu;
        let gprs = vcpu.gprs();
        let facts = PortFacts {
            port: io.port,
            size: io.bytes,
            access: if io.input { InterceptAccess::READ } else { InterceptAccess::WRITE },
            is_string: io.string,
            is_repeated: io.repeat,
            registers: [gprs[RAX], gprs[RCX], gprs[GPRS_WITHOUT_RSP[0]], gprs[GPRS_WITHOUT_RSP[1]]],
            ds: segment(vcpu.segment(SegmentName::Ds)),
            es: segment(vcpu.segment(SegmentName::Es)),
            bytes: InstructionBytes::new(bytes.get(..fetched).unwrap_or_default()),
        };
        let message = self.facts(length).io_port(&facts);
        self.report(&message)
    }

    /// Reports a hypercall that the root is to answer. RIP stays at the instruction, of 3 bytes.
    pub(super) fn report_hypercall(&mut self) -> Next {
        let g = self.ctx.vcpu.gprs();
        let [rsi, rdi] = GPRS_WITHOUT_RSP.map(|index| g[index]);
        let message = self.facts(3).hypercall([g[RAX], g[RBX], g[RCX], g[RDX], g[R8], rsi, rdi]);
        self.report(&message)
    }

    /// Reports a triple fault, or a state from which the VP cannot go on.
    pub(super) fn report_unrecoverable(&mut self) -> Next {
        let message = self.facts(0).unrecoverable_exception();
        self.report(&message)
    }
}

/// A segment register in the TLFS's form.
pub fn segment(from: Segment) -> SegmentRegister {
    SegmentRegister {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        attributes: attributes_from_svm(from.attributes),
    }
}

/// Writes the VP's registers to its register page, for the root to read without a call.
pub fn give_register_page(vp: &Vp, ctx: &Context) {
    let pages = vp.pages.lock();
    let Some(page) = &pages.registers else { return };
    let vcpu = &ctx.vcpu;
    let names = [
        SegmentName::Es,
        SegmentName::Cs,
        SegmentName::Ss,
        SegmentName::Ds,
        SegmentName::Fs,
        SegmentName::Gs,
    ];
    let mut out = VpRegisterPage {
        version: VpRegisterPage::VERSION,
        is_valid: 1,
        gp: *vcpu.gprs(),
        rip: vcpu.get(Register::Rip),
        rflags: vcpu.get(Register::Rflags),
        segments: names.map(|name| segment(vcpu.segment(name))),
        cr0: vcpu.get(Register::Cr0),
        cr3: vcpu.get(Register::Cr3),
        cr4: vcpu.get(Register::Cr4),
        cr8: u64::from(ctx.task_priority),
        efer: vcpu.get(Register::Efer),
        dr7: vcpu.get(Register::Dr7),
        xfem: vcpu.get(Register::Xcr0),
        ..VpRegisterPage::ZEROED
    };
    registers::fill_page(ctx, &mut out);
    page.write(0, out.as_bytes());
}

/// Takes over what the root changed in the register page, by the classes that it marked.
pub fn take_register_page(vp: &VpRef, ctx: &mut Context) {
    let mut bytes = [0; size_of::<VpRegisterPage>()];
    {
        let pages = vp.pages.lock();
        let Some(page) = &pages.registers else { return };
        if page.read_u64(0) >> DIRTY_SHIFT == 0 {
            return;
        }
        page.read(0, &mut bytes);
        // So that nothing is taken twice.
        page.write_u64(0, page.read_u64(0) & !(u64::MAX << DIRTY_SHIFT));
    }
    let Ok(page) = VpRegisterPage::read_from_bytes(&bytes) else { return };
    let vcpu = &mut ctx.vcpu;
    if page.dirty.contains(RegisterClasses::GENERAL) {
        *vcpu.gprs_mut() = page.gp;
    }
    if page.dirty.contains(RegisterClasses::IP) {
        vcpu.set(Register::Rip, page.rip);
    }
    if page.dirty.contains(RegisterClasses::FLAGS) {
        vcpu.set(Register::Rflags, page.rflags);
    }
    registers::take_page(vp, ctx, &page);
}
