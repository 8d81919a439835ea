//! Instructions with one operand in device memory.
//!
//! What compilers and kernels use for registers in memory: moves, with and without extension, logic and
//! comparison, and STOS. Anything else is refused by name rather than guessed.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use mshv_bindings::StandardRegisters;

/// The memory operand.
pub trait Target {
    /// The instruction reads it.
    fn read(&mut self, data: &mut [u8]);
    /// The instruction writes it.
    fn write(&mut self, data: &[u8]);
}

const CARRY: u64 = 1 << 0;
const PARITY: u64 = 1 << 2;
const ADJUST: u64 = 1 << 4;
const ZERO: u64 = 1 << 6;
const SIGN: u64 = 1 << 7;
const DIRECTION: u64 = 1 << 10;
const OVERFLOW: u64 = 1 << 11;

/// Executes the instruction in `bytes`, RIP included. A repeated STOS does one element for each call and
/// leaves RIP where it is until the last.
///
/// # Errors
///
/// The name of an instruction that is not for device memory; `regs` are then unchanged.
pub fn execute(
    bytes: &[u8],
    bitness: u32,
    regs: &mut StandardRegisters,
    target: &mut impl Target,
) -> Result<(), String> {
    let instruction = Decoder::with_ip(bitness, bytes, regs.rip, DecoderOptions::NONE).decode();
    let mut machine = Machine { instruction: &instruction, regs, target };
    let done = match instruction.mnemonic() {
        Mnemonic::Mov => machine.mov(),
        Mnemonic::Movzx => machine.extend(false),
        Mnemonic::Movsx | Mnemonic::Movsxd => machine.extend(true),
        Mnemonic::And | Mnemonic::Or | Mnemonic::Xor | Mnemonic::Add | Mnemonic::Sub => {
            machine.arithmetic(true)
        }
        Mnemonic::Test | Mnemonic::Cmp => machine.arithmetic(false),
        Mnemonic::Stosb | Mnemonic::Stosd | Mnemonic::Stosq | Mnemonic::Stosw => {
            return machine.store_string();
        }
        _ => None,
    };
    done.ok_or_else(|| format!("{:?}", instruction.code()))?;
    regs.rip = instruction.next_ip();
    Ok(())
}

struct Machine<'a, T> {
    instruction: &'a Instruction,
    regs: &'a mut StandardRegisters,
    target: &'a mut T,
}

impl<T: Target> Machine<'_, T> {
    /// Size of the memory operand; `None` for one that is no integer.
    fn size(&self) -> Option<usize> {
        Some(self.instruction.memory_size().size()).filter(|size| matches!(size, 1 | 2 | 4 | 8))
    }

    fn load(&mut self, size: usize) -> u64 {
        let mut data = [0; 8];
        self.target.read(&mut data[..size]);
        u64::from_le_bytes(data)
    }

    fn store(&mut self, value: u64, size: usize) {
        self.target.write(&value.to_le_bytes()[..size]);
    }

    fn in_memory(&self, operand: u32) -> bool {
        self.instruction.op_kind(operand) == OpKind::Memory
    }

    /// The value of a register or immediate operand.
    fn value(&self, operand: u32) -> Option<u64> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => read(self.regs, self.instruction.op_register(operand)),
            OpKind::Memory => None,
            _ => self.instruction.try_immediate(operand).ok(),
        }
    }

    fn mov(&mut self) -> Option<()> {
        let size = self.size()?;
        if self.in_memory(0) {
            let value = self.value(1)?;
            self.store(value, size);
            return Some(());
        }
        let to = self.instruction.op0_register();
        read(self.regs, to)?;
        let value = self.load(size);
        write(self.regs, to, value)
    }

    fn extend(&mut self, signed: bool) -> Option<()> {
        let size = self.size()?;
        let value = self.load(size);
        let value = if signed { sign_extend(value, size) } else { value };
        write(self.regs, self.instruction.op0_register(), value)
    }

    /// Two-operand arithmetic; `keep` stores the result in the first operand.
    fn arithmetic(&mut self, keep: bool) -> Option<()> {
        let size = self.size()?;
        let memory_first = self.in_memory(0);
        let other = self.value(u32::from(memory_first))?;
        let memory = self.load(size);
        let (a, b) = if memory_first { (memory, other) } else { (other, memory) };
        let (result, flags) = compute(self.instruction.mnemonic(), a, b, size);
        let affected = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;
        self.regs.rflags = self.regs.rflags & !affected | flags;
        match (keep, memory_first) {
            (false, _) => {}
            (true, true) => self.store(result, size),
            (true, false) => write(self.regs, self.instruction.op0_register(), result)?,
        }
        Some(())
    }

    fn store_string(&mut self) -> Result<(), String> {
        let size = self.instruction.memory_size().size();
        let (index, counter) = match self.instruction.op0_kind() {
            OpKind::MemoryESRDI => (Register::RDI, Register::RCX),
            OpKind::MemoryESEDI => (Register::EDI, Register::ECX),
            _ => (Register::DI, Register::CX),
        };
        let get = |regs: &StandardRegisters, register| read(regs, register).unwrap_or_default();
        let repeated = self.instruction.has_rep_prefix() || self.instruction.has_repne_prefix();
        let left = if repeated { get(self.regs, counter) } else { 1 };
        if left > 0 {
            let value = self.regs.rax;
            self.store(value, size);
            let step = size as u64;
            let step = if self.regs.rflags & DIRECTION == 0 { step } else { step.wrapping_neg() };
            let to = get(self.regs, index).wrapping_add(step);
            write(self.regs, index, to);
        }
        if repeated && left > 0 {
            write(self.regs, counter, left - 1);
        }
        if left <= 1 {
            self.regs.rip = self.instruction.next_ip();
        }
        Ok(())
    }
}

