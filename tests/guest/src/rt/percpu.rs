//! What each processor has of its own: descriptor tables, and a log of the interrupts and faults it took.
//!
//! The block of the running processor is at the base of GS. The first words are read and written by assembly
//! (`cpu::attempt`): own address, instruction and stack pointer at which a fault resumes.

use core::{
    arch::asm,
    fmt,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use super::{apic, msr, smp, trap};

/// Most processors of a machine.
pub(crate) const MAX_VPS: usize = 64;
/// Interrupts whose order is kept.
const LOGGED: usize = 64;

/// Selector of 64-bit code.
pub(super) const CODE: u64 = 0x08;
/// Selector of data.
pub(super) const DATA: u64 = 0x10;
/// Selector of 32-bit code.
pub(super) const CODE_32: u64 = 0x18;
/// Selector of user data.
pub(super) const USER_DATA: u64 = 0x20 | 3;
/// Selector of user code.
pub(super) const USER_CODE: u64 = 0x28 | 3;
const TASK: u16 = 0x30;

/// A fault that a case provoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The exception's vector.
    pub(crate) vector: u8,
    /// Its error code, or 0.
    pub(crate) error: u32,
    /// CR2, of meaning for a page fault.
    pub(crate) address: u64,
    /// The instruction.
    pub(crate) rip: u64,
}

impl Fault {
    /// Whether this is #GP.
    pub(crate) fn is_protection(&self) -> bool {
        self.vector == 13
    }

    /// Whether this is #UD.
    pub(crate) fn is_undefined(&self) -> bool {
        self.vector == 6
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exception {}({:#x}) at {:#x}, CR2 {:#x}", self.vector, self.error, self.rip, self.address)
    }
}

/// How an interrupt is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Eoi {
    /// By the APIC's register.
    Apic = 0,
    /// Not: the case does it, or has it done.
    Never = 1,
    /// By the hypervisor's MSR.
    Msr = 2,
}

/// A processor.
#[repr(C, align(4096))]
pub(crate) struct Cpu {
    own: AtomicU64,
    resume_rip: AtomicU64,
    resume_rsp: AtomicU64,
    has_fault: AtomicBool,
    fault: [AtomicU64; 4],
    index: AtomicUsize,
    counts: [AtomicU32; 256],
    stamps: [AtomicU64; 256],
    log: [AtomicU8; LOGGED],
    logged: AtomicUsize,
    eoi: AtomicU8,
    hook: AtomicUsize,
    /// The mode of the APIC, as the case set it.
    pub(super) apic: AtomicU8,
    /// What it is asked to do.
    pub(super) job: smp::Slot,
    gdt: [AtomicU64; 8],
    task: [AtomicU32; 26],
}

static CPUS: [Cpu; MAX_VPS] = [const { Cpu::new() }; MAX_VPS];

impl Cpu {
    const fn new() -> Self {
        Self {
            own: AtomicU64::new(0),
            resume_rip: AtomicU64::new(0),
            resume_rsp: AtomicU64::new(0),
            has_fault: AtomicBool::new(false),
            fault: [const { AtomicU64::new(0) }; 4],
            index: AtomicUsize::new(0),
            counts: [const { AtomicU32::new(0) }; 256],
            stamps: [const { AtomicU64::new(0) }; 256],
            log: [const { AtomicU8::new(0) }; LOGGED],
            logged: AtomicUsize::new(0),
            eoi: AtomicU8::new(Eoi::Apic as u8),
            hook: AtomicUsize::new(0),
            apic: AtomicU8::new(0),
            job: smp::Slot::new(),
            gdt: [const { AtomicU64::new(0) }; 8],
            task: [const { AtomicU32::new(0) }; 26],
        }
    }

    /// The running processor.
    pub(crate) fn current() -> &'static Self {
        let own: *const Self;
        // SAFETY: the base of GS is that of a block from `load` on, which is before the first case.
        unsafe { asm!("mov {}, gs:[0]", out(reg) own, options(readonly, nostack, preserves_flags)) };
        // SAFETY: `load` put a static's address there.
        unsafe { &*own }
    }

