//! The local APIC as the processor manuals have it (TLFS virtual-interrupts "Local APIC"): modes, registers, and
//! priorities.

use super::{Case, in_both_modes};
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        apic::{self, BASE, BASE_ENABLE, BASE_X2APIC, Mode},
        cpu,
        machine::Machine,
        msr,
        percpu::{Cpu, Eoi},
        smp, time,
    },
};

pub(crate) const CASES: &[Case] = in_both_modes! {
    identity 4 "each APIC has its own id, version 0x10 or above, and the values of a reset (SDM 3A local APIC)";
    self_interrupt 1 "an interrupt to oneself goes from IRR to ISR and out (SDM 3A self IPI, interrupt acceptance)";
    priority 1 "TPR and CR8 hold back their classes and those below (SDM 3A task priority)";
    nesting 1 "a higher class interrupts a handler, the same class waits for the EOI (SDM 3A interrupt priority)";
    disabled 1 "a software-disabled APIC masks its local vectors and takes no interrupts (SDM 3A local APIC state)";
    errors 1 "an illegal vector is noted in the ESR and raises the error interrupt once (SDM 3A error handling)";
};

pub(crate) const MODES: &[Case] = &[
    Case::new(
        "apic_base",
        1,
        "reserved bits and forbidden mode changes raise #GP (SDM 3A x2APIC states)",
        base,
    ),
    Case::new("x2apic_off", 1, "in xAPIC mode the x2APIC MSRs raise #GP (SDM 3A x2APIC)", no_msrs).xapic(),
    Case::new(
        "x2apic_rules",
        1,
        "reserved bits and read-only registers raise #GP (SDM 3A x2APIC)",
        msr_rules,
    ),
    Case::new(
        "xapic_holes",
        1,
        "unaligned and reserved offsets do no harm (SDM 3A APIC register map)",
        holes,
    )
    .xapic(),
];

/// Vectors of rising class.
const LOW: u8 = 0x41;
const SAME: u8 = 0x4f;
const MIDDLE: u8 = 0x75;
const HIGH: u8 = 0xc3;

fn identity(machine: &Machine) -> Outcome {
    smp::run_on_all(machine.vps, own_identity, 0)?;
    for index in 1..machine.vps {
        let [svr, tpr, timer, error, count, requests] = smp::fresh(index);
        equal!(svr, 0xff, "SVR of started processor {index}");
        equal!(tpr, 0, "TPR of started processor {index}");
        equal!(timer, apic::MASKED, "timer vector of started processor {index}");
        equal!(error, apic::MASKED, "error vector of started processor {index}");
        equal!((count, requests), (0, 0), "timer count and requests of started processor {index}");
    }
    Ok(())
}

fn own_identity(_: u64) -> Outcome {
    let index = Cpu::current().index() as u32;
    equal!(apic::id(), index, "APIC id of processor {index}");
    let version = apic::read(apic::VERSION);
    check!(version & 0xf0 == 0x10, "version {version:#x}");
    check!(version >> 16 & 0xff >= 3, "version {version:#x} tells of fewer than four local vectors");
    let is_bsp = msr::read(msr::APIC_BASE) & 1 << 8 != 0;
    equal!(is_bsp, index == 0, "boot processor bit of processor {index}");
    Ok(())
}

