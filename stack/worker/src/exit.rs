//! Why a virtual processor left the guest, and what is done about it: one handler for each reason.
//!
//! The hypervisor reports an exit as a message (TLFS 6.0b §11.9; layouts in Linux `include/hyperv/hvhdk.h`)
//! and leaves RIP at the instruction; the handler moves it on. Whatever a handler cannot do is a [`Fault`],
//! which ends this machine and nothing else.

mod hypercall;
mod io;
mod memory;
mod message;
mod msr;

use std::fmt;

use crate::{board::Board, cpu::Cpu, memory::GuestRam};
pub use message::{Exit, Header, Hypercall, IoPort, MemoryAccess, Msr, Segment};

/// Why the machine cannot go on.
#[derive(Debug)]
pub struct Fault(String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fault {
    fn at(header: &Header, what: impl fmt::Display) -> Self {
        Self(format!("VP {} at {:#x}: {what}", header.vp, header.rip))
    }
}

/// Does what `exit` asks for, so that the processor can run on.
///
/// # Errors
///
/// A [`Fault`] when it cannot run on.
pub fn handle(exit: &Exit, cpu: &impl Cpu, board: &Board, ram: &GuestRam) -> Result<(), Fault> {
    match exit {
        Exit::IoPort(access) if access.string => io::string(access, cpu, board, ram),
        Exit::IoPort(access) => io::single(access, cpu, board),
        Exit::Memory(access) => memory::handle(access, cpu, board, ram),
        Exit::Msr(access) => msr::handle(access, cpu),
        Exit::Hypercall(call) => hypercall::handle(call, cpu, board, ram),
        Exit::EndOfInterrupt { vector } => {
            board.io_apic.end_of_interrupt(*vector);
            Ok(())
        }
        Exit::Unrecoverable(header) => Err(triple_fault(header, cpu)),
        Exit::Unknown { kind, header } => Err(Fault::at(
            header,
            format_args!("the hypervisor reports {kind:#x}, which this worker does not know"),
        )),
    }
}

/// Tells as much about a triple fault as the processor's state gives away.
fn triple_fault(header: &Header, cpu: &impl Cpu) -> Fault {
    let state = match (cpu.registers(), cpu.special_registers()) {
        (Ok(regs), Ok(special)) => format!(
            "RSP {:#x}, CR0 {:#x}, CR2 {:#x}, CR3 {:#x}, CR4 {:#x}, EFER {:#x}, IDT {:#x}+{:#x}",
            regs.rsp,
            special.cr0,
            special.cr2,
            special.cr3,
            special.cr4,
            special.efer,
            special.idt.base,
            special.idt.limit
        ),
        (Err(error), _) | (_, Err(error)) => format!("no registers: {error}"),
    };
    Fault::at(header, format_args!("triple fault ({state}); the console may tell what led to it"))
}

#[cfg(test)]
mod tests;
