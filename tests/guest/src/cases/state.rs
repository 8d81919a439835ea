//! Processor state that a partition keeps over exits and moves: registers of all kinds, and the rules of those that
//! have some (APM 2 §3, §13; TLFS vp-properties).

use super::Case;
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{cpu, machine::Machine, memory::Page, msr, paging, percpu::Cpu, port, smp, state, time},
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "extended_state",
        1,
        "x87, SSE and AVX registers survive exits of every kind (APM 2 §11.5)",
        extended,
    ),
    Case::new(
        "extended_state_all",
        4,
        "the same on all VPs at once, with other VPs on their processors (APM 2 §11.5)",
        extended_all,
    ),
    Case::new("xcr0", 1, "XCR0 takes what CPUID offers and refuses the rest (APM 2 §11.5.2)", xcr0),
    Case::new("xsave_sizes", 1, "leaf 0xD tells the size for XCR0 in force (APM 3 CPUID 0xD)", xsave_sizes),
    Case::new(
        "arithmetic",
        4,
        "floating point computes right on all VPs at once, over halts (APM 1 §4)",
        arithmetic,
    ),
    Case::new(
        "general_registers",
        1,
        "an exit changes no register but those it is about (APM 2 §15.5)",
        general,
    ),
    Case::new(
        "debug_registers",
        2,
        "breakpoints hit, and each VP has its own (APM 2 §13.1)",
        debug_registers,
    ),
    Case::new(
        "debug_step",
        1,
        "single steps trap after each instruction, exits included (APM 2 §13.1.4)",
        debug_step,
    ),
    Case::new("control_registers", 1, "CR0 and CR4 keep what they may hold (APM 2 §3.1)", control),
    Case::new(
        "control_rules",
        1,
        "reserved bits and forbidden combinations raise #GP (APM 2 §3.1)",
        control_rules,
    ),
    Case::new(
        "efer",
        1,
        "LME cannot change under paging, reserved bits raise #GP, NXE works (APM 2 §3.1.7)",
        efer,
    ),
    Case::new(
        "processor_msrs",
        4,
        "each VP has its own MSRs for calls and segments (APM 2 §6.1)",
        processor_msrs,
    ),
    Case::new("canonical_msrs", 1, "MSRs that hold addresses refuse others (APM 2 §5.3.1)", canonical_msrs),
    Case::new(
        "memory_types",
        1,
        "PAT and MTRRs keep valid values and refuse others (APM 2 §7.7, §7.8)",
        memory_types,
    ),
];

/// Leaves the guest in many ways, some of them for the worker.
fn exits() {
    cpu::cpuid(0, 0);
    msr::read(msr::EFER);
    msr::write(msr::PAT, msr::read(msr::PAT));
    port::in8(0x61);
    port::out8(0x80, 0);
    let _ = paging::peek(0xfee0_0030);
    let _ = paging::peek(0xfec0_0000);
    time::wait(500);
}

fn extended(_: &Machine) -> Outcome {
    let Some(components) = state::enable() else {
        return Err(crate::report::Failure::Skipped("the processor has no XSAVE"));
    };
    for seed in 1..=20 {
        let (image, after) = (state::image(components, seed), Page::take());
        check!(state::load(image, components).is_ok(), "XRSTOR faults");
        exits();
        check!(state::save(after, components).is_ok(), "XSAVE faults");
        let different = state::difference(image, after, components);
        check!(different.is_none(), "word {different:?} of the image differs, round {seed}");
    }
    Ok(())
}

fn extended_all(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        let Some(components) = state::enable() else {
            return Err(crate::report::Failure::Skipped("the processor has no XSAVE"));
        };
        let own = Cpu::current().index() as u64;
        for round in 1..=10 {
            let (image, after) = (state::image(components, own * 1000 + round), Page::take());
            check!(state::load(image, components).is_ok(), "XRSTOR faults at VP {own}");
            // Some halt, so that others get their processor, and they may go on at another one.
            exits();
            super::hv_apic::nap(3_000);
            check!(state::save(after, components).is_ok(), "XSAVE faults at VP {own}");
            let different = state::difference(image, after, components);
            check!(different.is_none(), "word {different:?} of the image differs at VP {own}, round {round}");
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, run, 0)
}

