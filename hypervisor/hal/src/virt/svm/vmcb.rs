//! The virtual machine control block, field by field (APM 2 appendix B).

use core::mem::offset_of;

/// A segment register as the VMCB holds it. `attributes` is the packed 12-bit form (APM 2 §15.5.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Type, S, DPL, P in bits 7:0; AVL, L, D, G in bits 11:8.
    pub attributes: u16,
    /// Limit in bytes, granularity applied.
    pub limit: u32,
    /// Base, linear.
    pub base: u64,
}

/// Control area.
#[repr(C)]
pub(super) struct Control {
    pub(super) intercept_cr: u32,
    pub(super) intercept_dr: u32,
    pub(super) intercept_exceptions: u32,
    pub(super) intercept_1: u32,
    pub(super) intercept_2: u32,
    _r0: [u32; 10],
    pub(super) pause_threshold: u16,
    pub(super) pause_count: u16,
    pub(super) iopm: u64,
    pub(super) msrpm: u64,
    pub(super) tsc_offset: u64,
    pub(super) asid: u32,
    pub(super) tlb_control: u32,
    pub(super) virtual_interrupt: u64,
    pub(super) shadow: u64,
    pub(super) exit_code: u64,
    pub(super) exit_info_1: u64,
    pub(super) exit_info_2: u64,
    pub(super) exit_event: u64,
    pub(super) nested: u64,
    _r1: [u64; 2],
    pub(super) event: u64,
    pub(super) nested_cr3: u64,
    _r2: u64,
    pub(super) clean: u64,
    pub(super) next_rip: u64,
    pub(super) fetched_len: u8,
    pub(super) fetched: [u8; 15],
    _r3: [u8; 0x400 - 0xe0],
}

/// State save area.
#[repr(C)]
pub(super) struct Save {
    pub(super) segments: [Segment; 6],
    pub(super) gdtr: Segment,
    pub(super) ldtr: Segment,
    pub(super) idtr: Segment,
    pub(super) tr: Segment,
    _r0: [u8; 0x2b],
    pub(super) cpl: u8,
    _r1: u32,
    pub(super) efer: u64,
    _r2: [u64; 14],
    pub(super) cr4: u64,
    pub(super) cr3: u64,
    pub(super) cr0: u64,
    pub(super) dr7: u64,
    pub(super) dr6: u64,
    pub(super) rflags: u64,
    pub(super) rip: u64,
    _r3: [u64; 11],
    pub(super) rsp: u64,
    _r4: [u64; 3],
    pub(super) rax: u64,
    pub(super) star: u64,
    pub(super) lstar: u64,
    pub(super) cstar: u64,
    pub(super) sfmask: u64,
    pub(super) kernel_gs_base: u64,
    pub(super) sysenter_cs: u64,
    pub(super) sysenter_esp: u64,
    pub(super) sysenter_eip: u64,
    pub(super) cr2: u64,
    _r5: [u64; 4],
    pub(super) pat: u64,
    pub(super) debug_ctl: u64,
    _r6: [u64; 4],
}

/// The whole block; hardware needs it at the start of a page.
#[repr(C)]
pub(super) struct Vmcb {
    pub(super) control: Control,
    pub(super) save: Save,
    _tail: [u8; 0xc00 - 0x400 - size_of::<Save>()],
}

impl Control {
    /// The event to deliver at the next entry because an exit cut its delivery short, or 0. A software interrupt is
    /// raised anew by its instruction.
    pub(super) fn interrupted_event(&self) -> u64 {
        let word = self.exit_event & event::DEFINED;
        let kind = word & event::TYPE;
        // QEMU calls an external interrupt an exception here, and lets an offered one stand.
        let is_external = kind == event::EXCEPTION && word & event::VECTOR >= 32;
        let is_offered = is_external && self.virtual_interrupt & virtual_interrupt::IRQ != 0;
        match () {
            () if word & event::VALID == 0 || kind == event::SOFTWARE || is_offered => 0,
            () if is_external => word & !event::TYPE | event::EXTERNAL,
            () => word,
        }
    }
}

