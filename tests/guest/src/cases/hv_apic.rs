//! The hypervisor's short ways to the local APIC (TLFS virtual-interrupts), and idling (TLFS vp-properties).

use tlfs::msr::{EOI, GUEST_IDLE, ICR, TPR, VP_ASSIST_PAGE};

use super::{Case, in_both_modes};
use crate::{
    report::{Outcome, check, equal},
    rt::{
        apic::{self, Mode},
        cpu, ioapic,
        machine::Machine,
        memory::Page,
        msr,
        percpu::{Cpu, Eoi},
        port, smp, time,
    },
};

pub(crate) const CASES: &[Case] = &[
    Case::new("hv_eoi", 1, "the EOI MSR ends an interrupt (TLFS HV_X64_MSR_EOI)", eoi).partition(),
    Case::new("hv_icr", 4, "the ICR MSR sends and reads back (TLFS HV_X64_MSR_ICR)", icr).partition(),
    Case::new("hv_icr_xapic", 4, "the ICR MSR sends and reads back in xAPIC mode (TLFS HV_X64_MSR_ICR)", icr)
        .partition()
        .xapic(),
    Case::new("hv_tpr", 1, "the TPR MSR is the task priority (TLFS HV_X64_MSR_TPR)", tpr).partition(),
    Case::new(
        "assist_page",
        4,
        "each VP can place its assist page, which is empty (TLFS VP assist page)",
        assist_page,
    )
    .partition(),
    Case::new(
        "eoi_assist",
        1,
        "an end of interrupt by the assist page ends it (TLFS EOI assist)",
        eoi_assist,
    )
    .partition(),
    Case::new(
        "guest_idle",
        2,
        "an interrupt ends the idle state with IF clear, a pending one prevents it (TLFS idle sleep state)",
        guest_idle,
    )
    .partition(),
    Case::new(
        "guest_idle_in_handler",
        2,
        "in the handler of an interrupt that is not ended, one of the same class ends the idle state",
        guest_idle_in_handler,
    )
    .partition(),
];

pub(crate) const ANYWHERE: &[Case] = in_both_modes! {
    halt_by_ipi 4 "an interrupt from another processor ends a halt, every time (SDM 3A HLT)";
    halt_by_timer 4 "the APIC timer ends a halt, on all processors (SDM 3A HLT)";
    halt_masked 2 "with IF clear an interrupt does not end a halt (SDM 2A HLT)";
    level 1 "a level-triggered interrupt of the I/O APIC stays until its line falls and it is ended (82093AA)";
};

const VECTOR: u8 = 0x66;

fn eoi(_: &Machine) -> Outcome {
    let own = Cpu::current();
    own.set_eoi(Eoi::Never);
    apic::send(0, VECTOR);
    check!(time::eventually(|| own.count(VECTOR) == 1), "no interrupt");
    check!(apic::has(apic::ISR, VECTOR), "it is not in service");
    msr::write(EOI, 0);
    check!(!apic::has(apic::ISR, VECTOR), "it is still in service");
    // With nothing in service it does nothing.
    msr::write(EOI, 0);
    own.set_eoi(Eoi::Msr);
    for nth in 2..=50 {
        apic::send(0, VECTOR);
        check!(time::eventually(|| own.count(VECTOR) == nth), "interrupt {nth} does not come");
    }
    Ok(())
}

fn icr(machine: &Machine) -> Outcome {
    let shift = if apic::mode() == Mode::X2Apic { 32 } else { 56 };
    for index in 0..machine.vps {
        Cpu::of(index).forget();
        let value = (index as u64) << shift | u64::from(apic::ASSERT | u32::from(VECTOR));
        msr::write(ICR, value);
        check!(time::eventually(|| Cpu::of(index).count(VECTOR) == 1), "no interrupt at processor {index}");
        let pending = 1 << 12;
        equal!(msr::read(ICR) & !pending, value, "ICR as it reads");
    }
    (0..machine.vps).for_each(|index| Cpu::of(index).forget());
    msr::write(ICR, u64::from(apic::TO_OTHERS | apic::ASSERT | u32::from(VECTOR)));
    let all = || (1..machine.vps).all(|index| Cpu::of(index).count(VECTOR) == 1);
    check!(time::eventually(all), "not all others get it");
    equal!(Cpu::of(0).count(VECTOR), 0, "interrupts at the sender");
    Ok(())
}

fn tpr(_: &Machine) -> Outcome {
    let own = Cpu::current();
    for value in [0x00, 0x50, 0x75, 0xf0] {
        msr::write(TPR, value);
        equal!(msr::read(TPR), value, "TPR MSR");
        equal!(u64::from(apic::read(apic::TPR)), value, "TPR register");
        equal!(cpu::cr8(), value >> 4, "CR8");
    }
    apic::send(0, VECTOR);
    check!(time::never(|| own.taken() > 0), "TPR 0xf0 lets an interrupt in");
    let _ = cpu::set_cr8(3);
    equal!(msr::read(TPR), 0x30, "TPR MSR after CR8 was written");
    check!(time::eventually(|| own.count(VECTOR) == 1), "CR8 3 does not let it in");
    let seen = msr::try_write(TPR, 0x100);
    check!(seen.is_err_and(|fault| fault.is_protection()) || msr::read(TPR) <= 0xff, "the TPR takes 0x100");
    msr::write(TPR, 0);
    Ok(())
}

