//! AMD SVM: the one virtualization backend (APM 2 chapter 15).

mod entry;
mod exit;
pub(super) mod maps;
mod state;
pub(super) mod vmcb;

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::{Event, Exit, Gprs, RAX, RSP, Unsupported, fpu::ExtendedState, lps};
use crate::{
    addr::Hpa,
    apic,
    check::ensure,
    cpu::{self, msr, register},
    mem::{Frame, NoMemory, PoolId, Space, boot, direct},
};
use maps::{IoMap, MsrMap};
use vmcb::{Vmcb, event, intercept_1, intercept_2, virtual_interrupt};

const EFER_SVME: u64 = 1 << 12;
const VM_CR_SVMDIS: u64 = 1 << 4;
const TRAP_FLAG: u64 = 1 << 8;
const DR6_SINGLE_STEP: u64 = 1 << 14;
/// ASID 0 is the host's.
const FIRST_ASID: u32 = 1;
const FLUSH_ALL: u32 = 1;
/// PAUSE instructions in a row that make a spin.
const PAUSES_OF_A_SPIN: u16 = 3000;

/// What SVM needs on each LP.
pub(super) struct LpState {
    host_save: Hpa,
    host_vmcb: Hpa,
    next_asid: AtomicU32,
    /// Counts the times that ASIDs ran out; an ASID of an earlier round is void.
    round: AtomicU64,
}

impl LpState {
    pub(super) fn new() -> Option<Self> {
        let (host_save, host_vmcb) = (boot::frames(1)?, boot::frames(1)?);
        Some(Self { host_save, host_vmcb, next_asid: AtomicU32::new(0), round: AtomicU64::new(0) })
    }

    /// The next unused ASID, and whether the TLB must be emptied because they ran out. Only the LP itself calls.
    fn new_asid(&self) -> (u32, bool) {
        let asid = self.next_asid.load(Ordering::Relaxed);
        let limit = cpu_asids();
        if (FIRST_ASID..limit).contains(&asid) {
            self.next_asid.store(asid + 1, Ordering::Relaxed);
            return (asid, false);
        }
        self.next_asid.store(FIRST_ASID + 1, Ordering::Relaxed);
        self.round.store(self.round.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        (FIRST_ASID, true)
    }
}

static ASIDS: AtomicU32 = AtomicU32::new(0);
static HAS_NEXT_RIP: AtomicU32 = AtomicU32::new(0);
static HAS_PAUSE_FILTER: AtomicU32 = AtomicU32::new(0);
/// QEMU's emulation: docs/adr/0011 has what is wrong with its interrupts.
static HAS_RACES: AtomicBool = AtomicBool::new(false);

fn cpu_asids() -> u32 {
    ASIDS.load(Ordering::Relaxed)
}

/// Switches SVM on for this LP.
pub(super) fn enable(lp: &LpState) -> Result<(), Unsupported> {
    ensure(cpu::has_svm() && msr::rdmsr(msr::VM_CR) & VM_CR_SVMDIS == 0, Unsupported::NoSvm)?;
    ensure(cpu::has_npt(), Unsupported::NoNestedPaging)?;
    ensure(cpu::has_xsave(), Unsupported::NoXsave)?;
    let features = cpu::cpuid(0x8000_000a, 0);
    ASIDS.store(features.ebx, Ordering::Relaxed);
    HAS_NEXT_RIP.store(features.edx & 1 << 3, Ordering::Relaxed);
    HAS_PAUSE_FILTER.store(features.edx & 1 << 10, Ordering::Relaxed);
    HAS_RACES.store(cpu::is_emulated(), Ordering::Relaxed);
    // SAFETY: SVM is present; setting SVME only makes its instructions legal.
    unsafe { msr::wrmsr(msr::EFER, msr::rdmsr(msr::EFER) | EFER_SVME) };
    // SAFETY: the frame is owned by this LP for ever, for the processor's own use.
    unsafe { msr::wrmsr(msr::VM_HSAVE_PA, lp.host_save.0) };
    // SAFETY: XSAVE is present; nothing in the hypervisor uses extended state.
    unsafe { register::write_cr4(register::cr4() | register::CR4_OSXSAVE | register::CR4_OSFXSR) };
    entry::save_host(lp.host_vmcb.0);
    Ok(())
}

/// What kind of guest a virtual processor runs.
#[derive(Clone, Copy)]
pub enum Kind {
    /// The root: ports, most MSRs and physical interrupts are its own.
    Root,
    /// A child: everything is virtual. Holds the pool of its memory.
    Child(PoolId),
}

/// Where the guest's translations are cached.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag {
    lp: u32,
    round: u64,
    generation: u64,
    space: u64,
}

