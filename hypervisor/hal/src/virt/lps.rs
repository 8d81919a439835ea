//! What each logical processor is doing, and how another makes it stop doing it.
//!
//! `mode` of an LP is [`HOST`], [`WAITING`] or the id of the space whose guest it runs. A kick sets `kicked` first
//! and reads `mode` second; an LP sets `mode` first and reads `kicked` second. Both are `SeqCst`, so at least one of
//! the two sees the other:
//!
//! | kicker | LP entering a guest | outcome |
//! |---|---|---|
//! | kicked = 1 | | |
//! | reads HOST | mode = id | |
//! | | reads kicked = 1 | the LP does not enter |
//! | or: | mode = id, reads kicked = 0, enters | |
//! | kicked = 1, reads id | | NMI: the guest exits |
//!
//! From CLGI to VMRUN an NMI stays pending, and VMRUN with the NMI intercept exits at once, so the NMI of the
//! last row cannot fall between the check and the guest. For an LP about to halt, the NMI handler itself closes
//! the same gap ([`super::halt`]).

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{Unsupported, halt, svm};
use crate::{
    apic, cpu,
    lp::{self, LpIndex},
    mem::boot,
    sync::Once,
    trap,
};

const HOST: u64 = 0;
const WAITING: u64 = u64::MAX;

/// Spins before an NMI is sent again. QEMU's emulation can lose one when two processors change the same word
/// (shared/reference/tcg/tcg.md, "a lost virtual interrupt"); on hardware the limit is never reached.
const RESEND_SPINS: u32 = 2_000_000;

pub(super) struct Lp {
    mode: AtomicU64,
    kicked: AtomicBool,
    /// NMIs that kickers sent to this LP; those beyond are the root's.
    nmis_sent: AtomicU32,
    /// Guest entries so far: a changed count proves that the LP left the guest in between.
    entries: AtomicU64,
    pub(super) svm: svm::LpState,
}

static LPS: Once<&'static [Option<Lp>]> = Once::new();

/// Makes the per-LP state. Once, on the boot processor, before any guest.
///
/// # Errors
/// The boot reserve is exhausted.
pub fn init() -> Result<(), Unsupported> {
    let count = lp::count() as usize;
    let mut states = (0..count).map_while(|_| svm::LpState::new());
    let lps = boot::slice(count, |_| {
        Some(Lp {
            mode: AtomicU64::new(HOST),
            kicked: AtomicBool::new(false),
            nmis_sent: AtomicU32::new(0),
            entries: AtomicU64::new(0),
            svm: states.next()?,
        })
    });
    let lps: &'static [Option<Lp>] = lps.ok_or(Unsupported::NoMemory)?;
    let complete = lps.iter().all(Option::is_some);
    let _ = LPS.set(lps);
    complete.then_some(()).ok_or(Unsupported::NoMemory)
}

/// Switches virtualization on for this LP. After [`init`], once on each LP.
///
/// # Errors
/// What the processor lacks.
pub fn enable() -> Result<(), Unsupported> {
    svm::enable(&this().ok_or(Unsupported::NoMemory)?.svm)
}

pub(super) fn this() -> Option<&'static Lp> {
    get(lp::this())
}

fn get(index: LpIndex) -> Option<&'static Lp> {
    LPS.get()?.get(index.0 as usize)?.as_ref()
}

impl Lp {
    /// Announces the entry into a guest of space `id`. `false`: a kick came first, and the mode is [`HOST`] again.
    pub(super) fn enter(&self, id: u64) -> bool {
        self.entries.store(self.entries.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.mode.store(id, Ordering::SeqCst);
        let go = !self.kicked.load(Ordering::SeqCst);
        if !go {
            self.leave();
        }
        go
    }

    /// The guest has left. Returns whether a kick is answered by that.
    pub(super) fn leave(&self) -> bool {
        self.mode.store(HOST, Ordering::SeqCst);
        self.kicked.load(Ordering::Relaxed) && self.kicked.swap(false, Ordering::SeqCst)
    }
}

/// Makes `target` leave its guest soon, or not enter it, and look at what the caller changed before this call.
/// The caller itself needs no kick.
pub fn kick(target: LpIndex) {
    let Some(lp) = get(target) else { return };
    // Who finds it set already relies on the first kicker's signal, or on the LP's check at entry.
    if lp.kicked.swap(true, Ordering::SeqCst) {
        return;
    }
    if lp.mode.load(Ordering::SeqCst) != HOST {
        send_nmi(lp, target);
    }
}

fn send_nmi(lp: &Lp, target: LpIndex) {
    if let Some(id) = lp::apic_id(target) {
        lp.nmis_sent.fetch_add(1, Ordering::SeqCst);
        apic::send_nmi(id);
    }
}

/// Makes every LP that runs a guest of space `id` leave it, and waits until all have left.
pub fn shootdown(id: u64) {
    for target in lp::all() {
        let Some(lp) = get(target) else { continue };
        let entries = lp.entries.load(Ordering::SeqCst);
        let inside = || lp.mode.load(Ordering::SeqCst) == id && lp.entries.load(Ordering::SeqCst) == entries;
        if inside() {
            kick(target);
            wait_until_left(lp, target, inside);
        }
    }
}

fn wait_until_left(lp: &Lp, target: LpIndex, inside: impl Fn() -> bool) {
    let mut spins = 0;
    while inside() {
        cpu::pause();
        spins += 1;
        if spins == RESEND_SPINS {
            send_nmi(lp, target);
            spins = 0;
        }
    }
}

/// How many NMIs arrived here that no kick explains: they are the root's. Each is reported once.
pub fn take_foreign_nmis() -> bool {
    let Some(lp) = this() else { return false };
    let sent = lp.nmis_sent.load(Ordering::SeqCst);
    let seen = trap::nmi_count(lp::this());
    // Two NMIs can merge into one, so `seen` may stay behind `sent`; the wrapping difference is then negative.
    let excess = seen.wrapping_sub(sent) as i32;
    if excess > 0 {
        lp.nmis_sent.fetch_add(excess as u32, Ordering::SeqCst);
    }
    excess > 0
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Another LP kicked this one.
    Kicked,
    /// A physical interrupt was taken and is in service: the hypervisor's own, or one for the root.
    Interrupt(u8),
    /// Neither; for instance an NMI.
    Nothing,
}

/// Halts this LP until a kick or a physical interrupt.
pub fn wait() -> Wait {
    let Some(lp) = this() else { return Wait::Nothing };
    lp.mode.store(WAITING, Ordering::SeqCst);
    let taken = halt::halt_unless(&lp.kicked);
    let kicked = lp.leave();
    match taken {
        Some(vector) => Wait::Interrupt(vector),
        None if kicked => Wait::Kicked,
        None => Wait::Nothing,
    }
}

/// Kicks `target` and waits until it has left the guest that it may be running. What the caller changed before is
/// seen by the LP before it enters a guest again.
pub fn evict(target: LpIndex) {
    let Some(lp) = get(target) else { return };
    let entries = lp.entries.load(Ordering::SeqCst);
    kick(target);
    let inside = || {
        let mode = lp.mode.load(Ordering::SeqCst);
        mode != HOST && mode != WAITING && lp.entries.load(Ordering::SeqCst) == entries
    };
    wait_until_left(lp, target, inside);
}