    /// The processor with this index.
    ///
    /// # Panics
    /// There is none.
    pub(crate) fn of(index: usize) -> &'static Self {
        &CPUS[index]
    }

    /// Its index, which is also its APIC id.
    pub(crate) fn index(&self) -> usize {
        self.index.load(SeqCst)
    }

    /// How many interrupts with this vector it took.
    pub(crate) fn count(&self, vector: u8) -> u32 {
        self.counts[usize::from(vector)].load(SeqCst)
    }

    /// The time stamp counter when it took the last interrupt with this vector.
    pub(crate) fn stamp(&self, vector: u8) -> u64 {
        self.stamps[usize::from(vector)].load(SeqCst)
    }

    /// The vector of the interrupt that it took as number `nth` since the last [`Self::forget`].
    pub(crate) fn logged(&self, nth: usize) -> Option<u8> {
        if nth < self.logged.load(SeqCst) {
            self.log.get(nth).map(|vector| vector.load(SeqCst))
        } else {
            None
        }
    }

    /// How many interrupts it took since the last [`Self::forget`].
    pub(crate) fn taken(&self) -> usize {
        self.logged.load(SeqCst)
    }

    /// Empties the log and the counts.
    pub(crate) fn forget(&self) {
        self.logged.store(0, SeqCst);
        self.counts.iter().for_each(|count| count.store(0, SeqCst));
    }

    /// Chooses how its interrupts are ended.
    pub(crate) fn set_eoi(&self, eoi: Eoi) {
        self.eoi.store(eoi as u8, SeqCst);
    }

    /// Has `hook` called with each vector, before the interrupt is ended; `None` for nothing.
    pub(crate) fn set_hook(&self, hook: Option<fn(u8)>) {
        self.hook.store(hook.map_or(0, |hook| hook as usize), SeqCst);
    }

    /// Forgets the last fault; assembly that follows says where the next one resumes.
    pub(crate) fn expect_fault(&self) {
        self.has_fault.store(false, SeqCst);
    }

    /// The fault since [`Self::expect_fault`], if there was one.
    pub(crate) fn fault(&self) -> Result<(), Fault> {
        if !self.has_fault.load(SeqCst) {
            return Ok(());
        }
        let [vector, error, address, rip] = self.fault.each_ref().map(|word| word.load(SeqCst));
        Err(Fault { vector: vector as u8, error: error as u32, address, rip })
    }

    /// Records a fault. Returns where the processor resumes: instruction and stack pointer; `None` if no fault was
    /// expected.
    pub(super) fn take_fault(&self, fault: Fault) -> Option<(u64, u64)> {
        let rip = self.resume_rip.swap(0, SeqCst);
        if rip == 0 {
            return None;
        }
        let words = [u64::from(fault.vector), u64::from(fault.error), fault.address, fault.rip];
        for (to, from) in self.fault.iter().zip(words) {
            to.store(from, SeqCst);
        }
        self.has_fault.store(true, SeqCst);
        Some((rip, self.resume_rsp.load(SeqCst)))
    }

    /// Records an interrupt, calls the hook, and ends the interrupt unless it is an NMI.
    pub(super) fn take_interrupt(&self, vector: u8, stamp: u64) {
        self.stamps[usize::from(vector)].store(stamp, SeqCst);
        let nth = self.logged.fetch_add(1, SeqCst);
        if let Some(place) = self.log.get(nth) {
            place.store(vector, SeqCst);
        }
        self.counts[usize::from(vector)].fetch_add(1, SeqCst);
        let hook = self.hook.load(SeqCst);
        if hook != 0 {
            // SAFETY: `set_hook` stored a function of this type.
            let hook = unsafe { core::mem::transmute::<usize, fn(u8)>(hook) };
            hook(vector);
        }
        if vector != trap::NMI && vector != apic::SPURIOUS {
            match self.eoi.load(SeqCst) {
                0 => apic::end_of_interrupt(),
                2 => msr::write(tlfs::msr::EOI, 0),
                _ => {}
            }
        }
    }
}

/// Gives the running processor its block and its descriptor tables.
pub(super) fn load(index: usize) {
    let cpu = Cpu::of(index);
    cpu.own.store((&raw const *cpu).addr() as u64, SeqCst);
    cpu.index.store(index, SeqCst);
    let task = cpu.task.as_ptr().addr() as u64;
    let limit = size_of_val(&cpu.task) as u64 - 1;
    let low = limit | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
    let table = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_9b00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        low,
        task >> 32,
    ];
    for (to, from) in cpu.gdt.iter().zip(table) {
        to.store(from, SeqCst);
    }
    load_gdt(&cpu.gdt);
    load_gs(cpu);
    trap::load();
    cpu.resume_rip.store(0, SeqCst);
}

/// The stack that an exception from user mode gets: the rest of the one that runs now.
pub(super) fn set_kernel_stack(cpu: &Cpu, rsp: u64) {
    cpu.task[1].store(rsp as u32, SeqCst);
    cpu.task[2].store((rsp >> 32) as u32, SeqCst);
}

/// The operand of LGDT and LIDT.
#[repr(C, packed)]
pub(super) struct TableRegister {
    /// Bytes, less one.
    pub(super) limit: u16,
    /// First byte.
    pub(super) base: u64,
}

fn load_gdt(table: &'static [AtomicU64; 8]) {
    let register = TableRegister { limit: size_of_val(table) as u16 - 1, base: table.as_ptr().addr() as u64 };
    // SAFETY: the selectors in use mean in this table what they meant in the one before, and it lives for ever.
    unsafe { asm!("lgdt [{}]", in(reg) &raw const register, options(readonly, nostack, preserves_flags)) };
    // SAFETY: the table holds a task state segment there, which `load` has just made available.
    unsafe { asm!("ltr {:x}", in(reg) TASK, options(nostack, preserves_flags)) };
}

/// Done without `msr`, whose faults need what is made here.
fn load_gs(cpu: &'static Cpu) {
    let base = (&raw const *cpu).addr() as u64;
    // SAFETY: nothing but the blocks is reached by GS.
    unsafe {
        asm!("wrmsr", in("ecx") msr::GS_BASE, in("eax") base as u32, in("edx") (base >> 32) as u32,
            options(nostack, preserves_flags));
    };
}
