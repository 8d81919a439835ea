//! INIT, start-up and NMI (SDM 3A "Multiple-Processor Initialization", "Nonmaskable Interrupt").

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::{Case, in_both_modes};
use crate::{
    report::{Outcome, check, equal},
    rt::{apic, cpu, machine::Machine, percpu::Cpu, smp, time},
};

pub(crate) const CASES: &[Case] = in_both_modes! {
    start_again 2 "INIT and start-up restart a processor, over and over, at the page named (SDM 3A MP protocol)";
    start_ignored 2 "a start-up without INIT is ignored, a processor after INIT does not run (SDM 3A MP protocol)";
    start_together 4 "INIT and start-up to all others start them all (SDM 3A MP protocol)";
    nmi 2 "an NMI arrives with IF clear, and the next one only after IRET (SDM 3A NMI)";
    nmi_wakes 2 "an NMI ends a halt with IF clear (SDM 3A NMI)";
};

const NMI_VECTOR: u8 = 2;
const VECTOR: u8 = 0x55;

/// Works for ever, visibly.
static BEATS: AtomicU32 = AtomicU32::new(0);

fn beat(_: u64) -> Outcome {
    loop {
        BEATS.fetch_add(1, SeqCst);
        cpu::pause();
    }
}

fn beats() -> bool {
    let before = BEATS.load(SeqCst);
    time::until(1_000_000, || BEATS.load(SeqCst) != before)
}

fn start_again(_: &Machine) -> Outcome {
    for (nth, page) in [0x08, 0x09, 0x11, 0x8f, 0x08].into_iter().enumerate() {
        // Out of work that never ends, every second time with interrupts disabled.
        smp::post(1, if nth % 2 == 0 { beat } else { beat_masked }, 0);
        check!(beats(), "processor 1 does not work before round {nth}");
        smp::start_at(1, page)?;
        equal!(smp::starts(1).1, u32::from(page) << 8, "segment in which processor 1 starts");
        let [svr, tpr, timer, error, count, requests] = smp::fresh(1);
        equal!((svr, tpr, count, requests), (0xff, 0, 0, 0), "SVR, TPR, count, IRR of a restarted processor");
        equal!((timer, error), (apic::MASKED, apic::MASKED), "local vectors of a restarted processor");
        let before = Cpu::of(1).count(VECTOR);
        apic::send(1, VECTOR);
        check!(time::eventually(|| Cpu::of(1).count(VECTOR) == before + 1), "it takes no interrupts");
    }
    Ok(())
}

fn beat_masked(argument: u64) -> Outcome {
    cpu::disable_interrupts();
    apic::write(apic::TPR, 0xf0);
    apic::write(apic::LVT_TIMER, u32::from(VECTOR) | apic::PERIODIC);
    apic::write(apic::INITIAL_COUNT, 10_000_000);
    beat(argument)
}

fn start_ignored(_: &Machine) -> Outcome {
    let starts = smp::starts(1).0;
    smp::post(1, beat, 0);
    check!(beats(), "processor 1 does not work");
    apic::command(1, apic::STARTUP | u32::from(smp::START_PAGE));
    check!(
        !time::until(50_000, || smp::starts(1).0 != starts) && beats(),
        "a start-up restarts a running processor"
    );
    apic::command(1, apic::INIT);
    time::wait(50_000);
    let stopped = BEATS.load(SeqCst);
    check!(!time::until(100_000, || BEATS.load(SeqCst) != stopped), "a processor runs on after INIT");
    // Neither interrupts nor NMIs get it going.
    let taken = Cpu::of(1).taken();
    apic::send(1, VECTOR);
    apic::command(1, apic::NMI);
    let woken = time::until(50_000, || Cpu::of(1).taken() != taken || BEATS.load(SeqCst) != stopped);
    check!(!woken, "something wakes a processor that waits for start-up");
    smp::start_at(1, smp::START_PAGE)?;
    smp::run_on(1, |_| Ok(()), 0)
}

fn start_together(machine: &Machine) -> Outcome {
    let before: [u32; 8] = core::array::from_fn(|index| smp::starts(index).0);
    let others = 1..machine.vps.min(before.len());
    apic::command(0, apic::TO_OTHERS | apic::INIT);
    time::wait(10_000);
    apic::command(0, apic::TO_OTHERS | apic::STARTUP | u32::from(smp::START_PAGE));
    for index in others {
        let started = time::eventually(|| smp::starts(index).0 == before[index] + 1);
        check!(started, "processor {index} started {} times", smp::starts(index).0 - before[index]);
        smp::run_on(index, |_| Ok(()), 0)?;
    }
    Ok(())
}

fn nmi(_: &Machine) -> Outcome {
    /// Makes the handler of the first NMI last while the second one arrives.
    fn hook(vector: u8) {
        if vector == NMI_VECTOR {
            IN_HANDLER.fetch_add(1, SeqCst);
            time::until(5_000_000, || SENT.load(SeqCst) == 2);
            time::wait(20_000);
            NESTED.fetch_max(IN_HANDLER.load(SeqCst), SeqCst);
            IN_HANDLER.fetch_sub(1, SeqCst);
        }
    }
    fn wait(_: u64) -> Outcome {
        let own = Cpu::current();
        own.set_hook(Some(hook));
        cpu::disable_interrupts();
        READY.store(1, SeqCst);
        let both = time::eventually(|| own.count(NMI_VECTOR) >= 2);
        cpu::enable_interrupts();
        own.set_hook(None);
        check!(both, "{} NMIs of 2", own.count(NMI_VECTOR));
        Ok(())
    }
    static IN_HANDLER: AtomicU32 = AtomicU32::new(0);
    static NESTED: AtomicU32 = AtomicU32::new(0);
    static READY: AtomicU32 = AtomicU32::new(0);
    static SENT: AtomicU32 = AtomicU32::new(0);
    Cpu::of(1).forget();
    smp::post(1, wait, 0);
    check!(time::eventually(|| READY.load(SeqCst) == 1), "processor 1 is not ready");
    apic::command(1, apic::NMI);
    SENT.store(1, SeqCst);
    check!(time::eventually(|| IN_HANDLER.load(SeqCst) == 1), "the NMI does not arrive with IF clear");
    apic::command(1, apic::NMI);
    SENT.store(2, SeqCst);
    smp::finish(1)?;
    equal!(NESTED.load(SeqCst), 1, "NMI handlers at a time");
    Ok(())
}

fn nmi_wakes(_: &Machine) -> Outcome {
    static READY: AtomicU32 = AtomicU32::new(0);
    fn sleep(_: u64) -> Outcome {
        cpu::disable_interrupts();
        READY.fetch_add(1, SeqCst);
        cpu::halt();
        cpu::enable_interrupts();
        Ok(())
    }
    let own = Cpu::of(1);
    for nth in 1..=10 {
        smp::post(1, sleep, 0);
        check!(time::eventually(|| READY.load(SeqCst) == nth), "processor 1 is not ready");
        time::wait(10_000);
        let taken = own.count(VECTOR);
        apic::send(1, VECTOR);
        time::wait(5_000);
        equal!(own.count(VECTOR), taken, "interrupts taken with IF clear");
        apic::command(1, apic::NMI);
        smp::finish(1)?;
        equal!(own.count(NMI_VECTOR), nth, "NMIs");
    }
    Ok(())
}
