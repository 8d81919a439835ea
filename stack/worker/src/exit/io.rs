//! I/O ports: IN, OUT, INS and OUTS.

use vm_memory::{Bytes, GuestAddress};

use super::{Fault, Header, IoPort};
use crate::{
    board::Board,
    cpu::{Access, Cpu},
    memory::GuestRam,
};

const DIRECTION: u64 = 1 << 10;

/// IN and OUT.
pub(super) fn single(access: &IoPort, cpu: &impl Cpu, board: &Board) -> Result<(), Fault> {
    let header = &access.header;
    let mut data = access.rax.to_le_bytes();
    if header.access == Access::Write {
        board.ports.write(access.port, &data[..access.size]);
    } else {
        board.ports.read(access.port, &mut data[..access.size]);
        if access.size == 4 {
            data[4..].fill(0);
        }
    }
    let failed = |error| Fault::at(header, error);
    let mut regs = cpu.registers().map_err(failed)?;
    regs.rax = u64::from_le_bytes(data);
    regs.rip = next(header);
    cpu.set_registers(&regs).map_err(failed)
}

/// INS and OUTS, with all their repetitions. Counters and indices are as wide as the code segment's
/// addresses; a prefix that changes that is not honoured, since no kernel uses one here.
pub(super) fn string(access: &IoPort, cpu: &impl Cpu, board: &Board, ram: &GuestRam) -> Result<(), Fault> {
    let header = &access.header;
    let failed = |error| Fault::at(header, error);
    let mut regs = cpu.registers().map_err(failed)?;
    let mask = u64::MAX >> (64 - header.bitness);
    let size = access.size as u64;
    let step = if header.rflags & DIRECTION == 0 { size } else { size.wrapping_neg() };
    let output = header.access == Access::Write;
    let count = if access.repeat { regs.rcx & mask } else { 1 };
    for _ in 0..count {
        let (segment, index) = if output { (access.ds, &mut regs.rsi) } else { (access.es, &mut regs.rdi) };
        let base = if header.bitness == 64 { 0 } else { segment.base };
        let at = Operand { address: base.wrapping_add(*index & mask), header };
        let mut data = [0; 4];
        let data = &mut data[..access.size];
        if output {
            at.copy(cpu, Access::Read, data, |data, gpa| ram.read_slice(data, gpa))?;
            board.ports.write(access.port, data);
        } else {
            board.ports.read(access.port, data);
            at.copy(cpu, Access::Write, data, |data, gpa| ram.write_slice(data, gpa))?;
        }
        *index = *index & !mask | index.wrapping_add(step) & mask;
        if access.repeat {
            regs.rcx = regs.rcx & !mask | regs.rcx.wrapping_sub(1) & mask;
        }
    }
    regs.rip = next(header);
    cpu.set_registers(&regs).map_err(failed)
}

/// The memory side of INS and OUTS.
struct Operand<'a> {
    address: u64,
    header: &'a Header,
}

impl Operand<'_> {
    /// Copies byte by byte, since the operand may cross a page.
    fn copy<E: std::fmt::Display>(
        &self,
        cpu: &impl Cpu,
        access: Access,
        data: &mut [u8],
        mut transfer: impl FnMut(&mut [u8], GuestAddress) -> Result<(), E>,
    ) -> Result<(), Fault> {
        for (offset, byte) in data.chunks_mut(1).enumerate() {
            let address = self.address.wrapping_add(offset as u64);
            let gpa = cpu.translate(address, access).map_err(|error| Fault::at(self.header, error))?;
            let Some(gpa) = gpa else {
                let what = format_args!("string I/O with unmapped memory at {address:#x}");
                return Err(Fault::at(self.header, what));
            };
            transfer(byte, GuestAddress(gpa)).map_err(|error| Fault::at(self.header, error))?;
        }
        Ok(())
    }
}

fn next(header: &Header) -> u64 {
    let rip = header.rip.wrapping_add(header.instruction_len.into());
    if header.bitness == 64 { rip } else { rip & 0xffff_ffff }
}
