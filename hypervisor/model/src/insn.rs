//! A decoder for the integer instructions that touch memory-mapped registers (docs/adr/0003).
//!
//! A nested page fault names a guest-physical address, not an operand. This module turns the instruction bytes
//! into the addresses to read and to write and completes the instruction with the value that was read.
//! What it does not know is [`DecodeError::Unsupported`], and the caller reports an intercept instead.
//!
//! The bytes may have changed since the fault, as another VP can write them: the caller compares the translation
//! of the address given here with the address that faulted before it acts. Segment limits and rights are not checked,
//! because the processor did so before it walked the nested tables.

mod encoding;
mod execute;
#[cfg(test)]
mod tests;

use encoding::{Decoder, ModRm};

/// The longest instruction in bytes (APM 3 §1.1).
pub const MAX_LENGTH: usize = 15;

/// The size of the code segment: CS.L and CS.D (APM 2 §4.7.3 and §4.8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode, virtual-8086 mode, and protected mode with CS.D clear.
    Bits16,
    /// Protected and compatibility mode with CS.D set.
    Bits32,
    /// Long mode with CS.L set.
    Bits64,
}

/// The part of a VP's state that the supported instructions use and change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15, as the encoding numbers them.
    pub gpr: [u64; 16],
    /// The instruction pointer, relative to the code segment.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// The bases of ES, CS, SS, DS, FS and GS. In 64-bit mode only the last two count.
    pub segment_base: [u64; 6],
}

/// Why an instruction was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// The instruction continues beyond the bytes that were given.
    Truncated,
    /// The instruction is not in the supported set, has no memory operand, or is invalid.
    Unsupported,
}

/// An instruction with its memory operands as linear addresses.
///
/// The caller reads [`size`](Self::size) bytes at `read`, passes them to [`complete`](Self::complete) and writes what that
/// returns at `write`. The addresses differ only for MOVS. Both are `None` for a repeated string instruction
/// with a count of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The length of the instruction in bytes.
    pub length: u8,
    /// The size of the memory operand in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// The linear address to read from.
    pub read: Option<u64>,
    /// The linear address to write to.
    pub write: Option<u64>,
    mode: Mode,
    operation: Operation,
}

/// What to do with the operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    /// Register of `size` bytes = memory, extended.
    Load { to: Register, size: u8, signed: bool },
    /// Memory = source.
    Store(Source),
    /// Memory and register change places.
    Exchange(Register),
    /// First operand = first `op` second, where the first is the register or else memory.
    Alu { op: Alu, other: Source, register_first: bool },
    /// Carry = bit of memory, which then changes.
    Bit { op: Bit, bit: u8 },
    /// One iteration of MOVS or STOS; the count and index registers are `address_size` bytes wide.
    String { copies: bool, repeats: bool, address_size: u8 },
    /// A repeated string instruction whose count is zero.
    Nothing,
}

/// The two-operand arithmetic group in the order of its encoding, and TEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alu {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

impl Alu {
    const fn from_code(code: u8) -> Self {
        match code & 7 {
            0 => Self::Add,
            1 => Self::Or,
            2 => Self::Adc,
            3 => Self::Sbb,
            4 => Self::And,
            5 => Self::Sub,
            6 => Self::Xor,
            _ => Self::Cmp,
        }
    }

    const fn keeps_result(self) -> bool {
        !matches!(self, Self::Cmp | Self::Test)
    }
}

/// BT and its relatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bit {
    Test,
    Set,
    Reset,
    Complement,
}

/// A general-purpose register, or one of AH, CH, DH and BH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Register {
    number: u8,
    high: bool,
}

/// An operand that is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Register(Register),
    /// Sign-extended to 64 bits; used up to the size of the operation.
    Immediate(u64),
}

impl Operation {
    /// With the operand in memory first.
    const fn on_memory(op: Alu, other: Source) -> Self {
        Self::Alu { op, other, register_first: false }
    }

    const fn reads(self) -> bool {
        match self {
            Self::Load { .. } | Self::Exchange(_) | Self::Alu { .. } | Self::Bit { .. } => true,
            Self::String { copies, .. } => copies,
            Self::Store(_) | Self::Nothing => false,
        }
    }

    const fn writes(self) -> bool {
        match self {
            Self::Store(_) | Self::Exchange(_) | Self::String { .. } => true,
            Self::Alu { op, register_first, .. } => op.keeps_result() && !register_first,
            Self::Bit { op, .. } => !matches!(op, Bit::Test),
            Self::Load { .. } | Self::Nothing => false,
        }
    }

    /// LOCK is valid on an instruction that reads and writes memory (APM 3 §1.2.5); MOVS has two operands.
    const fn may_be_locked(self) -> bool {
        self.reads() && self.writes() && !matches!(self, Self::String { .. })
    }
}

