//! Calls that save and restore what of a VP no register names.
//!
//! The local APIC, the XSAVE area and the SynIC's pages are exchanged in a page of the root that the call names, the
//! synthetic timers in the parameters themselves (`Linux drivers/hv/mshv_root_main.c:mshv_vp_ioctl_get_set_state`).

use hal::{
    addr::{Gpa, Hpa, PAGE_SIZE},
    mem::foreign,
};
use model::{synic::Page, xsave::Layout};
use tlfs::{
    CallCode, HvStatus,
    synic::SyntheticTimersState,
    vp::{LocalApicState, VpStateInput, VpStateType},
};
use zerocopy::{FromBytes, IntoBytes};

use super::{Call, Outcome, registers::context, vp};
use crate::{child::memory, partition::VpRef, root::RootCpu, vp::guest_tsc};

pub use crate::child::registers::layout;

type PageBytes = [u8; PAGE_SIZE];

/// `HvCallGetVpState`: saves a part of a VP's state. What does not fill the page is zero.
pub fn get(_: &mut RootCpu, input: VpStateInput, call: &Call) -> Outcome<SyntheticTimersState> {
    vp::check_vtl(input.input_vtl)?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::GET_VP_STATE)?;
    if input.state_type == VpStateType::SYNTHETIC_TIMERS {
        return Ok(context(&vp)?.extra.timers.state());
    }
    let mut page = [0; PAGE_SIZE];
    match input.state_type {
        VpStateType::LOCAL_APIC => {
            let state = vp.lapic.lock().state(guest_tsc());
            page.iter_mut().zip(state.as_bytes()).for_each(|(to, from)| *to = *from);
        }
        VpStateType::XSAVE => {
            layout().save(context(&vp)?.vcpu.xsave_area(), input.xsave_states, &mut page)?;
        }
        kind => {
            if let Some(gpa) = synic_page(&vp, kind)? {
                memory::read(&vp.partition, gpa, &mut page).map_err(|_| HvStatus::OPERATION_DENIED)?;
            }
        }
    }
    foreign::write(target(call)?, &page).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    Ok(SyntheticTimersState::ZEROED)
}

/// `HvCallSetVpState`: restores a part of a VP's state.
pub fn set(_: &mut RootCpu, input: VpStateInput, call: &Call) -> Outcome {
    vp::check_vtl(input.input_vtl)?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::SET_VP_STATE)?;
    if input.state_type == VpStateType::SYNTHETIC_TIMERS {
        let (state, _) = SyntheticTimersState::read_from_prefix(call.variable())
            .map_err(|_| HvStatus::INVALID_PARAMETER)?;
        restore_timers(&vp, &state)?;
    } else {
        let mut page = [0; PAGE_SIZE];
        foreign::read(target(call)?, &mut page).map_err(|_| HvStatus::INVALID_PARAMETER)?;
        restore_page(&vp, &input, &page)?;
    }
    vp.wake();
    Ok(())
}

/// The page of the caller. All that is exchanged by page fits into one; further pages are left alone.
fn target(call: &Call) -> Result<Hpa, HvStatus> {
    let (pfn, _) = u64::read_from_prefix(call.variable()).map_err(|_| HvStatus::INVALID_PARAMETER)?;
    Ok(Hpa::from_page(pfn))
}

fn restore_timers(vp: &VpRef, state: &SyntheticTimersState) -> Outcome {
    let mut ctx = context(vp)?;
    let now = vp.partition.clock.lock().at(guest_tsc());
    ctx.extra.timers.restore(state, now);
    ctx.messages_wait |= ctx.extra.timers.is_waiting();
    Ok(())
}

fn restore_page(vp: &VpRef, input: &VpStateInput, page: &PageBytes) -> Outcome {
    match input.state_type {
        VpStateType::LOCAL_APIC => {
            let (state, _) =
                LocalApicState::read_from_prefix(page).map_err(|_| HvStatus::INVALID_PARAMETER)?;
            vp.lapic.lock().set_state(&state, guest_tsc());
            Ok(())
        }
        VpStateType::XSAVE => restore_xsave(layout(), vp, input.xsave_states, page),
        kind => match synic_page(vp, kind)? {
            Some(gpa) => memory::write(&vp.partition, gpa, page).map_err(|_| HvStatus::OPERATION_DENIED),
            None => Ok(()),
        },
    }
}

fn restore_xsave(layout: &Layout, vp: &VpRef, states: u64, area: &PageBytes) -> Outcome {
    let mut ctx = context(vp)?;
    let mut current = [0; PAGE_SIZE];
    current.iter_mut().zip(ctx.vcpu.xsave_area()).for_each(|(to, from)| *to = *from);
    layout.restore(area, states, &mut current)?;
    ctx.vcpu.set_xsave_area(&current);
    Ok(())
}

/// Where a page of the SynIC is; `None` while it is disabled, when it holds nothing. The pages are the child's own
/// memory, which its virtual machine monitor saves with the rest.
fn synic_page(vp: &VpRef, kind: VpStateType) -> Result<Option<Gpa>, HvStatus> {
    let page = match kind {
        VpStateType::SIM_PAGE => Page::Messages,
        VpStateType::SIEF_PAGE => Page::EventFlags,
        _ => return Err(HvStatus::INVALID_PARAMETER),
    };
    let place = vp.synic.lock().page(page);
    Ok(place.enable().then(|| Gpa::from_page(place.gpa_page_number())))
}
