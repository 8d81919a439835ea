//! The pages of processor state that the root maps, and the state of the local APIC.

use crate::register::{InterruptState, PendingInterruption, SegmentRegister};

wire! {
    /// The register page (`VpStatePageType::REGISTERS`); the rest of the page is zero.
    ///
    /// The hypervisor fills it when it reports an intercept. The root may change a class of registers and
    /// set its dirty bit; the hypervisor takes dirty classes over when the processor runs again.
    #[doc(alias = "hv_vp_register_page")]
    pub struct VpRegisterPage: 696 {
        /// [`VpRegisterPage::VERSION`].
        0 => version: u16,
        2 => is_valid: u8,
        3 => reserved: u8,
        4 => dirty: RegisterClasses,
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
        8 => gp: [u64; 16],
        136 => rip: u64,
        144 => rflags: u64,
        152 => reserved1: u64,
        /// XMM0 to XMM5, low half first.
        160 => xmm: [[u64; 2]; 6],
        /// ES, CS, SS, DS, FS, GS.
        256 => segments: [SegmentRegister; 6],
        /// From here to `xfem`: read only.
        352 => cr0: u64,
        360 => cr3: u64,
        368 => cr4: u64,
        376 => cr8: u64,
        384 => efer: u64,
        392 => dr7: u64,
        400 => pending_interruption: PendingInterruption,
        408 => interrupt_state: InterruptState,
        416 => instruction_emulation_hints: u64,
        424 => xfem: u64,
        432 => reserved2: [u8; 256],
        /// Injected by a dispatch with `SCAN_INTERRUPT_INJECTION`.
        688 => interrupt_vectors: InterruptVectors,
    }

    /// Vectors to inject.
    #[doc(alias = "hv_vp_register_page_interrupt_vectors")]
    pub struct InterruptVectors: 8 {
        0 => count: u8,
        1 => vector: [u8; 7],
    }

    /// `VpStateType::LOCAL_APIC`: the registers of the local APIC in order of the manual.
    #[doc(alias = "hv_local_interrupt_controller_state")]
    pub struct LocalApicState: 176 {
        0 => apic_id: u32,
        4 => version: u32,
        8 => ldr: u32,
        12 => dfr: u32,
        16 => spurious: u32,
        20 => isr: [u32; 8],
        52 => tmr: [u32; 8],
        84 => irr: [u32; 8],
        116 => esr: u32,
        120 => icr_high: u32,
        124 => icr_low: u32,
        /// The entries of timer, thermal sensor, performance counters, LINT0, LINT1 and errors.
        128 => lvt: [u32; 6],
        152 => lvt_cmci: u32,
        /// Errors not yet moved to `esr` by a write to it.
        156 => error_status: u32,
        160 => initial_count: u32,
        164 => current_count: u32,
        168 => divide_configuration: u32,
        172 => remote_read: u32,
    }
}

flag_set! {
    /// Classes of registers in the register page.
    #[doc(alias = "HV_X64_REGISTER_CLASS")]
    pub struct RegisterClasses(u32) {
        GENERAL = 1 << 0,
        IP = 1 << 1,
        XMM = 1 << 2,
        SEGMENT = 1 << 3,
        FLAGS = 1 << 4,
    }
}

impl VpRegisterPage {
    /// The only version.
    #[doc(alias = "HV_VP_REGISTER_PAGE_VERSION_1")]
    pub const VERSION: u16 = 1;
}
