//! The decoder against iced-x86, and the semantics against wide arithmetic.

use super::*;
use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register as IcedRegister,
};
use proptest::prelude::*;
use std::vec::Vec;

const MODES: [Mode; 3] = [Mode::Bits16, Mode::Bits32, Mode::Bits64];

/// Distinct values, so that a wrong register or base gives a wrong address.
fn registers() -> Registers {
    Registers {
        gpr: core::array::from_fn(|n| {
            0x0123_4567_89ab_cdef_u64.wrapping_mul(2 * n as u64 + 1).rotate_left(n as u32)
        }),
        rip: 0xffff_8000_1234_5678,
        rflags: 0x2,
        segment_base: core::array::from_fn(|n| 0x7000_0000 + 0x0123_4000 * n as u64),
    }
}

fn iced(bytes: &[u8], mode: Mode, rip: u64) -> Option<Instruction> {
    let bits = match mode {
        Mode::Bits16 => 16,
        Mode::Bits32 => 32,
        Mode::Bits64 => 64,
    };
    let bytes = &bytes[..bytes.len().min(MAX_LENGTH)];
    let instruction = Decoder::with_ip(bits, bytes, rip, DecoderOptions::AMD).decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// What iced says of the memory operand numbered `operand`.
fn linear(instruction: &Instruction, operand: u32, mode: Mode, regs: &Registers) -> u64 {
    let value = |register: IcedRegister| {
        if register.is_segment_register() {
            let number = register.number();
            return if mode == Mode::Bits64 && number < 4 { 0 } else { regs.segment_base[number] };
        }
        let whole = regs.gpr[register.full_register().number()];
        match register.size() {
            2 => whole & 0xffff,
            4 => whole & 0xffff_ffff,
            _ => whole,
        }
    };
    let address = instruction
        .virtual_address(operand, 0, |register, _, _| Some(value(register)))
        .expect("the registers are known");
    if mode == Mode::Bits64 { address } else { address & 0xffff_ffff }
}

fn memory_operand(instruction: &Instruction) -> Option<u32> {
    let is_memory = |n: &u32| {
        let kind = instruction.op_kind(*n);
        !matches!(kind, OpKind::Register | OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
            && !format_is_immediate(kind)
    };
    (0..instruction.op_count()).find(is_memory)
}

fn format_is_immediate(kind: OpKind) -> bool {
    use OpKind as K;
    matches!(
        kind,
        K::Immediate8
            | K::Immediate16
            | K::Immediate32
            | K::Immediate64
            | K::Immediate8to16
            | K::Immediate8to32
            | K::Immediate8to64
            | K::Immediate32to64
            | K::Immediate8_2nd
            | K::FarBranch16
            | K::FarBranch32
    )
}

/// Whether the decoder promises to know this instruction.
fn is_promised(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    if memory_operand(instruction).is_none() {
        return false;
    }
    let operands = 0..instruction.op_count();
    let has_other_register = operands
        .clone()
        .any(|n| instruction.op_kind(n) == OpKind::Register && !instruction.op_register(n).is_gpr());
    if has_other_register {
        return false;
    }
    match instruction.mnemonic() {
        M::Mov | M::Movzx | M::Movsx | M::Xchg | M::Add | M::Or | M::Adc | M::Sbb | M::And | M::Sub => true,
        M::Xor | M::Cmp | M::Movsb | M::Movsw | M::Movsd | M::Movsq => true,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => true,
        M::Bt | M::Bts | M::Btr | M::Btc => {
            operands.clone().any(|n| instruction.op_kind(n) == OpKind::Immediate8)
        }
        M::Movsxd => instruction.op_register(0).size() != 2,
        M::Test => true,
        _ => false,
    }
}

/// Opcodes whose aliases iced accepts and compilers do not produce: 82 /r, F6 /1 and F7 /1.
fn is_alias(instruction: &Instruction, bytes: &[u8]) -> bool {
    let is_64 = instruction.code_size() == iced_x86::CodeSize::Code64;
    let is_prefix = |byte: u8| {
        matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
            || is_64 && (0x40..=0x4f).contains(&byte)
    };
    let mut rest = bytes.iter().copied().skip_while(|byte| is_prefix(*byte));
    match (rest.next(), rest.next()) {
        (Some(0x82), _) => true,
        (Some(0xf6 | 0xf7), Some(modrm)) => modrm >> 3 & 7 == 1,
        _ => false,
    }
}

/// Compares one encoding with the oracle; returns whether it was decoded.
fn agree(bytes: &[u8], mode: Mode, regs: &Registers) -> bool {
    let regs = &if mode == Mode::Bits64 { *regs } else { Registers { rip: regs.rip & 0xffff, ..*regs } };
    let oracle = iced(bytes, mode, regs.rip);
    let ours = decode(bytes, mode, regs);
    let (ours, oracle) = match (ours, oracle) {
        (Err(_), oracle) => {
            let promised = oracle.filter(|i| is_promised(i) && !is_alias(i, bytes));
            assert_eq!(promised, None, "{mode:?} {bytes:02x?} is not decoded: {ours:?}");
            return false;
        }
        (Ok(ours), oracle) => (ours, oracle.unwrap_or_else(|| panic!("{mode:?} {bytes:02x?} is invalid"))),
    };
    let context = std::format!("{mode:?} {bytes:02x?} {ours:x?} {:?}", oracle.code());
    assert!(is_promised(&oracle), "{context}");
    assert_eq!(usize::from(ours.length), oracle.len(), "{context}");
    assert_eq!(usize::from(ours.size), oracle.memory_size().size(), "{context}");
    compare_addresses(&ours, &oracle, mode, regs, &context);
    true
}

fn compare_addresses(ours: &Decoded, oracle: &Instruction, mode: Mode, regs: &Registers, context: &str) {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(oracle);
    let mut read = None;
    let mut write = None;
    for operand in 0..oracle.op_count() {
        if oracle.op_kind(operand) == OpKind::Register || format_is_immediate(oracle.op_kind(operand)) {
            continue;
        }
        let address = linear(oracle, operand, mode, regs);
        match info.op_access(operand) {
            OpAccess::Read | OpAccess::CondRead => read = Some(address),
            OpAccess::Write | OpAccess::CondWrite => write = Some(address),
            OpAccess::ReadWrite | OpAccess::ReadCondWrite => (read, write) = (Some(address), Some(address)),
            access => panic!("{access:?} {context}"),
        }
    }
    if ours.operation == Operation::Nothing {
        (read, write) = (None, None);
    }
    assert_eq!((ours.read, ours.write), (read, write), "{context}");
}

/// The opcodes of the supported set, with what follows ModRM and SIB left to the filler.
fn opcodes() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0x00..0x40).filter(|op| op & 7 < 4).map(|op| std::vec![op]).collect();
    all.extend(
        [0x63, 0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b].map(|op| std::vec![op]),
    );
    all.extend([0xc6, 0xc7, 0xf6, 0xf7].map(|op| std::vec![op]));
    all.extend([0xb6, 0xb7, 0xba, 0xbe, 0xbf].map(|op| std::vec![0x0f, op]));
    all
}

