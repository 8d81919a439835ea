use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
};

use mshv_bindings::{SpecialRegisters, StandardRegisters};
use mshv_ioctls::MshvError;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::{
    cpu::Access,
    device::{
        ioapic::{Interrupt, InterruptSink},
        serial::Terminal,
    },
    layout::{IO_APIC, RTC_PORT, SERIAL_PORT},
    memory,
    signal::Outcome,
};

#[derive(Default)]
struct Fake {
    regs: RefCell<StandardRegisters>,
}

impl Cpu for Fake {
    fn registers(&self) -> Result<StandardRegisters, MshvError> {
        Ok(*self.regs.borrow())
    }

    fn set_registers(&self, registers: &StandardRegisters) -> Result<(), MshvError> {
        *self.regs.borrow_mut() = *registers;
        Ok(())
    }

    fn special_registers(&self) -> Result<SpecialRegisters, MshvError> {
        Ok(SpecialRegisters { cr2: 0xdead, ..Default::default() })
    }

    /// Linear addresses are physical ones, up to 1 MiB.
    fn translate(&self, address: u64, _: Access) -> Result<Option<u64>, MshvError> {
        Ok((address < 1 << 20).then_some(address))
    }
}

#[derive(Clone, Default)]
struct Outside(Arc<Mutex<(Vec<u8>, Vec<Interrupt>)>>);

impl Terminal for Outside {
    fn output(&self, bytes: &[u8]) {
        self.0.lock().unwrap().0.extend(bytes);
    }

    fn input_wanted(&self) {}
}

impl InterruptSink for Outside {
    fn assert(&self, interrupt: Interrupt) {
        self.0.lock().unwrap().1.push(interrupt);
    }
}

struct Bench {
    cpu: Fake,
    board: Board,
    ram: GuestRam,
    outside: Outside,
}

fn bench() -> Bench {
    let outside = Outside::default();
    let board = Board::new(outside.clone(), Arc::new(outside.clone())).unwrap();
    Bench { cpu: Fake::default(), board, ram: memory::allocate(2 << 20).unwrap(), outside }
}

impl Bench {
    fn handle(&self, exit: &Exit) -> Result<(), Fault> {
        handle(exit, &self.cpu, &self.board, &self.ram)
    }
}

fn header(access: Access) -> Header {
    Header { vp: 1, instruction_len: 2, access, bitness: 64, cs: Segment::default(), rip: 0x1000, rflags: 2 }
}

fn port(access: Access, port: u16, rax: u64) -> IoPort {
    let segment = Segment::default();
    IoPort {
        header: header(access),
        port,
        size: 1,
        string: false,
        repeat: false,
        rax,
        ds: segment,
        es: segment,
    }
}

fn device_access(access: Access, gpa: u64, bytes: &[u8]) -> MemoryAccess {
    let mut instruction = [0; 16];
    instruction[..bytes.len()].copy_from_slice(bytes);
    MemoryAccess { header: header(access), gpa, instruction, instruction_bytes: bytes.len() }
}

#[test]
fn message_is_read_at_the_offsets_of_the_header_files() {
    let mut bytes = [0u8; 240];
    bytes[0] = 3;
    bytes[4] = 0x82;
    bytes[5] = 1;
    bytes[6] = 1 << 4;
    bytes[23] = 0xa0;
    bytes[24..32].copy_from_slice(&0xffff_ffff_8100_0000u64.to_le_bytes());
    bytes[40..44].copy_from_slice(&[0xf8, 0x03, 0x14, 0]);
    bytes[48] = 0x41;
    let words =
        std::array::from_fn(|word| u64::from_le_bytes(bytes[8 * word..8 * word + 8].try_into().unwrap()));
    let Exit::IoPort(io) = Exit::decode(0x8001_0000, &words) else { panic!("not an I/O exit") };
    assert_eq!((io.port, io.size, io.string, io.repeat, io.rax), (0x3f8, 4, false, true, 0x41));
    let head = io.header;
    assert_eq!((head.vp, head.instruction_len, head.access, head.bitness), (3, 2, Access::Write, 64));
    assert_eq!(head.rip, 0xffff_ffff_8100_0000);
    assert!(matches!(Exit::decode(0x8000_0021, &words), Exit::Unrecoverable(_)));
    assert!(matches!(Exit::decode(0x8001_0004, &words), Exit::EndOfInterrupt { vector: 0x82 }));
    assert!(matches!(Exit::decode(0x8001_0007, &words), Exit::Unknown { kind: 0x8001_0007, .. }));
}

