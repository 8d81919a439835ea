//! The bytes of each message at the documented offsets.

use super::*;
use tlfs::{
    ids::{PartitionId, VpIndex},
    intercept::{
        ApicEoi, CpuidIntercept, ExceptionInfo, ExceptionIntercept, HeaderIntercept, HypercallIntercept,
        InstructionInfo, InterceptAccess, InterceptHeader, IoPortAccessInfo, IoPortIntercept,
        MemoryAccessInfo, MemoryIntercept, MsrIntercept,
    },
    register::SegmentRegister,
    synic::{HvMessage, MessageType},
};
use zerocopy::{Immutable, IntoBytes};

const SENDER: PartitionId = PartitionId(0x1122_3344_5566);

fn code() -> SegmentAttributes {
    SegmentAttributes::from_bits(0xa09b)
}

fn header(access_type: InterceptAccess) -> InterceptHeader {
    InterceptHeader {
        vp_index: VpIndex(3),
        instruction: InstructionInfo::new().with_length(2).with_cr8(9),
        access_type,
        execution_state: execution_state(2, CR0_PE | CR0_AM, EFER_LMA, 0).with_interrupt_shadow(true),
        cs: SegmentRegister { base: 0x10, limit: 0xffff, selector: 8, attributes: code() },
        rip: 0xffff_8000_0000_1000,
        rflags: 0x246,
    }
}

fn message(kind: MessageType, payload: &(impl IntoBytes + Immutable)) -> HvMessage {
    HvMessage::new(kind, SENDER.0, payload)
}

fn number<const N: usize>(message: &HvMessage, offset: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&message.as_bytes()[offset..offset + N]);
    u64::from_le_bytes(bytes)
}

#[test]
fn the_header_has_the_layout_of_the_root() {
    let halt = HeaderIntercept { header: header(InterceptAccess::EXECUTE) };
    let message = message(MessageType::X64_HALT, &halt);
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
    assert_eq!(MessageType::UNRECOVERABLE_EXCEPTION.0, 0x8000_0021);
}

#[test]
fn a_hypercall_intercept_has_the_callers_registers() {
    let (rax, rbx, rcx, rdx, r8, rsi, rdi) = (1, 2, 3, 4, 5, 6, 7);
    let header = header(InterceptAccess::EXECUTE);
    let call = HypercallIntercept { header, rax, rbx, rcx, rdx, r8, rsi, rdi, ..HypercallIntercept::ZEROED };
    let message = message(MessageType::HYPERCALL_INTERCEPT, &call);
    assert_eq!(number::<4>(&message, 0), 0x8000_0050);
    for (index, value) in (0..7).zip(1..) {
        assert_eq!(number::<8>(&message, 56 + 8 * index), value);
    }
    assert!(message.payload[96..].iter().all(|&byte| byte == 0), "no XMM registers, not isolated");
}

#[test]
fn a_memory_intercept_names_addresses_and_instruction() {
    let instruction = InstructionBytes::new(&[0x89, 0x04, 0x25]);
    let memory = MemoryIntercept {
        header: header(InterceptAccess::WRITE),
        instruction_byte_count: instruction.count,
        access_info: MemoryAccessInfo::new().with_gva_valid(true).with_gva_gpa_valid(true),
        tpr_priority: 9,
        guest_virtual_address: 0xffff_ffff_ff5f_b0b0,
        guest_physical_address: 0xfee0_00b0,
        instruction_bytes: instruction.bytes,
        ..MemoryIntercept::ZEROED
    };
    let message = message(MessageType::GPA_INTERCEPT, &memory);
    assert_eq!((number::<4>(&message, 0), number::<1>(&message, 4)), (0x8000_0001, 80));
    assert_eq!(number::<1>(&message, 21), 1);
    assert_eq!((number::<1>(&message, 60), number::<1>(&message, 61)), (3, 3));
    assert_eq!(number::<1>(&message, 62), 9);
    assert_eq!(number::<8>(&message, 64), 0xffff_ffff_ff5f_b0b0);
    assert_eq!(number::<8>(&message, 72), 0xfee0_00b0);
    assert_eq!(number::<4>(&message, 80), 0x0025_0489);
}

