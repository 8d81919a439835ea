//! A virtual processor: its first state, and the thread that runs it.

use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use control::VpState;
use mshv_bindings::{
    HV_TRANSLATE_GVA_PRIVILEGE_EXEMPT, HV_TRANSLATE_GVA_VALIDATE_EXECUTE, HV_TRANSLATE_GVA_VALIDATE_READ,
    HV_TRANSLATE_GVA_VALIDATE_WRITE, SegmentRegister, SpecialRegisters, StandardRegisters, hv_register_assoc,
    hv_register_name_HV_X64_REGISTER_CR3 as CR3, hv_register_name_HV_X64_REGISTER_RFLAGS as RFLAGS,
    hv_register_name_HV_X64_REGISTER_RIP as RIP, hv_register_name_HV_X64_REGISTER_RSP as RSP,
};
use mshv_ioctls::MshvError;
use rustix::io::Errno;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::{
    board::Board,
    boot::{CODE_SELECTOR, DATA_SELECTOR, Entry, GDT_LEN, TASK_SELECTOR},
    cpu::{Access, Cpu},
    exit::{self, Exit},
    layout::GDT,
    memory::GuestRam,
    raw::{self, OwnedVcpu},
    signal::Outcome,
};

/// RFLAGS with nothing set but the bit that always is.
const FLAGS: u64 = 1 << 1;
const CR0_PROTECTED: u64 = 1 << 0;
const CR0_EXTENSION: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG: u64 = 1 << 8 | 1 << 10;

impl Cpu for OwnedVcpu {
    fn registers(&self) -> Result<StandardRegisters, MshvError> {
        self.get_regs()
    }

    fn set_registers(&self, registers: &StandardRegisters) -> Result<(), MshvError> {
        self.set_regs(registers)
    }

    fn special_registers(&self) -> Result<SpecialRegisters, MshvError> {
        self.get_sregs()
    }

    fn translate(&self, address: u64, access: Access) -> Result<Option<u64>, MshvError> {
        let validate = match access {
            Access::Read => HV_TRANSLATE_GVA_VALIDATE_READ,
            Access::Write => HV_TRANSLATE_GVA_VALIDATE_WRITE,
            Access::Execute => HV_TRANSLATE_GVA_VALIDATE_EXECUTE,
        };
        let (gpa, result) =
            self.translate_gva(address, u64::from(validate | HV_TRANSLATE_GVA_PRIVILEGE_EXEMPT))?;
        Ok(raw::translated(&result).then_some(gpa))
    }
}

/// Puts the boot processor at the kernel's entry.
///
/// # Errors
///
/// What the hypervisor says.
pub fn set_entry(vp: &OwnedVcpu, entry: Entry) -> Result<(), MshvError> {
    let (registers, special) = entry_state(entry, vp.get_sregs()?);
    vp.set_sregs(&special)?;
    vp.set_regs(&registers)
}

/// The registers of a processor at `entry`; what that does not say stays as in `special`.
pub fn entry_state(entry: Entry, mut special: SpecialRegisters) -> (StandardRegisters, SpecialRegisters) {
    let (registers, long) = match entry {
        Entry::Long { rip, cr3, boot_params } => {
            (special.cr3, special.cr4) = (cr3, CR4_PAE);
            (special.cr0, special.efer) = (CR0_PROTECTED | CR0_EXTENSION | CR0_PAGING, EFER_LONG);
            (StandardRegisters { rip, rsi: boot_params, rflags: FLAGS, ..Default::default() }, true)
        }
        Entry::Protected { eip, ebx, esi } => {
            (special.cr0, special.cr3, special.cr4, special.efer) = (CR0_PROTECTED | CR0_EXTENSION, 0, 0, 0);
            (StandardRegisters { rip: eip, rbx: ebx, rsi: esi, rflags: FLAGS, ..Default::default() }, false)
        }
    };
    special.cs = segment(CODE_SELECTOR, 0xb, u8::from(long));
    let data = segment(DATA_SELECTOR, 0x3, 0);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = SegmentRegister {
        selector: TASK_SELECTOR,
        limit: 0x67,
        type_: 0xb,
        present: 1,
        ..Default::default()
    };
    special.gdt.base = GDT;
    special.gdt.limit = GDT_LEN - 1;
    (special.idt.base, special.idt.limit) = (0, 0);
    (registers, special)
}

/// A flat segment of 4 GiB, as the table at [`GDT`] describes it.
fn segment(selector: u16, type_: u8, long: u8) -> SegmentRegister {
    let db = 1 - long;
    SegmentRegister {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db,
        s: 1,
        l: long,
        g: 1,
        ..Default::default()
    }
}

/// What a machine has and its processors' threads share.
pub struct Shared {
    /// The devices.
    pub board: Arc<Board>,
    /// The memory.
    pub ram: Arc<GuestRam>,
    /// Set when the threads are to end.
    pub stop: AtomicBool,
    /// One for each processor.
    pub slots: Vec<Slot>,
}