fn self_interrupt(_: &Machine) -> Outcome {
    let own = Cpu::current();
    own.set_eoi(Eoi::Never);
    cpu::disable_interrupts();
    apic::command(0, apic::TO_SELF | u32::from(MIDDLE));
    check!(time::eventually(|| apic::has(apic::IRR, MIDDLE)), "the request is not in the IRR");
    check!(!apic::has(apic::TMR, MIDDLE), "an IPI counts as level-triggered");
    equal!(own.count(MIDDLE), 0, "interrupts taken with IF clear");
    cpu::enable_interrupts();
    check!(time::eventually(|| own.count(MIDDLE) == 1), "the interrupt did not arrive");
    check!(apic::has(apic::ISR, MIDDLE) && !apic::has(apic::IRR, MIDDLE), "it is not in service");
    equal!(apic::read(apic::PPR) & 0xf0, u32::from(MIDDLE) & 0xf0, "processor priority in service");
    apic::end_of_interrupt();
    check!(!apic::has(apic::ISR, MIDDLE), "it is in service after its end");
    own.set_eoi(Eoi::Apic);
    for _ in 0..100 {
        let before = own.count(HIGH);
        match apic::mode() {
            Mode::X2Apic => apic::write(apic::SELF_IPI, HIGH.into()),
            Mode::XApic => apic::command(0, apic::TO_SELF | u32::from(HIGH)),
        }
        check!(time::eventually(|| own.count(HIGH) == before + 1), "interrupt {before} to oneself is lost");
    }
    // Two requests of one vector merge.
    cpu::disable_interrupts();
    own.forget();
    apic::send(0, MIDDLE);
    apic::send(0, MIDDLE);
    cpu::enable_interrupts();
    check!(time::eventually(|| own.count(MIDDLE) >= 1), "the merged interrupt did not arrive");
    check!(time::never(|| own.count(MIDDLE) > 1), "requests of one vector do not merge");
    Ok(())
}

fn priority(_: &Machine) -> Outcome {
    let own = Cpu::current();
    for (by_cr8, class) in [(false, MIDDLE >> 4), (true, MIDDLE >> 4)] {
        own.forget();
        set_class(by_cr8, class.into())?;
        equal!(cpu::cr8(), u64::from(class), "CR8 after the task priority was set (by CR8: {by_cr8})");
        equal!(apic::read(apic::TPR), u32::from(class) << 4, "TPR after it was set (by CR8: {by_cr8})");
        for vector in [LOW, MIDDLE, HIGH] {
            apic::send(0, vector);
        }
        check!(time::eventually(|| own.count(HIGH) == 1), "a class above the TPR is held back");
        check!(time::never(|| own.taken() > 1), "a class not above the TPR is delivered");
        set_class(by_cr8, (MIDDLE >> 4) as u64 - 1)?;
        check!(time::eventually(|| own.count(MIDDLE) == 1), "a lowered TPR does not let its class in");
        check!(time::never(|| own.count(LOW) > 0), "a lowered TPR lets too much in");
        set_class(by_cr8, 0)?;
        check!(time::eventually(|| own.count(LOW) == 1), "TPR 0 does not let the lowest class in");
    }
    // The lower half of the TPR counts for the PPR only.
    apic::write(apic::TPR, 0x4f);
    equal!(apic::read(apic::PPR), 0x4f, "PPR");
    equal!(cpu::cr8(), 4, "CR8");
    set_class(true, 0)
}

fn set_class(by_cr8: bool, class: u64) -> Outcome {
    if by_cr8 {
        check!(cpu::set_cr8(class).is_ok(), "CR8 does not take {class}");
    } else {
        apic::write(apic::TPR, (class as u32) << 4);
    }
    Ok(())
}

fn nesting(_: &Machine) -> Outcome {
    fn hook(vector: u8) {
        if vector == LOW {
            apic::send(0, SAME);
            apic::send(0, HIGH);
            cpu::enable_interrupts();
            time::eventually(|| Cpu::current().count(HIGH) == 1);
            time::wait(20_000);
            cpu::disable_interrupts();
            // Still in its handler, hence counted by now.
            Cpu::current().set_hook(None);
        }
    }
    let own = Cpu::current();
    own.set_hook(Some(hook));
    apic::send(0, LOW);
    check!(time::eventually(|| own.taken() == 3), "{} interrupts instead of 3", own.taken());
    let order = [own.logged(0), own.logged(1), own.logged(2)];
    equal!(order, [Some(LOW), Some(HIGH), Some(SAME)], "order of the interrupts");
    // With nothing in service and interrupts disabled, they come by priority.
    own.forget();
    cpu::disable_interrupts();
    for vector in [LOW, MIDDLE, SAME, HIGH] {
        apic::send(0, vector);
    }
    own.set_hook(None);
    cpu::enable_interrupts();
    check!(time::eventually(|| own.taken() == 4), "{} interrupts instead of 4", own.taken());
    let order = [own.logged(0), own.logged(1), own.logged(2), own.logged(3)];
    equal!(order, [Some(HIGH), Some(MIDDLE), Some(SAME), Some(LOW)], "order of the interrupts");
    Ok(())
}