fn assist_page(machine: &Machine) -> Outcome {
    fn place(_: u64) -> Outcome {
        let page = Page::take();
        equal!(msr::read(VP_ASSIST_PAGE), 0, "MSR at first");
        msr::write(VP_ASSIST_PAGE, page.address() | 1);
        equal!(msr::read(VP_ASSIST_PAGE), page.address() | 1, "MSR");
        check!(page.is_all(0), "the page is not empty");
        page.set(100, 5);
        equal!(page.get(100), 5, "a word of the page");
        page.set(100, 0);
        msr::write(VP_ASSIST_PAGE, 0);
        equal!(msr::read(VP_ASSIST_PAGE), 0, "MSR afterwards");
        Ok(())
    }
    smp::run_on_all(machine.vps, place, 0)
}

/// Ends interrupts as the TLFS recommends: by the page if the bit is set, else by the MSR.
fn eoi_assist(_: &Machine) -> Outcome {
    use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
    static PLACE: AtomicU64 = AtomicU64::new(0);
    fn hook(_: u8) {
        let page = crate::rt::memory::shared(PLACE.load(SeqCst));
        if page.word(0).fetch_and(!1, SeqCst) & 1 == 0 {
            msr::write(EOI, 0);
        }
    }
    let (own, page) = (Cpu::current(), Page::take());
    PLACE.store(page.address(), SeqCst);
    msr::write(VP_ASSIST_PAGE, page.address() | 1);
    own.set_eoi(Eoi::Never);
    own.set_hook(Some(hook));
    for nth in 1..=100 {
        apic::send(0, VECTOR);
        check!(time::eventually(|| own.count(VECTOR) == nth), "interrupt {nth} does not come");
        apic::send(0, VECTOR - 0x20);
        let both = time::eventually(|| own.count(VECTOR - 0x20) == nth);
        check!(both, "interrupt {nth} of a lower class does not come");
    }
    // An ordinary end works as well.
    own.set_hook(None);
    own.set_eoi(Eoi::Apic);
    apic::send(0, VECTOR);
    check!(time::eventually(|| own.count(VECTOR) == 101), "no interrupt after an ordinary end");
    msr::write(VP_ASSIST_PAGE, 0);
    Ok(())
}

fn guest_idle(_: &Machine) -> Outcome {
    let own = Cpu::current();
    fn interrupt_soon(_: u64) -> Outcome {
        time::wait(50_000);
        apic::send(0, VECTOR);
        Ok(())
    }
    for nth in 1..=5 {
        cpu::disable_interrupts();
        smp::post(1, interrupt_soon, 0);
        let begin = cpu::tsc();
        while !apic::has(apic::IRR, VECTOR) {
            msr::read(GUEST_IDLE);
        }
        let took = time::us(cpu::tsc() - begin);
        equal!(own.count(VECTOR), nth - 1, "interrupts taken with IF clear");
        check!(took < 5_000_000, "it took {took} us to wake");
        // What is pending already prevents the idle state.
        msr::read(GUEST_IDLE);
        cpu::enable_interrupts();
        check!(time::eventually(|| own.count(VECTOR) == nth), "the interrupt is lost");
        smp::finish(1)?;
    }
    Ok(())
}

/// As Linux waits for a spin lock in an interrupt handler: the interrupt is in service, and the one that wakes is of its
/// class.
fn guest_idle_in_handler(_: &Machine) -> Outcome {
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
    const WAKER: u8 = VECTOR - 1;
    static WOKEN: AtomicU32 = AtomicU32::new(0);
    fn wake_soon(_: u64) -> Outcome {
        time::wait(20_000);
        apic::send(0, WAKER);
        Ok(())
    }
    fn hook(vector: u8) {
        if vector == VECTOR {
            smp::post(1, wake_soon, 0);
            while !apic::has(apic::IRR, WAKER) {
                msr::read(GUEST_IDLE);
            }
            WOKEN.fetch_add(1, SeqCst);
        }
    }
    let own = Cpu::current();
    own.set_hook(Some(hook));
    for nth in 1..=5 {
        apic::send(0, VECTOR);
        check!(time::eventually(|| WOKEN.load(SeqCst) == nth), "round {nth}: the handler does not wake");
        check!(time::eventually(|| own.count(WAKER) == nth), "round {nth}: the waker's interrupt is lost");
        smp::finish(1)?;
    }
    own.set_hook(None);
    Ok(())
}

