//! Interrupts between processors by the local APIC, and by the hypercalls that stand in for it.

use tlfs::{CallCode, HvStatus};

use super::{Case, in_both_modes};
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        apic::{self, Mode},
        cpu,
        hypercall::{self, variable},
        machine::Machine,
        memory::Page,
        percpu::Cpu,
        smp, time,
    },
};

pub(crate) const CASES: &[Case] = in_both_modes! {
    each_to_each 4 "an interrupt from any processor arrives once at the one it names (SDM 3A IPIs)";
    shorthands 4 "to self, to all and to all others reach just those (SDM 3A destination shorthand)";
    broadcast 4 "the broadcast id reaches every processor (SDM 3A physical destination mode)";
    logical 4 "logical destinations reach the processors in the mask (SDM 3A logical destination mode)";
    lowest_priority 4 "lowest priority delivers to just one of those named (SDM 3A lowest priority)";
    storm 4 "a hundred interrupts from each processor to each other arrive, one at a time (SDM 3A IPIs)";
};

pub(crate) const HYPERCALLS: &[Case] = &[
    Case::new(
        "cluster_ipi",
        4,
        "reaches each set of VPs, slow and fast (TLFS HvCallSendSyntheticClusterIpi)",
        cluster,
    )
    .hypercalls(),
    Case::new(
        "cluster_ipi_ex",
        4,
        "takes sparse sets and all VPs (TLFS HvCallSendSyntheticClusterIpiEx)",
        cluster_ex,
    )
    .hypercalls(),
    Case::new(
        "cluster_ipi_rules",
        1,
        "refuses vectors below 16, other trust levels and broken sets (TLFS)",
        rules,
    )
    .hypercalls(),
    Case::new(
        "cluster_ipi_halted",
        4,
        "wakes halted VPs (TLFS HvCallSendSyntheticClusterIpi)",
        cluster_halted,
    )
    .hypercalls(),
];

const VECTOR: u8 = 0x61;

fn forget(vps: usize) {
    (0..vps).for_each(|index| Cpu::of(index).forget());
}

/// Waits until the processors in `mask` have taken `VECTOR` once, and the others have not at all.
fn expect(vps: usize, mask: u64) -> Outcome {
    let is_right = || (0..vps).all(|index| Cpu::of(index).count(VECTOR) as u64 >= mask >> index & 1);
    let all_there = time::eventually(is_right);
    time::wait(5_000);
    for index in 0..vps {
        let expected = (mask >> index & 1) as u32;
        equal!(Cpu::of(index).count(VECTOR), expected, "interrupts at processor {index} for mask {mask:#x}");
    }
    check!(all_there, "interrupts for mask {mask:#x} came very late");
    Ok(())
}

fn each_to_each(machine: &Machine) -> Outcome {
    fn send(target: u64) -> Outcome {
        apic::send(target as usize, VECTOR);
        Ok(())
    }
    for from in 0..machine.vps {
        for to in 0..machine.vps {
            forget(machine.vps);
            smp::run_on(from, send, to as u64)?;
            expect(machine.vps, 1 << to)?;
        }
    }
    Ok(())
}

fn shorthands(machine: &Machine) -> Outcome {
    let all = (1 << machine.vps) - 1;
    for (shorthand, mask) in [(apic::TO_SELF, 1), (apic::TO_ALL, all), (apic::TO_OTHERS, all & !1)] {
        forget(machine.vps);
        apic::command(0, shorthand | u32::from(VECTOR));
        expect(machine.vps, mask)?;
    }
    Ok(())
}

fn broadcast(machine: &Machine) -> Outcome {
    let id = if apic::mode() == Mode::X2Apic { u32::MAX } else { 0xff };
    for low in [0, apic::LOGICAL] {
        forget(machine.vps);
        if low == apic::LOGICAL && apic::mode() == Mode::XApic {
            smp::run_on_all(machine.vps, set_flat, 0)?;
        }
        apic::command(id, low | u32::from(VECTOR));
        expect(machine.vps, (1 << machine.vps) - 1)?;
    }
    Ok(())
}

