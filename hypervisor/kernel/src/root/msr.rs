//! The root's MSRs that are not the processor's own.
//!
//! | MSRs | why they exit |
//! |---|---|
//! | EFER | SVME must stay set, and is not the root's to see |
//! | APIC_BASE (writes) | the APIC stays where it is, in x2APIC mode |
//! | TSC, TSC_ADJUST (writes) | reference time is computed from the TSC |
//! | VM_CR, VM_HSAVE_PA, SVM_KEY | virtualization is the hypervisor's |
//! | x2APIC ICR (writes) | INIT and start-up IPIs are virtual; not while all processors run |
//! | APIC EOI | only while the LP's timer is lent to the root |
//! | APIC timer | only while the hypervisor uses this LP's timer ([`crate::timer`]) |
//! | 0x4000_xxxx | the TLFS's |

use core::sync::atomic::Ordering;

use hal::{
    apic,
    cpu::{
        self,
        msr::{
            APIC_BASE, CSTAR, EFER, FS_BASE, GS_BASE, KERNEL_GS_BASE, LSTAR, SFMASK, STAR, SYSENTER_CS,
            SYSENTER_EIP, SYSENTER_ESP, TSC, TSC_ADJUST, TSC_AUX, VM_CR, VM_HSAVE_PA,
        },
    },
    virt::{Event, MsrAccess, RAX, RCX, RDX, Register, Vcpu},
};
use model::ensure;
use tlfs::msr::{self as hv, HypercallMsr, OverlayPageMsr};

use super::{RootCpu, page_number, root};
use crate::timer;

/// End of interrupt.
pub const X2APIC_EOI: u32 = 0x80b;
/// Interrupt command register.
pub const X2APIC_ICR: u32 = 0x830;
const SVM_KEY: u32 = 0xc001_0118;
const EFER_LMA: u64 = 1 << 10;
/// VM_CR: SVM is disabled and locked, as on a machine whose firmware switched it off.
const VM_CR_DISABLED: u64 = 1 << 4 | 1 << 3;

/// What always exits.
pub const PROTECTED: [(u32, MsrAccess); 8] = [
    (EFER, MsrAccess::Exit),
    (APIC_BASE, MsrAccess::ExitOnWrite),
    (TSC, MsrAccess::ExitOnWrite),
    (TSC_ADJUST, MsrAccess::ExitOnWrite),
    (VM_CR, MsrAccess::Exit),
    (VM_HSAVE_PA, MsrAccess::Exit),
    (SVM_KEY, MsrAccess::Exit),
    (X2APIC_ICR, MsrAccess::ExitOnWrite),
];

/// The APIC timer's registers: LVT, initial count, current count, divide.
pub const TIMER: [u32; 4] = [0x832, 0x838, 0x839, 0x83e];

/// MSRs of a child that its VMCB or its extended state holds, so that they need no exit.
pub const CHILD_OWN: [u32; 11] = [
    STAR,
    LSTAR,
    CSTAR,
    SFMASK,
    FS_BASE,
    GS_BASE,
    KERNEL_GS_BASE,
    TSC_AUX,
    SYSENTER_CS,
    SYSENTER_ESP,
    SYSENTER_EIP,
];

/// The value that a WRMSR is to write.
pub fn to_write(vcpu: &Vcpu) -> u64 {
    vcpu.gprs()[RDX] << 32 | vcpu.gprs()[RAX] & 0xffff_ffff
}

/// Makes `value` what a RDMSR has read.
pub fn set_read(vcpu: &mut Vcpu, value: u64) {
    let gprs = vcpu.gprs_mut();
    gprs[RAX] = value & 0xffff_ffff;
    gprs[RDX] = value >> 32;
}

/// The root is not allowed this access.
struct Refused;

/// Carries out the RDMSR or WRMSR that exited.
pub fn access(cpu: &mut RootCpu, write: bool) {
    let number = cpu.vcpu.gprs()[RCX] as u32;
    let result = if write {
        write_msr(cpu, number, to_write(&cpu.vcpu))
    } else {
        read_msr(cpu, number).map(|value| set_read(&mut cpu.vcpu, value))
    };
    match result {
        Ok(()) => cpu.vcpu.skip_instruction(2),
        Err(Refused) => cpu.vcpu.inject(Event::PROTECTION),
    }
}

