//! What interrupts a VP: its local APIC, NMIs, start-up, timers and SynIC messages.

use core::sync::atomic::Ordering;

use hal::{
    addr::{Gpa, Hpa},
    mem::foreign,
    virt::{Event, Register, Segment, SegmentName},
};
use model::{
    lapic::Trigger,
    synic::{EventFlagsPage, MessagePage, Offer, Page, Signal},
};
use tlfs::{
    SintIndex,
    msr::{OverlayPageMsr, VP_ASSIST_PAGE},
    synic::{HvMessage, MESSAGE_FLAGS_OFFSET, MessageFlags, MessageType, SLOT_SIZE},
};
use zerocopy::IntoBytes;

use super::{ChildCpu, Next, RESUME};
use crate::{
    hypercall::Unmapped,
    partition::Partition,
    timer,
    vp::{Activity, Offered, Vp, guest_tsc},
};

impl ChildCpu<'_> {
    /// Whether there is what ends a wait: an NMI, or an interrupt, which HLT has to be able to take; for guest idle it is
    /// enough that it arrived (TLFS virtual-processors, "Virtual Processor Idle Sleep State"). Linux idles so when it waits
    /// for a spin lock in the handler of an interrupt that it has not ended yet.
    pub(super) fn has_pending_event(&mut self) -> bool {
        const INTERRUPT_FLAG: u64 = 1 << 9;
        let nmi = self.ctx.nmi_pending && !self.ctx.nmi_masked;
        let external = self.vp.external().is_some();
        let interrupt = match self.ctx.activity {
            Activity::Idle => external || self.vp.lapic.lock().has_request(),
            _ if self.ctx.vcpu.get(Register::Rflags) & INTERRUPT_FLAG == 0 => false,
            _ => external || self.vp.lapic.lock().pending().is_some(),
        };
        nmi || self.ctx.vcpu.has_event() || interrupt
    }

    /// Puts the most urgent event into the VP, or offers it the most urgent interrupt.
    pub(super) fn offer_events(&mut self) {
        let ctx = &mut *self.ctx;
        if ctx.nmi_pending && !ctx.nmi_masked && !ctx.vcpu.has_event() && !ctx.vcpu.has_interrupt_shadow() {
            ctx.vcpu.inject(Event::Nmi);
            ctx.nmi_pending = false;
            ctx.nmi_masked = true;
            ctx.vcpu.exit_on_iret(true);
        }
        let mut lapic = self.vp.lapic.lock();
        ctx.task_priority = lapic.cr8();
        ctx.vcpu.set_task_priority(ctx.task_priority);
        if let Some(vector) = lapic.pending() {
            // In service from here on: the same vector that is requested while the VP runs is another interrupt.
            if self.vp.is_auto_eoi(vector) {
                lapic.acknowledge_auto_eoi(vector);
            } else {
                lapic.acknowledge(vector);
            }
            ctx.vcpu.offer_interrupt(vector, true);
            ctx.offered = Some(Offered::Apic(vector));
        } else if let Some(vector) = self.vp.external() {
            ctx.vcpu.offer_interrupt(vector, false);
            ctx.offered = Some(Offered::External(vector));
        }
        // What came since the last exit may wait for the end of the interrupt in service: then that needs an exit again.
        let is_lazy = lapic.eoi_assist_allowed();
        drop(lapic);
        if is_lazy != self.ctx.has_lazy_eoi && self.set_eoi_assist(is_lazy) {
            self.ctx.has_lazy_eoi = is_lazy;
        }
    }

    /// The VP has left its guest: what it was offered and did not take waits again, and an interrupt that it ended in
    /// its assist page is over.
    pub(super) fn settle_interrupts(&mut self) {
        if let Some(offered) = self.ctx.offered.take() {
            let is_refused = self.ctx.vcpu.withdraw_interrupt();
            match offered {
                Offered::Apic(vector) if is_refused => self.vp.lapic.lock().take_back(vector),
                Offered::External(_) if !is_refused => self.vp.set_external(None),
                Offered::Apic(_) | Offered::External(_) => {}
            }
        }
        // A page that the root has unmapped is asked for before the VP goes on.
        let _ = self.settle_eoi();
    }

    /// Ends the interrupt whose end the VP's assist page tells, if it does.
    ///
    /// # Errors
    /// The page is not mapped now. What it says must not be missed: the interrupt would be in service for ever.
    pub(super) fn settle_eoi(&mut self) -> Result<(), Unmapped> {
        if !self.ctx.has_lazy_eoi {
            return Ok(());
        }
        if let Some(gpa) = self.assist_page() {
            let page = GuestPage::new(&self.vp.partition, gpa);
            let word = page.and_then(|page| page.word()).ok_or(Unmapped { gpa, write: true })?;
            if word & NO_EOI != 0 {
                return Ok(());
            }
            // It was edge-triggered, so nobody else waits for its end.
            let _ = self.vp.lapic.lock().eoi();
        }
        self.ctx.has_lazy_eoi = false;
        Ok(())
    }

    /// Where the VP's assist page is, if it has one.
    fn assist_page(&self) -> Option<Gpa> {
        let place = OverlayPageMsr::from_bits(self.ctx.extra.msrs.get(VP_ASSIST_PAGE)?);
        place.enable().then(|| Gpa::from_page(place.gpa_page_number()))
    }

    /// Says in the VP's assist page whether its next EOI needs no exit (TLFS 2.0 §13.3.4.1). `false`: it could not be said.
    fn set_eoi_assist(&self, on: bool) -> bool {
        let page = self.assist_page().and_then(|gpa| GuestPage::new(&self.vp.partition, gpa));
        page.is_some_and(|page| page.set_word(if on { NO_EOI } else { 0 }))
    }

    /// The guest writes CR8 without an exit: the APIC learns of it here.
    pub(super) fn follow_task_priority(&mut self) {
        let cr8 = self.ctx.vcpu.task_priority();
        if cr8 != self.ctx.task_priority {
            self.ctx.task_priority = cr8;
            // Four bits, all of which are valid.
            let _ = self.vp.lapic.lock().set_cr8(u64::from(cr8));
        }
    }

    /// INIT: a state as after RESET that waits for a start-up IPI (SDM 3A §11.4.7.3).
    pub(super) fn init(&mut self) {
        self.ctx.vcpu.init();
        self.ctx.offered = None;
        self.ctx.has_lazy_eoi = false;
        self.ctx.nmi_masked = false;
        self.ctx.nmi_pending = false;
        self.vp.lapic.lock().reset_init();
        self.ctx.activity = if self.vp.index.0 == 0 { Activity::Running } else { Activity::WaitForStartup };
    }

    /// A start-up IPI: real mode at `vector` << 12.
    pub(super) fn start(&mut self, vector: u8) {
        let code = Segment {
            selector: u16::from(vector) << 8,
            attributes: 0x9b,
            limit: 0xffff,
            base: u64::from(vector) << 12,
        };
        self.vcpu().set_segment(SegmentName::Cs, code);
        self.vcpu().set(Register::Rip, 0);
        self.ctx.activity = Activity::Running;
    }

    /// Expires what is due and returns when the next timer is, as a TSC value.
    pub(super) fn expire_timers(&mut self) -> u64 {
        let now = guest_tsc();
        self.expire_lapic(now).min(self.expire_synthetic(now))
    }

    fn expire_lapic(&mut self, now: u64) -> u64 {
        let mut lapic = self.vp.lapic.lock();
        let next = lapic.timer_deadline().unwrap_or(timer::NEVER);
        if next > now {
            return next;
        }
        lapic.timer_expire(now);
        // A guest may ask for a period shorter than its own handler: it gets no more than one interrupt an exit.
        lapic.timer_deadline().map_or(timer::NEVER, |at| at.max(now + MIN_PERIOD))
    }

    fn expire_synthetic(&mut self, now: u64) -> u64 {
        let Some(due) = self.ctx.extra.timers.deadline() else { return timer::NEVER };
        let clock = *self.vp.partition.clock.lock();
        let at = clock.tsc_at(due);
        if at > now {
            return at;
        }
        let vp = self.vp;
        let raise = |vector| {
            vp.lapic.lock().request(vector, Trigger::Edge);
        };
        self.ctx.messages_wait |= self.ctx.extra.timers.expire(clock.at(now), raise);
        let next = self.ctx.extra.timers.deadline();
        next.map_or(timer::NEVER, |due| clock.tsc_at(due).max(now + MIN_PERIOD))
    }

    /// Moves messages that wait into the message page. If that is not mapped, the root has to map it first.
    pub(super) fn deliver_messages(&mut self) -> Next {
        let vp = self.vp;
        if let Err(unmapped) = vp.set_late_flags() {
            return self.need(unmapped);
        }
        let mut synic = vp.synic.lock();
        if synic.takes_messages() {
            let gpa = Gpa::from_page(synic.page(Page::Messages).gpa_page_number());
            let Some(mut page) = GuestPage::new(&vp.partition, gpa) else {
                drop(synic);
                return self.need(Unmapped { gpa, write: true });
            };
            let now = vp.partition.clock.lock().at(guest_tsc());
            self.ctx.extra.timers.deliver(now, |sint, message| match synic.offer(&mut page, sint, message) {
                Offer::Delivered(signal) => {
                    vp.raise(signal);
                    true
                }
                Offer::Busy | Offer::Off => false,
            });
            synic.scan(&mut page, |_, signal| vp.raise(signal));
        }
        drop(synic);
        self.ctx.messages_wait = false;
        RESUME
    }
}

