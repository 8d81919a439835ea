//! A child's processors: creation, state pages, interrupts, dispatch.

use hal::mem::SharedPage;
use model::ensure;
use tlfs::{
    CallCode, HvStatus, PartitionId, VpIndex,
    vp::{
        AssertVirtualInterruptInput, ClearVirtualInterruptInput, CreateVpInput, DeleteVpInput, DispatchFlags,
        DispatchVpInput, DispatchVpOutput, InputVtl, MapVpStatePageInput, MapVpStatePageOutput,
        UnmapVpStatePageInput, VpStatePageType,
    },
};

use super::{Outcome, partition::map_status, registers::context};
use crate::{
    child::{self, intercept::give_register_page, ipi},
    partition::{self, PartitionRef, VpRef},
    root::{RootCpu, root},
    stats,
    vp::{Pages, Vp},
};

/// Finds a VP on which `code` may be made.
///
/// # Errors
/// `INVALID_PARTITION_ID`, `INVALID_PARTITION_STATE`, `INVALID_VP_INDEX`.
pub fn find(id: PartitionId, index: VpIndex, code: CallCode) -> Result<(PartitionRef, VpRef), HvStatus> {
    let partition = partition::find_for(id, code)?;
    let vp = partition.vp(index)?;
    Ok((partition, vp))
}

/// Only the one trust level exists.
///
/// # Errors
/// `INVALID_PARAMETER`.
pub fn check_vtl(vtl: InputVtl) -> Outcome {
    ensure(vtl.target_vtl() == 0 && vtl.reserved() == 0, HvStatus::INVALID_PARAMETER)
}

/// `HvCallCreateVp`: creates a VP. Where its memory lies and which LP it prefers is not chosen: memory is what was
/// deposited, and the LP is the dispatching thread's.
pub fn create(_: &mut RootCpu, input: CreateVpInput) -> Outcome {
    let partition = partition::find_for(input.partition_id, CallCode::CREATE_VP)?;
    ensure(input.flags == 0, HvStatus::INVALID_PARAMETER)?;
    partition.add_vp(input.vp_index, || Vp::new(&partition, input.vp_index))?;
    stats::publish_census();
    Ok(())
}

/// `HvCallDeleteVp`: deletes a VP.
pub fn delete(_: &mut RootCpu, input: DeleteVpInput) -> Outcome {
    partition::find_for(input.partition_id, CallCode::DELETE_VP)?.remove_vp(input.vp_index)?;
    stats::publish_census();
    Ok(())
}

/// `HvCallMapVpStatePage`: gives the root a page that the hypervisor fills with a VP's state. Mapping it again returns
/// the same page.
pub fn map_state_page(_: &mut RootCpu, input: MapVpStatePageInput) -> Outcome<MapVpStatePageOutput> {
    check_vtl(input.input_vtl)?;
    // Only a parent without direct access to memory chooses the place.
    ensure(input.flags == 0, HvStatus::INVALID_PARAMETER)?;
    let (partition, vp) = find(input.partition_id, input.vp_index, CallCode::MAP_VP_STATE_PAGE)?;
    let map_location = {
        let mut pages = vp.pages.lock();
        let place = state_page(&mut pages, input.page_type)?;
        if place.is_none() {
            *place = Some(SharedPage::new(partition.pool, &root().space).map_err(map_status)?);
        }
        place.as_ref().map_or(0, |page| page.hpa().page())
    };
    if input.page_type == VpStatePageType::REGISTERS {
        give_register_page(&vp, &*context(&vp)?);
    }
    Ok(MapVpStatePageOutput { map_location })
}

fn state_page(pages: &mut Pages, kind: VpStatePageType) -> Result<&mut Option<SharedPage>, HvStatus> {
    match kind {
        VpStatePageType::REGISTERS => Ok(&mut pages.registers),
        VpStatePageType::INTERCEPT_MESSAGE => Ok(&mut pages.intercept),
        // For encrypted guests, which do not exist here.
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

/// `HvCallUnmapVpStatePage`: takes a state page back into the partition's pool.
pub fn unmap_state_page(_: &mut RootCpu, input: UnmapVpStatePageInput) -> Outcome {
    check_vtl(input.input_vtl)?;
    let (_, vp) = find(input.partition_id, input.vp_index, CallCode::UNMAP_VP_STATE_PAGE)?;
    let page = state_page(&mut vp.pages.lock(), input.page_type)?.take();
    page.map(drop).ok_or(HvStatus::INVALID_PARAMETER)
}

/// `HvCallAssertVirtualInterrupt`: interrupts a child's VPs as a device or another processor would.
pub fn assert_interrupt(_: &mut RootCpu, input: AssertVirtualInterruptInput) -> Outcome {
    check_vtl(input.target_vtl)?;
    let partition = partition::find_for(input.partition_id, CallCode::ASSERT_VIRTUAL_INTERRUPT)?;
    ipi::assert(&partition, input.control, input.destination, input.vector)
}

/// `HvCallClearVirtualInterrupt`: withdraws an external interrupt that was not taken yet.
pub fn clear_interrupt(_: &mut RootCpu, input: ClearVirtualInterruptInput) -> Outcome {
    let partition = partition::find_for(input.partition_id, CallCode::CLEAR_VIRTUAL_INTERRUPT)?;
    partition.for_each_vp(|vp| vp.set_external(None));
    Ok(())
}

/// `HvCallDispatchVp`: runs a VP on this LP until the root is needed. A time slice is not kept: the root's own timer
/// ends it.
pub fn dispatch(cpu: &mut RootCpu, input: DispatchVpInput) -> Outcome<DispatchVpOutput> {
    let (_, vp) = find(input.partition_id, input.vp_index, CallCode::DISPATCH_VP)?;
    ensure(DispatchFlags::NAMED.contains(input.flags), HvStatus::INVALID_PARAMETER)?;
    let (state, event) = child::dispatch(cpu, &vp, input.flags)?.output();
    stats::publish(&vp);
    Ok(DispatchVpOutput { state, event })
}
