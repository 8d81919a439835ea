//! What the hypervisor says of itself, and that it keeps to it (TLFS feature-discovery).

use core::arch::x86_64::CpuidResult;

use tlfs::{
    cpuid::{
        ENLIGHTENMENT_INFO, FEATURES, FeaturesEdx, IMPLEMENTATION_LIMITS, INTERFACE, INTERFACE_SIGNATURE,
        MAX_FUNCTION_MAX, MAX_FUNCTION_MIN, VENDOR_AND_MAX_FUNCTION, VENDOR_SIGNATURE, VERSION,
    },
    msr as hv,
    partition::Privileges,
};

use super::Case;
use crate::{
    report::{Outcome, check, equal},
    rt::{apic, cpu, machine::Machine, memory::Page, msr, percpu::Cpu, smp},
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "cpuid_discovery",
        1,
        "the leaves by which a guest finds the interface (TLFS feature-discovery)",
        discovery,
    )
    .partition(),
    Case::new("cpuid_everywhere", 4, "all VPs see the same leaves (TLFS feature-discovery)", everywhere),
    Case::new(
        "cpuid_topology",
        4,
        "leaves 1 and 0xB tell the APIC id of the VP that asks (SDM 2A CPUID)",
        topology,
    ),
    Case::new(
        "privileges",
        1,
        "an MSR is there if its privilege is, else it raises #GP (TLFS HV_PARTITION_PRIVILEGE_MASK)",
        privileges,
    )
    .partition(),
    Case::new(
        "vp_index",
        4,
        "each VP has its own index, below the limit, and cannot change it (TLFS vp-properties)",
        vp_index,
    )
    .partition(),
    Case::new("vp_runtime", 1, "run time grows, and no faster than time (TLFS vp-properties)", vp_runtime)
        .partition(),
    Case::new(
        "unknown_msrs",
        1,
        "an unknown MSR raises #GP, or reads as 0 and ignores writes (APM 2 RDMSR)",
        unknown_msrs,
    ),
    Case::new(
        "no_nesting",
        1,
        "virtualization is not to be had where CPUID hides it (APM 2 §15.4)",
        no_nesting,
    )
    .partition(),
    Case::new(
        "crash_msrs",
        1,
        "the crash parameters keep what is written, and a notified guest runs on (TLFS partition-properties)",
        crash,
    )
    .partition(),
];

/// Privileges as CPUID tells them.
pub(super) fn own_privileges() -> Privileges {
    let leaf = cpu::cpuid(FEATURES, 0);
    Privileges(u64::from(leaf.eax) | u64::from(leaf.ebx) << 32)
}

/// Features as CPUID tells them.
pub(super) fn own_features() -> FeaturesEdx {
    FeaturesEdx(cpu::cpuid(FEATURES, 0).edx)
}

fn discovery(_: &Machine) -> Outcome {
    let first = cpu::cpuid(VENDOR_AND_MAX_FUNCTION, 0);
    check!((MAX_FUNCTION_MIN..=MAX_FUNCTION_MAX).contains(&first.eax), "highest leaf {:#x}", first.eax);
    equal!([first.ebx, first.ecx, first.edx], VENDOR_SIGNATURE, "vendor");
    equal!(cpu::cpuid(INTERFACE, 0).eax, INTERFACE_SIGNATURE, "interface");
    let version = cpu::cpuid(VERSION, 0);
    check!(version.eax != 0 && version.ebx >> 16 != 0, "no version: {version:x?}");
    let always = Privileges::ACCESS_HYPERCALL_MSRS.with(Privileges::ACCESS_VP_INDEX);
    check!(own_privileges().contains(always), "privileges {:?} lack those of Hv#1", own_privileges());
    let root_only =
        Privileges::CREATE_PARTITIONS.with(Privileges::CPU_MANAGEMENT).with(Privileges::ACCESS_MEMORY_POOL);
    check!(
        !own_privileges().intersects(root_only),
        "a child has privileges of the root: {:?}",
        own_privileges()
    );
    let limits = cpu::cpuid(IMPLEMENTATION_LIMITS, 0);
    check!(limits.eax >= 1, "at most {} VPs", limits.eax);
    // An extended leaf must not be one of the host's that slips through.
    for leaf in [0x4000_0100, 0x4000_1000, 0x4fff_ffff] {
        let CpuidResult { eax, ebx, ecx, edx } = cpu::cpuid(leaf, 0);
        equal!([eax, ebx, ecx, edx], [0; 4], "leaf {leaf:#x}");
    }
    Ok(())
}

