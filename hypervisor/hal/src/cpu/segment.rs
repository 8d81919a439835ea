//! Segments and the task state: what long mode still wants of them (APM 2 §4.8, §12.2.5).
#![expect(unsafe_code, reason = "LGDT, LTR and segment loads")]

use core::{
    arch::asm,
    sync::atomic::{AtomicU64, Ordering},
};

/// Selector of the hypervisor's code.
pub(crate) const CODE: u16 = 0x08;
/// Selector of the hypervisor's data.
const DATA: u16 = 0x10;
/// Selector of the task state, which takes two entries.
const TASK: u16 = 0x18;

const FLAT_CODE: u64 = 0x00af_9b00_0000_ffff;
const FLAT_DATA: u64 = 0x00cf_9300_0000_ffff;
const AVAILABLE_TASK: u64 = 0x89 << 40;

/// Index in the interrupt stack table of the NMI's stack.
pub(crate) const IST_NMI: u8 = 1;
/// Index in the interrupt stack table of the stack for exceptions that end the hypervisor.
pub(crate) const IST_FATAL: u8 = 2;

/// A GDT and the TSS it names, for one LP. The processor marks the task busy in the GDT, hence the atomics.
#[repr(C)]
pub(crate) struct Segments {
    gdt: [AtomicU64; 5],
    tss: Tss,
}

#[repr(C, packed(4))]
struct Tss {
    reserved_0: u32,
    rsp: [u64; 3],
    reserved_1: u64,
    ist: [u64; 7],
    reserved_2: [u16; 5],
    io_map: u16,
}

/// The operand of LGDT and LIDT.
#[repr(C, packed)]
pub(crate) struct TableRegister {
    pub(crate) limit: u16,
    pub(crate) base: u64,
}

impl Segments {
    /// Returns segments whose NMI and fatal exceptions start at the given stack tops.
    pub(crate) const fn new(nmi_top: u64, fatal_top: u64) -> Self {
        let io_map = size_of::<Tss>() as u16;
        let ist = [nmi_top, fatal_top, 0, 0, 0, 0, 0];
        Self {
            gdt: [
                AtomicU64::new(0),
                AtomicU64::new(FLAT_CODE),
                AtomicU64::new(FLAT_DATA),
                AtomicU64::new(0),
                AtomicU64::new(0),
            ],
            tss: Tss { reserved_0: 0, rsp: [0; 3], reserved_1: 0, ist, reserved_2: [0; 5], io_map },
        }
    }

    /// Makes these the segments of the running LP, once.
    pub(crate) fn load(&'static self) {
        let base = (&raw const self.tss).addr() as u64;
        let limit = size_of::<Tss>() as u64 - 1;
        let low = limit | (base & 0xff_ffff) << 16 | AVAILABLE_TASK | (base >> 24 & 0xff) << 56;
        self.gdt[3].store(low, Ordering::Relaxed);
        self.gdt[4].store(base >> 32, Ordering::Relaxed);
        let register =
            TableRegister { limit: size_of_val(&self.gdt) as u16 - 1, base: self.gdt.as_ptr().addr() as u64 };
        // SAFETY: the table is complete and lives for ever; its code and data entries equal those in use.
        unsafe {
            asm!(
                "lgdt [{register}]",
                "push {code}",
                "lea {scratch}, [rip + 2f]",
                "push {scratch}",
                "retfq",
                "2: mov ds, {data:e}",
                "mov es, {data:e}",
                "mov ss, {data:e}",
                "mov fs, {null:e}",
                "mov gs, {null:e}",
                "ltr {task:x}",
                register = in(reg) &raw const register,
                scratch = out(reg) _,
                code = const CODE,
                data = in(reg) u32::from(DATA),
                null = in(reg) 0,
                task = in(reg) u32::from(TASK),
            );
        }
    }
}
