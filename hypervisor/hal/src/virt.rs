//! Virtual processors on the hardware: run one, learn why it stopped, change its registers.
//!
//! The boundary is vendor-neutral: an [`Exit`] says in the manuals' common words what the guest did, and
//! [`Register`]s are named as both vendors name them. [`svm`] is the one backend today; a second becomes a second
//! variant behind [`Vcpu`], not a trait.
//!
//! Between guests the hypervisor runs with GIF = 1 and IF = 0: NMIs reach the host at any time and only count.
//! How one processor makes another leave its guest is in [`lps`].

mod fpu;
mod halt;
pub mod lps;
pub mod svm;

pub use fpu::XSAVE_BYTES;
pub use lps::{Wait, kick, shootdown, wait};
pub use svm::{
    Vcpu,
    maps::{IoMap, MsrAccess, MsrMap},
    vmcb::Segment,
};

use crate::addr::Gpa;

/// General registers in the order in which instructions encode them: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15.
pub type Gprs = [u64; 16];

/// Index of RAX in [`Gprs`].
pub const RAX: usize = 0;
/// Index of RCX in [`Gprs`].
pub const RCX: usize = 1;
/// Index of RDX in [`Gprs`].
pub const RDX: usize = 2;
/// Index of RBX in [`Gprs`].
pub const RBX: usize = 3;
/// Index of RSP in [`Gprs`].
pub const RSP: usize = 4;
/// Index of RSI in [`Gprs`].
pub const RSI: usize = 6;
/// Index of RDI in [`Gprs`].
pub const RDI: usize = 7;
/// Index of R8 in [`Gprs`].
pub const R8: usize = 8;

/// Why a guest stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It executed CPUID.
    Cpuid,
    /// It executed RDMSR or WRMSR of an MSR that exits.
    Msr {
        /// WRMSR.
        write: bool,
    },
    /// It executed the hypercall instruction.
    Hypercall,
    /// It executed HLT.
    Halt,
    /// It accessed a port that exits: [`Vcpu::io_exit`].
    Io,
    /// It used a guest-physical address that the space does not allow: [`Vcpu::gpa_fault`].
    GpaFault,
    /// A physical interrupt is pending for this processor.
    Interrupt,
    /// An NMI arrived; it has been counted.
    Nmi,
    /// Another processor asked for this exit ([`kick`]), perhaps before the guest ran at all.
    Kick,
    /// An exception that is intercepted.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, 0 where it has none.
        error: u32,
    },
    /// It executed IRET while that was intercepted.
    Iret,
    /// INVD or WBINVD.
    CacheFlush,
    /// PAUSE, when a spin was detected.
    Pause,
    /// RDPMC.
    Rdpmc,
    /// XSETBV.
    Xsetbv,
    /// A hardware task switch.
    TaskSwitch,
    /// An instruction that a guest does not have.
    Undefined,
    /// A triple fault.
    Shutdown,
    /// A physical INIT arrived.
    Init,
    /// The processor refused the state, or an exit that was never asked for; holds the vendor's code.
    Failed(u64),
}

/// A port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoExit {
    /// The port.
    pub port: u16,
    /// The operand's size: 1, 2 or 4.
    pub bytes: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub repeat: bool,
    /// Where the next instruction begins.
    pub next_rip: u64,
}

/// A guest-physical address that could not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpaFault {
    /// The address.
    pub gpa: Gpa,
    /// A mapping is there, but does not allow the access.
    pub present: bool,
    /// A write.
    pub write: bool,
    /// An instruction fetch.
    pub execute: bool,
    /// The access was the processor's own, to the guest's page tables.
    pub in_page_walk: bool,
}

/// An event to deliver to the guest at its next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A non-maskable interrupt.
    Nmi,
    /// An exception.
    Exception {
        /// Its vector.
        vector: u8,
        /// Its error code, where it has one.
        error: Option<u32>,
    },
}

impl Event {
    /// #DB.
    pub const DEBUG: Self = Self::Exception { vector: 1, error: None };
    /// #UD.
    pub const UNDEFINED: Self = Self::Exception { vector: 6, error: None };
    /// #GP(0).
    pub const PROTECTION: Self = Self::Exception { vector: 13, error: Some(0) };
}

/// A register beyond the general ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manuals' own names")]
pub enum Register {
    Rip,
    Rflags,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Dr0,
    Dr1,
    Dr2,
    Dr3,
    Dr6,
    Dr7,
    Efer,
    Pat,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    TscAux,
    TscOffset,
    Xcr0,
    DebugCtl,
}

/// A segment or table register, in the order of instruction encodings, then the system ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manuals' own names")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
    Gdtr,
    Ldtr,
    Idtr,
    Tr,
}

impl SegmentName {
    /// Those that instructions name, in the order of their numbers.
    pub const GENERAL: [Self; 6] = [Self::Es, Self::Cs, Self::Ss, Self::Ds, Self::Fs, Self::Gs];
}

/// Why a machine cannot run guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The processor has no SVM, or the firmware switched it off.
    NoSvm,
    /// It has no nested paging.
    NoNestedPaging,
    /// It has no XSAVE.
    NoXsave,
    /// The boot reserve is exhausted.
    NoMemory,
}