#[test]
fn byte_written_to_com1_reaches_the_console_and_rip_moves_on() {
    let bench = bench();
    bench.handle(&Exit::IoPort(port(Access::Write, SERIAL_PORT, 0x141))).unwrap();
    assert_eq!(bench.outside.0.lock().unwrap().0, b"A");
    assert_eq!((bench.cpu.regs.borrow().rip, bench.cpu.regs.borrow().rax), (0x1002, 0x141));
}

#[test]
fn narrow_in_keeps_the_rest_of_rax_and_wide_in_clears_it() {
    let bench = bench();
    bench.handle(&Exit::IoPort(port(Access::Read, 0x9999, 0x1111_2222_3333_4444))).unwrap();
    assert_eq!(bench.cpu.regs.borrow().rax, 0x1111_2222_3333_44ff);
    let wide = IoPort { size: 4, ..port(Access::Read, 0xcfc, 0x1111_2222_3333_4444) };
    bench.handle(&Exit::IoPort(wide)).unwrap();
    assert_eq!(bench.cpu.regs.borrow().rax, 0xffff_ffff);
}

#[test]
fn repeated_outs_sends_a_string_and_counts_down() {
    let bench = bench();
    bench.ram.write_slice(b"hello", GuestAddress(0xffe)).unwrap();
    *bench.cpu.regs.borrow_mut() = StandardRegisters { rsi: 0xffe, rcx: 5, ..Default::default() };
    let outs = IoPort { string: true, repeat: true, ..port(Access::Write, SERIAL_PORT, 0) };
    bench.handle(&Exit::IoPort(outs)).unwrap();
    assert_eq!(bench.outside.0.lock().unwrap().0, b"hello");
    let regs = bench.cpu.regs.borrow();
    assert_eq!((regs.rsi, regs.rcx, regs.rip), (0x1003, 0, 0x1002));
}

#[test]
fn ins_downwards_writes_guest_memory() {
    let bench = bench();
    bench.board.ports.write(RTC_PORT, &[0x0d]);
    *bench.cpu.regs.borrow_mut() = StandardRegisters { rdi: 0x2000, ..Default::default() };
    let mut ins = IoPort { string: true, ..port(Access::Read, RTC_PORT + 1, 0) };
    ins.header.rflags |= 1 << 10;
    bench.handle(&Exit::IoPort(ins)).unwrap();
    assert_eq!(bench.ram.read_obj::<u8>(GuestAddress(0x2000)).unwrap(), 0x80);
    assert_eq!(bench.cpu.regs.borrow().rdi, 0x1fff);
}

#[test]
fn string_io_with_unmapped_memory_ends_the_machine() {
    let bench = bench();
    bench.cpu.regs.borrow_mut().rsi = 1 << 40;
    let outs = IoPort { string: true, ..port(Access::Write, SERIAL_PORT, 0) };
    assert!(bench.handle(&Exit::IoPort(outs)).unwrap_err().to_string().contains("0x10000000000"));
}

#[test]
fn io_apic_is_reached_with_and_without_bytes_in_the_message() {
    let bench = bench();
    // mov dword [rdi], 1, then mov eax, [rdi + 0x10] from guest memory.
    let select = device_access(Access::Write, IO_APIC, &[0xc7, 0x07, 1, 0, 0, 0]);
    bench.handle(&Exit::Memory(select)).unwrap();
    bench.cpu.regs.borrow_mut().rip = 0x1000;
    bench.ram.write_slice(&[0x8b, 0x47, 0x10], GuestAddress(0x1000)).unwrap();
    bench.handle(&Exit::Memory(device_access(Access::Read, IO_APIC + 0x10, &[]))).unwrap();
    assert_eq!((bench.cpu.regs.borrow().rax, bench.cpu.regs.borrow().rip), (0x17_0020, 0x1003));
}

