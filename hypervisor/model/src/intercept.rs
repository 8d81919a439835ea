//! Intercept messages: what a VP was doing, in the words of the TLFS (root-abi §7.3, TLFS 2.0A chapter 14).
//!
//! [`VpFacts`] is what any exit knows; each builder adds what its kind of exit knows and returns the whole message,
//! which goes into the VP's intercept page or into a message slot. RIP is always that of the instruction itself.

#[cfg(test)]
mod tests;

use tlfs::ids::{PartitionId, VpIndex};
use tlfs::intercept::{
    ApicEoi, CpuidIntercept, ExceptionInfo, ExceptionIntercept, ExecutionState, HeaderIntercept,
    HypercallIntercept, InstructionInfo, InterceptAccess, InterceptHeader, IoPortAccessInfo, IoPortIntercept,
    MemoryAccessInfo, MemoryIntercept, MsrIntercept,
};
use tlfs::register::{SegmentAttributes, SegmentRegister};
use tlfs::synic::{HvMessage, MessageType};
use tlfs::vp::CacheType;

use crate::insn::Mode;

const CR0_PE: u64 = 1 << 0;
const CR0_AM: u64 = 1 << 18;
const EFER_LMA: u64 = 1 << 10;
/// The enable bits of the four breakpoints.
const DR7_ENABLES: u64 = 0xff;

/// The state of a VP at the time of an exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VpFacts {
    /// The partition of the VP, which is the sender of the message.
    pub partition_id: PartitionId,
    /// The VP.
    pub vp_index: VpIndex,
    /// The current privilege level.
    pub cpl: u8,
    /// CR0.
    pub cr0: u64,
    /// The task priority: CR8, 0 to 15.
    pub cr8: u8,
    /// EFER.
    pub efer: u64,
    /// DR7.
    pub dr7: u64,
    /// The code segment.
    pub cs: SegmentRegister,
    /// The address of the intercepting instruction.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// The length of the instruction in bytes, or 0 if it is not known.
    pub instruction_length: u8,
    /// An event was being delivered, and is pending again.
    pub is_interruption_pending: bool,
    /// STI or MOV SS came just before.
    pub is_interrupt_shadowed: bool,
}

/// The first bytes of the intercepting instruction, as far as they could be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstructionBytes {
    bytes: [u8; 16],
    count: u8,
}

impl InstructionBytes {
    /// Takes at most 16 bytes.
    #[must_use]
    pub fn new(fetched: &[u8]) -> Self {
        let mut this = Self::default();
        for (to, from) in this.bytes.iter_mut().zip(fetched) {
            *to = *from;
            this.count += 1;
        }
        this
    }
}

/// An access to guest physical memory that did not go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryFacts {
    /// `UNMAPPED_GPA` or `GPA_INTERCEPT`.
    pub message_type: MessageType,
    /// The kind of access.
    pub access: InterceptAccess,
    /// Where.
    pub gpa: u64,
    /// The virtual address of the access, if the processor told or a decoder found it.
    pub gva: Option<u64>,
    /// The instruction.
    pub bytes: InstructionBytes,
}

/// An access to an I/O port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The port.
    pub port: u16,
    /// The size of the access in bytes: 1, 2 or 4.
    pub size: u8,
    /// `READ` for IN and INS, `WRITE` for OUT and OUTS.
    pub access: InterceptAccess,
    /// INS or OUTS.
    pub is_string: bool,
    /// With a REP prefix.
    pub is_repeated: bool,
    /// RAX, RCX, RSI and RDI.
    pub registers: [u64; 4],
    /// The data segment.
    pub ds: SegmentRegister,
    /// The extra segment.
    pub es: SegmentRegister,
    /// The instruction; needed for string forms only.
    pub bytes: InstructionBytes,
}

