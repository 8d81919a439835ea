//! The synthetic interrupt controller of a root processor: messages of the hypervisor to the driver, and what comes
//! through the root's ports.
//!
//! The pages are the hypervisor's and the root only switches them on (`Linux drivers/hv/mshv_synic.c`). The
//! hypervisor's own messages go to SINT 0. What waits for the slot is not kept as messages but as what they would say, so
//! that nothing is lost and nothing needs room in proportion to how slow the root is: the VPs to wake (each waits at most
//! once), and one bit for the doorbell ring.
//!
//! A message that the driver cannot attribute would block the slot for ever, so only those two are ever sent.

use core::sync::atomic::Ordering;

use hal::{apic, lp::LpIndex, mem::SharedPage};
use model::{
    doorbell::EventRing,
    synic::{self, EventFlagsPage, MessagePage, Synic, claim},
};
use tlfs::{
    HvStatus,
    ids::{PartitionId, PortId, SintIndex, VpIndex},
    msr::{self as hv, OverlayPageMsr},
    synic::{
        HvMessage, MESSAGE_FLAGS_OFFSET, MessageFlags, MessageType, SLOT_SIZE, SchedulerVpSignalPair,
        SintIntercept,
    },
};
use zerocopy::IntoBytes;

use super::page_number;

const MESSAGE_PENDING: u8 = MessageFlags::new().with_message_pending(true).into_bits();

/// A VP that the root is to dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Its partition.
    pub partition: PartitionId,
    /// Its index.
    pub vp: VpIndex,
}

/// The controller's registers, pages and what waits to be said.
pub struct RootSynic {
    lp: LpIndex,
    synic: &'static mut Synic<8>,
    ring_page: OverlayPageMsr,
    pages: [SharedPage; 3],
    signals: &'static mut [Signal],
    waiting: usize,
    doorbell: bool,
    ring: EventRing,
}

/// Indices of the pages.
const SIEFP: usize = 0;
const SIMP: usize = 1;
const SIRBP: usize = 2;

impl RootSynic {
    /// A controller after reset. `pages` are for event flags, messages and event rings; `signals` has room for every
    /// VP that can exist.
    pub fn new(
        lp: LpIndex,
        synic: &'static mut Synic<8>,
        pages: [SharedPage; 3],
        signals: &'static mut [Signal],
    ) -> Self {
        let mut new = Self {
            lp,
            synic,
            ring_page: OverlayPageMsr::new(),
            pages,
            signals,
            waiting: 0,
            doorbell: false,
            ring: EventRing::new(),
        };
        for page in [hv::SIEFP, hv::SIMP, hv::SIRBP] {
            new.write(page, 0);
        }
        new
    }

    /// Reads an MSR of the controller. `None`: there is none such.
    pub fn read(&self, number: u32) -> Option<u64> {
        match number {
            hv::SIRBP => Some(self.ring_page.into_bits()),
            _ => self.synic.read_msr(number).ok(),
        }
    }

    /// Writes an MSR of the controller. `None`: there is none such, or the value is not allowed. Of a page, only whether
    /// it is enabled is taken over.
    pub fn write(&mut self, number: u32, value: u64) -> Option<()> {
        let enable = OverlayPageMsr::from_bits(value).enable();
        let placed = |page: &SharedPage| {
            OverlayPageMsr::new().with_gpa_page_number(page_number(page)).with_enable(enable)
        };
        let value = match number {
            hv::SIRBP => {
                self.ring_page = placed(&self.pages[SIRBP]);
                return Some(());
            }
            hv::SIEFP => placed(&self.pages[SIEFP]).into_bits(),
            hv::SIMP => placed(&self.pages[SIMP]).into_bits(),
            _ => value,
        };
        self.synic.write_msr(number, value).ok()?;
        self.deliver();
        Some(())
    }

    /// Starts the doorbell ring anew: the driver counts from zero when a processor comes online.
    pub fn reset_event_ring(&mut self) {
        self.doorbell = false;
        self.ring = EventRing::new();
        self.pages[SIRBP].write(0, &[0; hal::addr::PAGE_SIZE]);
    }