/// What is known of one processor from outside its thread.
#[derive(Default)]
pub struct Slot {
    /// Exits that reached this process.
    pub exits: AtomicU64,
    /// Someone wants [`Slot::state`]; cleared when it is there.
    pub wanted: AtomicBool,
    /// What the processor was doing when it was last asked.
    pub state: Mutex<Option<VpState>>,
}

/// Starts the thread that runs `vp` until [`Shared::stop`] is set or the machine fails.
///
/// # Errors
///
/// When the host cannot start a thread.
pub fn spawn(index: u8, vp: OwnedVcpu, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("vp{index}")).spawn(move || {
        // A handler that panics would otherwise leave a machine that waits for this processor for ever.
        let run = panic::catch_unwind(AssertUnwindSafe(|| run(index, &vp, &shared)));
        let failure = match run {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => format!("VP {index}: the worker has a defect; its log has the place"),
        };
        tracing::error!(failure);
        shared.board.signal.raise(Outcome::Failed(failure));
    })
}

fn run(index: u8, vp: &OwnedVcpu, shared: &Shared) -> Result<(), String> {
    let slot = &shared.slots[usize::from(index)];
    // A machine that has ended runs no further instruction, even before its threads are told to end.
    while !shared.stop.load(Ordering::Acquire) && !shared.board.signal.is_raised() {
        if slot.wanted.load(Ordering::Acquire) {
            slot.answer(index, vp);
        }
        let message = match vp.run() {
            Ok(message) => message,
            Err(error) if [Errno::INTR, Errno::AGAIN].map(Errno::raw_os_error).contains(&error.errno()) => {
                continue;
            }
            Err(error) => return Err(format!("VP {index}: the hypervisor does not run it: {error}")),
        };
        slot.exits.fetch_add(1, Ordering::Relaxed);
        let exit = Exit::of(&message);
        tracing::trace!(?exit);
        exit::handle(&exit, vp, &shared.board, &shared.ram).map_err(|fault| fault.to_string())?;
    }
    Ok(())
}

impl Slot {
    /// Leaves the processor's state for whoever wants it.
    fn answer(&self, index: u8, vp: &OwnedVcpu) {
        let names = [RIP, RSP, RFLAGS, CR3];
        let mut values = names.map(|name| hv_register_assoc { name, ..Default::default() });
        // Not from the register page, which is only valid after an exit.
        let state = match vp.get_reg(&mut values) {
            Ok(()) => {
                let [rip, rsp, rflags, cr3] = values.map(|register| raw::word(&{ register.value }));
                let exits = self.exits.load(Ordering::Relaxed);
                Some(VpState { vp: index.into(), rip, rsp, rflags, cr3, exits })
            }
            Err(error) => {
                tracing::warn!(index, %error, "the processor's registers cannot be read");
                None
            }
        };
        *self.state.lock().expect("no holder of this lock panics") = state;
        self.wanted.store(false, Ordering::Release);
    }
}

/// Makes sure that [`interrupt`] breaks off a blocking call instead of the process. To be called once, before
/// any thread is started.
///
/// # Errors
///
/// When the host refuses the signal.
pub fn prepare_interrupts() -> io::Result<()> {
    extern "C" fn ignore(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    register_signal_handler(SIGRTMIN(), ignore).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

/// Makes a thread that is inside the hypervisor come back. One that is just about to enter is missed, so
/// repeat this until the thread has ended.
pub fn interrupt(thread: &JoinHandle<()>) {
    if let Err(error) = thread.kill(SIGRTMIN()) {
        tracing::debug!(%error, "processor's thread is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bzimage_starts_in_64_bit_mode_with_its_parameters_in_rsi() {
        let entry = Entry::Long { rip: 0x100_0200, cr3: 0x9000, boot_params: 0x7000 };
        let (registers, special) = entry_state(entry, SpecialRegisters::default());
        assert_eq!((registers.rip, registers.rsi, registers.rflags), (0x100_0200, 0x7000, 2));
        assert_eq!((special.cr0, special.cr3, special.cr4), (0x8000_0011, 0x9000, 0x20));
        assert_eq!((special.efer, special.cs.l, special.cs.db, special.cs.selector), (0x500, 1, 0, 0x10));
    }

    #[test]
    fn pvh_starts_in_32_bit_mode_without_paging_with_its_information_in_ebx() {
        let entry = Entry::Protected { eip: 0x100_0040, ebx: 0x6000, esi: 0 };
        let before = SpecialRegisters { cr3: 7, efer: 7, apic_base: 0xfee0_0900, ..Default::default() };
        let (registers, special) = entry_state(entry, before);
        assert_eq!((registers.rip, registers.rbx), (0x100_0040, 0x6000));
        assert_eq!((special.cr0, special.cr3, special.cr4, special.efer), (0x11, 0, 0, 0));
        assert_eq!((special.cs.l, special.cs.db, special.cs.limit), (0, 1, u32::MAX));
        assert_eq!((special.tr.type_, special.tr.limit, special.apic_base), (0xb, 0x67, 0xfee0_0900));
    }
}