#[test]
fn a_port_intercept_has_registers_and_segments() {
    let instruction = InstructionBytes::new(&[0xcc; 20]);
    let access_info = IoPortAccessInfo::new().with_access_size(2).with_string_op(true).with_rep_prefix(true);
    let port = IoPortIntercept {
        header: header(InterceptAccess::READ),
        port_number: 0x3f8,
        access_info,
        instruction_byte_count: instruction.count,
        instruction_bytes: instruction.bytes,
        rax: 1,
        rcx: 2,
        rsi: 3,
        rdi: 4,
        ds: SegmentRegister { base: 5, ..SegmentRegister::ZEROED },
        es: SegmentRegister { base: 6, ..SegmentRegister::ZEROED },
        ..IoPortIntercept::ZEROED
    };
    let message = message(MessageType::X64_IO_PORT_INTERCEPT, &port);
    assert_eq!((number::<4>(&message, 0), number::<1>(&message, 4)), (0x8001_0000, 128));
    assert_eq!((number::<2>(&message, 56), number::<1>(&message, 58)), (0x3f8, 2 | 1 << 3 | 1 << 4));
    assert_eq!(number::<1>(&message, 59), 16);
    assert_eq!((number::<8>(&message, 64), number::<8>(&message, 120)), (1, 2));
    assert_eq!((number::<8>(&message, 88), number::<8>(&message, 104)), (5, 6));
    assert_eq!((number::<8>(&message, 128), number::<8>(&message, 136)), (3, 4));
}

#[test]
fn the_other_intercepts_have_their_registers_in_place() {
    let msr = MsrIntercept {
        header: header(InterceptAccess::WRITE),
        msr_number: 0xc000_0080,
        rax: 7,
        rdx: 8,
        ..MsrIntercept::ZEROED
    };
    let msr = message(MessageType::X64_MSR_INTERCEPT, &msr);
    assert_eq!((number::<4>(&msr, 0), number::<4>(&msr, 56)), (0x8001_0001, 0xc000_0080));
    assert_eq!((number::<8>(&msr, 64), number::<8>(&msr, 72)), (8, 7));
    let cpuid = CpuidIntercept {
        header: header(InterceptAccess::EXECUTE),
        rax: 1,
        rbx: 2,
        rcx: 3,
        rdx: 4,
        default_result_rax: 5,
        default_result_rbx: 6,
        default_result_rcx: 7,
        default_result_rdx: 8,
    };
    let cpuid = message(MessageType::X64_CPUID_INTERCEPT, &cpuid);
    let registers: [u64; 8] = core::array::from_fn(|n| number::<8>(&cpuid, 56 + 8 * n));
    assert_eq!(registers, [1, 3, 4, 2, 5, 7, 8, 6]);
    let eoi = message(MessageType::X64_APIC_EOI, &ApicEoi { vp_index: VpIndex(3), interrupt_vector: 0x31 });
    assert_eq!((number::<4>(&eoi, 0), number::<8>(&eoi, 16)), (0x8001_0004, 0x31_0000_0003));
}

#[test]
fn an_exception_says_whether_it_has_an_error_code() {
    let exception = ExceptionIntercept {
        header: header(InterceptAccess::EXECUTE),
        exception_vector: 14,
        exception_info: ExceptionInfo::new().with_error_code_valid(true),
        error_code: 2,
        exception_parameter: 0x1000,
        gp: [9; 16],
        ..ExceptionIntercept::ZEROED
    };
    let message = message(MessageType::X64_EXCEPTION_INTERCEPT, &exception);
    assert_eq!((number::<2>(&message, 56), number::<1>(&message, 58), number::<4>(&message, 60)), (14, 1, 2));
    assert_eq!((number::<8>(&message, 64), number::<8>(&message, 248)), (0x1000, 9));
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
    assert_eq!(mode(EFER_LMA, code()), Mode::Bits64);
    assert_eq!(mode(0, code()), Mode::Bits16);
    assert_eq!(mode(EFER_LMA, SegmentAttributes::from_bits(0xc09b)), Mode::Bits32);
}
