//! The synthetic interrupt controller of a root processor: messages of the hypervisor to the driver.
//!
//! The pages are the hypervisor's and the root only switches them on (`Linux drivers/hv/mshv_synic.c`). All
//! messages go to SINT 0. What waits for the slot is not kept as messages but as what they would say, so that
//! nothing is lost and nothing needs room in proportion to how slow the root is: the VPs to wake (each waits at most
//! once), and one bit for the doorbell ring.
//!
//! A message that the driver cannot attribute would block the slot for ever, so only those two are ever sent.

use core::sync::atomic::Ordering;

use hal::{apic, lp::LpIndex, mem::SharedPage};
use model::doorbell::EventRing;
use tlfs::{
    ids::{PartitionId, SintIndex, VpIndex},
    msr::{self as hv, OverlayPageMsr, Scontrol, Sint},
    synic::{
        HvMessage, MESSAGE_FLAGS_OFFSET, MessageFlags, MessageHeader, MessageType, SchedulerVpSignalPair,
        SintIntercept,
    },
};
use zerocopy::IntoBytes;

use super::page_number;

const SINTS: usize = 16;
/// The driver's SINT for messages.
const MESSAGE_SINT: usize = 0;
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
    scontrol: Scontrol,
    sints: [Sint; SINTS],
    enabled: [bool; 3],
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
    pub fn new(lp: LpIndex, pages: [SharedPage; 3], signals: &'static mut [Signal]) -> Self {
        Self {
            lp,
            scontrol: Scontrol::new(),
            sints: [Sint::RESET; SINTS],
            enabled: [false; 3],
            pages,
            signals,
            waiting: 0,
            doorbell: false,
            ring: EventRing::new(),
        }
    }

    fn page_of(number: u32) -> Option<usize> {
        match number {
            hv::SIEFP => Some(SIEFP),
            hv::SIMP => Some(SIMP),
            hv::SIRBP => Some(SIRBP),
            _ => None,
        }
    }

    /// Reads an MSR of the controller. `None`: there is none such.
    pub fn read(&self, number: u32) -> Option<u64> {
        if let Some(page) = Self::page_of(number) {
            let word = OverlayPageMsr::new().with_gpa_page_number(page_number(self.pages.get(page)?));
            return Some(word.with_enable(*self.enabled.get(page)?).into_bits());
        }
        match number {
            hv::SCONTROL => Some(self.scontrol.into_bits()),
            hv::SVERSION => Some(hv::SYNIC_VERSION),
            hv::EOM => Some(0),
            _ => self.sints.get(number.checked_sub(hv::SINT0)? as usize).map(|sint| sint.into_bits()),
        }
    }

    /// Writes an MSR of the controller. `None`: there is none such, or the value is not allowed.
    pub fn write(&mut self, number: u32, value: u64) -> Option<()> {
        if let Some(page) = Self::page_of(number) {
            *self.enabled.get_mut(page)? = OverlayPageMsr::from_bits(value).enable();
        } else {
            match number {
                hv::SCONTROL => self.scontrol = Scontrol::from_bits(value),
                hv::EOM => {}
                _ => {
                    let sint = Sint::from_bits(value);
                    let valid = sint.masked() || sint.vector() >= hv::FIRST_VALID_VECTOR;
                    *self.sints.get_mut(number.checked_sub(hv::SINT0)? as usize).filter(|_| valid)? = sint;
                }
            }
        }
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

    /// Puts the next message into the slot if that is free, and interrupts the processor.
    fn deliver(&mut self) {
        let sint = self.sints[MESSAGE_SINT];
        let ready = self.scontrol.enable() && self.enabled[SIMP] && !sint.masked();
        if !ready || self.waiting == 0 && !self.doorbell || !self.slot_is_free() {
            return;
        }
        let mut message = if self.waiting > 0 { self.next_signals() } else { self.next_doorbell() };
        let more = self.waiting > 0 || self.doorbell;
        message.header.flags = MessageFlags::new().with_message_pending(more);
        let kind = core::mem::replace(&mut message.header.message_type, MessageType::NONE);
        let page = &self.pages[SIMP];
        page.write(0, message.as_bytes());
        // The type goes last: the driver takes the message as soon as it sees one.
        page.word_32(0).inspect(|word| word.store(kind.0, Ordering::Release));
        interrupt(self.lp, sint.vector());
    }

    /// Whether the slot is free; if not, the driver will say when it is (EOM).
    fn slot_is_free(&self) -> bool {
        let page = &self.pages[SIMP];
        let is_free = || page.word_32(0).is_none_or(|kind| kind.load(Ordering::SeqCst) == 0);
        if is_free() {
            return true;
        }
        page.byte_8(MESSAGE_FLAGS_OFFSET).inspect(|flags| {
            flags.fetch_or(MESSAGE_PENDING, Ordering::SeqCst);
        });
        // The driver frees the slot, then looks at the flag; this looks at the slot after setting the flag.
        is_free()
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
        message(MessageType::SCHEDULER_VP_SIGNAL_PAIR, pair.as_bytes())
    }

    fn next_doorbell(&mut self) -> HvMessage {
        self.doorbell = false;
        let intercept = SintIntercept { sint_index: SintIndex::DOORBELL };
        message(MessageType::SYNIC_SINT_INTERCEPT, intercept.as_bytes())
    }
}

fn message(kind: MessageType, payload: &[u8]) -> HvMessage {
    let header =
        MessageHeader { message_type: kind, payload_size: payload.len() as u8, ..MessageHeader::default() };
    let mut message = HvMessage { header, ..HvMessage::default() };
    message.payload.iter_mut().zip(payload).for_each(|(place, byte)| *place = *byte);
    message
}

/// Interrupts a root processor: its local APIC is the physical one.
fn interrupt(lp: LpIndex, vector: u8) {
    match hal::lp::apic_id(lp) {
        Some(_) if lp == hal::lp::this() => apic::self_ipi(vector),
        Some(id) => apic::send_fixed(id, vector),
        None => {}
    }
}
