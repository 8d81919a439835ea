//! The MSRs of the TLFS, as a child has them.
//!
//! An MSR exists for a child that may use it (`TLFS feature-discovery`, partition privileges); else it faults. The
//! TLFS lays pages over the guest's own; here the guest's page itself takes the content, and keeps it when the
//! guest disables the page. All guests known set aside a page for it.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use hal::{
    addr::{Gpa, PAGE_SIZE},
    time,
};
use model::{ensure, reftime::TscScale, synic::Effect};
use tlfs::{
    cpuid::FeaturesEdx,
    msr::{self as hv, CrashControl, HypercallMsr, OverlayPageMsr},
    partition::SyntheticFeatures,
};
use zerocopy::IntoBytes;

use super::{ChildCpu, Next, RESUME, memory, msr::Stop};
use crate::{
    hypercall::{GPA_LIMIT, Unmapped},
    partition::Partition,
    vp::{Activity, guest_tsc},
};

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// VMMCALL; RET.
static HYPERCALL_PAGE: [u8; PAGE_SIZE] = {
    let mut page = [0; PAGE_SIZE];
    [page[0], page[1], page[2], page[3]] = [0x0f, 0x01, 0xd9, 0xc3];
    page
};

/// Whether the partition is told that there is a hypervisor.
pub(super) fn shows_hypervisor(partition: &Partition) -> bool {
    let asked = SyntheticFeatures(partition.properties.synthetic.load(Ordering::Relaxed));
    asked.contains(SyntheticFeatures::HYPERVISOR_PRESENT)
}

/// Brings the reference TSC page up to date for the parent, which changed the clock or the page. Does nothing if the
/// guest has none, and one that is not mapped keeps the content that it was restored with.
pub fn refresh_reference_tsc(partition: &Partition) {
    let place = OverlayPageMsr::from_bits(partition.msrs.reference_tsc.load(Ordering::Relaxed));
    let _ = place.enable().then(|| fill_reference_tsc(partition, place));
}

/// Writes the page in the order its readers count on: they take the sequence before and after the rest, and go to
/// the MSR while it is 0 (TLFS timers, "Partition Reference TSC Mechanism").
fn fill_reference_tsc(partition: &Partition, place: OverlayPageMsr) -> Result<(), Unmapped> {
    let start = Gpa::from_page(place.gpa_page_number());
    let page = partition.clock.lock().page();
    let (sequence, rest) = page.as_bytes().split_at(8);
    memory::write(partition, start, &[0; 8])?;
    fence(Ordering::Release);
    memory::write(partition, Gpa(start.0 + 8), rest)?;
    fence(Ordering::Release);
    memory::write(partition, start, sequence)
}

