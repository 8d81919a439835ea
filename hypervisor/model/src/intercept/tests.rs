//! The bytes of each message at the documented offsets.

use super::*;
use zerocopy::IntoBytes;

fn facts() -> VpFacts {
    VpFacts {
        partition_id: PartitionId(0x1122_3344_5566),
        vp_index: VpIndex(3),
        cpl: 2,
        cr0: CR0_PE | CR0_AM,
        cr8: 9,
        efer: EFER_LMA,
        cs: SegmentRegister {
            base: 0x10,
            limit: 0xffff,
            selector: 8,
            attributes: SegmentAttributes::from_bits(0xa09b),
        },
        rip: 0xffff_8000_0000_1000,
        rflags: 0x246,
        instruction_length: 2,
        is_interrupt_shadowed: true,
        ..VpFacts::default()
    }
}

fn number<const N: usize>(message: &HvMessage, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&message.as_bytes()[offset..offset + N]);
    u64::from_le_bytes(bytes)
}

#[test]
fn the_header_has_the_layout_of_the_root() {
    let message = facts().halt();
    assert_eq!(number::<4>(&message, 0), 0x8001_0007);
    assert_eq!(number::<1>(&message, 4), 40);
    assert_eq!(number::<8>(&message, 8), 0x1122_3344_5566);
    assert_eq!(number::<4>(&message, 16), 3);
    assert_eq!(number::<1>(&message, 20), 0x92, "CR8 and the length");
    assert_eq!(number::<1>(&message, 21), 2, "execute");
    assert_eq!(number::<2>(&message, 22), 2 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12);
    assert_eq!(number::<8>(&message, 24), 0x10);
    assert_eq!(number::<2>(&message, 38), 0xa09b);
    assert_eq!(number::<8>(&message, 40), 0xffff_8000_0000_1000);
    assert_eq!(number::<8>(&message, 48), 0x246);
    assert_eq!(number::<4>(&facts().unrecoverable_exception(), 0), 0x8000_0021);
}

#[test]
fn a_hypercall_intercept_has_the_callers_registers() {
    let message = facts().hypercall([1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(number::<4>(&message, 0), 0x8000_0050);
    for (index, value) in (0..7).zip(1..) {
        assert_eq!(number::<8>(&message, 56 + 8 * index), value);
    }
    assert!(message.payload[96..].iter().all(|&byte| byte == 0), "no XMM registers, not isolated");
}

#[test]
fn a_memory_intercept_names_addresses_and_instruction() {
    let memory = MemoryFacts {
        message_type: MessageType::GPA_INTERCEPT,
        access: InterceptAccess::WRITE,
        gpa: 0xfee0_00b0,
        gva: Some(0xffff_ffff_ff5f_b0b0),
        bytes: InstructionBytes::new(&[0x89, 0x04, 0x25]),
    };
    let message = facts().memory(&memory);
    assert_eq!((number::<4>(&message, 0), number::<1>(&message, 4)), (0x8000_0001, 80));
    assert_eq!(number::<1>(&message, 21), 1);
    assert_eq!((number::<1>(&message, 60), number::<1>(&message, 61)), (3, 3));
    assert_eq!(number::<1>(&message, 62), 9);
    assert_eq!(number::<8>(&message, 64), 0xffff_ffff_ff5f_b0b0);
    assert_eq!(number::<8>(&message, 72), 0xfee0_00b0);
    assert_eq!(number::<4>(&message, 80), 0x0025_0489);
    let unknown = facts().memory(&MemoryFacts { gva: None, ..memory });
    assert_eq!((number::<1>(&unknown, 61), number::<8>(&unknown, 64)), (0, 0));
}

#[test]
fn a_port_intercept_has_registers_and_segments() {
    let message = facts().io_port(&PortFacts {
        port: 0x3f8,
        size: 2,
        access: InterceptAccess::READ,
        is_string: true,
        is_repeated: true,
        registers: [1, 2, 3, 4],
        ds: SegmentRegister { base: 5, ..SegmentRegister::ZEROED },
        es: SegmentRegister { base: 6, ..SegmentRegister::ZEROED },
        bytes: InstructionBytes::new(&[0xcc; 20]),
    });
    assert_eq!((number::<4>(&message, 0), number::<1>(&message, 4)), (0x8001_0000, 128));
    assert_eq!((number::<2>(&message, 56), number::<1>(&message, 58)), (0x3f8, 2 | 1 << 3 | 1 << 4));
    assert_eq!(number::<1>(&message, 59), 16);
    assert_eq!((number::<8>(&message, 64), number::<8>(&message, 120)), (1, 2));
    assert_eq!((number::<8>(&message, 88), number::<8>(&message, 104)), (5, 6));
    assert_eq!((number::<8>(&message, 128), number::<8>(&message, 136)), (3, 4));
}

#[test]
fn the_other_intercepts_have_their_registers_in_place() {
    let message = facts().msr(InterceptAccess::WRITE, 0xc000_0080, 7, 8);
    assert_eq!((number::<4>(&message, 0), number::<4>(&message, 56)), (0x8001_0001, 0xc000_0080));
    assert_eq!((number::<8>(&message, 64), number::<8>(&message, 72)), (8, 7));
    let message = facts().cpuid([1, 2, 3, 4], [5, 6, 7, 8]);
    let registers: [u64; 8] = core::array::from_fn(|n| number::<8>(&message, 56 + 8 * n));
    assert_eq!(registers, [1, 3, 4, 2, 5, 7, 8, 6]);
    let message = facts().apic_eoi(0x31);
    assert_eq!((number::<4>(&message, 0), number::<8>(&message, 16)), (0x8001_0004, 0x31_0000_0003));
}

#[test]
fn an_exception_without_error_code_says_so() {
    let exception = ExceptionFacts {
        vector: 14,
        error_code: Some(2),
        parameter: 0x1000,
        ds: SegmentRegister::ZEROED,
        ss: SegmentRegister::ZEROED,
        gpr: [9; 16],
        bytes: InstructionBytes::default(),
    };
    let message = facts().exception(&exception);
    assert_eq!((number::<2>(&message, 56), number::<1>(&message, 58), number::<4>(&message, 60)), (14, 1, 2));
    assert_eq!((number::<8>(&message, 64), number::<8>(&message, 248)), (0x1000, 9));
    let message = facts().exception(&ExceptionFacts { error_code: None, ..exception });
    assert_eq!((number::<1>(&message, 58), number::<4>(&message, 60)), (0, 0));
}

#[test]
fn segment_attributes_survive_the_round_trip() {
    for packed in 0..0x1000 {
        assert_eq!(attributes_to_svm(attributes_from_svm(packed)), packed);
    }
    assert_eq!(attributes_from_svm(0xa9b).into_bits(), 0xa09b, "64-bit code");
    assert!(attributes_from_svm(0xa9b).long());
    assert_eq!(attributes_to_svm(SegmentAttributes::from_bits(0xc893)), 0xc93);
}

#[test]
fn the_code_segment_and_efer_give_the_mode() {
    assert_eq!(facts().mode(), Mode::Bits64);
    assert_eq!(VpFacts { efer: 0, ..facts() }.mode(), Mode::Bits16);
    let mut compatibility = facts();
    compatibility.cs.attributes = SegmentAttributes::from_bits(0xc09b);
    assert_eq!(compatibility.mode(), Mode::Bits32);
}