/// An exception that the parent asked to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExceptionFacts {
    /// The vector.
    pub vector: u8,
    /// The error code, if the exception has one.
    pub error_code: Option<u32>,
    /// CR2 of a page fault, DR6 of a debug exception, else zero.
    pub parameter: u64,
    /// The data segment.
    pub ds: SegmentRegister,
    /// The stack segment.
    pub ss: SegmentRegister,
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    /// The instruction.
    pub bytes: InstructionBytes,
}

impl VpFacts {
    /// The size of the code segment, for the decoder.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        if self.efer & EFER_LMA != 0 && self.cs.attributes.long() {
            Mode::Bits64
        } else if self.cs.attributes.default() {
            Mode::Bits32
        } else {
            Mode::Bits16
        }
    }

    fn header(&self, access: InterceptAccess) -> InterceptHeader {
        InterceptHeader {
            vp_index: self.vp_index,
            instruction: InstructionInfo::new()
                .with_length(self.instruction_length & 15)
                .with_cr8(self.cr8 & 15),
            access_type: access,
            execution_state: ExecutionState::new()
                .with_cpl(self.cpl & 3)
                .with_cr0_pe(self.cr0 & CR0_PE != 0)
                .with_cr0_am(self.cr0 & CR0_AM != 0)
                .with_efer_lma(self.efer & EFER_LMA != 0)
                .with_debug_active(self.dr7 & DR7_ENABLES != 0)
                .with_interruption_pending(self.is_interruption_pending)
                .with_interrupt_shadow(self.is_interrupt_shadowed),
            cs: self.cs,
            rip: self.rip,
            rflags: self.rflags,
        }
    }

    const fn sender(&self) -> u64 {
        self.partition_id.0
    }

    /// An access to memory. The cache type is that of ordinary memory, as no client evaluates it.
    #[must_use]
    pub fn memory(&self, facts: &MemoryFacts) -> HvMessage {
        let payload = MemoryIntercept {
            header: self.header(facts.access),
            cache_type: CacheType::WRITE_BACK,
            instruction_byte_count: facts.bytes.count,
            access_info: MemoryAccessInfo::new()
                .with_gva_valid(facts.gva.is_some())
                .with_gva_gpa_valid(facts.gva.is_some()),
            tpr_priority: self.cr8 & 15,
            guest_virtual_address: facts.gva.unwrap_or(0),
            guest_physical_address: facts.gpa,
            instruction_bytes: facts.bytes.bytes,
            ..MemoryIntercept::ZEROED
        };
        HvMessage::new(facts.message_type, self.sender(), &payload)
    }

    /// An access to an I/O port. The instruction length must be right, as the VMM adds it to RIP.
    #[must_use]
    pub fn io_port(&self, facts: &PortFacts) -> HvMessage {
        let [rax, rcx, rsi, rdi] = facts.registers;
        let payload = IoPortIntercept {
            header: self.header(facts.access),
            port_number: facts.port,
            access_info: IoPortAccessInfo::new()
                .with_access_size(facts.size & 7)
                .with_string_op(facts.is_string)
                .with_rep_prefix(facts.is_repeated),
            instruction_byte_count: facts.bytes.count,
            rax,
            instruction_bytes: facts.bytes.bytes,
            ds: facts.ds,
            es: facts.es,
            rcx,
            rsi,
            rdi,
            ..IoPortIntercept::ZEROED
        };
        HvMessage::new(MessageType::X64_IO_PORT_INTERCEPT, self.sender(), &payload)
    }

    /// RDMSR (`READ`) or WRMSR (`WRITE`).
    #[must_use]
    pub fn msr(&self, access: InterceptAccess, msr_number: u32, rax: u64, rdx: u64) -> HvMessage {
        let payload =
            MsrIntercept { header: self.header(access), msr_number, rax, rdx, ..MsrIntercept::ZEROED };
        HvMessage::new(MessageType::X64_MSR_INTERCEPT, self.sender(), &payload)
    }

    /// A hypercall that the parent is to answer, with RAX, RBX, RCX, RDX, R8, RSI and RDI. Parameters in XMM registers
    /// are not offered, so those are not reported.
    #[must_use]
    pub fn hypercall(&self, registers: [u64; 7]) -> HvMessage {
        let [rax, rbx, rcx, rdx, r8, rsi, rdi] = registers;
        let header = self.header(InterceptAccess::EXECUTE);
        let payload =
            HypercallIntercept { header, rax, rbx, rcx, rdx, r8, rsi, rdi, ..HypercallIntercept::ZEROED };
        HvMessage::new(MessageType::HYPERCALL_INTERCEPT, self.sender(), &payload)
    }

    /// CPUID with RAX, RBX, RCX and RDX before it, and what the hypervisor would return in the same order.
    #[must_use]
    pub fn cpuid(&self, registers: [u64; 4], default_result: [u32; 4]) -> HvMessage {
        let [rax, rbx, rcx, rdx] = registers;
        let [default_rax, default_rbx, default_rcx, default_rdx] = default_result.map(u64::from);
        let payload = CpuidIntercept {
            header: self.header(InterceptAccess::EXECUTE),
            rax,
            rcx,
            rdx,
            rbx,
            default_result_rax: default_rax,
            default_result_rcx: default_rcx,
            default_result_rdx: default_rdx,
            default_result_rbx: default_rbx,
        };
        HvMessage::new(MessageType::X64_CPUID_INTERCEPT, self.sender(), &payload)
    }

    /// An exception before its delivery.
    #[must_use]
    pub fn exception(&self, facts: &ExceptionFacts) -> HvMessage {
        let payload = ExceptionIntercept {
            header: self.header(InterceptAccess::EXECUTE),
            exception_vector: u16::from(facts.vector),
            exception_info: ExceptionInfo::new().with_error_code_valid(facts.error_code.is_some()),
            instruction_byte_count: facts.bytes.count,
            error_code: facts.error_code.unwrap_or(0),
            exception_parameter: facts.parameter,
            instruction_bytes: facts.bytes.bytes,
            ds: facts.ds,
            ss: facts.ss,
            gp: facts.gpr,
            ..ExceptionIntercept::ZEROED
        };
        HvMessage::new(MessageType::X64_EXCEPTION_INTERCEPT, self.sender(), &payload)
    }

    /// A triple fault.
    #[must_use]
    pub fn unrecoverable_exception(&self) -> HvMessage {
        self.bare(MessageType::UNRECOVERABLE_EXCEPTION)
    }

    /// HLT that the parent is to see. Cloud Hypervisor resets the VM on it, so an ordinary HLT is never reported.
    #[must_use]
    pub fn halt(&self) -> HvMessage {
        self.bare(MessageType::X64_HALT)
    }

    fn bare(&self, message_type: MessageType) -> HvMessage {
        let payload = HeaderIntercept { header: self.header(InterceptAccess::EXECUTE) };
        HvMessage::new(message_type, self.sender(), &payload)
    }

    /// The end of a level-triggered interrupt, for an IO-APIC in the VMM.
    #[must_use]
    pub fn apic_eoi(&self, vector: u8) -> HvMessage {
        let payload = ApicEoi { vp_index: self.vp_index, interrupt_vector: u32::from(vector) };
        HvMessage::new(MessageType::X64_APIC_EOI, self.sender(), &payload)
    }
}

/// Converts the packed attributes of a VMCB segment (APM 2 §15.5.1, table B-2: descriptor bits 55:52 and 47:40).
#[must_use]
pub const fn attributes_from_svm(packed: u16) -> SegmentAttributes {
    SegmentAttributes::from_bits(packed & 0xff | (packed & 0xf00) << 4)
}

/// Converts to the packed attributes of a VMCB segment; reserved bits are lost.
#[must_use]
pub const fn attributes_to_svm(attributes: SegmentAttributes) -> u16 {
    let bits = attributes.into_bits();
    bits & 0xff | bits >> 4 & 0xf00
}
