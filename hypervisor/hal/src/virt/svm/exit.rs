//! What an exit code means, in vendor-neutral words (APM 2 appendix C).

use super::{Vcpu, vmcb::Control};
use crate::{
    addr::Gpa,
    virt::{Exit, GpaFault, IoExit},
};

const EXCEPTION: u64 = 0x40;
const NESTED_FAULT: u64 = 0x400;

/// Reads the exit that the control area records.
pub(super) fn decode(control: &Control) -> Exit {
    match control.exit_code {
        0x60 => Exit::Interrupt,
        0x61 => Exit::Nmi,
        0x63 => Exit::Init,
        0x6f => Exit::Rdpmc,
        0x72 => Exit::Cpuid,
        0x74 => Exit::Iret,
        0x76 | 0x89 => Exit::CacheFlush,
        0x77 => Exit::Pause,
        0x78 => Exit::Halt,
        0x7b => Exit::Io,
        0x7c => Exit::Msr { write: control.exit_info_1 & 1 != 0 },
        0x7d => Exit::TaskSwitch,
        0x7f => Exit::Shutdown,
        0x81 => Exit::Hypercall,
        0x7a | 0x80 | 0x82..=0x86 | 0x8a..=0x8c => Exit::Undefined,
        0x8d => Exit::Xsetbv,
        NESTED_FAULT => Exit::GpaFault,
        code @ EXCEPTION..=0x5f => {
            Exit::Exception { vector: (code - EXCEPTION) as u8, error: control.exit_info_1 as u32 }
        }
        code => Exit::Failed(code),
    }
}

impl Vcpu {
    /// The port access that the guest left by, if it left by one.
    pub fn io_exit(&self) -> IoExit {
        let control = &self.block().control;
        let info = control.exit_info_1;
        IoExit {
            port: (info >> 16) as u16,
            bytes: (info >> 4) as u8 & 7,
            input: info & 1 != 0,
            string: info & 4 != 0,
            repeat: info & 8 != 0,
            next_rip: control.exit_info_2,
        }
    }

    /// The address that the guest left by, if it left by one.
    pub fn gpa_fault(&self) -> GpaFault {
        let control = &self.block().control;
        let info = control.exit_info_1;
        GpaFault {
            gpa: Gpa(control.exit_info_2),
            present: info & 1 != 0,
            write: info & 2 != 0,
            execute: info & 0x10 != 0,
            in_page_walk: info & (1 << 33) != 0,
        }
    }
}
