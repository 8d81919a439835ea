//! A virtual processor as the exit handlers see it.

use mshv_bindings::{SpecialRegisters, StandardRegisters};
use mshv_ioctls::MshvError;

/// What an access to memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Data is read.
    Read,
    /// Data is written.
    Write,
    /// An instruction is fetched.
    Execute,
}

/// The state of a stopped virtual processor.
pub trait Cpu {
    /// General registers, RIP and RFLAGS.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn registers(&self) -> Result<StandardRegisters, MshvError>;

    /// Sets what [`Cpu::registers`] gives.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn set_registers(&self, registers: &StandardRegisters) -> Result<(), MshvError>;

    /// Segments, tables and control registers.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn special_registers(&self) -> Result<SpecialRegisters, MshvError>;

    /// The guest-physical address behind a linear address, or `None` where the guest has none.
    ///
    /// # Errors
    ///
    /// What the hypervisor says.
    fn translate(&self, address: u64, access: Access) -> Result<Option<u64>, MshvError>;
}