fn everywhere(machine: &Machine) -> Outcome {
    fn compare(page: u64) -> Outcome {
        let expected = crate::rt::memory::shared(page);
        let mut word = 0;
        for (leaf, subleaf) in LEAVES {
            for value in masked(leaf, subleaf) {
                equal!(
                    u64::from(value),
                    expected.get(word),
                    "leaf {leaf:#x}.{subleaf} at VP {}",
                    Cpu::current().index()
                );
                word += 1;
            }
        }
        Ok(())
    }
    let page = Page::take();
    let mut word = 0;
    for (leaf, subleaf) in LEAVES {
        for value in masked(leaf, subleaf) {
            page.set(word, value.into());
            word += 1;
        }
    }
    smp::run_on_all(machine.vps, compare, page.address())
}

const LEAVES: [(u32, u32); 15] = [
    (0, 0),
    (1, 0),
    (7, 0),
    (0xd, 1),
    (0xd, 2),
    (0x4000_0000, 0),
    (0x4000_0001, 0),
    (0x4000_0002, 0),
    (0x4000_0003, 0),
    (0x4000_0004, 0),
    (0x4000_0005, 0),
    (0x4000_0006, 0),
    (0x8000_0000, 0),
    (0x8000_0001, 0),
    (0x8000_0008, 0),
];

/// A leaf without the parts that differ by processor: the APIC id, and what mirrors CR4.
fn masked(leaf: u32, subleaf: u32) -> [u32; 4] {
    let CpuidResult { eax, mut ebx, mut ecx, edx } = cpu::cpuid(leaf, subleaf);
    if leaf == 1 {
        ebx &= 0x00ff_ffff;
        ecx &= !(1 << 27);
    }
    if leaf == 7 {
        ecx &= !(1 << 4);
    }
    if leaf == 0xd && subleaf == 1 {
        ebx = 0;
    }
    [eax, ebx, ecx, edx]
}