fn read_msr(cpu: &mut RootCpu, number: u32) -> Result<u64, Refused> {
    let root = root();
    let enabled =
        |page, on: bool| OverlayPageMsr::new().with_gpa_page_number(page).with_enable(on).into_bits();
    Ok(match number {
        EFER => cpu.vcpu.get(Register::Efer),
        VM_CR => VM_CR_DISABLED,
        VM_HSAVE_PA | SVM_KEY => 0,
        hv::GUEST_OS_ID => root.guest_os_id.load(Ordering::Relaxed),
        hv::HYPERCALL => HypercallMsr::new()
            .with_gpa_page_number(page_number(&root.hypercall_page))
            .with_enable(root.hypercall_enabled.load(Ordering::Relaxed))
            .into_bits(),
        hv::VP_INDEX => u64::from(cpu.vp.lp.0),
        hv::VP_RUNTIME | hv::TIME_REF_COUNT => root.now(),
        hv::REFERENCE_TSC => enabled(page_number(&root.tsc_page), true),
        hv::TSC_FREQUENCY => hal::time::tsc_hz(),
        hv::APIC_FREQUENCY => hal::time::apic_hz(),
        hv::VP_ASSIST_PAGE => {
            enabled(page_number(&cpu.vp.assist_page), cpu.vp.assist_enabled.load(Ordering::Relaxed))
        }
        hv::SCONTROL..=hv::SINT15 => cpu.vp.synic.lock().read(number).ok_or(Refused)?,
        0x832 | 0x838 | 0x839 | 0x83e => timer::root_read(number).ok_or(Refused)?,
        _ => return Err(Refused),
    })
}

fn write_msr(cpu: &mut RootCpu, number: u32, value: u64) -> Result<(), Refused> {
    let root = root();
    match number {
        EFER => write_efer(cpu, value)?,
        // The APIC, the TSC and virtualization stay as they are.
        APIC_BASE | TSC | TSC_ADJUST | VM_CR => {}
        X2APIC_ICR => command(value),
        X2APIC_EOI => apic::eoi(),
        hv::GUEST_OS_ID => root.guest_os_id.store(value, Ordering::Relaxed),
        hv::HYPERCALL => {
            let enable = HypercallMsr::from_bits(value).enable();
            let was = root.hypercall_enabled.swap(enable, Ordering::Relaxed);
            if was && !enable {
                hal::info!("the root disabled its hypercall page");
            }
        }
        hv::RESET if value & 1 != 0 => hal::acpi::reset(hal::acpi::tables().fadt().as_ref()),
        // The pages are where they are; only whether the root uses them is its choice.
        hv::RESET | hv::REFERENCE_TSC => {}
        hv::VP_ASSIST_PAGE => {
            let enable = OverlayPageMsr::from_bits(value).enable();
            cpu.vp.assist_enabled.store(enable, Ordering::SeqCst);
            if enable {
                cpu.vp.synic.lock().reset_event_ring();
            }
            root.update_command_intercept();
        }
        hv::SCONTROL..=hv::SINT15 => cpu.vp.synic.lock().write(number, value).ok_or(Refused)?,
        0x832 | 0x838 | 0x839 | 0x83e => timer::root_write(number, value as u32),
        _ => return Err(Refused),
    }
    Ok(())
}

/// LMA follows from LME and CR0.PG and is not written.
fn write_efer(cpu: &mut RootCpu, value: u64) -> Result<(), Refused> {
    let lma = cpu.vcpu.get(Register::Efer) & EFER_LMA;
    ensure(cpu.vcpu.set(Register::Efer, value & !EFER_LMA | lma), Refused)
}

/// An interrupt command of the root: INIT and start-up are for its virtual processors, the rest is physical.
fn command(value: u64) {
    const INIT: u64 = 5;
    const STARTUP: u64 = 6;
    const LEVEL_ASSERT: u64 = 1 << 14;
    let delivery = value >> 8 & 7;
    if delivery != INIT && delivery != STARTUP {
        apic::command(value);
        return;
    }
    let own = apic::id();
    for vp in root().vps {
        let id = hal::lp::apic_id(vp.lp).unwrap_or(u32::MAX);
        let named = match value >> 18 & 3 {
            0 => id == (value >> 32) as u32 || (value >> 32) as u32 == u32::MAX,
            1 => id == own,
            2 => true,
            _ => id != own,
        };
        match delivery {
            STARTUP if named => vp.send_startup(value as u8),
            INIT if named && value & LEVEL_ASSERT != 0 => vp.send_init(),
            _ => {}
        }
    }
    cpu::pause();
}