/// A virtual processor's hardware state.
pub struct Vcpu {
    vmcb: Hpa,
    pool: Option<PoolId>,
    gprs: Gprs,
    extended: ExtendedState,
    debug: [u64; 4],
    tsc_aux: u64,
    tag: Tag,
    answered_kick: bool,
}

// SAFETY: the VMCB frame is owned by the value and reached only through it.
unsafe impl Send for Vcpu {}

impl Vcpu {
    /// A virtual processor after RESET.
    ///
    /// # Errors
    /// No memory in the pool (a child) or in the boot reserve (the root).
    pub fn new(kind: Kind, msrs: MsrMap, ports: IoMap) -> Result<Self, NoMemory> {
        let (frame, pool, extended) = match kind {
            Kind::Root => (boot::frames(1).ok_or(NoMemory)?, None, ExtendedState::for_root()?),
            Kind::Child(pool) => (pool.get().take()?.hpa(), Some(pool), ExtendedState::new(pool)?),
        };
        // SAFETY: an owned frame, aligned and large enough for the block, of which all zeros is a value.
        unsafe { core::ptr::write_bytes(direct::<Vmcb>(frame), 0, 1) };
        let tag = Tag { lp: u32::MAX, round: 0, generation: 0, space: 0 };
        let mut vcpu = Self {
            vmcb: frame,
            pool,
            gprs: [0; 16],
            extended,
            debug: [0; 4],
            tsc_aux: 0,
            tag,
            answered_kick: false,
        };
        vcpu.set_controls(kind, msrs, ports);
        vcpu.reset();
        Ok(vcpu)
    }

    fn set_controls(&mut self, kind: Kind, msrs: MsrMap, ports: IoMap) {
        let control = &mut self.block_mut().control;
        let always = intercept_1::NMI
            | intercept_1::INIT
            | intercept_1::CPUID
            | intercept_1::INVLPGA
            | intercept_1::IOIO
            | intercept_1::MSR
            | intercept_1::SHUTDOWN;
        let child = intercept_1::INTR
            | intercept_1::SMI
            | intercept_1::RDPMC
            | intercept_1::INVD
            | intercept_1::HLT
            | intercept_1::TASK_SWITCH;
        control.intercept_2 = intercept_2::SVM;
        control.nested = 1;
        control.iopm = ports.hpa().0;
        control.msrpm = msrs.hpa().0;
        match kind {
            Kind::Root => control.intercept_1 = always,
            Kind::Child(_) => {
                control.intercept_1 = always | child;
                control.intercept_2 |=
                    intercept_2::WBINVD | intercept_2::MONITOR | intercept_2::MWAIT | intercept_2::XSETBV;
                control.virtual_interrupt = virtual_interrupt::MASKING;
                if HAS_PAUSE_FILTER.load(Ordering::Relaxed) != 0 {
                    control.intercept_1 |= intercept_1::PAUSE;
                    control.pause_count = PAUSES_OF_A_SPIN;
                }
            }
        }
    }

    fn block(&self) -> &Vmcb {
        // SAFETY: the frame is owned by `self` and initialised; the processor writes it only inside `run`, which
        // borrows `self` exclusively.
        unsafe { &*direct::<Vmcb>(self.vmcb) }
    }

