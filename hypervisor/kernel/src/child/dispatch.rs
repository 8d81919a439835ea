//! The dispatch loop (docs/adr/0004): a VP runs on the LP, and in the time, of the root thread that dispatches it.
//!
//! The loop returns as soon as the root has an interrupt, since the root's scheduler sees nothing else while it is
//! in the call. A VP that halts keeps the LP, halted, for a short window: most waits are short, and a trip through
//! the root costs more.

use core::sync::atomic::Ordering;

use hal::{
    cpu,
    virt::{Exit, lps},
};
use tlfs::{HvStatus, vp::DispatchFlags};

use super::{ChildCpu, Ended, Next, RESUME, count, end, intercept};
use crate::{
    partition::VpRef,
    root::{RootCpu, root},
    timer,
    vp::{Activity, request, ticks_of_us},
};

/// Dispatches `vp` until the root is needed.
///
/// # Errors
/// `INVALID_VP_STATE`: another LP dispatches it, or it must not be dispatched any more.
pub fn dispatch(root_cpu: &mut RootCpu, vp: &VpRef, flags: DispatchFlags) -> Result<Ended, HvStatus> {
    let mut ctx = vp.context.try_lock().ok_or(HvStatus::INVALID_VP_STATE)?;
    if vp.dispatch_suspended.load(Ordering::SeqCst) || vp.is_retired() {
        return Err(HvStatus::INVALID_VP_STATE);
    }
    let mut cpu = ChildCpu { vp, ctx: &mut ctx };
    vp.begin_dispatch();
    if flags.contains(DispatchFlags::CLEAR_INTERCEPT_SUSPEND) {
        cpu.ctx.intercept_suspended = false;
    }
    intercept::take_register_page(vp, cpu.ctx);
    count(&vp.counters.dispatches);
    root_cpu.vcpu.save_extended();
    cpu.ctx.vcpu.load_extended();
    let began = hal::cpu::tsc();
    let ended = cpu.run(root_cpu);
    vp.counters.run_ticks.fetch_add(hal::cpu::tsc() - began, Ordering::Relaxed);
    timer::set_running(timer::NEVER);
    cpu.ctx.vcpu.save_extended();
    root_cpu.vcpu.load_extended();
    if ended == Ended::Intercept {
        intercept::give_register_page(vp, cpu.ctx);
    }
    match ended {
        Ended::Blocked => {}
        // The root waits for a signal after it has resumed the VP.
        Ended::Suspended => vp.block(timer::NEVER),
        Ended::Ready | Ended::Intercept => vp.end_dispatch(),
    }
    Ok(ended)
}

/// What a pass through the loop comes to.
enum Step {
    /// The guest's next instruction.
    Enter,
    /// Another pass.
    Again,
    /// The root.
    Leave(Ended),
}

impl ChildCpu<'_> {
    fn run(&mut self, root_cpu: &mut RootCpu) -> Ended {
        loop {
            let next = match self.prepare() {
                Step::Enter => self.enter(root_cpu),
                Step::Again => RESUME,
                Step::Leave(ended) => end(ended),
            };
            if let Next::Break(ended) = next {
                return ended;
            }
        }
    }

    /// Does what was asked of the VP, so that only its instructions are left to run.
    fn prepare(&mut self) -> Step {
        let requests = self.vp.take_requests();
        if requests != 0 {
            self.obey(requests);
        }
        let stopped = self.ctx.intercept_suspended || self.vp.is_explicitly_suspended();
        if stopped || self.vp.dispatch_suspended.load(Ordering::SeqCst) || self.vp.is_retired() {
            return Step::Leave(Ended::Suspended);
        }
        if let Err(unmapped) = self.settle_eoi() {
            let _ = self.need(unmapped);
            return Step::Leave(Ended::Intercept);
        }
        let deadline = self.expire_timers();
        if self.ctx.messages_wait && self.deliver_messages().is_break() {
            return Step::Leave(Ended::Intercept);
        }
        if self.ctx.activity != Activity::Running && !self.can_continue() {
            return self.wait(deadline);
        }
        self.offer_events();
        timer::set_running(deadline);
        Step::Enter
    }

    /// Whether what a waiting VP waits for is there; if so it runs.
    fn can_continue(&mut self) -> bool {
        let go = self.ctx.activity != Activity::WaitForStartup && self.has_pending_event();
        if go {
            self.ctx.activity = Activity::Running;
        }
        go
    }

    /// Waits on this LP for a short while; then blocks the VP.
    fn wait(&mut self, deadline: u64) -> Step {
        let window = self.ctx.halted_at.saturating_add(ticks_of_us(root().options.halt_window_us));
        if self.ctx.activity == Activity::WaitForStartup || cpu::tsc() >= window {
            return self.block(deadline);
        }
        timer::set_running(deadline.min(window));
        match lps::wait() {
            lps::Wait::Interrupt(vector) => {
                timer::taken(vector);
                if vector != timer::VECTOR && timer::sort_interrupt() {
                    return Step::Leave(Ended::Ready);
                }
            }
            lps::Wait::Kicked | lps::Wait::Nothing => {}
        }
        Step::Again
    }

    /// Lets the root wait for the VP, unless there is work for it by now.
    fn block(&mut self, deadline: u64) -> Step {
        timer::set_running(timer::NEVER);
        self.vp.block(deadline);
        let is_awaiting_event = self.ctx.activity != Activity::WaitForStartup;
        let work = self.vp.has_requests()
            || self.vp.is_retired()
            || self.vp.dispatch_suspended.load(Ordering::SeqCst)
            || is_awaiting_event && self.has_pending_event();
        // If the work's waker was faster, the root has its signal and will dispatch again.
        if work && self.vp.unblock() { Step::Again } else { Step::Leave(Ended::Blocked) }
    }

    /// Runs the guest and handles its exit.
    fn enter(&mut self, root_cpu: &mut RootCpu) -> Next {
        let vp = self.vp;
        let mut exit = self.ctx.vcpu.run(&vp.partition.space);
        // What the VP was prepared with still holds after a CPUID, unless others have changed it: that comes with a kick.
        while exit == Exit::Cpuid && self.answers_cpuid() {
            exit = match self.ctx.vcpu.answered_kick() {
                true => Exit::Kick,
                false => self.ctx.vcpu.run(&vp.partition.space),
            };
        }
        self.settle_interrupts();
        self.follow_task_priority();
        match exit {
            Exit::Interrupt => self.interrupt(),
            Exit::Kick | Exit::Nmi | Exit::Init => RESUME,
            exit => match root_cpu.child_buffers.take() {
                Some(buffers) => {
                    let next = self.handle(exit, buffers);
                    root_cpu.child_buffers = Some(buffers);
                    next
                }
                None => RESUME,
            },
        }
    }

    /// A physical interrupt: the hypervisor's timer, or one for the root.
    fn interrupt(&mut self) -> Next {
        count(&self.vp.counters.interrupts);
        if timer::sort_interrupt() { end(Ended::Ready) } else { RESUME }
    }

    fn obey(&mut self, requests: u32) {
        if requests & request::FLUSH != 0 {
            self.vcpu().flush_translations();
        }
        if requests & request::MESSAGE != 0 {
            self.ctx.messages_wait = true;
        }
        if requests & request::INIT != 0 {
            self.init();
        }
        if requests & request::STARTUP != 0 && self.ctx.activity == Activity::WaitForStartup {
            self.start((requests >> request::VECTOR_SHIFT) as u8);
        }
        if requests & request::NMI != 0 {
            self.ctx.nmi_pending = true;
        }
    }
}
