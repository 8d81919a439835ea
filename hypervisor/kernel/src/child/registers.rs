//! Registers of a child's VP, by the names of the TLFS.
//!
//! [`place`] is the table: it says where a register is kept, and reading and writing follow from that. What needs
//! nothing but the parts of a VP that all processors share is in [`shared`], and can be used while the VP runs;
//! for everything else the caller holds the context of a VP that is not being dispatched, whose extended state is
//! saved therefore.
//!
//! The parent may set what the guest itself could not (read-only bits of an APIC, an MSR without a check), but no
//! state with which the processor could not be entered: where that is left to VMRUN, only the VP itself fails.

mod execution;
mod shared;

pub use shared::{get_shared, set_shared};

use hal::{
    cpu,
    sync::Once,
    virt::{Register, Segment, SegmentName, XSAVE_BYTES},
};
use model::{cpuid::Allowed, ensure, intercept::attributes_to_svm, xsave::Layout};
use tlfs::{
    HvStatus, msr,
    register::{RegisterName, RegisterValue, SegmentRegister, TableRegister},
    vp::{RegisterClasses, VpRegisterPage},
};

use super::intercept::segment;
use crate::{
    partition::{Partition, VpRef},
    root,
    vp::{Context, guest_tsc},
};

/// Where a register is kept.
enum Place {
    /// Among the general registers, at their number in instructions.
    General(usize),
    /// In the hardware state.
    Hardware(Register),
    /// In the hardware state, as a segment.
    Segment(SegmentName),
    /// In the hardware state, as a descriptor table.
    Table(SegmentName),
    /// In the saved XSAVE area.
    Extended,
    /// An MSR that is only storage. One that is not even that reads as zero and takes zero, as a virtual machine
    /// monitor that knows it sets all to their values after RESET.
    Stored(u32),
    /// A register of a synthetic timer, by its MSR.
    Timer(u32),
    /// What the VP does, or is about to do.
    Execution,
}

fn place(name: RegisterName) -> Option<Place> {
    use RegisterName as N;
    let number = name.0 & 0xf;
    Some(match name {
        N(0x2_0000..=0x2_000f) => Place::General(number as usize),
        N(0x3_0000..=0x3_0019) => Place::Extended,
        N::INTERCEPT_SUSPEND | N::INTERNAL_ACTIVITY_STATE => Place::Execution,
        N(0x1_0002..=0x1_0005) => Place::Execution,
        N(0x6_0000..=0x6_0007) => Place::Segment(SEGMENTS[number as usize & 7]),
        N::GDTR => Place::Table(SegmentName::Gdtr),
        N::IDTR => Place::Table(SegmentName::Idtr),
        _ => match (hardware(name), name.msr()) {
            (Some(register), _) => Place::Hardware(register),
            (None, Some(msr @ msr::STIMER0_CONFIG..=msr::STIMER3_COUNT)) => Place::Timer(msr),
            (None, msr) => Place::Stored(msr?),
        },
    })
}

/// The segments in the order of their names and of the register page.
const SEGMENTS: [SegmentName; 8] = {
    use SegmentName as S;
    [S::Es, S::Cs, S::Ss, S::Ds, S::Fs, S::Gs, S::Ldtr, S::Tr]
};

/// Registers that the processor keeps. The intermediate ones are what the guest wrote before any intercept on it is
/// resolved; no control register is intercepted, so they are the registers themselves.
const fn hardware(name: RegisterName) -> Option<Register> {
    use RegisterName as N;
    Some(match name {
        N::RIP => Register::Rip,
        N::RFLAGS => Register::Rflags,
        N::CR0 | N::INTERMEDIATE_CR0 => Register::Cr0,
        N::CR2 => Register::Cr2,
        N::CR3 | N::INTERMEDIATE_CR3 => Register::Cr3,
        N::CR4 | N::INTERMEDIATE_CR4 => Register::Cr4,
        N::XFEM => Register::Xcr0,
        N::DR0 => Register::Dr0,
        N::DR1 => Register::Dr1,
        N::DR2 => Register::Dr2,
        N::DR3 => Register::Dr3,
        N::DR6 => Register::Dr6,
        N::DR7 => Register::Dr7,
        N::EFER => Register::Efer,
        N::KERNEL_GS_BASE => Register::KernelGsBase,
        N::PAT => Register::Pat,
        N::SYSENTER_CS => Register::SysenterCs,
        N::SYSENTER_EIP => Register::SysenterEip,
        N::SYSENTER_ESP => Register::SysenterEsp,
        N::STAR => Register::Star,
        N::LSTAR => Register::Lstar,
        N::CSTAR => Register::Cstar,
        N::SFMASK => Register::Sfmask,
        N::TSC_AUX => Register::TscAux,
        N::DEBUG_CTL => Register::DebugCtl,
        _ => return None,
    })
}

/// Reads a register.
///
/// # Errors
/// `INVALID_PARAMETER`: it does not exist.
pub fn get(vp: &VpRef, ctx: &mut Context, name: RegisterName) -> Result<RegisterValue, HvStatus> {
    if let Some(value) = get_shared(vp, name) {
        return Ok(value);
    }
    let vcpu = &ctx.vcpu;
    let value = match place(name).ok_or(HvStatus::INVALID_PARAMETER)? {
        Place::General(number) => vcpu.gprs().get(number).copied().map(RegisterValue::new),
        Place::Hardware(register) => Some(vcpu.get(register).into()),
        Place::Segment(name) => Some(segment(vcpu.segment(name)).into()),
        Place::Table(name) => Some(table(vcpu.segment(name)).into()),
        Place::Extended => layout().register(vcpu.xsave_area(), name),
        Place::Stored(number) => Some(ctx.extra.msrs.get(number).unwrap_or(0).into()),
        Place::Timer(number) => ctx.extra.timers.read_msr(number).ok().map(RegisterValue::new),
        Place::Execution => execution::get(ctx, name),
    };
    value.ok_or(HvStatus::INVALID_PARAMETER)
}

