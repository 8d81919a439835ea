//! One exit of a child, handled: by the hypervisor where the TLFS or the processor's manual says what happens, else
//! by the root.

use hal::virt::{Event, Exit, RAX, RDX, Register};

use super::{ChildCpu, Ended, Next, RESUME, count, end};
use crate::{
    hypercall::Buffers,
    vp::{Activity, guest_tsc},
};

impl ChildCpu<'_> {
    /// Handles `exit`.
    pub(super) fn handle(&mut self, exit: Exit, buffers: &mut Buffers) -> Next {
        let counters = &self.vp.counters;
        match exit {
            Exit::Msr { write } => {
                count(&counters.msrs);
                self.msr(write)
            }
            Exit::Hypercall => {
                count(&counters.hypercalls);
                self.hypercall(buffers)
            }
            Exit::Halt => {
                count(&counters.halts);
                self.halt(Activity::Halted, 1)
            }
            Exit::GpaFault => {
                count(&counters.gpa_faults);
                let fault = self.vcpu().gpa_fault();
                self.gpa_fault(&fault)
            }
            Exit::Io => {
                count(&counters.io);
                let io = self.vcpu().io_exit();
                self.report_port(&io)
            }
            Exit::Cpuid => self.report_cpuid(),
            other => {
                count(&counters.others);
                self.handle_rare(other)
            }
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
                hal::warn!(
                    "partition {:#x} VP {} cannot go on: {unexpected:?} at {rip:#x}",
                    self.vp.partition.id.0,
                    self.vp.index.0
                );
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
        let gprs = self.vcpu().gprs();
        let (index, value) = (gprs[hal::virt::RCX] as u32, gprs[RDX] << 32 | gprs[RAX] & 0xffff_ffff);
        if index == 0 && self.vcpu().privilege() == 0 && self.vcpu().write_xcr0(value) {
            self.vcpu().skip_instruction(3);
        } else {
            self.vcpu().inject(Event::PROTECTION);
        }
    }
}
