//! Exit messages as values.

use mshv_bindings::{
    hv_message, hv_message_type_HVMSG_GPA_INTERCEPT as GPA_INTERCEPT,
    hv_message_type_HVMSG_HYPERCALL_INTERCEPT as HYPERCALL_INTERCEPT,
    hv_message_type_HVMSG_UNMAPPED_GPA as UNMAPPED_GPA,
    hv_message_type_HVMSG_UNRECOVERABLE_EXCEPTION as UNRECOVERABLE_EXCEPTION,
    hv_message_type_HVMSG_X64_APIC_EOI as APIC_EOI,
    hv_message_type_HVMSG_X64_IO_PORT_INTERCEPT as IO_PORT_INTERCEPT,
    hv_message_type_HVMSG_X64_MSR_INTERCEPT as MSR_INTERCEPT,
};

use crate::{cpu::Access, raw};

/// A segment as the message has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Linear address of its first byte.
    pub base: u64,
    /// Descriptor attributes, in the layout of a VMCS: L is bit 13, D bit 14.
    pub attributes: u16,
}

/// What all messages but the end of an interrupt begin with (`hv_x64_intercept_message_header`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Index of the processor.
    pub vp: u32,
    /// Bytes of the instruction; 0 when the hypervisor does not know.
    pub instruction_len: u8,
    /// What the guest tried.
    pub access: Access,
    /// 16, 32 or 64: how instructions are decoded.
    pub bitness: u32,
    /// Code segment.
    pub cs: Segment,
    /// The instruction.
    pub rip: u64,
    /// Flags before the instruction.
    pub rflags: u64,
}

/// `hv_x64_io_port_intercept_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoPort {
    /// Common part.
    pub header: Header,
    /// First port.
    pub port: u16,
    /// 1, 2 or 4 bytes.
    pub size: usize,
    /// INS or OUTS.
    pub string: bool,
    /// With a repeat prefix.
    pub repeat: bool,
    /// Source of OUT, destination of IN.
    pub rax: u64,
    /// Segment of the source of OUTS.
    pub ds: Segment,
    /// Segment of the destination of INS.
    pub es: Segment,
}

/// `hv_x64_memory_intercept_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryAccess {
    /// Common part.
    pub header: Header,
    /// Guest-physical address.
    pub gpa: u64,
    /// The instruction, as far as the hypervisor has fetched it.
    pub instruction: [u8; 16],
    /// How many of those bytes there are.
    pub instruction_bytes: usize,
}

/// `hv_x64_msr_intercept_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msr {
    /// Common part.
    pub header: Header,
    /// Which register.
    pub number: u32,
    /// What WRMSR writes.
    pub value: u64,
}

/// `hv_x64_hypercall_intercept_message`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hypercall {
    /// Common part.
    pub header: Header,
    /// The call's control word (TLFS hypercall-interface).
    pub control: u64,
    /// Where the call's input is, or the input itself.
    pub input: u64,
}

/// Why the processor left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An access to an I/O port.
    IoPort(IoPort),
    /// An access to memory that is not there, or not for this.
    Memory(MemoryAccess),
    /// An access to a model-specific register that the hypervisor does not have.
    Msr(Msr),
    /// A hypercall that the hypervisor leaves to the parent.
    Hypercall(Hypercall),
    /// A local APIC has ended a level-triggered interrupt.
    EndOfInterrupt {
        /// Its vector.
        vector: u8,
    },
    /// A triple fault.
    Unrecoverable(Header),
    /// Anything else.
    Unknown {
        /// Message type.
        kind: u32,
        /// Common part, if the message has one.
        header: Header,
    },
}

impl Exit {
    /// Reads the message of a processor that has stopped.
    pub fn of(message: &hv_message) -> Self {
        Self::decode(message.header.message_type, &raw::payload(message))
    }

    pub(super) fn decode(kind: u32, words: &[u64; 30]) -> Self {
        let bytes = words.map(u64::to_le_bytes);
        let payload = Payload(bytes.as_flattened());
        let header = payload.header();
        match kind {
            IO_PORT_INTERCEPT => Self::IoPort(payload.io_port(header)),
            UNMAPPED_GPA | GPA_INTERCEPT => Self::Memory(MemoryAccess {
                header,
                gpa: payload.u64(56),
                instruction: payload.bytes(64),
                instruction_bytes: usize::from(payload.u8(44)).min(16),
            }),
            MSR_INTERCEPT => Self::Msr(Msr {
                header,
                number: payload.u32(40),
                value: payload.u64(48) << 32 | payload.u64(56) & 0xffff_ffff,
            }),
            HYPERCALL_INTERCEPT => {
                Self::Hypercall(Hypercall { header, control: payload.u64(56), input: payload.u64(64) })
            }
            APIC_EOI => Self::EndOfInterrupt { vector: payload.u8(4) },
            UNRECOVERABLE_EXCEPTION => Self::Unrecoverable(header),
            kind => Self::Unknown { kind, header },
        }
    }
}

struct Payload<'a>(&'a [u8]);

impl Payload<'_> {
    /// All callers name offsets within the 240 bytes.
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[at..at + N]);
        bytes
    }

    fn u8(&self, at: usize) -> u8 {
        self.0[at]
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    fn segment(&self, at: usize) -> Segment {
        Segment { base: self.u64(at), attributes: self.u16(at + 14) }
    }

    fn header(&self) -> Header {
        const LONG_MODE_ACTIVE: u16 = 1 << 4;
        const LONG: u16 = 1 << 13;
        const DEFAULT_32: u16 = 1 << 14;
        let cs = self.segment(8);
        let long = self.u16(6) & LONG_MODE_ACTIVE != 0 && cs.attributes & LONG != 0;
        let bitness = match (long, cs.attributes & DEFAULT_32 != 0) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        };
        let access = match self.u8(5) {
            0 => Access::Read,
            1 => Access::Write,
            _ => Access::Execute,
        };
        Header {
            vp: self.u32(0),
            instruction_len: self.u8(4) & 0xf,
            access,
            bitness,
            cs,
            rip: self.u64(24),
            rflags: self.u64(32),
        }
    }

    fn io_port(&self, header: Header) -> IoPort {
        let info = self.u8(42);
        let size = match info & 7 {
            2 => 2,
            4 => 4,
            _ => 1,
        };
        IoPort {
            header,
            port: self.u16(40),
            size,
            string: info & 1 << 3 != 0,
            repeat: info & 1 << 4 != 0,
            rax: self.u64(48),
            ds: self.segment(72),
            es: self.segment(88),
        }
    }
}
