//! Register access, arithmetic and flags of the decoded instructions (APM 1 §3.1.4, APM 3 chapter 3).

use super::encoding::{mask, sign_extended};
use super::{Alu, Bit, Decoded, Mode, Operation, Register, Registers, Source};

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const DIRECTION: u64 = 1 << 10;
const OVERFLOW: u64 = 1 << 11;
const RESUME: u64 = 1 << 16;

impl Register {
    pub(super) const ACCUMULATOR: Self = Self { number: 0, high: false };
    pub(super) const COUNT: Self = Self { number: 1, high: false };
    pub(super) const SOURCE: Self = Self { number: 6, high: false };
    pub(super) const DESTINATION: Self = Self { number: 7, high: false };
}

impl Registers {
    pub(super) const ES: u8 = 0;
    pub(super) const SS: u8 = 2;
    pub(super) const DS: u8 = 3;
    const FS: u8 = 4;

    /// Reads the low `size` bytes of a register.
    pub(super) const fn get(&self, register: Register, size: u8) -> u64 {
        // The mask keeps the index inside the array for any encoding.
        let whole = self.gpr[(register.number & 15) as usize];
        if register.high { whole >> 8 & 0xff } else { whole & mask(size) }
    }

    /// Writes the low `size` bytes of a register. 4 bytes clear the upper half (APM 1 §3.1.2), 1 and 2 keep the rest.
    const fn set(&mut self, register: Register, size: u8, value: u64) {
        let whole = &mut self.gpr[(register.number & 15) as usize];
        *whole = match size {
            1 if register.high => *whole & !0xff00 | (value & 0xff) << 8,
            1 | 2 => *whole & !mask(size) | value & mask(size),
            _ => value & mask(size),
        };
    }

    const fn source(&self, source: Source, size: u8) -> u64 {
        match source {
            Source::Register(register) => self.get(register, size),
            Source::Immediate(value) => value & mask(size),
        }
    }

    /// Adds the base of a segment to an offset, as the mode prescribes (APM 2 §4.5.3).
    pub(super) fn linear(&self, mode: Mode, segment: u8, offset: u64) -> u64 {
        let base = self.segment_base.get(usize::from(segment)).copied().unwrap_or(0);
        match mode {
            Mode::Bits64 if segment < Self::FS => offset,
            Mode::Bits64 => base.wrapping_add(offset),
            Mode::Bits16 | Mode::Bits32 => base.wrapping_add(offset) & mask(4),
        }
    }
}

impl Decoded {
    /// Executes the instruction with the value read from memory (ignored if there is none to read) and returns the
    /// value to write, if there is one.
    ///
    /// Registers, flags and RIP are those after the instruction; a repeated string instruction that has not ended
    /// keeps its RIP. The caller works on a copy of the registers where the write can still fail, and it raises the
    /// trap for RFLAGS.TF itself.
    #[must_use]
    pub fn complete(&self, read: u64, regs: &mut Registers) -> Option<u64> {
        let read = read & mask(self.size);
        let mut is_done = true;
        let result = match self.operation {
            Operation::Load { to, size, signed } => {
                regs.set(to, size, if signed { sign_extended(read, self.size) } else { read });
                0
            }
            Operation::Store(source) => regs.source(source, self.size),
            Operation::Exchange(register) => {
                let old = regs.get(register, self.size);
                regs.set(register, self.size, read);
                old
            }
            Operation::Alu { op, other, register_first } => {
                self.arithmetic(op, other, register_first, read, regs)
            }
            Operation::Bit { op, bit } => {
                regs.rflags = regs.rflags & !CARRY | (read >> bit & 1);
                match op {
                    Bit::Test => read,
                    Bit::Set => read | 1 << bit,
                    Bit::Reset => read & !(1 << bit),
                    Bit::Complement => read ^ 1 << bit,
                }
            }
            Operation::String { copies, repeats, address_size } => {
                is_done = self.advance(copies, repeats, address_size, regs);
                if copies { read } else { regs.get(Register::ACCUMULATOR, self.size) }
            }
            Operation::Nothing => 0,
        };
        if is_done {
            let next = regs.rip.wrapping_add(u64::from(self.length));
            regs.rip = if self.mode == Mode::Bits64 { next } else { next & mask(4) };
            regs.rflags &= !RESUME;
        }
        self.write.map(|_| result)
    }

    fn arithmetic(
        &self,
        op: Alu,
        other: Source,
        register_first: bool,
        read: u64,
        regs: &mut Registers,
    ) -> u64 {
        let value = regs.source(other, self.size);
        let (first, second) = if register_first { (value, read) } else { (read, value) };
        let (result, flags) = alu(op, first, second, self.size, regs.rflags);
        regs.rflags = flags;
        if let (Source::Register(register), true) = (other, register_first && op.keeps_result()) {
            regs.set(register, self.size, result);
        }
        result
    }

    /// Moves the index registers by one element and counts down; returns whether the instruction has ended.
    fn advance(&self, copies: bool, repeats: bool, address_size: u8, regs: &mut Registers) -> bool {
        let size = u64::from(self.size);
        let step = if regs.rflags & DIRECTION == 0 { size } else { size.wrapping_neg() };
        let mut add = |register, step| {
            let value = regs.get(register, address_size).wrapping_add(step) & mask(address_size);
            regs.set(register, address_size, value);
            value
        };
        add(Register::DESTINATION, step);
        if copies {
            add(Register::SOURCE, step);
        }
        !repeats || add(Register::COUNT, u64::MAX) == 0
    }
}

/// Computes a result of `size` bytes and the flags that go with it. The adjust flag, undefined after a logical
/// operation, is cleared.
fn alu(op: Alu, first: u64, second: u64, size: u8, flags: u64) -> (u64, u64) {
    let carry = flags & CARRY;
    let top = mask(size) ^ (mask(size) >> 1);
    // Bit n of `carries` is the carry or borrow out of position n.
    let (result, carries, overflow) = match op {
        Alu::Add | Alu::Adc => {
            let carry = if op == Alu::Adc { carry } else { 0 };
            let sum = first.wrapping_add(second).wrapping_add(carry);
            (sum, first & second | (first | second) & !sum, (first ^ sum) & (second ^ sum))
        }
        Alu::Sub | Alu::Sbb | Alu::Cmp => {
            let borrow = if op == Alu::Sbb { carry } else { 0 };
            let difference = first.wrapping_sub(second).wrapping_sub(borrow);
            let borrows = !first & second | (!first | second) & difference;
            (difference, borrows, (first ^ second) & (first ^ difference))
        }
        Alu::And | Alu::Test => (first & second, 0, 0),
        Alu::Or => (first | second, 0, 0),
        Alu::Xor => (first ^ second, 0, 0),
    };
    let result = result & mask(size);
    let is_even = (result & 0xff).count_ones().is_multiple_of(2);
    let updates = [
        (CARRY, carries & top != 0),
        (PARITY, is_even),
        (ADJUST, carries & 8 != 0),
        (ZERO, result == 0),
        (SIGN, result & top != 0),
        (OVERFLOW, overflow & top != 0),
    ];
    let flags = updates
        .into_iter()
        .fold(flags, |flags, (flag, is_set)| if is_set { flags | flag } else { flags & !flag });
    (result, flags)
}