/// "No EOI required" in the first word of the VP assist page (`TLFS datatypes/hv_vp_assist_page`).
const NO_EOI: u32 = 1;

/// The shortest time between two expiries of a timer: about what an exit takes.
const MIN_PERIOD: u64 = 4096;

impl Vp {
    /// Raises the interrupt that goes with a SynIC message or event. The caller wakes the VP if it is another's.
    pub fn raise(&self, signal: Signal) {
        if let Signal::Interrupt { vector, auto_eoi } = signal {
            self.set_auto_eoi(vector, auto_eoi);
            self.lapic.lock().request(vector, Trigger::Edge);
        }
    }

    fn set_auto_eoi(&self, vector: u8, on: bool) {
        let (word, bit) = (&self.auto_eoi[usize::from(vector / 64)], 1u64 << (vector % 64));
        if on {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    fn is_auto_eoi(&self, vector: u8) -> bool {
        self.auto_eoi[usize::from(vector / 64)].load(Ordering::Relaxed) >> (vector % 64) & 1 != 0
    }
}

/// A page of the child's memory that the hypervisor reads and writes on the child's behalf.
pub struct GuestPage<'a> {
    /// Whose.
    pub partition: &'a Partition,
    /// Its address.
    pub gpa: Gpa,
}

impl<'a> GuestPage<'a> {
    /// The page at `gpa`, if it is mapped writable now. Should it be unmapped later, accesses do nothing.
    pub fn new(partition: &'a Partition, gpa: Gpa) -> Option<Self> {
        partition.space.translate(gpa).filter(|translation| translation.access.write)?;
        Some(Self { partition, gpa })
    }