fn disabled(_: &Machine) -> Outcome {
    let own = Cpu::current();
    apic::write(apic::LVT_TIMER, MIDDLE.into());
    apic::write(apic::SVR, apic::SPURIOUS.into());
    check!(apic::read(apic::LVT_TIMER) & apic::MASKED != 0, "disabling does not mask the timer's vector");
    apic::write(apic::LVT_TIMER, MIDDLE.into());
    check!(apic::read(apic::LVT_TIMER) & apic::MASKED != 0, "the mask can be cleared while disabled");
    apic::send(0, HIGH);
    check!(time::never(|| own.taken() > 0), "a disabled APIC delivers");
    apic::enable();
    check!(time::never(|| own.count(HIGH) > 0), "an interrupt that was sent while disabled arrives later");
    check!(apic::read(apic::LVT_TIMER) & apic::MASKED != 0, "enabling clears masks");
    apic::send(0, HIGH);
    check!(time::eventually(|| own.count(HIGH) == 1), "an APIC that is enabled again does not deliver");
    Ok(())
}

fn errors(_: &Machine) -> Outcome {
    const SEND_ILLEGAL: u32 = 1 << 5;
    let own = Cpu::current();
    apic::errors();
    apic::write(apic::LVT_ERROR, MIDDLE.into());
    apic::send(0, 3);
    check!(time::eventually(|| own.count(MIDDLE) == 1), "no error interrupt for vector 3");
    let seen = apic::errors();
    check!(seen & SEND_ILLEGAL != 0, "ESR {seen:#x} after vector 3 was sent");
    equal!(apic::errors(), 0, "ESR after it was read");
    apic::write(apic::LVT_ERROR, apic::MASKED | u32::from(MIDDLE));
    apic::send(0, 15);
    check!(time::never(|| own.count(MIDDLE) > 1), "a masked error interrupt arrives");
    Ok(())
}

fn base(_: &Machine) -> Outcome {
    needs!(apic::has_x2apic(), "the processor has no x2APIC");
    let refused =
        |value: u64| msr::try_write(msr::APIC_BASE, value).is_err_and(|fault| fault.is_protection());
    let taken = |value: u64| msr::try_write(msr::APIC_BASE, value).is_ok();
    let bsp = msr::read(msr::APIC_BASE) & 1 << 8;
    let base = BASE | bsp;
    equal!(msr::read(msr::APIC_BASE), base | BASE_ENABLE | BASE_X2APIC, "APIC base in x2APIC mode");
    check!(refused(base | BASE_ENABLE), "x2APIC to xAPIC is allowed");
    check!(refused(base | BASE_X2APIC), "x2APIC without the enable bit is allowed");
    check!(refused(base | BASE_ENABLE | BASE_X2APIC | 1 << 9), "a reserved bit is allowed");
    check!(refused(base | BASE_ENABLE | BASE_X2APIC | 1 << 63), "an address beyond all memory is allowed");
    equal!(msr::read(msr::APIC_BASE), base | BASE_ENABLE | BASE_X2APIC, "APIC base after refused writes");
    cpu::disable_interrupts();
    check!(taken(base), "x2APIC to disabled is not allowed");
    check!(cpu::cpuid(1, 0).edx & 1 << 9 == 0, "CPUID shows an APIC that is disabled");
    check!(apic::read_msr(apic::ID).is_err(), "a disabled APIC answers");
    check!(refused(base | BASE_ENABLE | BASE_X2APIC), "disabled to x2APIC is allowed");
    check!(taken(base | BASE_ENABLE), "disabled to xAPIC is not allowed");
    apic::note_mode(Mode::XApic);
    equal!(apic::id(), 0, "APIC id in xAPIC mode");
    equal!(apic::read(apic::SVR), 0xff, "SVR after the APIC was off");
    check!(taken(base | BASE_ENABLE | BASE_X2APIC), "xAPIC to x2APIC is not allowed");
    apic::note_mode(Mode::X2Apic);
    apic::enable();
    cpu::enable_interrupts();
    apic::send(0, MIDDLE);
    check!(time::eventually(|| Cpu::current().count(MIDDLE) == 1), "no interrupt after the round of modes");
    Ok(())
}

