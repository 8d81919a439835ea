//! The receiving end: the synthetic interrupt controllers of the VPs that ports aim at.
//!
//! A message for a child's VP is queued, and the VP moves it into its page before it runs on: only then can a page that
//! is not mapped be asked for. An event flag is set by the sender, unless its page is away.

use hal::{addr::Gpa, lp};
use model::{port::Port, synic::Page};
use tlfs::{HvStatus, SintIndex, VpIndex, synic::HvMessage};

use super::Party;
use crate::{
    child::event::GuestPage,
    hypercall::Unmapped,
    partition::{MAX_VPS, Partition, VpRef},
    root::{RootVp, root},
    vp::{ChildSynic, Vp, request},
};

/// Posts a message to a port.
pub(super) fn post(owner: &Party, port: &Port, message: &HvMessage) -> Result<(), HvStatus> {
    match owner {
        Some(child) => child_vp(child, port.vp, |synic| synic.takes_messages())?.post(port.sint, message),
        None => root_vp(port.vp)?.synic.lock().post(port.sint, message),
    }
}

/// Sets a flag of a port.
pub(super) fn signal(owner: &Party, port: &Port, flag: u16) -> Result<(), HvStatus> {
    let is_new = match owner {
        Some(child) => child_vp(child, port.vp, |synic| synic.takes_events())?.signal_event(port.sint, flag),
        None => root_vp(port.vp)?.synic.lock().signal_event(port.sint, flag),
    };
    is_new.map(drop)
}

/// Frees what a port, which was deleted, has queued.
pub fn forget(owner: &Party, port: &Port) {
    match owner {
        Some(child) => child.for_each_vp(|vp| vp.synic.lock().forget(port.id)),
        None => root().vps.iter().for_each(|vp| vp.synic.lock().forget_port(port.id)),
    }
}

/// Whether a port may aim at a VP.
///
/// # Errors
/// `INVALID_VP_INDEX`.
pub fn check_vp(owner: &Party, index: VpIndex) -> Result<(), HvStatus> {
    match owner {
        _ if index == VpIndex::ANY => Ok(()),
        Some(child) => child.vp(index).map(drop),
        None => root_vp(index).map(drop),
    }
}

/// Any VP is one whose controller and page are enabled.
fn child_vp(child: &Partition, index: VpIndex, takes: fn(&ChildSynic) -> bool) -> Result<VpRef, HvStatus> {
    if index != VpIndex::ANY {
        return child.vp(index);
    }
    let mut all = (0..MAX_VPS as u32).filter_map(|index| child.vp(VpIndex(index)).ok());
    all.find(|vp| takes(&vp.synic.lock())).ok_or(HvStatus::INVALID_VP_INDEX)
}

/// Any VP of the root is the one of this LP, which is interrupted at once.
fn root_vp(index: VpIndex) -> Result<&'static RootVp, HvStatus> {
    let index = if index == VpIndex::ANY { lp::this().0 } else { index.0 };
    root().vps.get(index as usize).ok_or(HvStatus::INVALID_VP_INDEX)
}

impl Vp {
    /// Posts a message.
    ///
    /// # Errors
    /// Those of `Synic::post`.
    pub fn post(&self, sint: SintIndex, message: &HvMessage) -> Result<(), HvStatus> {
        self.synic.lock().post(sint, message)?;
        self.request(request::MESSAGE);
        Ok(())
    }

    /// Sets an event flag and returns whether it was clear.
    ///
    /// # Errors
    /// Those of `Synic::signal_event`.
    pub fn signal_event(&self, sint: SintIndex, flag: u16) -> Result<bool, HvStatus> {
        let mut synic = self.synic.lock();
        let gpa = Gpa::from_page(synic.page(Page::EventFlags).gpa_page_number());
        let signal = synic.signal_event(&mut GuestPage { partition: &self.partition, gpa }, sint, flag)?;
        let is_late = synic.has_late_flags();
        drop(synic);
        if let Some(signal) = signal {
            self.raise(signal);
            self.request(if is_late { request::MESSAGE } else { 0 });
        }
        Ok(signal.is_some())
    }

    /// Sets the flags whose page was away.
    ///
    /// # Errors
    /// It is still.
    pub fn set_late_flags(&self) -> Result<(), Unmapped> {
        let mut synic = self.synic.lock();
        if synic.has_late_flags() {
            let gpa = Gpa::from_page(synic.page(Page::EventFlags).gpa_page_number());
            let mut page = GuestPage::new(&self.partition, gpa).ok_or(Unmapped { gpa, write: true })?;
            synic.set_late_flags(&mut page, |signal| self.raise(signal));
        }
        Ok(())
    }
}