#[test]
fn every_modrm_and_sib_form_agrees_with_the_oracle() {
    let prefixes: [&[u8]; 10] = [
        &[],
        &[0x66],
        &[0x67],
        &[0x66, 0x67],
        &[0x64],
        &[0x2e],
        &[0x41],
        &[0x4a],
        &[0x67, 0x4f],
        &[0xf0, 0x65],
    ];
    let filler = [0x91, 0xa2, 0xb3, 0xc4, 0x15, 0x26, 0x37, 0x48];
    let regs = registers();
    let mut decoded = 0_u32;
    for opcode in opcodes() {
        // The forms of the operand do not depend on the opcode: one of each kind gets every SIB byte.
        let is_full = matches!(opcode[..], [0x8b | 0x81 | 0xc6] | [0x0f, 0xb6]);
        let sibs = |modrm: u8| match (modrm & 7, is_full) {
            (4, true) => 0..=0xff,
            (4, false) => 0x64..=0x65,
            _ => 0..=0,
        };
        for prefix in prefixes {
            for modrm in 0..=0xff {
                for sib in sibs(modrm) {
                    let bytes = [prefix, &opcode, &[modrm, sib], &filler].concat();
                    decoded += MODES.map(|mode| u32::from(agree(&bytes, mode, &regs))).iter().sum::<u32>();
                }
            }
        }
    }
    assert!(decoded > 500_000, "{decoded}");
}

#[test]
fn absolute_and_string_forms_agree_with_the_oracle() {
    let prefixes = [0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x26, 0x64, 0x48, 0x4f];
    for opcode in [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xaa, 0xab] {
        for first in prefixes {
            for second in prefixes {
                let bytes = [first, second, opcode, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80];
                for mode in MODES {
                    agree(&bytes[..], mode, &registers());
                    agree(&bytes[1..], mode, &registers());
                    agree(&bytes[2..], mode, &registers());
                }
            }
        }
    }
}

fn any_mode() -> impl Strategy<Value = Mode> {
    (0_usize..3).prop_map(|n| MODES[n])
}