fn sign_extend(value: u64, size: usize) -> u64 {
    let unused = 64 - 8 * size;
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

/// Result and flags of an operation on `size` bytes.
fn compute(mnemonic: Mnemonic, a: u64, b: u64, size: usize) -> (u64, u64) {
    let mask = u64::MAX >> (64 - 8 * size);
    let sign = 1 << (8 * size - 1);
    let (a, b) = (a & mask, b & mask);
    let result = mask
        & match mnemonic {
            Mnemonic::And | Mnemonic::Test => a & b,
            Mnemonic::Or => a | b,
            Mnemonic::Xor => a ^ b,
            Mnemonic::Add => a.wrapping_add(b),
            _ => a.wrapping_sub(b),
        };
    let (carry, overflow) = match mnemonic {
        Mnemonic::Add => (result < a, !(a ^ b) & (a ^ result) & sign != 0),
        Mnemonic::Sub | Mnemonic::Cmp => (a < b, (a ^ b) & (a ^ result) & sign != 0),
        _ => (false, false),
    };
    let arithmetic = matches!(mnemonic, Mnemonic::Add | Mnemonic::Sub | Mnemonic::Cmp);
    let flags = [
        (CARRY, carry),
        (PARITY, (result & 0xff).count_ones().is_multiple_of(2)),
        (ADJUST, arithmetic && (a ^ b ^ result) & 0x10 != 0),
        (ZERO, result == 0),
        (SIGN, result & sign != 0),
        (OVERFLOW, overflow),
    ];
    (result, flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum())
}

fn slot(regs: &mut StandardRegisters, full: Register) -> Option<&mut u64> {
    Some(match full {
        Register::RAX => &mut regs.rax,
        Register::RBX => &mut regs.rbx,
        Register::RCX => &mut regs.rcx,
        Register::RDX => &mut regs.rdx,
        Register::RSI => &mut regs.rsi,
        Register::RDI => &mut regs.rdi,
        Register::RSP => &mut regs.rsp,
        Register::RBP => &mut regs.rbp,
        Register::R8 => &mut regs.r8,
        Register::R9 => &mut regs.r9,
        Register::R10 => &mut regs.r10,
        Register::R11 => &mut regs.r11,
        Register::R12 => &mut regs.r12,
        Register::R13 => &mut regs.r13,
        Register::R14 => &mut regs.r14,
        Register::R15 => &mut regs.r15,
        _ => return None,
    })
}

/// AH, BH, CH and DH are the second byte of their register.
fn shift(register: Register) -> u32 {
    match register {
        Register::AH | Register::BH | Register::CH | Register::DH => 8,
        _ => 0,
    }
}

fn read(regs: &StandardRegisters, register: Register) -> Option<u64> {
    let mut copy = *regs;
    let value = *slot(&mut copy, register.full_register())?;
    let mask = u64::MAX >> (64 - 8 * register.size());
    Some(value >> shift(register) & mask)
}

/// A write of 32 bits clears the upper half; narrower ones leave the rest alone.
fn write(regs: &mut StandardRegisters, register: Register, value: u64) -> Option<()> {
    let slot = slot(regs, register.full_register())?;
    let mask = u64::MAX >> (64 - 8 * register.size());
    *slot = match register.size() {
        4 | 8 => value & mask,
        _ => *slot & !(mask << shift(register)) | (value & mask) << shift(register),
    };
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register of eight bytes.
    struct Cell(u64, Vec<usize>);

    impl Target for Cell {
        fn read(&mut self, data: &mut [u8]) {
            let len = data.len();
            data.copy_from_slice(&self.0.to_le_bytes()[..len]);
        }

        fn write(&mut self, data: &[u8]) {
            let mut bytes = self.0.to_le_bytes();
            bytes[..data.len()].copy_from_slice(data);
            self.0 = u64::from_le_bytes(bytes);
            self.1.push(data.len());
        }
    }

    fn run(bytes: &[u8], regs: &mut StandardRegisters, cell: u64) -> Cell {
        let mut cell = Cell(cell, Vec::new());
        execute(bytes, 64, regs, &mut cell).unwrap();
        cell
    }

    #[test]
    fn moves_have_the_width_of_their_operand() {
        let mut regs = StandardRegisters { rax: u64::MAX, rcx: 0x1122_3344_5566_7788, ..Default::default() };
        // mov eax, [rdi]: the upper half becomes zero.
        run(&[0x8b, 0x07], &mut regs, 0xaaaa_bbbb_cccc_dddd);
        assert_eq!((regs.rax, regs.rip), (0xcccc_dddd, 2));
        // mov [rdi], cx
        assert_eq!(run(&[0x66, 0x89, 0x0f], &mut regs, 0).1, [2]);
        // mov [rdi], ch
        assert_eq!(run(&[0x88, 0x2f], &mut regs, 0).0, 0x77);
        // mov qword [rdi], -2: the immediate is sign-extended.
        assert_eq!(run(&[0x48, 0xc7, 0x07, 0xfe, 0xff, 0xff, 0xff], &mut regs, 0).0, u64::MAX - 1);
    }

    #[test]
    fn extensions_fill_the_register() {
        let mut regs = StandardRegisters::default();
        // movzx eax, byte [rdi]
        run(&[0x0f, 0xb6, 0x07], &mut regs, 0x1ff);
        assert_eq!(regs.rax, 0xff);
        // movsx rax, word [rdi]
        run(&[0x48, 0x0f, 0xbf, 0x07], &mut regs, 0x8000);
        assert_eq!(regs.rax, 0xffff_ffff_ffff_8000);
        // movsxd rax, dword [rdi]
        run(&[0x48, 0x63, 0x07], &mut regs, 0x8000_0000);
        assert_eq!(regs.rax, 0xffff_ffff_8000_0000);
    }

    #[test]
    fn logic_and_comparison_set_the_flags() {
        let mut regs = StandardRegisters { rflags: 2 | CARRY, ..Default::default() };
        // or dword [rdi], 1 << 16
        assert_eq!(run(&[0x81, 0x0f, 0, 0, 1, 0], &mut regs, 1).0, 0x1_0001);
        assert_eq!(regs.rflags, 2);
        // test dword [rdi], 1: zero and parity.
        assert!(run(&[0xf7, 0x07, 1, 0, 0, 0], &mut regs, 0xfe).1.is_empty());
        assert_eq!(regs.rflags, 2 | ZERO | PARITY);
        // cmp byte [rdi], 1: 0 - 1 borrows.
        run(&[0x80, 0x3f, 1], &mut regs, 0);
        assert_eq!(regs.rflags, 2 | CARRY | SIGN | ADJUST | PARITY);
        // cmp byte [rdi], 1: 0x80 - 1 overflows.
        run(&[0x80, 0x3f, 1], &mut regs, 0x80);
        assert_eq!(regs.rflags, 2 | OVERFLOW | ADJUST);
    }

    #[test]
    fn repeated_store_makes_one_step_for_each_exit() {
        let mut regs = StandardRegisters { rax: 5, rcx: 2, rdi: 0x1000, ..Default::default() };
        // rep stosd
        assert_eq!(run(&[0xf3, 0xab], &mut regs, 0).0, 5);
        assert_eq!((regs.rcx, regs.rdi, regs.rip), (1, 0x1004, 0));
        run(&[0xf3, 0xab], &mut regs, 0);
        assert_eq!((regs.rcx, regs.rdi, regs.rip), (0, 0x1008, 2));
    }

    #[test]
    fn other_instructions_are_refused_and_change_nothing() {
        let mut regs = StandardRegisters { rip: 7, ..Default::default() };
        let before = regs;
        // lock cmpxchg [rdi], ecx, then nothing at all, then movups xmm0, [rdi].
        for bytes in [&[0xf0, 0x0f, 0xb1, 0x0f][..], &[], &[0x0f, 0x10, 0x07]] {
            assert!(execute(bytes, 64, &mut regs, &mut Cell(0, Vec::new())).is_err());
            assert_eq!(regs, before);
        }
    }

    #[test]
    fn narrow_code_keeps_narrow_pointers() {
        // mov eax, [bx] in 16-bit code needs an operand prefix.
        let mut regs = StandardRegisters::default();
        execute(&[0x66, 0x8b, 0x07], 16, &mut regs, &mut Cell(0x1234_5678, Vec::new())).unwrap();
        assert_eq!(regs.rax, 0x1234_5678);
    }
}
