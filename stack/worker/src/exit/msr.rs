//! Model-specific registers that the hypervisor leaves to the worker.
//!
//! There are none to emulate: they read as zero and ignore writes, as the partition property for
//! unimplemented registers asks the hypervisor to do by itself.

use super::{Fault, Msr};
use crate::cpu::{Access, Cpu};

pub(super) fn handle(access: &Msr, cpu: &impl Cpu) -> Result<(), Fault> {
    let header = &access.header;
    tracing::debug!("VP {}: MSR {:#x} does not exist ({:?})", header.vp, access.number, header.access);
    let failed = |error| Fault::at(header, error);
    let mut regs = cpu.registers().map_err(failed)?;
    if header.access == Access::Read {
        (regs.rax, regs.rdx) = (0, 0);
    }
    // RDMSR and WRMSR have two bytes and take no prefix that matters.
    regs.rip = header.rip.wrapping_add(match header.instruction_len {
        0 => 2,
        len => len.into(),
    });
    cpu.set_registers(&regs).map_err(failed)
}