fn any_registers() -> impl Strategy<Value = Registers> {
    any::<([u64; 16], u64, u64, [u64; 6])>().prop_map(|(gpr, rip, rflags, segment_base)| Registers {
        gpr,
        rip,
        rflags,
        segment_base,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_encodings_of_supported_opcodes_agree_with_the_oracle(
        prefixes in prop::collection::vec(
            prop::sample::select(std::vec![0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x40, 0x41,
                0x42, 0x44, 0x48, 0x4b, 0x4f]), 0..5),
        opcode in prop::sample::select(opcodes()),
        rest in prop::collection::vec(any::<u8>(), 10),
        mode in any_mode(),
    ) {
        agree(&[prefixes, opcode, rest].concat(), mode, &registers());
    }

    #[test]
    fn random_bytes_agree_with_the_oracle_and_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..20),
        mode in any_mode(),
        regs in any_registers(),
        value in any::<u64>(),
    ) {
        agree(&bytes, mode, &regs);
        if let Ok(decoded) = decode(&bytes, mode, &regs) {
            let mut after = regs;
            let result = decoded.complete(value, &mut after);
            prop_assert_eq!(result.is_some(), decoded.write.is_some());
        }
    }

    #[test]
    fn flags_agree_with_wide_arithmetic(
        first in any::<u64>(), second in any::<u64>(), code in 0_u8..8, size in prop::sample::select(std::vec![1_u8, 2, 4, 8]),
        carry in any::<bool>(),
    ) {
        check_alu(first, second, code, size, carry);
    }

    #[test]
    fn small_operands_agree_with_wide_arithmetic(
        first in 0x7c_u64..0x84, second in 0x7c_u64..0x84, code in 0_u8..8, carry in any::<bool>(),
    ) {
        check_alu(first, second, code, 1, carry);
    }
}

fn check_alu(first: u64, second: u64, code: u8, size: u8, carry: bool) {
    let bits = u32::from(size) * 8;
    let mask = u64::MAX >> (64 - bits);
    let (first, second) = (first & mask, second & mask);
    let signed = |value: u64| i128::from(((value << (64 - bits)).cast_signed()) >> (64 - bits));
    let c = i128::from(carry);
    let (x, y) = (i128::from(first), i128::from(second));
    let (sx, sy) = (signed(first), signed(second));
    // Unsigned, signed, and low-nibble results of unlimited width.
    let (wide, wide_signed, nibble) = match code {
        0 => (x + y, sx + sy, (x & 15) + (y & 15)),
        2 => (x + y + c, sx + sy + c, (x & 15) + (y & 15) + c),
        3 => (x - y - c, sx - sy - c, (x & 15) - (y & 15) - c),
        5 | 7 => (x - y, sx - sy, (x & 15) - (y & 15)),
        1 => (x | y, sx | sy, 0),
        4 => (x & y, sx & sy, 0),
        _ => (x ^ y, sx ^ sy, 0),
    };
    let expected = (wide & i128::from(mask)) as u64;
    let flags = [
        (0, wide < 0 || wide > i128::from(mask)),
        (2, (expected as u8).count_ones().is_multiple_of(2)),
        (4, !(0..16).contains(&nibble)),
        (6, expected == 0),
        (7, signed(expected) < 0),
        (11, signed(expected) != wide_signed),
    ];
    let mut regs = Registers { rflags: 0x2 | u64::from(carry), ..registers() };
    regs.gpr[1] = second;
    // OP [rax], rcx in the size under test.
    let (prefix, opcode): (&[u8], u8) = match size {
        1 => (&[], 0),
        2 => (&[0x66], 1),
        4 => (&[], 1),
        _ => (&[0x48], 1),
    };
    let bytes = [prefix, &[code << 3 | opcode, 0x08]].concat();
    let result = decode(&bytes, Mode::Bits64, &regs).unwrap().complete(first, &mut regs);
    assert_eq!(result, (code != 7).then_some(expected));
    for (bit, is_set) in flags {
        assert_eq!(
            regs.rflags >> bit & 1 == 1,
            is_set,
            "flag {bit} of {code} {size} {first:#x} {second:#x} {carry}"
        );
    }
}

fn run(bytes: &[u8], mode: Mode, regs: &mut Registers, read: u64) -> (Decoded, Option<u64>) {
    let decoded = decode(bytes, mode, regs).unwrap();
    let written = decoded.complete(read, regs);
    (decoded, written)
}

#[test]
fn a_32_bit_load_clears_the_upper_half_and_a_16_bit_load_keeps_it() {
    let mut regs = Registers { rip: 0x1000, ..registers() };
    let before = regs.gpr[2];
    run(&[0x66, 0x8b, 0x10], Mode::Bits64, &mut regs, 0xffff_1234);
    assert_eq!((regs.gpr[2], regs.rip), (before & !0xffff | 0x1234, 0x1003));
    run(&[0x8b, 0x10], Mode::Bits64, &mut regs, 0xdead_beef);
    assert_eq!(regs.gpr[2], 0xdead_beef);
}