impl ChildCpu<'_> {
    /// Writes one of the MSRs 0x40000000 to 0x400001ff.
    pub(super) fn write_synthetic(&mut self, number: u32, value: u64) -> Result<Next, Stop> {
        self.check_privilege(number)?;
        let vp = self.vp;
        match number {
            hv::EOI | hv::ICR | hv::TPR => {
                let effect = vp.lapic.lock().write_hv_msr(number, value)?;
                return Ok(self.apic_effect(effect));
            }
            hv::STIMER0_CONFIG..=hv::STIMER3_COUNT => {
                let now = vp.partition.clock.lock().at(guest_tsc());
                self.ctx.extra.timers.write_msr(number, value, now)?;
            }
            hv::SCONTROL..=hv::SINT15 => self.write_synic(number, value)?,
            hv::GUEST_OS_ID => self.write_guest_os_id(value),
            hv::HYPERCALL => self.write_hypercall(value)?,
            hv::REFERENCE_TSC => self.write_reference_tsc(value)?,
            hv::VP_ASSIST_PAGE => {
                let old = self.ctx.extra.msrs.get(number).unwrap_or(0);
                self.place(old, value, &[0; 4])?;
                self.ctx.extra.msrs.set(number, value);
            }
            // A VMM resets its machine when a VP cannot go on.
            hv::RESET if value & 1 != 0 => return Ok(self.report_unrecoverable()),
            hv::RESET => {}
            hv::CRASH_P0..=hv::CRASH_P4 => {
                let place = vp.partition.msrs.crash.get((number - hv::CRASH_P0) as usize);
                place.ok_or(Stop::Fault)?.store(value, Ordering::Relaxed);
            }
            hv::CRASH_CTL if CrashControl::from_bits(value).crash_notify() => log_crash(&vp.partition),
            hv::CRASH_CTL => {}
            _ => return Err(Stop::Fault),
        }
        Ok(RESUME)
    }

    /// Reads one of the MSRs 0x40000000 to 0x400001ff.
    pub(super) fn read_synthetic(&mut self, number: u32) -> Result<u64, Stop> {
        self.check_privilege(number)?;
        let vp = self.vp;
        let msrs = &vp.partition.msrs;
        Ok(match number {
            hv::TIME_REF_COUNT => vp.partition.clock.lock().at(guest_tsc()),
            hv::EOI | hv::ICR | hv::TPR => vp.lapic.lock().read_hv_msr(number)?,
            hv::GUEST_IDLE => {
                self.ctx.activity = Activity::Idle;
                self.ctx.halted_at = guest_tsc();
                0
            }
            hv::STIMER0_CONFIG..=hv::STIMER3_COUNT => self.ctx.extra.timers.read_msr(number)?,
            hv::SCONTROL..=hv::SINT15 => vp.synic.lock().read_msr(number)?,
            hv::GUEST_OS_ID => msrs.guest_os_id.load(Ordering::Relaxed),
            hv::HYPERCALL => msrs.hypercall.load(Ordering::Relaxed),
            hv::REFERENCE_TSC => msrs.reference_tsc.load(Ordering::Relaxed),
            hv::VP_INDEX => u64::from(vp.index.0),
            hv::RESET => 0,
            // As of the last dispatch, which the guest's own scheduler cannot tell from one that lasts.
            hv::VP_RUNTIME => {
                TscScale::from_hz(time::tsc_hz()).units(vp.counters.run_ticks.load(Ordering::Relaxed))
            }
            // The virtual APIC counts TSC ticks.
            hv::TSC_FREQUENCY | hv::APIC_FREQUENCY => time::tsc_hz(),
            hv::VP_ASSIST_PAGE => self.ctx.extra.msrs.get(number).ok_or(Stop::Fault)?,
            hv::CRASH_P0..=hv::CRASH_P4 => {
                let place = msrs.crash.get((number - hv::CRASH_P0) as usize);
                place.ok_or(Stop::Fault)?.load(Ordering::Relaxed)
            }
            hv::CRASH_CTL => CrashControl::new().with_crash_notify(true).into_bits(),
            _ => return Err(Stop::Fault),
        })
    }

    fn check_privilege(&self, number: u32) -> Result<(), Stop> {
        let profile = self.vp.partition.profile.lock();
        let allowed = match hv::privilege(number) {
            Some(privilege) => profile.privileges.contains(privilege),
            // That depends on a feature.
            None => profile.features.contains(FeaturesEdx::GUEST_CRASH_MSRS),
        };
        ensure(allowed && shows_hypervisor(&self.vp.partition), Stop::Fault)
    }

    /// Puts `content` into the page that a register places, unless it is there already or the register disables it.
    fn place(&self, old: u64, new: u64, content: &[u8]) -> Result<(), Stop> {
        let (old, new) = (OverlayPageMsr::from_bits(old), OverlayPageMsr::from_bits(new));
        let stays = old.enable() && old.gpa_page_number() == new.gpa_page_number();
        if !new.enable() || stays {
            return Ok(());
        }
        let gpa = Gpa::from_page(new.gpa_page_number());
        ensure(gpa.0 < GPA_LIMIT, Stop::Fault)?;
        Ok(memory::write(&self.vp.partition, gpa, content)?)
    }

    fn write_synic(&mut self, number: u32, value: u64) -> Result<(), Stop> {
        let vp = self.vp;
        if matches!(number, hv::SIEFP | hv::SIMP) {
            let old = vp.synic.lock().read_msr(number)?;
            self.place(old, value, &ZEROS)?;
        }
        self.ctx.messages_wait |= vp.synic.lock().write_msr(number, value)? != Effect::None;
        Ok(())
    }

    /// A guest without an identity makes no hypercalls (TLFS hypercall-interface).
    fn write_guest_os_id(&self, value: u64) {
        let msrs = &self.vp.partition.msrs;
        msrs.guest_os_id.store(value, Ordering::SeqCst);
        if value == 0 {
            let enable = HypercallMsr::new().with_enable(true).into_bits();
            msrs.hypercall.fetch_and(!enable, Ordering::SeqCst);
        }
    }

    fn write_hypercall(&self, value: u64) -> Result<(), Stop> {
        let msrs = &self.vp.partition.msrs;
        let old = HypercallMsr::from_bits(msrs.hypercall.load(Ordering::SeqCst));
        ensure(!old.locked(), Stop::Fault)?;
        let has_identity = msrs.guest_os_id.load(Ordering::SeqCst) != 0;
        let new = HypercallMsr::from_bits(value);
        let new = new.with_enable(new.enable() && has_identity).into_bits();
        self.place(old.into_bits(), new, &HYPERCALL_PAGE)?;
        msrs.hypercall.store(new, Ordering::SeqCst);
        Ok(())
    }

    fn write_reference_tsc(&self, value: u64) -> Result<(), Stop> {
        let partition = &self.vp.partition;
        let place = &partition.msrs.reference_tsc;
        self.place(place.load(Ordering::Relaxed), value, &ZEROS)?;
        let new = OverlayPageMsr::from_bits(value);
        if new.enable() {
            fill_reference_tsc(partition, new)?;
        }
        place.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// Logs what a guest says of its crash: no message to the parent tells of it, but the parent can read the
/// registers. At most one line a second, so that no guest can fill the log.
fn log_crash(partition: &Partition) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = guest_tsc();
    let last = LAST.load(Ordering::Relaxed);
    let is_first = last == 0 || now.saturating_sub(last) > time::tsc_hz();
    if is_first && LAST.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        let [p0, p1, p2, p3, p4] = partition.msrs.crash.each_ref().map(|p| p.load(Ordering::Relaxed));
        let id = partition.id.0;
        hal::warn!("partition {id:#x} reports its crash: {p0:#x} {p1:#x} {p2:#x} {p3:#x} {p4:#x}");
    }
}
