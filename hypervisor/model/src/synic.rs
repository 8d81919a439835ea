//! The synthetic interrupt controller of one VP: its registers, its message queue, and what an arrival causes.
//!
//! The message and event flags pages are memory that the guest writes while we look at it. They are reached through
//! [`MessagePage`] and [`EventFlagsPage`], whose implementer answers for the atomicity asked for there. Everything
//! else is the hypervisor's own state and needs the VP's lock only.
//!
//! The root's pages are placed by the hypervisor, and what else it has is `kernel`'s own (`root/synic.rs`).
//!
//! Source: TLFS inter-partition-communication.

use tlfs::{
    HvStatus, PortId, SintIndex,
    msr::{self, FIRST_VALID_VECTOR, OverlayPageMsr, SYNIC_VERSION, Scontrol, Sint},
    synic::{EVENT_FLAGS_COUNT, HvMessage, MessageType},
};

use crate::{ensure, lapic::GeneralProtection};

mod queue;

use queue::Queue;

/// The message page (SIM page) of a VP.
pub trait MessagePage {
    /// The type in the slot, which the guest may clear at any time. Must not be ordered before an earlier
    /// [`set_pending`](Self::set_pending) (store, full fence, load): the guest clears the type and then looks at
    /// the flag, and one of the two sides has to notice the other.
    fn message_type(&self, sint: SintIndex) -> MessageType;
    /// Fills an empty slot. The type is to be written last, after a release fence.
    fn write(&mut self, sint: SintIndex, message: &HvMessage);
    /// Sets the pending flag of the message in the slot, leaving the rest of the slot alone.
    fn set_pending(&mut self, sint: SintIndex);
}

/// The event flags page (SIEF page) of a VP.
pub trait EventFlagsPage {
    /// Sets a flag atomically and returns whether it was clear; `None` if the page cannot be written at present.
    fn set(&mut self, sint: SintIndex, flag: u16) -> Option<bool>;
}

/// How the VP is told of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Not at all: the source is masked or polled.
    None,
    /// By an edge-triggered interrupt.
    Interrupt {
        /// Its vector, 16 or above.
        vector: u8,
        /// Whether delivery is also the end of the interrupt.
        auto_eoi: bool,
    },
}

/// What became of a message that has a buffer of its own ([`Synic::offer`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in its slot.
    Delivered(Signal),
    /// The slot is in use, and the guest has been asked for an end of message.
    Busy,
    /// The VP takes no messages at present.
    Off,
}

/// What the caller has to do after a register write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Call [`Synic::scan`], and offer the messages of timers again.
    Scan,
    /// Place or remove an overlay page, then proceed as for [`Scan`](Self::Scan).
    Page(Page),
}

/// The pages of the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// SIEFP.
    EventFlags,
    /// SIMP.
    Messages,
}

/// The controller of one VP, with room for `N` messages that wait for their slots. The TLFS gives each port sixteen
/// buffers of its own; here the ports that aim at a VP share the VP's.
#[derive(Clone, Debug)]
pub struct Synic<const N: usize> {
    scontrol: Scontrol,
    pages: [OverlayPageMsr; 2],
    sints: [Sint; SintIndex::COUNT],
    queue: Queue<N>,
    late_flags: [Option<(SintIndex, u16)>; 16],
}

impl<const N: usize> Synic<N> {
    /// The controller of a child's VP after creation or reset.
    pub const fn new() -> Self {
        Self {
            scontrol: Scontrol::new(),
            pages: [OverlayPageMsr::new(); 2],
            sints: [Sint::RESET; SintIndex::COUNT],
            queue: Queue::new(),
            late_flags: [None; 16],
        }
    }

    /// Reads one of the MSRs from SCONTROL to SINT15, except SIRBP in a child.
    ///
    /// # Errors
    /// For any other MSR.
    pub fn read_msr(&self, msr: u32) -> Result<u64, GeneralProtection> {
        match msr {
            msr::SCONTROL => Ok(self.scontrol.into_bits()),
            msr::SVERSION => Ok(SYNIC_VERSION),
            msr::EOM => Ok(0),
            msr::SINT0..=msr::SINT15 => Ok(self.sint(SintIndex(msr - msr::SINT0)).into_bits()),
            _ => Ok(self.page(self.page_of(msr)?).into_bits()),
        }
    }

    /// Writes one of the MSRs from SCONTROL to SINT15, except SIRBP in a child. Bits that the TLFS asks the guest to
    /// preserve are stored.
    ///
    /// # Errors
    /// For any other MSR, for SVERSION, and for an unmasked source with a vector below 16.
    pub fn write_msr(&mut self, msr: u32, value: u64) -> Result<Effect, GeneralProtection> {
        match msr {
            msr::SCONTROL => {
                self.scontrol = Scontrol::from_bits(value);
                return Ok(Effect::Scan);
            }
            msr::SVERSION => return Err(GeneralProtection),
            msr::EOM => return Ok(Effect::Scan),
            msr::SINT0..=msr::SINT15 => {
                let sint = Sint::from_bits(value);
                ensure(sint.vector() >= FIRST_VALID_VECTOR || sint.masked(), GeneralProtection)?;
                self.sints[(msr - msr::SINT0) as usize] = sint;
            }
            _ => {
                let page = self.page_of(msr)?;
                self.pages[page as usize] = OverlayPageMsr::from_bits(value);
                return Ok(Effect::Page(page));
            }
        }
        Ok(Effect::None)
    }

    /// The register that places a page.
    pub const fn page(&self, page: Page) -> OverlayPageMsr {
        self.pages[page as usize]
    }

