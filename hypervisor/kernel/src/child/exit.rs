//! One exit of a child, handled: by the hypervisor where the TLFS or the processor's manual says what happens, else
//! by the root.

use hal::virt::{Event, Exit, RCX, Register};

use super::{ChildCpu, Ended, Next, RESUME, count, end};
use crate::{
    hypercall::Buffers,
    root::msr::to_write,
    vp::{Activity, guest_tsc},
};

impl ChildCpu<'_> {
    /// Handles `exit`.
    pub(super) fn handle(&mut self, exit: Exit, buffers: &mut Buffers) -> Next {
        let counters = &self.vp.counters;
        count(match exit {
            Exit::Msr { .. } => &counters.msrs,
            Exit::Hypercall => &counters.hypercalls,
            Exit::Halt => &counters.halts,
            Exit::GpaFault => &counters.gpa_faults,
            Exit::Io => &counters.io,
            Exit::Cpuid => &counters.cpuid,
            _ => &counters.others,
        });
        match exit {
            Exit::Msr { write } => self.msr(write),
            Exit::Hypercall => self.hypercall(buffers),
            Exit::Halt => self.halt(Activity::Halted, 1),
            Exit::GpaFault => self.gpa_fault(&self.ctx.vcpu.gpa_fault()),
            Exit::Io => self.report_port(&self.ctx.vcpu.io_exit()),
            Exit::Cpuid => self.report_cpuid(),
            other => self.handle_rare(other),
        }
    }

    fn handle_rare(&mut self, exit: Exit) -> Next {
        match exit {
            Exit::Iret => {
                self.ctx.nmi_masked = false;
                self.vcpu().exit_on_iret(false);
            }
            // Caches are coherent, and memory that a child sees is write-back.
            Exit::CacheFlush => self.vcpu().skip_instruction(2),
            Exit::Pause => {
                // The lock's holder may be another VP that waits for this LP.
                self.vcpu().skip_instruction(2);
                return end(Ended::Ready);
            }
            Exit::Rdpmc => self.vcpu().inject(Event::PROTECTION),
            Exit::Xsetbv => self.xsetbv(),
            Exit::Undefined => self.vcpu().inject(Event::UNDEFINED),
            Exit::Exception { vector, error } => return self.report_exception(vector, error),
            Exit::Shutdown => return self.report_unrecoverable(),
            unexpected => {
                let rip = self.vcpu().get(Register::Rip);
                let (id, index) = (self.vp.partition.id.0, self.vp.index.0);
                hal::warn!("partition {id:#x} VP {index} cannot go on: {unexpected:?} at {rip:#x}");
                return self.report_unrecoverable();
            }
        }
        RESUME
    }

    /// The VP waits for an interrupt; its instruction of `length` bytes is done.
    pub(super) fn halt(&mut self, activity: Activity, length: u64) -> Next {
        self.vcpu().skip_instruction(length);
        self.ctx.activity = activity;
        self.ctx.halted_at = guest_tsc();
        RESUME
    }

    fn xsetbv(&mut self) {
        const CR4_OSXSAVE: u64 = 1 << 18;
        if self.vcpu().get(Register::Cr4) & CR4_OSXSAVE == 0 {
            self.vcpu().inject(Event::UNDEFINED);
            return;
        }
        let (index, value) = (self.vcpu().gprs()[RCX] as u32, to_write(self.vcpu()));
        if index == 0 && self.vcpu().privilege() == 0 && self.vcpu().write_xcr0(value) {
            self.vcpu().skip_instruction(3);
        } else {
            self.vcpu().inject(Event::PROTECTION);
        }
    }
}