    /// Tells the driver to dispatch a VP. The caller sends no second signal for a VP before the first was answered.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(place) = self.signals.get_mut(self.waiting) {
            *place = signal;
            self.waiting += 1;
        }
        self.deliver();
    }

    /// Drops the signals of a partition that is going away: the driver no longer knows it.
    pub fn forget(&mut self, partition: PartitionId) {
        let mut kept = 0;
        for index in 0..self.waiting {
            if self.signals[index].partition != partition {
                self.signals[kept] = self.signals[index];
                kept += 1;
            }
        }
        self.waiting = kept;
    }

    /// The doorbell ring and the page it is in.
    pub fn event_ring(&mut self) -> (&mut EventRing, &SharedPage) {
        (&mut self.ring, &self.pages[SIRBP])
    }

    /// Tells the driver to look at its doorbell ring.
    pub fn signal_doorbell(&mut self) {
        self.doorbell = true;
        self.deliver();
    }

    /// Posts a message of a port.
    ///
    /// # Errors
    /// Those of `Synic::post`.
    pub fn post(&mut self, sint: SintIndex, message: &HvMessage) -> Result<(), HvStatus> {
        self.synic.post(sint, message)?;
        self.deliver();
        Ok(())
    }

    /// Sets an event flag and returns whether it was clear.
    ///
    /// # Errors
    /// Those of `Synic::signal_event`.
    pub fn signal_event(&mut self, sint: SintIndex, flag: u16) -> Result<bool, HvStatus> {
        let signal = self.synic.signal_event(&mut Slots(&self.pages[SIEFP]), sint, flag)?;
        Ok(signal.map(|signal| interrupt(self.lp, signal)).is_some())
    }

    /// Frees the messages that a port has queued here.
    pub fn forget_port(&mut self, port: PortId) {
        self.synic.forget(port);
    }

    /// Puts what waits into slots that are free, and interrupts the processor.
    fn deliver(&mut self) {
        const SINT: SintIndex = SintIndex::INTERCEPTION;
        let mut slots = Slots(&self.pages[SIMP]);
        self.synic.scan(&mut slots, |_, signal| interrupt(self.lp, signal));
        let signal = self.synic.signal(SINT);
        let ready = self.synic.takes_messages() && signal != synic::Signal::None;
        // If the slot is in use, the driver will say when it is free (EOM).
        if !ready || self.waiting == 0 && !self.doorbell || !claim(&mut slots, SINT) {
            return;
        }
        let mut message = if self.waiting > 0 { self.next_signals() } else { self.next_doorbell() };
        let more = self.waiting > 0 || self.doorbell;
        message.header.flags = MessageFlags::new().with_message_pending(more);
        Slots(&self.pages[SIMP]).write(SINT, &message);
        interrupt(self.lp, signal);
    }

    fn next_signals(&mut self) -> HvMessage {
        let mut pair = SchedulerVpSignalPair::default();
        let count = self.waiting.min(pair.vp_indexes.len());
        let places = pair.partition_ids.iter_mut().zip(pair.vp_indexes.iter_mut());
        for (signal, (partition, vp)) in self.signals.iter().take(count).zip(places) {
            (*partition, *vp) = (signal.partition, signal.vp);
        }
        self.signals.copy_within(count..self.waiting, 0);
        self.waiting -= count;
        pair.vp_count = count as u8;
        HvMessage::new(MessageType::SCHEDULER_VP_SIGNAL_PAIR, 0, &pair)
    }

    fn next_doorbell(&mut self) -> HvMessage {
        self.doorbell = false;
        let intercept = SintIntercept { sint_index: SintIndex::DOORBELL };
        HvMessage::new(MessageType::SYNIC_SINT_INTERCEPT, 0, &intercept)
    }
}

/// The slots of a page that the root reads and writes too.
struct Slots<'a>(&'a SharedPage);

const fn slot(sint: SintIndex) -> usize {
    sint.0 as usize * SLOT_SIZE
}

impl MessagePage for Slots<'_> {
    fn message_type(&self, sint: SintIndex) -> MessageType {
        let kind = self.0.word_32(slot(sint)).map(|kind| MessageType(kind.load(Ordering::SeqCst)));
        kind.unwrap_or(MessageType::NONE)
    }

    fn write(&mut self, sint: SintIndex, message: &HvMessage) {
        let mut message = *message;
        let kind = core::mem::replace(&mut message.header.message_type, MessageType::NONE);
        self.0.write(slot(sint), message.as_bytes());
        // The type goes last: the driver takes the message as soon as it sees one.
        self.0.word_32(slot(sint)).inspect(|word| word.store(kind.0, Ordering::Release));
    }

    fn set_pending(&mut self, sint: SintIndex) {
        self.0.byte_8(slot(sint) + MESSAGE_FLAGS_OFFSET).inspect(|flags| {
            flags.fetch_or(MESSAGE_PENDING, Ordering::SeqCst);
        });
    }
}

impl EventFlagsPage for Slots<'_> {
    fn set(&mut self, sint: SintIndex, flag: u16) -> Option<bool> {
        let byte = self.0.byte_8(slot(sint) + usize::from(flag / 8))?;
        Some(byte.fetch_or(1 << (flag % 8), Ordering::SeqCst) >> (flag % 8) & 1 == 0)
    }
}

/// Interrupts a root processor: its local APIC is the physical one.
fn interrupt(lp: LpIndex, signal: synic::Signal) {
    let synic::Signal::Interrupt { vector, .. } = signal else { return };
    match hal::lp::apic_id(lp) {
        Some(_) if lp == hal::lp::this() => apic::self_ipi(vector),
        Some(id) => apic::send_fixed(id, vector),
        None => {}
    }
}
