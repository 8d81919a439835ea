//! Memory that is a device, or nothing.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Fault, MemoryAccess};
use crate::{
    board::Board,
    cpu::{Access, Cpu},
    emulate::{self, Target},
    memory::GuestRam,
};

/// Longest x86 instruction in bytes.
const MAX_INSTRUCTION: usize = 15;
const PAGE: u64 = 4096;

pub(super) fn handle(
    access: &MemoryAccess,
    cpu: &impl Cpu,
    board: &Board,
    ram: &GuestRam,
) -> Result<(), Fault> {
    let header = &access.header;
    if header.access == Access::Execute {
        return Err(Fault::at(header, format_args!("jump to {:#x}, where no memory is", access.gpa)));
    }
    if ram.address_in_range(GuestAddress(access.gpa)) {
        // Running on would exit again at the same instruction, for ever.
        return Err(Fault::at(
            header,
            format_args!("the host has no page for guest memory at {:#x}", access.gpa),
        ));
    }
    let failed = |error| Fault::at(header, error);
    let bytes = fetch(access, cpu, ram)?;
    let mut regs = cpu.registers().map_err(failed)?;
    let mut device = Device { gpa: access.gpa, board };
    emulate::execute(&bytes, header.bitness, &mut regs, &mut device).map_err(|instruction| {
        let what = format_args!("instruction '{instruction}' on device memory at {:#x}", access.gpa);
        Fault::at(header, what)
    })?;
    cpu.set_registers(&regs).map_err(failed)
}

/// The instruction's bytes: those of the message, or else from the guest's memory.
fn fetch(access: &MemoryAccess, cpu: &impl Cpu, ram: &GuestRam) -> Result<Vec<u8>, Fault> {
    if access.instruction_bytes > 0 {
        return Ok(access.instruction[..access.instruction_bytes].to_vec());
    }
    let header = &access.header;
    let base = if header.bitness == 64 { 0 } else { header.cs.base };
    let start = base.wrapping_add(header.rip);
    let mut bytes = Vec::new();
    while bytes.len() < MAX_INSTRUCTION {
        let address = start.wrapping_add(bytes.len() as u64);
        // Where the next page is missing the instruction ends before it, or the guest has changed it
        // meanwhile.
        let gpa = cpu.translate(address, Access::Execute).map_err(|error| Fault::at(header, error))?;
        let Some(gpa) = gpa else { break };
        let in_page = usize::try_from(PAGE - gpa % PAGE).unwrap_or(0).min(MAX_INSTRUCTION - bytes.len());
        let mut chunk = vec![0; in_page];
        ram.read_slice(&mut chunk, GuestAddress(gpa)).map_err(|error| Fault::at(header, error))?;
        bytes.append(&mut chunk);
    }
    Ok(bytes)
}

struct Device<'a> {
    gpa: u64,
    board: &'a Board,
}

impl Target for Device<'_> {
    fn read(&mut self, data: &mut [u8]) {
        self.board.mmio.read(self.gpa, data);
    }

    fn write(&mut self, data: &[u8]) {
        self.board.mmio.write(self.gpa, data);
    }
}