    fn with<R>(&self, offset: usize, access: impl FnOnce(Hpa) -> Option<R>) -> Option<R> {
        let at = Gpa(self.gpa.0 + offset as u64);
        self.partition.space.with(at, |t| if t.access.write { access(t.hpa) } else { None })?
    }

    /// The first word.
    fn word(&self) -> Option<u32> {
        self.with(0, |hpa| foreign::read_value(hpa).ok())
    }

    /// Sets the first word. `false`: the page is gone.
    fn set_word(&self, value: u32) -> bool {
        self.with(0, |hpa| foreign::write(hpa, value.as_bytes()).ok()).is_some()
    }

    /// Sets bits of an aligned quadword. Returns those that were clear.
    pub fn set_bits(&self, offset: usize, bits: u64) -> Option<u64> {
        let attempt = |hpa| {
            loop {
                let old = foreign::read_value::<u64>(hpa).ok()?;
                if foreign::set_bits(hpa, old, bits).ok()? {
                    return Some(bits & !old);
                }
            }
        };
        self.with(offset, attempt)
    }
}

impl EventFlagsPage for GuestPage<'_> {
    fn set(&mut self, sint: SintIndex, flag: u16) -> Option<bool> {
        let offset = sint.0 as usize * SLOT_SIZE + usize::from(flag / 64 * 8);
        self.set_bits(offset, 1 << (flag % 64)).map(|clear| clear != 0)
    }
}

impl MessagePage for GuestPage<'_> {
    fn message_type(&self, sint: SintIndex) -> MessageType {
        // A page that is gone takes nothing: it looks like a full slot.
        let word = self.with(sint.0 as usize * SLOT_SIZE, |hpa| foreign::read_value(hpa).ok());
        word.map_or(MessageType::TIMER_EXPIRED, MessageType)
    }

    fn write(&mut self, sint: SintIndex, message: &HvMessage) {
        let start = sint.0 as usize * SLOT_SIZE;
        // The type goes last, since the guest takes the message as soon as it sees one.
        let (kind, rest) = message.as_bytes().split_at(size_of::<MessageType>());
        let _ = self.with(start + kind.len(), |hpa| foreign::write(hpa, rest).ok());
        core::sync::atomic::fence(Ordering::Release);
        let _ = self.with(start, |hpa| foreign::write(hpa, kind).ok());
    }

    fn set_pending(&mut self, sint: SintIndex) {
        let flag = u64::from(MessageFlags::new().with_message_pending(true).into_bits());
        self.set_bits(sint.0 as usize * SLOT_SIZE, flag << (8 * MESSAGE_FLAGS_OFFSET));
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}