fn xcr0(_: &Machine) -> Outcome {
    needs!(state::enable().is_some(), "the processor has no XSAVE");
    let leaf = cpu::cpuid(0xd, 0);
    let offered = u64::from(leaf.eax) | u64::from(leaf.edx) << 32;
    let osxsave = 1 << 27;
    check!(cpu::cpuid(1, 0).ecx & osxsave != 0, "CPUID does not mirror CR4.OSXSAVE");
    for value in [1, 3, offered] {
        check!(state::set_xcr0(value).is_ok(), "XCR0 does not take {value:#x} of {offered:#x}");
        equal!(state::xcr0(), Ok(value), "XCR0");
    }
    // No x87; AVX without SSE; a bit that is not offered; upper halves of AVX-512 alone.
    for value in [0, 2, 5, offered | 1 << 62, offered | 1 << 20, 0x43] {
        let seen = state::set_xcr0(value);
        check!(seen.is_err_and(|fault| fault.is_protection()), "XCR0 {value:#x} gives {seen:x?}");
    }
    equal!(state::xcr0(), Ok(offered), "XCR0 after refused values");
    let cr4 = cpu::cr4();
    let _ = cpu::set_cr4(cr4 & !(1 << 18));
    check!(cpu::cpuid(1, 0).ecx & osxsave == 0, "CPUID shows OSXSAVE without it");
    let seen = state::set_xcr0(1);
    check!(seen.is_err_and(|fault| fault.is_undefined()), "XSETBV without OSXSAVE gives {seen:x?}");
    Ok(())
}

fn xsave_sizes(_: &Machine) -> Outcome {
    needs!(state::enable().is_some(), "the processor has no XSAVE");
    let offered = u64::from(cpu::cpuid(0xd, 0).eax);
    for value in [1, 3, offered] {
        check!(state::set_xcr0(value).is_ok(), "XCR0 does not take {value:#x}");
        let mut size = 576;
        for component in (2..32).filter(|bit| value >> bit & 1 != 0) {
            let part = cpu::cpuid(0xd, component);
            size = size.max(part.eax + part.ebx);
        }
        equal!(cpu::cpuid(0xd, 0).ebx, size, "size for XCR0 {value:#x}");
        check!(cpu::cpuid(0xd, 0).ecx >= size, "largest size is less than that for XCR0 {value:#x}");
    }
    Ok(())
}

fn arithmetic(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        state::enable();
        let own = Cpu::current().index() as u64;
        for round in 1..2000 {
            let divisor = own * 3 + 2;
            equal!(state::divide(divisor * round, divisor), round, "quotient at VP {own}");
            if round % 100 == 0 {
                super::hv_apic::nap(500);
            }
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, run, 0)
}

fn general(_: &Machine) -> Outcome {
    let before: [u64; 10] = core::array::from_fn(|index| 0x1234_5678_9abc_def0 ^ (index as u64) << 40);
    for (name, exit) in cpu::EXITS {
        let mut after = before;
        exit(&mut after);
        equal!(after, before, "registers after {name}");
    }
    Ok(())
}

