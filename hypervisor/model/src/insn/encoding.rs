//! Prefixes, ModRM, SIB, displacements and immediates (APM 3 chapter 1).

use super::{DecodeError, Decoded, MAX_LENGTH, Mode, Operation, Register, Registers};
use crate::ensure;

/// The bits of an operand of `size` bytes.
pub(super) const fn mask(size: u8) -> u64 {
    match size {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

/// Copies the top bit of a number of `size` bytes into all higher bits.
pub(super) const fn sign_extended(value: u64, size: u8) -> u64 {
    let top = mask(size) ^ (mask(size) >> 1);
    ((value & mask(size)) ^ top).wrapping_sub(top)
}

/// One instruction on its way: its bytes and how many of them have been used, its prefixes, and what it acts on.
pub(super) struct Decoder<'a> {
    pub(super) mode: Mode,
    pub(super) regs: &'a Registers,
    bytes: &'a [u8],
    length: u8,
    prefixes: Prefixes,
}

#[derive(Default)]
struct Prefixes {
    repeats: bool,
    locks: bool,
    other_operand: bool,
    other_address: bool,
    segment: Option<u8>,
    rex: u8,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8], mode: Mode, regs: &'a Registers) -> Self {
        Self { mode, regs, bytes, length: 0, prefixes: Prefixes::default() }
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let at = usize::from(self.length);
        ensure(at < MAX_LENGTH, DecodeError::Unsupported)?;
        let byte = self.bytes.get(at).copied().ok_or(DecodeError::Truncated)?;
        self.length += 1;
        Ok(byte)
    }

    /// Reads a little-endian number of `size` bytes.
    pub(super) fn unsigned(&mut self, size: u8) -> Result<u64, DecodeError> {
        (0..size).try_fold(0, |value, at| Ok(value | u64::from(self.byte()?) << (at * 8)))
    }

    /// Reads a number of `size` bytes and extends its sign.
    fn signed(&mut self, size: u8) -> Result<u64, DecodeError> {
        Ok(sign_extended(self.unsigned(size)?, size))
    }

    /// Reads an immediate for an operand of `size` bytes; for 8 bytes only 4 are encoded.
    pub(super) fn immediate(&mut self, size: u8) -> Result<u64, DecodeError> {
        self.signed(size.min(4))
    }

    /// Reads the prefixes and returns the opcode byte that follows.
    pub(super) fn prefixes(&mut self) -> Result<u8, DecodeError> {
        loop {
            let byte = self.byte()?;
            let mut rex = 0;
            match byte {
                0x26 | 0x2e | 0x36 | 0x3e => self.override_segment((byte >> 3) & 3),
                0x64 | 0x65 => self.prefixes.segment = Some(byte - 0x60),
                0x66 => self.prefixes.other_operand = true,
                0x67 => self.prefixes.other_address = true,
                0xf0 => self.prefixes.locks = true,
                0xf2 | 0xf3 => self.prefixes.repeats = true,
                0x40..=0x4f if self.mode == Mode::Bits64 => rex = byte,
                _ => return Ok(byte),
            }
            // A REX prefix counts only directly before the opcode (APM 3 §1.2.7).
            self.prefixes.rex = rex;
        }
    }

    /// In 64-bit mode, the overrides with ES, CS, SS and DS are ignored (APM 3 §1.2.4).
    fn override_segment(&mut self, segment: u8) {
        if self.mode != Mode::Bits64 {
            self.prefixes.segment = Some(segment);
        }
    }

    /// The operand size in bytes of an instruction that is not limited to one byte.
    pub(super) const fn operand_size(&self) -> u8 {
        match self.mode {
            Mode::Bits64 if self.prefixes.rex & 8 != 0 => 8,
            Mode::Bits16 if !self.prefixes.other_operand => 2,
            Mode::Bits64 | Mode::Bits32 if self.prefixes.other_operand => 2,
            _ => 4,
        }
    }

    /// The size of an effective address in bytes.
    pub(super) const fn address_size(&self) -> u8 {
        match (self.mode, self.prefixes.other_address) {
            (Mode::Bits64, false) => 8,
            (Mode::Bits64, true) | (Mode::Bits32, false) | (Mode::Bits16, true) => 4,
            (Mode::Bits32, true) | (Mode::Bits16, false) => 2,
        }
    }

    /// The register that a ModRM field names for an operand of `size` bytes.
    pub(super) const fn register(&self, number: u8, size: u8) -> Register {
        let high = size == 1 && self.prefixes.rex == 0 && number >= 4;
        Register { number: if high { number - 4 } else { number }, high }
    }

    /// The operand size in bytes of an opcode whose lowest bit says whether it is limited to one byte.
    pub(super) const fn size(&self, opcode: u8) -> u8 {
        if opcode & 1 == 0 { 1 } else { self.operand_size() }
    }

    /// Whether there is a REP prefix.
    pub(super) const fn repeats(&self) -> bool {
        self.prefixes.repeats
    }

    /// Adds the base of `segment`, or of the segment that overrides it.
    pub(super) fn linear(&self, segment: u8, offset: u64) -> u64 {
        self.regs.linear(self.mode, self.prefixes.segment.unwrap_or(segment), offset)
    }

    /// The whole instruction, whose operand in memory is at `address`.
    pub(super) fn finish(
        &self,
        size: u8,
        operation: Operation,
        address: u64,
    ) -> Result<Decoded, DecodeError> {
        ensure(!self.prefixes.locks || operation.may_be_locked(), DecodeError::Unsupported)?;
        Ok(Decoded {
            length: self.length,
            size,
            read: operation.reads().then_some(address),
            write: operation.writes().then_some(address),
            mode: self.mode,
            operation,
        })
    }
}