    /// Whether messages may be directed to the VP.
    pub const fn takes_messages(&self) -> bool {
        self.scontrol.enable() && self.page(Page::Messages).enable()
    }

    /// Whether event flags may be directed to the VP.
    pub const fn takes_events(&self) -> bool {
        self.scontrol.enable() && self.page(Page::EventFlags).enable()
    }

    /// How the VP is told of an arrival at `sint`.
    pub fn signal(&self, sint: SintIndex) -> Signal {
        let sint = self.sint(sint);
        if sint.masked() || sint.polling() {
            Signal::None
        } else {
            Signal::Interrupt { vector: sint.vector(), auto_eoi: sint.auto_eoi() }
        }
    }

    /// Queues a message, which the next [`scan`](Self::scan) moves into its slot if that is empty. A masked source takes
    /// messages too.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if there is no such source, `INVALID_SYNIC_STATE` if the controller or the message page
    /// is disabled, `INSUFFICIENT_BUFFERS` if the queue is full.
    pub fn post(&mut self, sint: SintIndex, message: &HvMessage) -> Result<(), HvStatus> {
        ensure((sint.0 as usize) < SintIndex::COUNT, HvStatus::INVALID_PARAMETER)?;
        ensure(self.takes_messages(), HvStatus::INVALID_SYNIC_STATE)?;
        ensure(self.queue.push(sint, message), HvStatus::INSUFFICIENT_BUFFERS)
    }

    /// Frees the messages that a port has queued here, as it is deleted.
    pub fn forget(&mut self, port: PortId) {
        self.queue.forget(u64::from(port.0));
    }

    /// Delivers a message that has a buffer of its own, as those of timers do. It goes behind what is queued for the
    /// source.
    pub fn offer(&self, page: &mut impl MessagePage, sint: SintIndex, message: &HvMessage) -> Offer {
        if !self.takes_messages() {
            return Offer::Off;
        }
        if self.queue.is_waiting(sint) || !claim(page, sint) {
            return Offer::Busy;
        }
        page.write(sint, message);
        Offer::Delivered(self.signal(sint))
    }

    /// Delivers queued messages whose slots have become empty, for an end of message or of an interrupt; `signalled`
    /// is called for each.
    pub fn scan(&mut self, page: &mut impl MessagePage, mut signalled: impl FnMut(SintIndex, Signal)) {
        if !self.takes_messages() {
            return;
        }
        for sint in (0..SintIndex::COUNT as u32).map(SintIndex) {
            if self.advance(page, sint) {
                signalled(sint, self.signal(sint));
            }
        }
    }

    /// Sets an event flag. Returns whether it was clear; if it was, how the VP is told of it. While the page cannot be
    /// written the flag is kept for [`set_late_flags`](Self::set_late_flags).
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if there is no such source or flag, `INVALID_SYNIC_STATE` if the controller or the event
    /// flags page is disabled or the source is masked, `INSUFFICIENT_BUFFERS` if too many flags are kept.
    pub fn signal_event(
        &mut self,
        page: &mut impl EventFlagsPage,
        sint: SintIndex,
        flag: u16,
    ) -> Result<Option<Signal>, HvStatus> {
        let exists = (sint.0 as usize) < SintIndex::COUNT && u32::from(flag) < EVENT_FLAGS_COUNT;
        ensure(exists, HvStatus::INVALID_PARAMETER)?;
        ensure(self.takes_events() && !self.sint(sint).masked(), HvStatus::INVALID_SYNIC_STATE)?;
        if let Some(is_new) = page.set(sint, flag) {
            return Ok(is_new.then(|| self.signal(sint)));
        }
        let late = Some((sint, flag));
        if !self.late_flags.contains(&late) {
            let free = self.late_flags.iter_mut().find(|place| place.is_none());
            *free.ok_or(HvStatus::INSUFFICIENT_BUFFERS)? = late;
        }
        Ok(Some(Signal::None))
    }

    /// Whether flags wait for their page.
    pub fn has_late_flags(&self) -> bool {
        self.takes_events() && self.late_flags.iter().any(Option::is_some)
    }

    /// Sets the flags that waited for their page; `signalled` is called for each.
    pub fn set_late_flags(&mut self, page: &mut impl EventFlagsPage, mut signalled: impl FnMut(Signal)) {
        for index in 0..self.late_flags.len() {
            if let Some((sint, flag)) = self.late_flags[index]
                && let Some(is_new) = page.set(sint, flag)
            {
                self.late_flags[index] = None;
                signalled(if is_new { self.signal(sint) } else { Signal::None });
            }
        }
    }

    fn sint(&self, sint: SintIndex) -> Sint {
        self.sints.get(sint.0 as usize).copied().unwrap_or(Sint::RESET)
    }

    fn page_of(&self, msr: u32) -> Result<Page, GeneralProtection> {
        match msr {
            msr::SIEFP => Ok(Page::EventFlags),
            msr::SIMP => Ok(Page::Messages),
            _ => Err(GeneralProtection),
        }
    }

    /// Moves the oldest message queued for `sint` into its slot if that is empty, and returns whether it did.
    fn advance(&mut self, page: &mut impl MessagePage, sint: SintIndex) -> bool {
        self.queue.is_waiting(sint)
            && claim(page, sint)
            && self.queue.pop(sint, |message| page.write(sint, message))
    }
}

/// Whether the slot is empty. If not, the guest is asked for an end of message; it may have emptied the slot just
/// before, and will then never see the request, hence the second look.
pub fn claim(page: &mut impl MessagePage, sint: SintIndex) -> bool {
    if page.message_type(sint) != MessageType::NONE {
        page.set_pending(sint);
    }
    page.message_type(sint) == MessageType::NONE
}

#[cfg(test)]
mod tests;