fn debug_registers(_: &Machine) -> Outcome {
    fn empty(_: u64) -> Outcome {
        equal!(cpu::dr0(), 0, "DR0 of another VP");
        equal!(cpu::dr7(), 0x400, "DR7 of another VP");
        Ok(())
    }
    let page = Page::take();
    let address = page.address();
    let clear = 0xffff_0ff0;
    let _ = cpu::set_dr6(clear);
    check!(cpu::set_dr0(address).is_ok() && cpu::set_dr3(0x1234_5678).is_ok(), "debug registers fault");
    equal!(cpu::dr3(), 0x1234_5678, "DR3");
    // Break on 8-byte writes at DR0.
    check!(cpu::set_dr7(1 << 1 | 0b1001 << 16 | 0x400).is_ok(), "DR7 faults");
    exits();
    equal!((cpu::dr0(), cpu::dr3()), (address, 0x1234_5678), "DR0 and DR3 after exits");
    smp::run_on(1, empty, 0)?;
    check!(paging::peek(address).is_ok(), "a read hits a breakpoint on writes");
    let fault = paging::poke(address, 7);
    check!(fault.is_err_and(|fault| fault.vector == 1), "a write does not hit its breakpoint: {fault:x?}");
    equal!(cpu::dr6() & 0xf, 1, "breakpoint in DR6");
    equal!(page.get(0), 7, "the word whose write trapped");
    let _ = cpu::set_dr7(0x400);
    let _ = cpu::set_dr6(clear);
    check!(paging::poke(address, 8).is_ok(), "a disabled breakpoint hits");
    // DR7.GD guards the registers themselves.
    let _ = cpu::set_dr7(1 << 13 | 0x400);
    let fault = cpu::set_dr3(1);
    check!(fault.is_err_and(|fault| fault.vector == 1), "an access to guarded registers gives {fault:x?}");
    check!(cpu::dr6() & 1 << 13 != 0, "DR6.BD after an access to guarded registers");
    Ok(())
}

fn debug_step(_: &Machine) -> Outcome {
    const BS: u64 = 1 << 14;
    for (name, step) in cpu::STEPS {
        let _ = cpu::set_dr6(0xffff_0ff0);
        let (fault, length) = step();
        let expected = fault.map_err(|fault| (fault.vector, fault.rip));
        check!(
            expected.is_err_and(|(vector, rip)| vector == 1 && rip == length),
            "a step over {name} gives {fault:x?}, expected at {length:#x}"
        );
        check!(cpu::dr6() & BS != 0, "DR6.BS after a step over {name}");
    }
    Ok(())
}

fn control(_: &Machine) -> Outcome {
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    // Monitor, task switch, numeric errors, write protection, alignment; caches off, as MTRR code does.
    for bit in [1 << 1, 1 << 3, 1 << 5, 1 << 16, 1 << 18, 1 << 30] {
        check!(cpu::set_cr0(cr0 ^ bit).is_ok(), "CR0 bit {bit:#x}");
        equal!(cpu::cr0(), cr0 ^ bit, "CR0");
        check!(cpu::set_cr0(cr0).is_ok(), "CR0 as it was");
    }
    // Counter for the kernel only, debug extensions, global pages, SSE.
    for bit in [1 << 2, 1 << 3, 1 << 7, 1 << 9] {
        check!(cpu::set_cr4(cr4 ^ bit).is_ok(), "CR4 bit {bit:#x}");
        equal!(cpu::cr4(), cr4 ^ bit, "CR4");
        check!(cpu::set_cr4(cr4).is_ok(), "CR4 as it was");
    }
    Ok(())
}

fn control_rules(_: &Machine) -> Outcome {
    const PAE: u64 = 1 << 5;
    const NW: u64 = 1 << 29;
    let refused = |seen: Result<(), crate::rt::percpu::Fault>| seen.is_err_and(|fault| fault.is_protection());
    let (cr0, cr3, cr4) = (cpu::cr0(), cpu::cr3(), cpu::cr4());
    check!(refused(cpu::set_cr4(cr4 | 1 << 30)), "a reserved bit of CR4");
    check!(refused(cpu::set_cr4(cr4 | 1 << 40)), "an upper bit of CR4");
    check!(refused(cpu::set_cr3(cr3 | 1 << 60)), "a reserved bit of CR3");
    check!(refused(cpu::set_cr0(cr0 | 1 << 32)), "an upper bit of CR0");
    check!(refused(cpu::set_cr0(cr0 | NW)), "CR0.NW without CD");
    check!(refused(cpu::set_cr4(cr4 & !PAE)), "CR4.PAE cleared in long mode");
    check!(refused(cpu::set_cr0(cr0 & !1)), "CR0.PG without PE");
    check!(refused(cpu::set_cr8(16)), "a reserved bit of CR8");
    equal!((cpu::cr0(), cpu::cr3(), cpu::cr4()), (cr0, cr3, cr4), "control registers after refused writes");
    Ok(())
}