fn topology(machine: &Machine) -> Outcome {
    fn compare(vps: u64) -> Outcome {
        let id = apic::id();
        equal!(cpu::cpuid(1, 0).ebx >> 24, id, "APIC id in leaf 1");
        if cpu::cpuid(0, 0).eax >= 0xb && cpu::cpuid(0xb, 0).ebx != 0 {
            equal!(cpu::cpuid(0xb, 0).edx, id, "APIC id in leaf 0xB");
            let processors = cpu::cpuid(0xb, 1).ebx;
            equal!(u64::from(processors), vps, "processors in leaf 0xB.1");
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, compare, machine.vps as u64)
}

fn privileges(_: &Machine) -> Outcome {
    type P = Privileges;
    let readable: [(P, &[u32]); 10] = [
        (P::ACCESS_VP_RUN_TIME_REG, &[hv::VP_RUNTIME]),
        (P::ACCESS_PARTITION_REFERENCE_COUNTER, &[hv::TIME_REF_COUNT]),
        (
            P::ACCESS_SYNIC_REGS,
            &[hv::SCONTROL, hv::SVERSION, hv::SIEFP, hv::SIMP, hv::EOM, hv::SINT0, hv::SINT15],
        ),
        (P::ACCESS_SYNTHETIC_TIMER_REGS, &[hv::STIMER0_CONFIG, hv::STIMER3_COUNT]),
        (P::ACCESS_INTR_CTRL_REGS, &[hv::ICR, hv::TPR, hv::VP_ASSIST_PAGE]),
        (P::ACCESS_HYPERCALL_MSRS, &[hv::GUEST_OS_ID, hv::HYPERCALL]),
        (P::ACCESS_VP_INDEX, &[hv::VP_INDEX]),
        (P::ACCESS_RESET_REG, &[hv::RESET]),
        (P::ACCESS_PARTITION_REFERENCE_TSC, &[hv::REFERENCE_TSC]),
        (P::ACCESS_FREQUENCY_REGS, &[hv::TSC_FREQUENCY, hv::APIC_FREQUENCY]),
    ];
    let own = own_privileges();
    for (privilege, numbers) in readable {
        for &number in numbers {
            let seen = msr::try_read(number);
            let right = match seen {
                Ok(_) => own.contains(privilege),
                Err(fault) => !own.contains(privilege) && fault.is_protection(),
            };
            check!(right, "MSR {number:#x} gives {seen:x?} with privileges {own:?}");
        }
    }
    for read_only in [hv::VP_INDEX, hv::TIME_REF_COUNT, hv::SVERSION, hv::TSC_FREQUENCY, hv::APIC_FREQUENCY] {
        let seen = msr::try_write(read_only, 1);
        check!(seen.is_err_and(|fault| fault.is_protection()), "MSR {read_only:#x} can be written");
    }
    let write_only = msr::try_read(hv::EOI);
    check!(write_only.is_err_and(|fault| fault.is_protection()), "the EOI register reads {write_only:x?}");
    Ok(())
}

fn vp_index(machine: &Machine) -> Outcome {
    fn compare(limit: u64) -> Outcome {
        let index = msr::read(hv::VP_INDEX);
        check!(index < limit, "VP index {index} of at most {limit}");
        SEEN[Cpu::current().index()].store(index, core::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    use core::sync::atomic::AtomicU64;
    static SEEN: [AtomicU64; 64] = [const { AtomicU64::new(u64::MAX) }; 64];
    smp::run_on_all(machine.vps, compare, cpu::cpuid(IMPLEMENTATION_LIMITS, 0).eax.into())?;
    let seen = |vp: usize| SEEN[vp].load(core::sync::atomic::Ordering::SeqCst);
    for one in 0..machine.vps {
        let same = (0..machine.vps).find(|&other| other != one && seen(other) == seen(one));
        check!(same.is_none(), "VPs {one} and {same:?} have the same index");
    }
    Ok(())
}

fn vp_runtime(_: &Machine) -> Outcome {
    crate::report::needs!(
        own_privileges().contains(Privileges::ACCESS_VP_RUN_TIME_REG),
        "no privilege for it"
    );
    let (time, run) = (msr::read(hv::TIME_REF_COUNT), msr::read(hv::VP_RUNTIME));
    crate::rt::time::wait(200_000);
    let run = msr::read(hv::VP_RUNTIME) - run;
    let time = msr::read(hv::TIME_REF_COUNT) - time;
    check!(run > 0 && run <= time, "it ran for {run} of {time} units");
    Ok(())
}

fn unknown_msrs(_: &Machine) -> Outcome {
    const NUMBERS: [u32; 16] = [
        0x0000_0001,
        0x0000_0099,
        0x0000_0480,
        0x0000_0490,
        0x0000_0d00,
        0x0000_1fff,
        0x0000_2000,
        0x1234_5678,
        0x4000_0010,
        0x4000_003f,
        0x4000_00ff,
        0x4000_01ff,
        0x4000_1000,
        0xbfff_ffff,
        0xc000_1000,
        0xffff_ffff,
    ];
    for number in NUMBERS {
        let before = msr::try_read(number);
        if let Err(fault) = before {
            check!(fault.is_protection(), "reading MSR {number:#x} raises {fault}");
        }
        match msr::try_write(number, 0x1234_5678_9abc_def0) {
            Ok(()) => {
                let after = msr::try_read(number).map_err(|fault| fault.vector);
                equal!(after, before.map_err(|fault| fault.vector), "MSR {number:#x} after it was written");
            }
            Err(fault) => check!(fault.is_protection(), "writing MSR {number:#x} raises {fault}"),
        }
    }
    Ok(())
}

fn no_nesting(_: &Machine) -> Outcome {
    equal!(cpu::cpuid(1, 0).ecx & 1 << 5, 0, "VMX in CPUID");
    equal!(cpu::cpuid(0x8000_0001, 0).ecx & 1 << 2, 0, "SVM in CPUID");
    let page = Page::take();
    let svme = msr::try_write(msr::EFER, msr::read(msr::EFER) | 1 << 12);
    check!(svme.is_err_and(|fault| fault.is_protection()), "EFER.SVME gives {svme:x?}");
    let host_save = msr::try_write(msr::VM_HSAVE_PA, page.address());
    check!(
        host_save.is_err() || msr::try_read(msr::VM_HSAVE_PA) == Ok(0),
        "VM_HSAVE_PA keeps what is written"
    );
    let instructions = cpu::virtualization(page.address());
    for (index, seen) in instructions.into_iter().enumerate() {
        check!(
            seen.is_err_and(|fault| fault.is_undefined()),
            "virtualization instruction {index} gives {seen:x?}"
        );
    }
    check!(page.is_all(0), "a virtualization instruction wrote to memory");
    Ok(())
}

fn crash(_: &Machine) -> Outcome {
    const NOTIFY: u64 = 1 << 63;
    crate::report::needs!(own_features().contains(FeaturesEdx::GUEST_CRASH_MSRS), "there are no crash MSRs");
    for number in hv::CRASH_P0..=hv::CRASH_P4 {
        let value = 0x1111_2222_3333_4400 + u64::from(number);
        msr::write(number, value);
        equal!(msr::read(number), value, "crash parameter {number:#x}");
    }
    check!(msr::read(hv::CRASH_CTL) & NOTIFY != 0, "notification is not among the capabilities");
    msr::write(hv::CRASH_CTL, NOTIFY);
    equal!(
        msr::read(hv::CRASH_P4),
        0x1111_2222_3333_4400 + u64::from(hv::CRASH_P4),
        "parameter after notification"
    );
    // The hint that a leaf gives for spins must be one that the call takes.
    let spins = cpu::cpuid(ENLIGHTENMENT_INFO, 0).ebx;
    check!(spins != 1, "a guest is to notify of every spin");
    Ok(())
}