fn halt_by_ipi(machine: &Machine) -> Outcome {
    const ROUNDS: u32 = 100;
    fn sleep(_: u64) -> Outcome {
        let own = Cpu::current();
        cpu::disable_interrupts();
        while own.count(VECTOR) < ROUNDS {
            cpu::enable_and_halt();
            cpu::disable_interrupts();
        }
        cpu::enable_interrupts();
        Ok(())
    }
    (0..machine.vps).for_each(|index| Cpu::of(index).forget());
    (1..machine.vps).for_each(|index| smp::post(index, sleep, 0));
    for round in 1..=ROUNDS {
        apic::command(0, apic::TO_OTHERS | u32::from(VECTOR));
        let all = || (1..machine.vps).all(|index| Cpu::of(index).count(VECTOR) == round);
        check!(time::eventually(all), "in round {round} not all wake");
        // From at once to long enough to be descheduled.
        time::wait(u64::from(round % 10) * 100);
    }
    (1..machine.vps).try_for_each(smp::finish)
}

fn halt_by_timer(machine: &Machine) -> Outcome {
    fn sleep(_: u64) -> Outcome {
        let own = Cpu::current();
        apic::write(apic::DIVIDE, apic::DIVIDE_BY_1);
        apic::write(apic::LVT_TIMER, VECTOR.into());
        for round in 1..=30_u32 {
            cpu::disable_interrupts();
            // 0.1 ms to 3 ms at a gigahertz.
            apic::write(apic::INITIAL_COUNT, 100_000 * round);
            while own.count(VECTOR) < round {
                cpu::enable_and_halt();
                cpu::disable_interrupts();
            }
            cpu::enable_interrupts();
        }
        Ok(())
    }
    (0..machine.vps).for_each(|index| Cpu::of(index).forget());
    smp::run_on_all(machine.vps, sleep, 0)
}

/// Halts for `us` microseconds, by the APIC timer.
pub(super) fn nap(us: u64) {
    let own = Cpu::current();
    let before = own.count(VECTOR);
    apic::write(apic::DIVIDE, apic::DIVIDE_BY_1);
    apic::write(apic::LVT_TIMER, VECTOR.into());
    cpu::disable_interrupts();
    // At a gigahertz; what it is exactly does not matter.
    apic::write(apic::INITIAL_COUNT, us as u32 * 1000);
    while own.count(VECTOR) == before {
        cpu::enable_and_halt();
        cpu::disable_interrupts();
    }
    cpu::enable_interrupts();
}

fn halt_masked(_: &Machine) -> Outcome {
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    static AWAKE: AtomicBool = AtomicBool::new(false);
    fn sleep(_: u64) -> Outcome {
        cpu::disable_interrupts();
        cpu::halt();
        AWAKE.store(true, SeqCst);
        cpu::enable_interrupts();
        Ok(())
    }
    AWAKE.store(false, SeqCst);
    smp::post(1, sleep, 0);
    time::wait(30_000);
    apic::send(1, VECTOR);
    check!(time::never(|| AWAKE.load(SeqCst)), "an interrupt ends a halt with IF clear");
    apic::command(1, apic::NMI);
    check!(time::eventually(|| AWAKE.load(SeqCst)), "an NMI does not end the halt");
    smp::finish(1)?;
    check!(time::eventually(|| Cpu::of(1).count(VECTOR) == 1), "the interrupt is lost");
    Ok(())
}

/// The serial port's transmitter interrupts by ISA interrupt 4 when a byte has left it, until that is looked at.
fn level(_: &Machine) -> Outcome {
    const PIN: u32 = 4;
    const INTERRUPT_ENABLE: u16 = port::SERIAL + 1;
    const IDENTIFICATION: u16 = port::SERIAL + 2;
    const MODEM_CONTROL: u16 = port::SERIAL + 4;
    const TRANSMITTER_EMPTY: u8 = 1 << 1;
    const OUT2: u8 = 1 << 3;
    let own = Cpu::current();
    own.set_eoi(Eoi::Never);
    port::out8(MODEM_CONTROL, OUT2);
    ioapic::set_entry(PIN, ioapic::LEVEL | u64::from(VECTOR));
    for nth in 1..=5 {
        port::out8(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
        port::out8(port::SERIAL, b'\r');
        check!(time::eventually(|| own.count(VECTOR) == nth), "interrupt {nth} does not come");
        check!(apic::has(apic::TMR, VECTOR), "it is not level-triggered");
        check!(ioapic::entry(PIN) & ioapic::REMOTE_IRR != 0, "the I/O APIC does not wait for its end");
        // Either of the two lets the line fall.
        port::in8(IDENTIFICATION);
        port::out8(INTERRUPT_ENABLE, 0);
        apic::end_of_interrupt();
        check!(
            time::eventually(|| ioapic::entry(PIN) & ioapic::REMOTE_IRR == 0),
            "the end does not reach the I/O APIC"
        );
        check!(time::never(|| own.count(VECTOR) > nth), "the interrupt comes again with the line low");
    }
    ioapic::set_entry(PIN, ioapic::MASKED);
    port::out8(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
    port::out8(port::SERIAL, b'\r');
    check!(time::never(|| own.count(VECTOR) > 5), "a masked entry interrupts");
    port::out8(INTERRUPT_ENABLE, 0);
    Ok(())
}
