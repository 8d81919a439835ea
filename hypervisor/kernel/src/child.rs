//! Running a child's VP: from `HvCallDispatchVp` until there is something that only the root can do.

pub mod cpuid;
mod dispatch;
mod emulate;
pub mod event;
mod exit;
mod hypercall;
pub mod intercept;
pub mod ipi;
pub mod memory;
pub mod msr;
pub mod registers;
mod synthetic;

pub use dispatch::dispatch;
pub use synthetic::refresh_reference_tsc;

use core::sync::atomic::{AtomicU64, Ordering};

use hal::virt::Vcpu;
use tlfs::vp::{DispatchEvent, DispatchState};

use crate::{partition::VpRef, vp::Context};

/// A child's VP while this LP dispatches it.
pub struct ChildCpu<'a> {
    /// What others see of it.
    pub vp: &'a VpRef,
    /// Its state.
    pub ctx: &'a mut Context,
}

/// How a dispatch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The root is needed for something of its own; it dispatches again when it likes.
    Ready,
    /// An intercept message is in the page.
    Intercept,
    /// The VP waits, and the root for a signal.
    Blocked,
    /// The VP's parent stopped it.
    Suspended,
}

impl Ended {
    /// As `HvCallDispatchVp` says it.
    pub fn output(self) -> (DispatchState, DispatchEvent) {
        match self {
            Self::Ready => (DispatchState::READY, DispatchEvent::INVALID),
            Self::Intercept => (DispatchState::READY, DispatchEvent::INTERCEPT),
            Self::Blocked => (DispatchState::BLOCKED, DispatchEvent::INVALID),
            Self::Suspended => (DispatchState::BLOCKED, DispatchEvent::SUSPEND),
        }
    }
}

/// How the dispatch loop goes on.
pub type Next = core::ops::ControlFlow<Ended>;

/// Once more through the loop.
pub const RESUME: Next = Next::Continue(());

/// The root takes over.
pub const fn end(ended: Ended) -> Next {
    Next::Break(ended)
}

impl ChildCpu<'_> {
    fn vcpu(&mut self) -> &mut Vcpu {
        &mut self.ctx.vcpu
    }
}

/// Counts one more.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