const _: () = {
    assert!(offset_of!(Control, pause_threshold) == 0x3c);
    assert!(offset_of!(Control, iopm) == 0x40);
    assert!(offset_of!(Control, asid) == 0x58);
    assert!(offset_of!(Control, virtual_interrupt) == 0x60);
    assert!(offset_of!(Control, exit_code) == 0x70);
    assert!(offset_of!(Control, exit_event) == 0x88);
    assert!(offset_of!(Control, nested) == 0x90);
    assert!(offset_of!(Control, event) == 0xa8);
    assert!(offset_of!(Control, nested_cr3) == 0xb0);
    assert!(offset_of!(Control, next_rip) == 0xc8);
    assert!(offset_of!(Control, fetched) == 0xd1);
    assert!(size_of::<Control>() == 0x400);
    assert!(offset_of!(Save, gdtr) == 0x60);
    assert!(offset_of!(Save, cpl) == 0xcb);
    assert!(offset_of!(Save, efer) == 0xd0);
    assert!(offset_of!(Save, cr4) == 0x148);
    assert!(offset_of!(Save, rip) == 0x178);
    assert!(offset_of!(Save, rsp) == 0x1d8);
    assert!(offset_of!(Save, rax) == 0x1f8);
    assert!(offset_of!(Save, star) == 0x200);
    assert!(offset_of!(Save, cr2) == 0x240);
    assert!(offset_of!(Save, pat) == 0x268);
    assert!(size_of::<Vmcb>() == 0xc00);
};

/// First word of miscellaneous intercepts (offset 0x0c).
pub(super) mod intercept_1 {
    pub(crate) const INTR: u32 = 1 << 0;
    pub(crate) const NMI: u32 = 1 << 1;
    pub(crate) const SMI: u32 = 1 << 2;
    pub(crate) const INIT: u32 = 1 << 3;
    pub(crate) const RDPMC: u32 = 1 << 15;
    pub(crate) const CPUID: u32 = 1 << 18;
    pub(crate) const IRET: u32 = 1 << 20;
    pub(crate) const INVD: u32 = 1 << 22;
    pub(crate) const PAUSE: u32 = 1 << 23;
    pub(crate) const HLT: u32 = 1 << 24;
    pub(crate) const INVLPGA: u32 = 1 << 26;
    pub(crate) const IOIO: u32 = 1 << 27;
    pub(crate) const MSR: u32 = 1 << 28;
    pub(crate) const TASK_SWITCH: u32 = 1 << 29;
    pub(crate) const SHUTDOWN: u32 = 1 << 31;
}

/// Second word of miscellaneous intercepts (offset 0x10).
pub(super) mod intercept_2 {
    /// VMRUN, VMMCALL, VMLOAD, VMSAVE, STGI, CLGI, SKINIT.
    pub(crate) const SVM: u32 = 0x7f;
    pub(crate) const WBINVD: u32 = 1 << 9;
    pub(crate) const MONITOR: u32 = 1 << 10;
    pub(crate) const MWAIT: u32 = 1 << 11;
    pub(crate) const XSETBV: u32 = 1 << 13;
}

/// Bits of `virtual_interrupt` (offset 0x60).
pub(super) mod virtual_interrupt {
    pub(crate) const TPR: u64 = 0xf;
    pub(crate) const IRQ: u64 = 1 << 8;
    pub(crate) const PRIORITY_SHIFT: u32 = 16;
    pub(crate) const IGNORE_TPR: u64 = 1 << 20;
    pub(crate) const MASKING: u64 = 1 << 24;
    pub(crate) const VECTOR_SHIFT: u32 = 32;
}

/// Bits of an event to inject or one that was interrupted (APM 2 §15.20).
pub(super) mod event {
    pub(crate) const VALID: u64 = 1 << 31;
    /// Every bit but the reserved ones.
    pub(crate) const DEFINED: u64 = 0xffff_ffff_8000_0fff;
    pub(crate) const HAS_ERROR: u64 = 1 << 11;
    pub(crate) const VECTOR: u64 = 0xff;
    pub(crate) const TYPE: u64 = 7 << 8;
    pub(crate) const EXTERNAL: u64 = 0 << 8;
    pub(crate) const NMI: u64 = 2 << 8;
    pub(crate) const EXCEPTION: u64 = 3 << 8;
    pub(crate) const SOFTWARE: u64 = 4 << 8;
}