/// A ModRM byte whose second operand is in memory, with the SIB byte and the displacement.
pub(super) struct ModRm {
    /// The register field, extended by REX.R.
    pub(super) reg: u8,
    pub(super) memory: Memory,
}

/// An address before registers are looked up.
#[derive(Default)]
pub(super) struct Memory {
    base: Option<u8>,
    /// Number and shift.
    index: Option<(u8, u8)>,
    displacement: u64,
    is_rip_relative: bool,
    /// The base is rSP or rBP, so that the segment is SS unless overridden.
    is_stack: bool,
}

impl ModRm {
    pub(super) fn read(code: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let byte = code.byte()?;
        let (mode, rm) = (byte >> 6, byte & 7);
        ensure(mode != 3, DecodeError::Unsupported)?;
        let memory = match code.address_size() {
            2 => Memory::read_16(code, mode, rm)?,
            _ => Memory::read_32(code, mode, rm)?,
        };
        Ok(Self { reg: (byte >> 3) & 7 | (code.prefixes.rex & 4) << 1, memory })
    }

    /// The register field where it extends the opcode; REX.R does not count there.
    pub(super) const fn extension(&self) -> u8 {
        self.reg & 7
    }
}

impl Memory {
    /// The 16-bit forms (APM 3 §1.4.3, table 1-12).
    fn read_16(code: &mut Decoder<'_>, mode: u8, rm: u8) -> Result<Self, DecodeError> {
        const BX: u8 = 3;
        const BP: u8 = 5;
        const SI: u8 = 6;
        const DI: u8 = 7;
        let (base, index) = match rm {
            0 => (BX, Some(SI)),
            1 => (BX, Some(DI)),
            2 => (BP, Some(SI)),
            3 => (BP, Some(DI)),
            4 => (SI, None),
            5 => (DI, None),
            6 if mode == 0 => return Ok(Self { displacement: code.signed(2)?, ..Self::default() }),
            6 => (BP, None),
            _ => (BX, None),
        };
        let displacement = if mode == 0 { 0 } else { code.signed(mode)? };
        let index = index.map(|number| (number, 0));
        Ok(Self { base: Some(base), index, displacement, is_stack: base == BP, ..Self::default() })
    }

    /// The 32-bit and 64-bit forms with an optional SIB byte (APM 3 §1.4.2 and §1.4.4).
    fn read_32(code: &mut Decoder<'_>, mode: u8, rm: u8) -> Result<Self, DecodeError> {
        const RSP: u8 = 4;
        const RBP: u8 = 5;
        let mut this = Self::default();
        let mut base = rm;
        if rm == 4 {
            let sib = code.byte()?;
            let index = (sib >> 3) & 7 | (code.prefixes.rex & 2) << 2;
            this.index = (index != RSP).then_some((index, sib >> 6));
            base = sib & 7;
        }
        let has_base = base != RBP || mode != 0;
        if has_base {
            this.base = Some(base | (code.prefixes.rex & 1) << 3);
        }
        this.is_stack = matches!(this.base, Some(RSP | RBP));
        this.is_rip_relative = !has_base && rm != 4 && code.mode == Mode::Bits64;
        this.displacement = match mode {
            0 if has_base => 0,
            1 => code.signed(1)?,
            _ => code.signed(4)?,
        };
        Ok(this)
    }

    /// The linear address, for an instruction of `length` bytes.
    pub(super) fn linear(&self, code: &Decoder<'_>) -> u64 {
        let regs = code.regs;
        let mut offset = self.displacement;
        if self.is_rip_relative {
            offset = offset.wrapping_add(regs.rip).wrapping_add(u64::from(code.length));
        }
        if let Some(base) = self.base {
            offset = offset.wrapping_add(regs.get(Register { number: base, high: false }, 8));
        }
        if let Some((number, shift)) = self.index {
            offset = offset.wrapping_add(regs.get(Register { number, high: false }, 8) << shift);
        }
        let segment = if self.is_stack { Registers::SS } else { Registers::DS };
        code.linear(segment, offset & mask(code.address_size()))
    }
}