fn efer(_: &Machine) -> Outcome {
    const SCE: u64 = 1 << 0;
    const LME: u64 = 1 << 8;
    const LMA: u64 = 1 << 10;
    let efer = msr::read(msr::EFER);
    check!(efer & (LME | LMA) == LME | LMA, "EFER {efer:#x} in long mode");
    let seen = msr::try_write(msr::EFER, efer & !LME);
    check!(seen.is_err_and(|fault| fault.is_protection()), "LME can be cleared under paging: {seen:x?}");
    for bit in [1 << 1, 1 << 9, 1 << 40] {
        let seen = msr::try_write(msr::EFER, efer | bit);
        check!(seen.is_err_and(|fault| fault.is_protection()), "reserved bit {bit:#x} gives {seen:x?}");
    }
    msr::write(msr::EFER, efer | SCE);
    equal!(msr::read(msr::EFER), efer | SCE, "EFER with SCE");
    msr::write(msr::EFER, efer & !LMA);
    equal!(msr::read(msr::EFER), efer, "EFER after LMA was written as 0");
    Ok(())
}

fn processor_msrs(machine: &Machine) -> Outcome {
    const NUMBERS: [u32; 9] = [
        msr::STAR,
        msr::LSTAR,
        msr::SFMASK,
        msr::FS_BASE,
        msr::KERNEL_GS_BASE,
        msr::TSC_AUX,
        msr::SYSENTER_CS,
        msr::SYSENTER_CS + 1,
        msr::SYSENTER_CS + 2,
    ];
    fn value(number: u32) -> u64 {
        let own = Cpu::current().index() as u64;
        match number {
            msr::SFMASK | msr::TSC_AUX | msr::SYSENTER_CS => 0x100 + own,
            _ => 0x7f00_0000_1000 + own * 0x1000 + u64::from(number & 0xf) * 8,
        }
    }
    fn write(_: u64) -> Outcome {
        NUMBERS.into_iter().for_each(|number| msr::write(number, value(number)));
        Ok(())
    }
    fn compare(_: u64) -> Outcome {
        super::hv_apic::nap(1_000);
        for number in NUMBERS {
            equal!(msr::read(number), value(number), "MSR {number:#x} of VP {}", Cpu::current().index());
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, write, 0)?;
    smp::run_on_all(machine.vps, compare, 0)
}

fn canonical_msrs(_: &Machine) -> Outcome {
    for number in [msr::LSTAR, msr::FS_BASE, msr::KERNEL_GS_BASE] {
        let seen = msr::try_write(number, 1 << 63);
        check!(seen.is_err_and(|fault| fault.is_protection()), "MSR {number:#x} takes no address: {seen:x?}");
    }
    Ok(())
}

fn memory_types(_: &Machine) -> Outcome {
    let pat = msr::read(msr::PAT);
    for value in [0x0007_0406_0007_0406, 0x0007_0105_0007_0406] {
        msr::write(msr::PAT, value);
        equal!(msr::read(msr::PAT), value, "PAT");
    }
    for value in [2, 3 << 8, 8 << 56] {
        let seen = msr::try_write(msr::PAT, value);
        check!(seen.is_err_and(|fault| fault.is_protection()), "PAT {value:#x} gives {seen:x?}");
    }
    msr::write(msr::PAT, pat);
    needs!(cpu::cpuid(1, 0).edx & 1 << 12 != 0, "the processor has no MTRRs");
    let count = msr::read(msr::MTRR_CAP) as u32 & 0xff;
    check!(msr::try_write(msr::MTRR_CAP, 0).is_err(), "the MTRR capabilities can be written");
    for nth in 0..count {
        let base = msr::MTRR_BASE_0 + 2 * nth;
        msr::write(base, 0xf000_0006);
        equal!(msr::read(base), 0xf000_0006, "base of MTRR {nth}");
        msr::write(base + 1, 0);
        equal!(msr::read(base + 1), 0, "mask of MTRR {nth}");
    }
    let default = msr::read(msr::MTRR_DEFAULT);
    msr::write(msr::MTRR_DEFAULT, 0xc06);
    equal!(msr::read(msr::MTRR_DEFAULT), 0xc06, "default type");
    msr::write(msr::MTRR_DEFAULT, default);
    Ok(())
}
