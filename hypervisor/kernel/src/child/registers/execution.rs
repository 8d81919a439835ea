//! What a VP does and is about to do: suspension, waiting, and the event that it takes next.
//!
//! The hardware has one place for an event that is to be delivered at the next entry, and so `PendingInterruption`
//! and `PendingEvent0` lead to the same: an exception that is set as the latter reads back as the former.

use hal::virt::{Event, Register};
use model::ensure;
use tlfs::{
    HvStatus,
    register::{
        InternalActivityState, InterruptState, InterruptionType, PendingEventType, PendingExceptionEvent,
        PendingInterruption, RegisterName, RegisterValue, Suspend,
    },
};

use crate::vp::{Activity, Context, guest_tsc};

const NMI_VECTOR: u8 = 2;
const PAGE_FAULT: u8 = 14;
const DEBUG: u8 = 1;
/// The event word of [`hal::virt::Vcpu::pending_event`].
const TYPE_SHIFT: u32 = 8;
const HAS_ERROR: u64 = 1 << 11;

pub(super) fn get(ctx: &Context, name: RegisterName) -> Option<RegisterValue> {
    let suspended = |on| Suspend::new().with_suspended(on).into_bits();
    let value = match name {
        RegisterName::INTERCEPT_SUSPEND => suspended(ctx.intercept_suspended),
        RegisterName::INTERNAL_ACTIVITY_STATE => activity(ctx.activity).into_bits(),
        RegisterName::PENDING_INTERRUPTION => pending_interruption(ctx).into_bits(),
        RegisterName::INTERRUPT_STATE => interrupt_state(ctx).into_bits(),
        RegisterName::PENDING_EVENT0 | RegisterName::PENDING_EVENT1 => 0,
        _ => return None,
    };
    Some(value.into())
}

pub(super) fn set(ctx: &mut Context, name: RegisterName, value: RegisterValue) -> Result<(), HvStatus> {
    let low = value.as_u64();
    match name {
        RegisterName::INTERCEPT_SUSPEND => ctx.intercept_suspended = Suspend::from_bits(low).suspended(),
        RegisterName::INTERNAL_ACTIVITY_STATE => {
            set_activity(ctx, InternalActivityState::from_bits(low));
        }
        RegisterName::PENDING_INTERRUPTION => {
            return set_pending_interruption(ctx, PendingInterruption::from_bits(low));
        }
        RegisterName::INTERRUPT_STATE => {
            let state = InterruptState::from_bits(low);
            ctx.vcpu.set_interrupt_shadow(state.interrupt_shadow());
            mask_nmis(ctx, state.nmi_masked());
        }
        RegisterName::PENDING_EVENT0 => return raise(ctx, &value.as_pending_exception()),
        // Only messages that wait in a second place would need it.
        _ if value.as_pending_exception().header.event_pending() => {
            return Err(HvStatus::INVALID_REGISTER_VALUE);
        }
        _ => {}
    }
    Ok(())
}

fn activity(activity: Activity) -> InternalActivityState {
    InternalActivityState::new()
        .with_startup_suspend(activity == Activity::WaitForStartup)
        .with_halt_suspend(activity == Activity::Halted)
        .with_idle_suspend(activity == Activity::Idle)
}

fn set_activity(ctx: &mut Context, state: InternalActivityState) {
    ctx.halted_at = guest_tsc();
    ctx.activity = if state.startup_suspend() {
        Activity::WaitForStartup
    } else if state.idle_suspend() {
        Activity::Idle
    } else if state.halt_suspend() {
        Activity::Halted
    } else {
        Activity::Running
    };
}

/// The event in the middle of its delivery.
pub(super) fn pending_interruption(ctx: &Context) -> PendingInterruption {
    let Some(event) = ctx.vcpu.pending_event() else { return PendingInterruption::new() };
    PendingInterruption::new()
        .with_interruption_pending(true)
        .with_interruption_type((event >> TYPE_SHIFT) as u8 & 7)
        .with_deliver_error_code(event & HAS_ERROR != 0)
        .with_vector(event as u16 & 0xff)
        .with_error_code((event >> 32) as u32)
}

/// What holds interrupts off.
pub(super) fn interrupt_state(ctx: &Context) -> InterruptState {
    InterruptState::new()
        .with_interrupt_shadow(ctx.vcpu.has_interrupt_shadow())
        .with_nmi_masked(ctx.nmi_masked)
}

fn set_pending_interruption(ctx: &mut Context, pending: PendingInterruption) -> Result<(), HvStatus> {
    use InterruptionType as T;
    if !pending.interruption_pending() {
        ctx.vcpu.set_pending_event(None);
        return Ok(());
    }
    let vector = u8::try_from(pending.vector()).map_err(|_| HvStatus::INVALID_REGISTER_VALUE)?;
    let kind = match InterruptionType(pending.interruption_type()) {
        kind @ (T::INTERRUPT | T::SOFTWARE_INTERRUPT) => kind,
        T::NMI if vector == NMI_VECTOR => T::NMI,
        T::EXCEPTION | T::PRIVILEGED_SOFTWARE_EXCEPTION | T::SOFTWARE_EXCEPTION if is_exception(vector) => {
            T::EXCEPTION
        }
        _ => return Err(HvStatus::INVALID_REGISTER_VALUE),
    };
    let has_error = kind == T::EXCEPTION && pending.deliver_error_code();
    let error = if has_error { HAS_ERROR | u64::from(pending.error_code()) << 32 } else { 0 };
    ctx.vcpu.set_pending_event(Some(error | u64::from(kind.0) << TYPE_SHIFT | u64::from(vector)));
    if kind == T::NMI {
        mask_nmis(ctx, true);
    }
    Ok(())
}

/// Raises an exception. There is no place for it beside another event.
fn raise(ctx: &mut Context, event: &PendingExceptionEvent) -> Result<(), HvStatus> {
    let header = event.header;
    if !header.event_pending() {
        return Ok(());
    }
    let vector = u8::try_from(header.vector()).ok().filter(|&vector| is_exception(vector));
    let vector = vector.ok_or(HvStatus::INVALID_REGISTER_VALUE)?;
    let is_exception = PendingEventType(header.event_type()) == PendingEventType::EXCEPTION;
    ensure(is_exception, HvStatus::INVALID_REGISTER_VALUE)?;
    ensure(!ctx.vcpu.has_event(), HvStatus::INVALID_VP_STATE)?;
    match vector {
        PAGE_FAULT => ctx.vcpu.set(Register::Cr2, event.parameter),
        DEBUG if !ctx.vcpu.set(Register::Dr6, event.parameter) => {
            return Err(HvStatus::INVALID_REGISTER_VALUE);
        }
        _ => true,
    };
    let error = header.deliver_error_code().then_some(event.error_code);
    ctx.vcpu.inject(Event::Exception { vector, error });
    Ok(())
}

/// Vectors of exceptions: the processor refuses to inject others as such (APM 2 §15.20).
const fn is_exception(vector: u8) -> bool {
    vector < 32 && vector != NMI_VECTOR
}

fn mask_nmis(ctx: &mut Context, masked: bool) {
    ctx.nmi_masked = masked;
    ctx.vcpu.exit_on_iret(masked);
}
