//! The registers and pages of the synthetic interrupt controller (TLFS inter-partition-communication).

use tlfs::msr::{EOM, SCONTROL, SIEFP, SIMP, SINT0, SINT15, SIRBP, SVERSION, SYNIC_VERSION};

use super::Case;
use crate::{
    report::{Outcome, check, equal},
    rt::{machine::Machine, memory::Page, msr, percpu::Cpu, smp},
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "synic_reset",
        4,
        "the registers of every VP have their reset values (TLFS SynIC registers)",
        reset,
    )
    .partition(),
    Case::new(
        "synic_sint",
        1,
        "an unmasked source takes vectors 16 to 255 only (TLFS SINTx registers)",
        sint_rules,
    )
    .partition(),
    Case::new(
        "synic_read_only",
        1,
        "SVERSION cannot be written, EOM reads 0 (TLFS SynIC registers)",
        read_only,
    )
    .partition(),
    Case::new(
        "synic_pages",
        1,
        "enabling SIMP and SIEFP shows empty pages, which are the guest's to write (TLFS SIM page)",
        pages,
    )
    .partition(),
    Case::new(
        "synic_overlay",
        1,
        "disabling SIMP and SIEFP brings back what they covered (TLFS overlay pages)",
        overlay,
    )
    .partition(),
    Case::new("synic_per_vp", 4, "each VP has registers of its own (TLFS SynIC registers)", per_vp)
        .partition(),
];

const MASKED: u64 = 1 << 16;

fn reset(machine: &Machine) -> Outcome {
    fn compare(_: u64) -> Outcome {
        equal!(msr::read(SCONTROL), 0, "SCONTROL");
        equal!(msr::read(SVERSION) as u32, SYNIC_VERSION as u32, "SVERSION");
        equal!(msr::read(SIEFP), 0, "SIEFP");
        equal!(msr::read(SIMP), 0, "SIMP");
        for number in SINT0..=SINT15 {
            equal!(msr::read(number), MASKED, "source {}", number - SINT0);
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, compare, 0)
}

fn sint_rules(_: &Machine) -> Outcome {
    for vector in [0, 1, 2, 15] {
        let seen = msr::try_write(SINT0 + 3, vector);
        check!(seen.is_err_and(|fault| fault.is_protection()), "vector {vector} gives {seen:x?}");
    }
    equal!(msr::read(SINT0 + 3), MASKED, "the source after refused writes");
    for number in [SINT0, SINT0 + 3, SINT15] {
        for value in [16, 255, 0x61 | 1 << 17, 0x62 | MASKED] {
            msr::write(number, value);
            equal!(msr::read(number), value, "source {}", number - SINT0);
        }
    }
    Ok(())
}

fn read_only(_: &Machine) -> Outcome {
    let seen = msr::try_write(SVERSION, 2);
    check!(seen.is_err_and(|fault| fault.is_protection()), "writing SVERSION gives {seen:x?}");
    equal!(msr::read(EOM), 0, "EOM");
    msr::write(EOM, 0);
    let seen = msr::try_read(SIRBP);
    check!(seen.is_err_and(|fault| fault.is_protection()), "a child reads SIRBP: {seen:x?}");
    msr::write(SCONTROL, 1);
    equal!(msr::read(SCONTROL), 1, "SCONTROL");
    msr::write(SCONTROL, 0);
    equal!(msr::read(SCONTROL), 0, "SCONTROL");
    Ok(())
}

fn pages(_: &Machine) -> Outcome {
    for number in [SIMP, SIEFP] {
        let (page, other) = (Page::take(), Page::take());
        page.fill(u64::MAX);
        msr::write(number, page.address() | 1);
        equal!(msr::read(number), page.address() | 1, "MSR {number:#x}");
        check!(page.is_all(0), "the page of MSR {number:#x} is not empty: {:#x}", page.get(0));
        page.set(511, 7);
        equal!(page.get(511), 7, "a word of the page of MSR {number:#x}");
        // The same value again changes nothing.
        msr::write(number, page.address() | 1);
        equal!(page.get(511), 7, "a word after MSR {number:#x} was written again");
        msr::write(number, other.address() | 1);
        equal!(msr::read(number), other.address() | 1, "MSR {number:#x} after the page was moved");
    }
    Ok(())
}

fn overlay(_: &Machine) -> Outcome {
    for number in [SIMP, SIEFP] {
        let page = Page::take();
        page.fill(u64::MAX);
        msr::write(number, page.address() | 1);
        page.set(1, 7);
        msr::write(number, page.address());
        check!(page.is_all(u64::MAX), "what MSR {number:#x} covered is lost: {:#x}", page.get(1));
        msr::write(number, page.address() | 1);
        equal!((page.get(1), page.get(2)), (7, 0), "the page of MSR {number:#x} shown again");
    }
    Ok(())
}

fn per_vp(machine: &Machine) -> Outcome {
    fn write(_: u64) -> Outcome {
        let index = Cpu::current().index() as u64;
        msr::write(SINT0 + 4, 0x40 + index);
        msr::write(SIMP, Page::take().address() | 1);
        msr::write(SCONTROL, index & 1);
        Ok(())
    }
    fn compare(_: u64) -> Outcome {
        let index = Cpu::current().index() as u64;
        equal!(msr::read(SINT0 + 4), 0x40 + index, "source 4 of VP {index}");
        equal!(msr::read(SCONTROL), index & 1, "SCONTROL of VP {index}");
        let page = crate::rt::memory::shared(msr::read(SIMP) & !1);
        page.set(0, index);
        equal!(page.get(0), index, "message page of VP {index}");
        Ok(())
    }
    smp::run_on_all(machine.vps, write, 0)?;
    smp::run_on_all(machine.vps, compare, 0)
}