#[test]
fn accesses_that_cannot_be_continued_are_faults_that_say_where() {
    let bench = bench();
    for (access, expected) in [
        (device_access(Access::Execute, 0xd000_0000, &[]), "jump to 0xd0000000"),
        (device_access(Access::Read, 0x1000, &[]), "no page"),
        (device_access(Access::Read, 0xd000_0000, &[0x0f, 0x10, 0x07]), "Movups"),
    ] {
        let line = bench.handle(&Exit::Memory(access)).unwrap_err().to_string();
        assert!(line.starts_with("VP 1 at 0x1000: ") && line.contains(expected), "{line}");
    }
}

#[test]
fn unknown_registers_read_as_zero() {
    let bench = bench();
    *bench.cpu.regs.borrow_mut() = StandardRegisters { rax: 7, rdx: 7, ..Default::default() };
    bench.handle(&Exit::Msr(Msr { header: header(Access::Read), number: 0x1234, value: 0 })).unwrap();
    let regs = *bench.cpu.regs.borrow();
    assert_eq!((regs.rax, regs.rdx, regs.rip), (0, 0, 0x1002));
}

#[test]
fn triple_fault_and_unknown_messages_tell_what_is_known() {
    let bench = bench();
    let line = bench.handle(&Exit::Unrecoverable(header(Access::Execute))).unwrap_err().to_string();
    assert!(line.contains("triple fault") && line.contains("CR2 0xdead"), "{line}");
    let unknown = Exit::Unknown { kind: 0x8000_0099, header: header(Access::Read) };
    assert!(bench.handle(&unknown).unwrap_err().to_string().contains("0x80000099"));
}

#[test]
fn a_posted_message_reaches_the_bus_and_all_else_is_refused() {
    const POST: u64 = 0x5c;
    let guest = crate::synthetic::tests::Guest::new();
    let mut bench = bench();
    let call = |bench: &Bench, control, input| {
        let header = Header { instruction_len: 3, ..header(Access::Execute) };
        bench.handle(&Exit::Hypercall(Hypercall { header, control, input })).unwrap();
        let regs = bench.cpu.regs.borrow();
        assert_eq!(regs.rip, 0x1003);
        regs.rax
    };
    let put = |bench: &Bench, connection: u32, bytes: u32| {
        bench.ram.write_obj([connection, 0, 1, bytes], GuestAddress(0x3000)).unwrap();
    };
    put(&bench, 1, 8);
    assert_eq!(call(&bench, POST, 0x3000), 0x12, "without a bus there is no such connection");
    bench.board.post = Some(guest.post());
    for (connection, bytes, control, input, status) in [
        (1, 8, POST, 0x3000, 0),
        (4, 240, POST, 0x3000, 0),
        (1, 241, POST, 0x3000, 5),
        (1, u32::MAX, POST, 0x3000, 5),
        (2, 8, POST, 0x3000, 0x12),
        (1, 8, POST | 1 << 16, 0x3000, 0x12),
        (1, 8, 0x5d, 0x3000, 0x12),
        // Where no memory is, and across the end of it.
        (1, 8, POST, 1 << 40, 3),
        (1, 8, POST, (2 << 20) - 8, 3),
        (1, 8, POST, u64::MAX - 8, 3),
    ] {
        put(&bench, connection, bytes);
        assert_eq!(call(&bench, control, input), status, "{connection} {bytes} {control:#x} {input:#x}");
    }
}

#[test]
fn reset_port_ends_this_life() {
    let bench = bench();
    bench.handle(&Exit::IoPort(port(Access::Write, 0xcf9, 0x06))).unwrap();
    assert_eq!(bench.board.signal.outcome(), Some(Outcome::Reset));
}
