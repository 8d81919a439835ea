//! Telling the root why a VP stopped: the intercept message page and the register page.

use hal::{
    addr::Gpa,
    virt::{IoExit, R8, RAX, RBX, RCX, RDI, RDX, RSI, Register, Segment, SegmentName},
};
use model::intercept::{InstructionBytes, attributes_from_svm, execution_state};
use tlfs::{
    intercept::{
        HeaderIntercept, HypercallIntercept, InstructionInfo, InterceptAccess, InterceptHeader,
        IoPortAccessInfo, IoPortIntercept, MemoryIntercept,
    },
    register::SegmentRegister,
    synic::{HvMessage, MessageType},
    vp::{CacheType, RegisterClasses, VpRegisterPage},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{ChildCpu, Ended, Next, end, registers};
use crate::{
    hypercall::Output,
    partition::VpRef,
    vp::{Context, Vp},
};

/// The classes that the root changed are in the upper half of the register page's first word.
const DIRTY_SHIFT: u32 = 32;

impl ChildCpu<'_> {
    /// The head of most messages: what any exit knows of the VP. The length of the instruction is 0 if it is not known.
    pub(super) fn header(&self, access_type: InterceptAccess, instruction_length: u8) -> InterceptHeader {
        let vcpu = &self.ctx.vcpu;
        let [cr0, efer, dr7] = [Register::Cr0, Register::Efer, Register::Dr7].map(|name| vcpu.get(name));
        let length = instruction_length & 15;
        InterceptHeader {
            vp_index: self.vp.index,
            instruction: InstructionInfo::new().with_length(length).with_cr8(self.ctx.task_priority & 15),
            access_type,
            execution_state: execution_state(vcpu.privilege(), cr0, efer, dr7)
                .with_interruption_pending(vcpu.has_event())
                .with_interrupt_shadow(vcpu.has_interrupt_shadow()),
            cs: segment(vcpu.segment(SegmentName::Cs)),
            rip: vcpu.get(Register::Rip),
            rflags: vcpu.get(Register::Rflags),
        }
    }

    /// Ends the dispatch with a message for the root. The VP stays where it is until the root resumes it.
    pub(super) fn report(&mut self, kind: MessageType, payload: &impl Output) -> Next {
        if let Some(page) = &self.vp.pages.lock().intercept {
            page.write(0, HvMessage::new(kind, self.vp.partition.id.0, payload).as_bytes());
        }
        self.ctx.intercept_suspended = true;
        end(Ended::Intercept)
    }

    /// Reports an access to memory that the root has to see: it maps the page, or emulates a device. With the
    /// instruction its virtual machine monitor need not fetch it.
    pub(super) fn report_memory(
        &mut self,
        gpa: Gpa,
        write: bool,
        execute: bool,
        instruction: InstructionBytes,
    ) -> Next {
        let access = match (write, execute) {
            (true, _) => InterceptAccess::WRITE,
            (_, true) => InterceptAccess::EXECUTE,
            _ => InterceptAccess::READ,
        };
        let message = MemoryIntercept {
            header: self.header(access, 0),
            cache_type: CacheType::WRITE_BACK,
            instruction_byte_count: instruction.count,
            tpr_priority: self.ctx.task_priority & 15,
            guest_physical_address: gpa.0,
            instruction_bytes: instruction.bytes,
            ..MemoryIntercept::ZEROED
        };
        self.report(MessageType::GPA_INTERCEPT, &message)
    }

    /// Reports a port access. String instructions need the instruction itself.
    pub(super) fn report_port(&mut self, io: &IoExit) -> Next {
        let length = io.next_rip.wrapping_sub(self.ctx.vcpu.get(Register::Rip)) as u8;
        let fetched = if io.string { self.fetch() } else { Ok(InstructionBytes::default()) };
        let instruction = match fetched {
            Ok(instruction) => instruction,
            Err(unmapped) => return self.need(unmapped),
        };
        let vcpu = &self.ctx.vcpu;
        let [rax, rcx, rsi, rdi] = [RAX, RCX, RSI, RDI].map(|number| vcpu.gprs()[number]);
        let access_info = IoPortAccessInfo::new().with_access_size(io.bytes & 7);
        let message = IoPortIntercept {
            header: self
                .header(if io.input { InterceptAccess::READ } else { InterceptAccess::WRITE }, length),
            port_number: io.port,
            access_info: access_info.with_string_op(io.string).with_rep_prefix(io.repeat),
            instruction_byte_count: instruction.count,
            instruction_bytes: instruction.bytes,
            ds: segment(vcpu.segment(SegmentName::Ds)),
            es: segment(vcpu.segment(SegmentName::Es)),
            rax,
            rcx,
            rsi,
            rdi,
            ..IoPortIntercept::ZEROED
        };
        self.report(MessageType::X64_IO_PORT_INTERCEPT, &message)
    }

    /// Reports a hypercall that the root is to answer. RIP stays at the instruction, of 3 bytes.
    pub(super) fn report_hypercall(&mut self) -> Next {
        let header = self.header(InterceptAccess::EXECUTE, 3);
        let gprs = self.ctx.vcpu.gprs();
        let [rax, rbx, rcx, rdx, r8, rsi, rdi] =
            [RAX, RBX, RCX, RDX, R8, RSI, RDI].map(|number| gprs[number]);
        let message =
            HypercallIntercept { header, rax, rbx, rcx, rdx, r8, rsi, rdi, ..HypercallIntercept::ZEROED };
        self.report(MessageType::HYPERCALL_INTERCEPT, &message)
    }

    /// Reports a triple fault, or a state from which the VP cannot go on.
    pub(super) fn report_unrecoverable(&mut self) -> Next {
        let message = HeaderIntercept { header: self.header(InterceptAccess::EXECUTE, 0) };
        self.report(MessageType::UNRECOVERABLE_EXCEPTION, &message)
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
    let mut out = VpRegisterPage {
        version: VpRegisterPage::VERSION,
        is_valid: 1,
        gp: *vcpu.gprs(),
        rip: vcpu.get(Register::Rip),
        rflags: vcpu.get(Register::Rflags),
        segments: SegmentName::GENERAL.map(|name| segment(vcpu.segment(name))),
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