/// Writes a register. The caller wakes the VP, which may be able to go on now.
///
/// # Errors
/// `INVALID_PARAMETER`: it does not exist, or cannot be written; `INVALID_REGISTER_VALUE`: not with this value;
/// `INVALID_VP_STATE`: not while an event waits.
pub fn set(vp: &VpRef, ctx: &mut Context, name: RegisterName, value: RegisterValue) -> Result<(), HvStatus> {
    if let Some(result) = set_shared(vp, name, value) {
        return result;
    }
    let low = value.as_u64();
    let is_valid = match place(name).ok_or(HvStatus::INVALID_PARAMETER)? {
        Place::General(number) => ctx.vcpu.gprs_mut().get_mut(number).map(|place| *place = low).is_some(),
        Place::Hardware(register) => set_hardware(&vp.partition, ctx, register, low),
        Place::Segment(name) => {
            ctx.vcpu.set_segment(name, from_segment(value.as_segment()));
            true
        }
        Place::Table(name) => {
            let TableRegister { limit, base, .. } = value.as_table();
            ctx.vcpu.set_segment(name, Segment { limit: u32::from(limit), base, ..Segment::default() });
            true
        }
        Place::Extended => return set_extended(ctx, name, value),
        Place::Stored(number) => {
            low == 0 && ctx.extra.msrs.get(number).is_none() || ctx.extra.msrs.set(number, low)
        }
        Place::Timer(number) => {
            let now = vp.partition.clock.lock().at(guest_tsc());
            ctx.extra.timers.write_msr(number, low, now).is_ok()
        }
        Place::Execution => return execution::set(ctx, name, value),
    };
    ensure(is_valid, HvStatus::INVALID_REGISTER_VALUE)
}

fn set_hardware(partition: &Partition, ctx: &mut Context, register: Register, value: u64) -> bool {
    /// What XCR0 may hold even where the partition has no XSAVE.
    const LEGACY: u64 = 3;
    match register {
        Register::Xcr0 if value & !(partition.allowed.xsave_states(root::cpuid::host) | LEGACY) != 0 => false,
        Register::Cr0 | Register::Cr3 | Register::Cr4 | Register::Efer => {
            ctx.vcpu.flush_translations();
            ctx.vcpu.set(register, value)
        }
        _ => ctx.vcpu.set(register, value),
    }
}

/// The end of the legacy region and of the header of an XSAVE area, where all named registers are.
const XSAVE_HEADER_END: usize = 576;

fn set_extended(ctx: &mut Context, name: RegisterName, value: RegisterValue) -> Result<(), HvStatus> {
    let mut area = [0; XSAVE_HEADER_END];
    area.iter_mut().zip(ctx.vcpu.xsave_area()).for_each(|(to, from)| *to = *from);
    layout().set_register(&mut area, name, value)?;
    ctx.vcpu.set_xsave_area(&area);
    Ok(())
}

fn from_segment(from: SegmentRegister) -> Segment {
    Segment {
        selector: from.selector,
        attributes: attributes_to_svm(from.attributes),
        limit: from.limit,
        base: from.base,
    }
}

fn table(from: Segment) -> TableRegister {
    TableRegister { limit: from.limit as u16, base: from.base, ..TableRegister::ZEROED }
}

/// The form of children's XSAVE areas, whatever a single partition may enable; partition properties `XsaveStates`
/// and `MaxXsaveDataSize`.
pub fn layout() -> &'static Layout {
    /// Every bit that the SSE of a long-mode processor has (SDM 1 §10.2.3); AMD's bit 17 is not a child's.
    const MXCSR_MASK: u32 = 0xffff;
    /// x87, SSE and AVX fit into any frame.
    const SMALL: u64 = 7;
    static LAYOUT: Once<Layout> = Once::new();
    LAYOUT.call_once(|| {
        let fits = cpu::xsave_area_bytes() <= XSAVE_BYTES;
        let states = Allowed::ALL.xsave_states(root::cpuid::host) & if fits { u64::MAX } else { SMALL };
        Layout::new(states, MXCSR_MASK, |component| {
            let leaf = cpu::cpuid(0xd, component);
            [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
        })
    })
}

/// Adds to a register page what of it is not in the hardware state.
pub(super) fn fill_page(ctx: &Context, page: &mut VpRegisterPage) {
    for (number, place) in (RegisterName::XMM0.0..).zip(&mut page.xmm) {
        let value = layout().register(ctx.vcpu.xsave_area(), RegisterName(number)).unwrap_or_default();
        *place = [value.low, value.high];
    }
    page.pending_interruption = execution::pending_interruption(ctx);
    page.interrupt_state = execution::interrupt_state(ctx);
}

/// Takes over those classes of a register page that are not plain values of the hardware state.
pub(super) fn take_page(vp: &VpRef, ctx: &mut Context, page: &VpRegisterPage) {
    if page.dirty.contains(RegisterClasses::XMM) {
        for (number, &[low, high]) in (RegisterName::XMM0.0..).zip(&page.xmm) {
            // Every value is one that an XMM register can hold.
            let _ = set(vp, ctx, RegisterName(number), RegisterValue { low, high });
        }
    }
    if page.dirty.contains(RegisterClasses::SEGMENT) {
        for (name, &value) in SEGMENTS.into_iter().zip(&page.segments) {
            ctx.vcpu.set_segment(name, from_segment(value));
        }
    }
}