fn no_msrs(_: &Machine) -> Outcome {
    for register in [apic::ID, apic::VERSION, apic::TPR, apic::SVR, apic::ICR, apic::LVT_TIMER] {
        let read = apic::read_msr(register);
        check!(read.is_err_and(|fault| fault.is_protection()), "register {register:#x} can be read by MSR");
        let write = apic::write_msr(register, 0);
        check!(
            write.is_err_and(|fault| fault.is_protection()),
            "register {register:#x} can be written by MSR"
        );
    }
    Ok(())
}

fn msr_rules(_: &Machine) -> Outcome {
    needs!(apic::has_x2apic(), "the processor has no x2APIC");
    for register in [apic::EOI, apic::DFR, apic::ICR_HIGH, 0x00, 0x3a, 0x40, 0xff] {
        let seen = apic::read_msr(register);
        check!(seen.is_err_and(|fault| fault.is_protection()), "register {register:#x} reads {seen:x?}");
    }
    let read_only =
        [apic::ID, apic::VERSION, apic::PPR, apic::LDR, apic::ISR, apic::TMR, apic::IRR + 7, 0x39];
    for register in read_only.into_iter().chain([apic::DFR, apic::ICR_HIGH]) {
        let seen = apic::write_msr(register, 0);
        check!(seen.is_err_and(|fault| fault.is_protection()), "register {register:#x} can be written");
    }
    let reserved = [
        (apic::TPR, 0x100),
        (apic::EOI, 1),
        (apic::ESR, 1),
        (apic::SVR, 1 << 32 | 0x1ff),
        (apic::LVT_TIMER, 1 << 20),
        (apic::DIVIDE, 1 << 2),
        (apic::ICR, 1 << 20),
        (apic::SELF_IPI, 0x100),
    ];
    for (register, value) in reserved {
        let seen = apic::write_msr(register, value);
        check!(seen.is_err_and(|fault| fault.is_protection()), "register {register:#x} takes {value:#x}");
    }
    let id = apic::read(apic::ID);
    equal!(apic::read(apic::LDR), (id >> 4) << 16 | 1 << (id & 0xf), "logical id of APIC {id}");
    Ok(())
}

fn holes(_: &Machine) -> Outcome {
    let svr = apic::read(apic::SVR);
    apic::errors();
    for register in [0x00, 0x01, 0x04, 0x29, 0x3a, 0x40, 0x80, 0xff] {
        apic::write(register, 0x1234_5678);
        equal!(apic::read(register), 0, "reserved register {register:#x}");
    }
    apic::write(apic::VERSION, 0);
    apic::write(apic::PPR, 0xff);
    apic::write(apic::ISR, u32::MAX);
    equal!(apic::read(apic::ISR), 0, "ISR after it was written");
    equal!(apic::read(apic::SVR), svr, "SVR after accesses to others");
    apic::errors();
    Ok(())
}
