//! Calls that read, write and use the registers of a child's processor.

use hal::{cpu, sync::Guard, virt::Register};
use model::{
    ensure,
    walk::{self, Access},
};
use tlfs::{
    CallCode, HvStatus,
    register::{RegisterAssoc, RegisterName, RegisterValue},
    vp::{
        TranslateFlags, TranslateResultCode, TranslateVirtualAddressInput, TranslateVirtualAddressOutput,
        VpRegistersInput,
    },
};

use super::{Call, Outcome, vp};
use crate::{
    child::intercept::{give_register_page, take_register_page},
    child::{
        memory::{Walker, paging},
        registers,
    },
    partition::VpRef,
    root::RootCpu,
    vp::Context,
};

/// How often another LP's use of a VP is looked at before the caller is told that it is running: some milliseconds.
const PATIENCE: u32 = 100_000;

/// The context of a VP that is not being dispatched. Linux makes no such call while it dispatches the VP; what is
/// waited for is the end of a dispatch that has nothing left to do.
///
/// # Errors
/// `INVALID_VP_STATE`: another LP runs it.
pub fn context(vp: &VpRef) -> Result<Guard<'_, Context>, HvStatus> {
    for _ in 0..PATIENCE {
        if let Some(mut context) = vp.context.try_lock() {
            // What the root changed in the register page comes before what it asks for now.
            take_register_page(vp, &mut context);
            return Ok(context);
        }
        cpu::pause();
    }
    Err(HvStatus::INVALID_VP_STATE)
}

/// `HvCallGetVpRegisters`: reads registers. Those that processors share are read while the VP runs, too.
pub fn get(
    _: &mut RootCpu,
    input: VpRegistersInput,
    call: &mut Call<RegisterName, RegisterValue>,
) -> Outcome {
    vp::check_vtl(input.input_vtl)?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::GET_VP_REGISTERS)?;
    let mut held = None;
    call.each(|_, name| match registers::get_shared(&vp, name) {
        Some(value) => Ok(value),
        None => registers::get(&vp, hold(&vp, &mut held)?, name),
    })
}

/// `HvCallSetVpRegisters`: writes registers in the order of the list; those before an error stay written.
pub fn set(_: &mut RootCpu, input: VpRegistersInput, call: &mut Call<RegisterAssoc>) -> Outcome {
    vp::check_vtl(input.input_vtl)?;
    let (_, vp) = vp::find(input.partition_id, input.vp_index, CallCode::SET_VP_REGISTERS)?;
    let mut held = None;
    call.each(|_, RegisterAssoc { name, value, .. }| match registers::set_shared(&vp, name, value) {
        Some(result) => result,
        None => registers::set(&vp, hold(&vp, &mut held)?, name, value),
    })?;
    if let Some(ctx) = held.take() {
        give_register_page(&vp, &ctx);
        drop(ctx);
        vp.wake();
    }
    Ok(())
}

fn hold<'a, 'b>(
    vp: &'a VpRef,
    held: &'b mut Option<Guard<'a, Context>>,
) -> Result<&'b mut Context, HvStatus> {
    let guard = match held.take() {
        Some(guard) => guard,
        None => context(vp)?,
    };
    Ok(held.insert(guard))
}

/// `HvCallTranslateVirtualAddress`: where the trust level is in the flags.
const VTL_SHIFT: u32 = 56;

/// Translates an address of a VP. Whether the resulting page is mapped at the moment is not looked at, since the root
/// maps pages when they are touched, and the caller has them in its own memory.
pub fn translate(
    _: &mut RootCpu,
    input: TranslateVirtualAddressInput,
) -> Outcome<TranslateVirtualAddressOutput> {
    let flags = input.control_flags;
    ensure(flags.0 >> VTL_SHIFT == 0 && TranslateFlags::NAMED.contains(flags), HvStatus::INVALID_PARAMETER)?;
    let (partition, vp) = vp::find(input.partition_id, input.vp_index, CallCode::TRANSLATE_VIRTUAL_ADDRESS)?;
    let ctx = context(&vp)?;
    let vcpu = &ctx.vcpu;
    let access = Access::from_flags(flags, vcpu.privilege(), vcpu.get(Register::Rflags));
    let gva = input.gva_page << hal::addr::PAGE_SHIFT;
    let (result_code, attributes, gpa) =
        match walk::translate(&Walker(&partition), &paging(vcpu), gva, access) {
            Ok(found) => {
                (TranslateResultCode::SUCCESS, found.cache_type(vcpu.get(Register::Pat)).0, found.gpa)
            }
            Err(error) => {
                let (code, gpa) = error.result();
                (code, 0, gpa.unwrap_or(0))
            }
        };
    let gpa_page = gpa >> hal::addr::PAGE_SHIFT;
    Ok(TranslateVirtualAddressOutput { result_code, attributes, gpa_page })
}