/// Decodes the instruction at `regs.rip`, whose first bytes are `bytes`.
///
/// # Errors
/// See [`DecodeError`]. An instruction longer than [`MAX_LENGTH`] is unsupported.
pub fn decode(bytes: &[u8], mode: Mode, regs: &Registers) -> Result<Decoded, DecodeError> {
    let mut code = Decoder::new(bytes, mode, regs);
    match code.prefixes()? {
        opcode @ (0xa4 | 0xa5 | 0xaa | 0xab) => string(&code, opcode),
        opcode @ 0xa0..=0xa3 => direct(&mut code, opcode),
        0x0f => {
            let opcode = code.byte()?;
            let modrm = ModRm::read(&mut code)?;
            let (size, operation) = two_byte(&mut code, &modrm, opcode)?;
            code.finish(size, operation, modrm.memory.linear(&code))
        }
        opcode => {
            let modrm = ModRm::read(&mut code)?;
            let (size, operation) = one_byte(&mut code, &modrm, opcode)?;
            code.finish(size, operation, modrm.memory.linear(&code))
        }
    }
}

/// The one-byte opcodes with a ModRM byte (APM 3 §A.1).
fn one_byte(code: &mut Decoder<'_>, modrm: &ModRm, opcode: u8) -> Result<(u8, Operation), DecodeError> {
    let size = code.size(opcode);
    let register = code.register(modrm.reg, size);
    let operation = match opcode {
        0x00..=0x3b if opcode & 4 == 0 => Operation::Alu {
            op: Alu::from_code(opcode >> 3),
            other: Source::Register(register),
            register_first: opcode & 2 != 0,
        },
        0x63 if code.mode == Mode::Bits64 && size != 2 => {
            return Ok((4, Operation::Load { to: register, size, signed: true }));
        }
        0x80 | 0x81 | 0x83 => {
            let immediate = code.immediate(if opcode == 0x81 { size } else { 1 })?;
            Operation::on_memory(Alu::from_code(modrm.reg), Source::Immediate(immediate))
        }
        0x84 | 0x85 => Operation::on_memory(Alu::Test, Source::Register(register)),
        0x86 | 0x87 => Operation::Exchange(register),
        0x88 | 0x89 => Operation::Store(Source::Register(register)),
        0x8a | 0x8b => Operation::Load { to: register, size, signed: false },
        0xc6 | 0xc7 if modrm.extension() == 0 => Operation::Store(Source::Immediate(code.immediate(size)?)),
        0xf6 | 0xf7 if modrm.extension() == 0 => {
            Operation::on_memory(Alu::Test, Source::Immediate(code.immediate(size)?))
        }
        _ => return Err(DecodeError::Unsupported),
    };
    Ok((size, operation))
}

/// The two-byte opcodes: MOVZX, MOVSX, and the BT group with an immediate (APM 3 §A.1).
fn two_byte(code: &mut Decoder<'_>, modrm: &ModRm, opcode: u8) -> Result<(u8, Operation), DecodeError> {
    let size = code.operand_size();
    match opcode {
        0xb6 | 0xb7 | 0xbe | 0xbf => {
            let from = if opcode & 1 == 0 { 1 } else { 2 };
            let to = code.register(modrm.reg, size);
            Ok((from, Operation::Load { to, size, signed: opcode >= 0xbe }))
        }
        0xba => {
            let op = match modrm.extension() {
                4 => Bit::Test,
                5 => Bit::Set,
                6 => Bit::Reset,
                7 => Bit::Complement,
                _ => return Err(DecodeError::Unsupported),
            };
            let bit = code.byte()? & (size * 8 - 1);
            Ok((size, Operation::Bit { op, bit }))
        }
        _ => Err(DecodeError::Unsupported),
    }
}

/// MOV between the accumulator and an absolute address.
fn direct(code: &mut Decoder<'_>, opcode: u8) -> Result<Decoded, DecodeError> {
    let offset = code.unsigned(code.address_size())?;
    let size = code.size(opcode);
    let to = Register::ACCUMULATOR;
    let operation = match opcode & 2 {
        0 => Operation::Load { to, size, signed: false },
        _ => Operation::Store(Source::Register(to)),
    };
    code.finish(size, operation, code.linear(Registers::DS, offset))
}

/// One iteration of MOVS (DS:rSI, which can be overridden, to ES:rDI) or of STOS (to ES:rDI).
fn string(code: &Decoder<'_>, opcode: u8) -> Result<Decoded, DecodeError> {
    let (address_size, repeats) = (code.address_size(), code.repeats());
    let index = |register| code.regs.get(register, address_size);
    let size = code.size(opcode);
    if repeats && index(Register::COUNT) == 0 {
        return code.finish(size, Operation::Nothing, 0);
    }
    let operation = Operation::String { copies: opcode < 0xa8, repeats, address_size };
    let destination = code.regs.linear(code.mode, Registers::ES, index(Register::DESTINATION));
    let decoded = code.finish(size, operation, destination)?;
    let source = code.linear(Registers::DS, index(Register::SOURCE));
    Ok(Decoded { read: decoded.read.map(|_| source), ..decoded })
}