fn set_flat(_: u64) -> Outcome {
    apic::write(apic::DFR, u32::MAX);
    apic::write(apic::LDR, 1 << (Cpu::current().index() + 24));
    Ok(())
}

/// Two clusters of two.
fn set_clusters(_: u64) -> Outcome {
    let index = Cpu::current().index() as u32;
    apic::write(apic::DFR, 0x0fff_ffff);
    apic::write(apic::LDR, ((index / 2) << 4 | 1 << (index % 2)) << 24);
    Ok(())
}

fn logical(machine: &Machine) -> Outcome {
    needs!(machine.vps <= 8, "logical ids are for eight processors here");
    let send = |destination: u32, mask: u64| {
        forget(machine.vps);
        apic::command(destination, apic::LOGICAL | u32::from(VECTOR));
        expect(machine.vps, mask)
    };
    if apic::mode() == Mode::XApic {
        smp::run_on_all(machine.vps, set_flat, 0)?;
    }
    for mask in [0b0001, 0b0010, 0b1010, 0b1111, 0b0000] {
        send(mask as u32, mask)?;
    }
    match apic::mode() {
        // Another cluster of 16.
        Mode::X2Apic => send(1 << 16 | 0b1111, 0),
        Mode::XApic => {
            smp::run_on_all(machine.vps, set_clusters, 0)?;
            send(0x01, 0b0001)?;
            send(0x12, 0b1000)?;
            send(0x13, 0b1100)?;
            send(0x23, 0)
        }
    }
}

fn lowest_priority(machine: &Machine) -> Outcome {
    const LOWEST: u32 = 1 << 8;
    if apic::mode() == Mode::XApic {
        smp::run_on_all(machine.vps, set_flat, 0)?;
    }
    for mask in [0b1110_u32, 0b0101, 0b1000] {
        forget(machine.vps);
        apic::command(mask, apic::LOGICAL | LOWEST | u32::from(VECTOR));
        let taken = || (0..machine.vps).map(|index| Cpu::of(index).count(VECTOR)).sum::<u32>();
        check!(time::eventually(|| taken() > 0), "nobody of {mask:#x} takes it");
        check!(time::never(|| taken() > 1), "{} of {mask:#x} take it", taken());
        let outside =
            (0..machine.vps).find(|index| mask >> index & 1 == 0 && Cpu::of(*index).count(VECTOR) > 0);
        check!(outside.is_none(), "processor {outside:?} is outside of {mask:#x}");
    }
    Ok(())
}

/// Every processor sends to every other one in turn, each time after the last one was taken.
fn storm(machine: &Machine) -> Outcome {
    const ROUNDS: u32 = 100;
    fn send(vps: u64) -> Outcome {
        let own = Cpu::current().index();
        // A vector for each sender, so that requests of several do not merge.
        let vector = 0x80 + own as u8;
        for round in 0..ROUNDS {
            for to in (0..vps as usize).filter(|to| *to != own) {
                apic::send(to, vector);
                let arrived = || Cpu::of(to).count(vector) == round + 1;
                check!(time::eventually(arrived), "interrupt {round} from {own} to {to} is lost");
            }
        }
        Ok(())
    }
    forget(machine.vps);
    smp::run_on_all(machine.vps, send, machine.vps as u64)
}

fn cluster(machine: &Machine) -> Outcome {
    let page = Page::take();
    let all = (1_u64 << machine.vps) - 1;
    let code = CallCode::SEND_SYNTHETIC_CLUSTER_IPI;
    for mask in [0b0001, 0b0010, 0b1010, all, 0] {
        forget(machine.vps);
        let status = hypercall::fast(code, VECTOR.into(), mask);
        equal!(status, HvStatus::SUCCESS, "fast call for mask {mask:#x}");
        expect(machine.vps, mask)?;
        forget(machine.vps);
        let result = hypercall::slow(code.0.into(), page, &[VECTOR.into(), mask]);
        equal!(result.status(), HvStatus::SUCCESS, "call for mask {mask:#x}");
        expect(machine.vps, mask)?;
    }
    Ok(())
}