#[test]
fn high_byte_registers_exist_only_without_rex() {
    let mut regs = registers();
    let (_, written) = run(&[0x88, 0x20], Mode::Bits64, &mut regs, 0);
    assert_eq!(written, Some(regs.gpr[0] >> 8 & 0xff));
    let (_, written) = run(&[0x40, 0x88, 0x20], Mode::Bits64, &mut regs, 0);
    assert_eq!(written, Some(regs.gpr[4] & 0xff));
    run(&[0x8a, 0x38], Mode::Bits64, &mut regs, 0x5a);
    assert_eq!(regs.gpr[3] >> 8 & 0xff, 0x5a);
}

#[test]
fn extending_loads_fill_the_destination() {
    let mut regs = registers();
    run(&[0x48, 0x0f, 0xbe, 0x08], Mode::Bits64, &mut regs, 0x80);
    assert_eq!(regs.gpr[1], 0xffff_ffff_ffff_ff80);
    run(&[0x0f, 0xb7, 0x08], Mode::Bits64, &mut regs, 0x1_8000);
    assert_eq!(regs.gpr[1], 0x8000);
    run(&[0x48, 0x63, 0x08], Mode::Bits64, &mut regs, 0x8000_0000);
    assert_eq!(regs.gpr[1], 0xffff_ffff_8000_0000);
}

#[test]
fn compare_with_memory_keeps_the_order_of_its_operands() {
    let mut regs = Registers { gpr: [1; 16], ..registers() };
    run(&[0x39, 0x08], Mode::Bits64, &mut regs, 0);
    assert_eq!(regs.rflags & 1, 1, "0 - 1 borrows");
    run(&[0x3b, 0x08], Mode::Bits64, &mut regs, 0);
    assert_eq!(regs.rflags & 1, 0, "1 - 0 does not");
}

#[test]
fn exchange_swaps_and_bit_operations_report_the_old_bit() {
    let mut regs = registers();
    let old = regs.gpr[1] & 0xffff_ffff;
    let (_, written) = run(&[0x87, 0x08], Mode::Bits64, &mut regs, 7);
    assert_eq!((written, regs.gpr[1]), (Some(old), 7));
    let (_, written) = run(&[0x0f, 0xba, 0x30, 0x21], Mode::Bits64, &mut regs, 3);
    assert_eq!((written, regs.rflags & 1), (Some(1), 1));
}

#[test]
fn a_repeated_store_stays_until_its_count_is_zero() {
    let mut regs = Registers { rip: 0x1000, ..registers() };
    (regs.gpr[1], regs.gpr[7], regs.gpr[0]) = (2, 0xfee0_0000, 0x11);
    let (decoded, written) = run(&[0xf3, 0xab], Mode::Bits64, &mut regs, 0);
    assert_eq!((decoded.write, written, regs.rip), (Some(0xfee0_0000), Some(0x11), 0x1000));
    let (decoded, _) = run(&[0xf3, 0xab], Mode::Bits64, &mut regs, 0);
    assert_eq!((decoded.write, regs.rip, regs.gpr[1]), (Some(0xfee0_0004), 0x1002, 0));
    let (decoded, written) = run(&[0xf3, 0xab], Mode::Bits64, &mut regs, 0);
    assert_eq!((decoded.write, written, regs.rip), (None, None, 0x1004));
}

#[test]
fn a_move_goes_downwards_with_the_direction_flag() {
    let mut regs = Registers { rflags: 1 << 10, segment_base: [0x100, 0, 0, 0x200, 0, 0], ..registers() };
    (regs.gpr[6], regs.gpr[7]) = (0x1_0001, 0x2_0000);
    let (decoded, written) = run(&[0xa5], Mode::Bits16, &mut regs, 0xabcd);
    assert_eq!((decoded.read, decoded.write, written), (Some(0x201), Some(0x100), Some(0xabcd)));
    assert_eq!((regs.gpr[6], regs.gpr[7]), (0x1_ffff, 0x2_fffe));
}

#[test]
fn short_input_is_truncated_and_long_input_is_unsupported() {
    let regs = registers();
    assert_eq!(decode(&[], Mode::Bits64, &regs), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0xc7, 0x05, 0, 0, 0, 0, 1, 2, 3], Mode::Bits64, &regs), Err(DecodeError::Truncated));
    assert_eq!(decode(&[0x66; 16], Mode::Bits64, &regs), Err(DecodeError::Unsupported));
    assert_eq!(decode(&[0x0f, 0x11, 0x00], Mode::Bits64, &regs), Err(DecodeError::Unsupported));
    assert_eq!(decode(&[0xf0, 0x8b, 0x00], Mode::Bits64, &regs), Err(DecodeError::Unsupported));
}
