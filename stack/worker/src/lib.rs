//! The worker: one process that is one virtual machine.
//!
//! [`boot`] fills guest memory from the configuration; [`device`] has the machine's devices; `partition` and
//! `vp` bring both to `/dev/mshv`. The crate is a library so that all but the last can be tested, and run,
//! without a hypervisor.

pub mod acpi;
pub mod board;
pub mod boot;
pub mod console;
pub mod cpu;
pub mod device;
pub mod emulate;
pub mod exit;
pub mod layout;
pub mod machine;
pub mod memory;
pub mod partition;
pub mod raw;
pub mod signal;
pub mod supervisor;
pub mod synthetic;
pub mod vp;