/// The call for a set: format, valid banks, banks.
fn send_to_set(page: &Page, format: u64, valid: u64, banks: &[u64]) -> HvStatus {
    let mut words = [0; 16];
    words[..3].copy_from_slice(&[VECTOR.into(), format, valid]);
    words[3..3 + banks.len()].copy_from_slice(banks);
    let control = variable(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0.into(), banks.len() as u64);
    hypercall::slow(control, page, &words).status()
}

fn cluster_ex(machine: &Machine) -> Outcome {
    const SPARSE: u64 = 0;
    const ALL: u64 = 1;
    let page = Page::take();
    let all = (1_u64 << machine.vps) - 1;
    let sets: [(u64, u64, &[u64], u64); 7] = [
        (SPARSE, 1, &[0b0001], 0b0001),
        (SPARSE, 1, &[0b1100], 0b1100),
        (SPARSE, 1, &[all], all),
        (SPARSE, 0, &[], 0),
        (SPARSE, 0b11, &[0b0010, 0], 0b0010),
        (SPARSE, 1 << 2 | 1, &[0b0100, 0], 0b0100),
        (ALL, 0, &[], all),
    ];
    for (format, valid, banks, mask) in sets {
        forget(machine.vps);
        let status = send_to_set(page, format, valid, banks);
        equal!(status, HvStatus::SUCCESS, "set of format {format}, banks {valid:#x} {banks:x?}");
        expect(machine.vps, mask)?;
    }
    Ok(())
}

fn rules(_: &Machine) -> Outcome {
    let page = Page::take();
    let code = CallCode::SEND_SYNTHETIC_CLUSTER_IPI;
    for vector in [0, 2, 15, 0x100, 0x141, u64::from(u32::MAX)] {
        equal!(hypercall::fast(code, vector, 1), HvStatus::INVALID_PARAMETER, "vector {vector:#x}");
        let words = [vector, 1, 0];
        let result = hypercall::slow(CallCode::SEND_SYNTHETIC_CLUSTER_IPI_EX.0.into(), page, &words);
        equal!(result.status(), HvStatus::INVALID_PARAMETER, "vector {vector:#x} to a set");
    }
    // Trust level 1, by use of the target field.
    let status = hypercall::fast(code, u64::from(VECTOR) | 0x11 << 32, 1);
    check!(!status.is_success(), "another trust level is accepted");
    // More banks than valid bits, fewer banks than valid bits, and an unknown format.
    let broken =
        [send_to_set(page, 0, 1, &[]), send_to_set(page, 0, 0b111, &[1]), send_to_set(page, 7, 1, &[1])];
    for (index, status) in broken.into_iter().enumerate() {
        check!(!status.is_success(), "broken set {index} is accepted");
    }
    check!(time::never(|| Cpu::current().taken() > 0), "a refused call sends");
    Ok(())
}

fn cluster_halted(machine: &Machine) -> Outcome {
    fn wait(_: u64) -> Outcome {
        let own = Cpu::current();
        cpu::disable_interrupts();
        while own.count(VECTOR) == 0 {
            cpu::enable_and_halt();
            cpu::disable_interrupts();
        }
        cpu::enable_interrupts();
        Ok(())
    }
    for _ in 0..20 {
        forget(machine.vps);
        (1..machine.vps).for_each(|index| smp::post(index, wait, 0));
        time::wait(5_000);
        let mask = (1_u64 << machine.vps) - 2;
        let status = hypercall::fast(CallCode::SEND_SYNTHETIC_CLUSTER_IPI, VECTOR.into(), mask);
        equal!(status, HvStatus::SUCCESS, "call for mask {mask:#x}");
        (1..machine.vps).try_for_each(smp::finish)?;
    }
    Ok(())
}