    fn block_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `block`, with an exclusive borrow.
        unsafe { &mut *direct::<Vmcb>(self.vmcb) }
    }

    /// Runs the guest in `space` on this LP until it exits.
    pub fn run(&mut self, space: &Space) -> Exit {
        let Some(lp) = lps::this() else { return Exit::Failed(u64::MAX) };
        entry::close();
        if !lp.enter(space.id()) {
            entry::open();
            return Exit::Kick;
        }
        self.tag_translations(&lp.svm, space);
        let offers = self.has_open_offer();
        let (rax, rsp) = (self.gprs[RAX], self.gprs[RSP]);
        let save = &mut self.block_mut().save;
        save.rax = rax;
        save.rsp = rsp;
        let gprs = &raw mut self.gprs;
        // SAFETY: GIF is 0; the block is owned and its maps and tables are valid by construction; `host_vmcb` was
        // filled by `enable` on this LP.
        unsafe { entry::run(self.vmcb.0, gprs, lp.svm.host_vmcb.0) };
        self.answered_kick = lp.leave();
        entry::open();
        if offers && HAS_RACES.load(Ordering::Relaxed) {
            apic::look_again();
        }
        let block = self.block_mut();
        let (rax, rsp) = (block.save.rax, block.save.rsp);
        block.control.event = block.control.interrupted_event();
        let exit = exit::decode(&block.control);
        self.gprs[RAX] = rax;
        self.gprs[RSP] = rsp;
        if self.answered_kick && exit == Exit::Nmi { Exit::Kick } else { exit }
    }

    /// Whether the last exit, whatever it was, also answers a kick: what the kicker changed is to be looked at before the
    /// guest is entered again.
    pub fn answered_kick(&self) -> bool {
        self.answered_kick
    }

    /// Gives the guest a fresh ASID where its cached translations could be stale: on a new LP, after a flush of
    /// its space, or when ASIDs ran out.
    fn tag_translations(&mut self, lp: &LpState, space: &Space) {
        let now = Tag {
            lp: crate::lp::this().0,
            round: lp.round.load(Ordering::Relaxed),
            // Read after the mode was set: a flush either sees this LP inside, or is seen here.
            generation: space.generation(),
            space: space.id(),
        };
        let control = &mut self.block_mut().control;
        control.tlb_control = 0;
        if self.tag == now {
            return;
        }
        let (asid, flush) = lp.new_asid();
        let control = &mut self.block_mut().control;
        control.asid = asid;
        control.tlb_control = if flush { FLUSH_ALL } else { 0 };
        control.nested_cr3 = space.table().0;
        self.tag = Tag { round: lp.round.load(Ordering::Relaxed), ..now };
    }

    /// Forgets the guest's cached translations before its next entry.
    pub fn flush_translations(&mut self) {
        self.tag.lp = u32::MAX;
    }

    /// General registers.
    pub fn gprs(&self) -> &Gprs {
        &self.gprs
    }

    /// General registers, to change.
    pub fn gprs_mut(&mut self) -> &mut Gprs {
        &mut self.gprs
    }

    /// Goes on behind the instruction that exited: where the processor saved that, or else `assumed` bytes further on. A
    /// guest that steps takes #DB there (APM 2 §13.1.4).
    ///
    /// Without saved next RIPs (QEMU's emulation) the length of the plain encoding is assumed: a guest that puts a
    /// redundant prefix before such an instruction confuses only itself.
    pub fn skip_instruction(&mut self, assumed: u64) {
        let block = self.block_mut();
        let next = block.control.next_rip;
        let known = HAS_NEXT_RIP.load(Ordering::Relaxed) != 0 && next != 0;
        block.save.rip = if known { next } else { block.save.rip.wrapping_add(assumed) };
        block.control.shadow = 0;
        if block.save.rflags & TRAP_FLAG != 0 && !self.has_event() {
            self.block_mut().save.dr6 |= DR6_SINGLE_STEP;
            self.inject(Event::DEBUG);
        }
    }

    /// The bytes of the instruction that faulted, where the processor saved them.
    pub fn fetched_bytes(&self) -> &[u8] {
        let control = &self.block().control;
        control.fetched.get(..usize::from(control.fetched_len & 15)).unwrap_or_default()
    }

    /// Whether an event waits for the next entry.
    pub fn has_event(&self) -> bool {
        self.block().control.event & event::VALID != 0
    }

    /// Delivers `event` at the next entry. An event that waits already is replaced: check [`Self::has_event`].
    pub fn inject(&mut self, event: Event) {
        self.block_mut().control.event = match event {
            Event::Nmi => event::VALID | event::NMI | 2,
            Event::Exception { vector, error: None } => event::VALID | event::EXCEPTION | u64::from(vector),
            Event::Exception { vector, error: Some(error) } => {
                event::VALID
                    | event::EXCEPTION
                    | event::HAS_ERROR
                    | u64::from(error) << 32
                    | u64::from(vector)
            }
        };
    }

    /// Offers the guest the interrupt `vector`, which it takes without an exit once its flags allow, and its CR8 if
    /// `obeys_cr8`. One at a time: an earlier offer is replaced (docs/adr/0011).
    pub fn offer_interrupt(&mut self, vector: u8, obeys_cr8: bool) {
        // A processor compares the vector's class with `>`, QEMU with `>=`.
        let class = u64::from(vector >> 4).saturating_sub(HAS_RACES.load(Ordering::Relaxed).into());
        let rule = if obeys_cr8 {
            class << virtual_interrupt::PRIORITY_SHIFT
        } else {
            virtual_interrupt::IGNORE_TPR
        };
        let control = &mut self.block_mut().control;
        let kept = control.virtual_interrupt & (virtual_interrupt::TPR | virtual_interrupt::MASKING);
        let offer = virtual_interrupt::IRQ | u64::from(vector) << virtual_interrupt::VECTOR_SHIFT;
        control.virtual_interrupt = kept | rule | offer;
    }

    /// Whether the guest has not taken what was offered.
    fn has_open_offer(&self) -> bool {
        self.block().control.virtual_interrupt & virtual_interrupt::IRQ != 0
    }

    /// Takes an offer back. Returns whether the guest had not taken it.
    pub fn withdraw_interrupt(&mut self) -> bool {
        let is_open = self.has_open_offer();
        self.block_mut().control.virtual_interrupt &= !virtual_interrupt::IRQ;
        is_open
    }

    /// Whether physical interrupts leave the guest. A child's always do.
    pub fn exit_on_interrupt(&mut self, wanted: bool) {
        self.set_intercept(intercept_1::INTR, wanted);
    }

    /// Whether IRET leaves the guest, which ends the masking of NMIs.
    pub fn exit_on_iret(&mut self, wanted: bool) {
        self.set_intercept(intercept_1::IRET, wanted);
    }

    fn set_intercept(&mut self, bit: u32, wanted: bool) {
        let word = &mut self.block_mut().control.intercept_1;
        *word = if wanted { *word | bit } else { *word & !bit };
    }

    /// Whether exceptions of `vector` leave the guest.
    pub fn exit_on_exception(&mut self, vector: u8, wanted: bool) {
        let word = &mut self.block_mut().control.intercept_exceptions;
        let bit = 1u32 << (vector & 31);
        *word = if wanted { *word | bit } else { *word & !bit };
    }

    /// Uses another MSR map from the next entry on.
    pub fn set_msr_map(&mut self, map: MsrMap) {
        self.block_mut().control.msrpm = map.hpa().0;
    }

    /// The task priority of a child's CR8.
    pub fn task_priority(&self) -> u8 {
        (self.block().control.virtual_interrupt & virtual_interrupt::TPR) as u8
    }

    /// Sets what the child's CR8 reads.
    pub fn set_task_priority(&mut self, cr8: u8) {
        let word = &mut self.block_mut().control.virtual_interrupt;
        *word = *word & !virtual_interrupt::TPR | u64::from(cr8) & virtual_interrupt::TPR;
    }

    /// Moves what VMRUN does not switch from the processor into this value.
    pub fn save_extended(&mut self) {
        self.extended.save();
        self.debug = register::breakpoints();
        self.tsc_aux = msr::rdmsr(msr::TSC_AUX);
    }

    /// Loads what VMRUN does not switch into the processor.
    pub fn load_extended(&self) {
        self.extended.load();
        // Breakpoints of a guest fire in the guest only: VMEXIT clears the host's DR7.
        // SAFETY: DR7 is 0 in the host.
        unsafe { register::write_breakpoints(self.debug) };
        // SAFETY: TSC_AUX is only data for RDTSCP.
        unsafe { msr::wrmsr(msr::TSC_AUX, self.tsc_aux) };
    }

    /// The saved XSAVE area, valid while the state is not loaded.
    pub fn xsave_area(&self) -> &[u8] {
        self.extended.bytes()
    }

    /// Replaces the saved XSAVE area, cleared of what the processor would refuse.
    pub fn set_xsave_area(&mut self, from: &[u8]) {
        self.extended.set_bytes(from);
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            pool.get().put(Frame::from_owned(self.vmcb));
        }
    }
}
