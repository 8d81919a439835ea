//! Flushing translations of other processors (TLFS virtual-mmu, HvCallFlushVirtualAddressSpace and its kin).
//!
//! A processor reads through a page of the window, which is then made to lead elsewhere. Whether it would see the old
//! page without a flush is the processor's affair; after the flush it must see the new one.

use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use tlfs::{CallCode, HvStatus, memory::FlushFlags};

use super::Case;
use crate::{
    report::{Outcome, check, equal},
    rt::{
        apic, cpu,
        hypercall::{self, rep, variable},
        machine::Machine,
        memory::{PAGE, Page},
        paging::{self, ACCESSED, DIRTY, GLOBAL, NO_EXECUTE, PRESENT, WRITABLE, Window},
        percpu::Cpu,
        smp, time,
    },
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "flush_space",
        4,
        "a whole address space, by mask, on VPs that run (TLFS HvCallFlushVirtualAddressSpace)",
        flush_space,
    )
    .hypercalls(),
    Case::new(
        "flush_list",
        4,
        "a list of pages, by mask, on VPs that run (TLFS HvCallFlushVirtualAddressList)",
        flush_list,
    )
    .hypercalls(),
    Case::new(
        "flush_space_ex",
        4,
        "the same for sparse sets (TLFS HvCallFlushVirtualAddressSpaceEx)",
        flush_space_ex,
    )
    .hypercalls(),
    Case::new(
        "flush_list_ex",
        4,
        "the same for sparse sets (TLFS HvCallFlushVirtualAddressListEx)",
        flush_list_ex,
    )
    .hypercalls(),
    Case::new(
        "flush_global",
        4,
        "global pages are flushed too, unless that is declined (TLFS HV_FLUSH flags)",
        flush_global,
    )
    .hypercalls(),
    Case::new(
        "flush_halted",
        4,
        "VPs that are halted see new pages when they wake (TLFS HvCallFlushVirtualAddressSpace)",
        flush_halted,
    )
    .hypercalls(),
    Case::new(
        "flush_unmap",
        4,
        "a page that was unmapped faults after the flush (TLFS HvCallFlushVirtualAddressList)",
        flush_unmap,
    )
    .hypercalls(),
    Case::new(
        "flush_rules",
        1,
        "reserved flags and unknown sets are refused (TLFS HvCallFlushVirtualAddressSpace)",
        flush_rules,
    )
    .hypercalls(),
    Case::new(
        "flush_race",
        4,
        "all VPs flush each other at the same time (TLFS HvCallFlushVirtualAddressSpace)",
        flush_race,
    )
    .hypercalls(),
];

pub(crate) const ANYWHERE: &[Case] = &[
    Case::new("invlpg", 1, "INVLPG, CR3 and CR4.PGE flush what they have to (APM 2 §5.5.3)", own_flush),
    Case::new("shoot_down", 4, "an interrupt and INVLPG flush other processors (APM 2 §5.5.3)", shoot_down),
    Case::new(
        "page_bits",
        1,
        "accessed and dirty bits, write protection and no-execute work (APM 2 §5.4)",
        page_bits,
    ),
];

const ROUNDS: u64 = 40;
const SLOT: usize = 7;
const SHOOT: u8 = 0xe1;

static READS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static SEEN: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
static STOP: AtomicBool = AtomicBool::new(false);

/// Reads the page over and over, and tells what it sees.
fn watch(_: u64) -> Outcome {
    let own = Cpu::current().index();
    while !STOP.load(Relaxed) {
        // A fault reads as an odd value.
        let seen = paging::peek(Window::address(SLOT)).unwrap_or(u64::MAX);
        SEEN[own].store(seen, SeqCst);
        READS[own].fetch_add(1, SeqCst);
    }
    Ok(())
}

/// Waits until each watcher has begun and ended a read after now, and tells who sees something else than `expected`.
fn all_see(vps: usize, expected: u64) -> Outcome {
    let before: [u64; 64] = core::array::from_fn(|vp| READS[vp].load(SeqCst));
    for (vp, before) in before.into_iter().enumerate().take(vps).skip(1) {
        check!(time::eventually(|| READS[vp].load(SeqCst) >= before + 2), "VP {vp} does not read any more");
        equal!(SEEN[vp].load(SeqCst), expected, "what VP {vp} reads after the flush");
    }
    Ok(())
}

/// Has all other VPs read while the page changes from one to another, each time followed by `flush`.
fn with_watchers(machine: &Machine, flags: u64, flush: impl Fn(&Page) -> Outcome) -> Outcome {
    let window = Window::new();
    let (pages, input) = ([Page::take(), Page::take()], Page::take());
    window.map(SLOT, pages[0], flags);
    STOP.store(false, SeqCst);
    (1..machine.vps).for_each(|vp| smp::post(vp, watch, 0));
    let mut outcome = Ok(());
    for round in 1..=ROUNDS {
        let page = pages[round as usize % 2];
        page.set(0, round);
        window.map(SLOT, page, flags);
        outcome = flush(input).and_then(|()| all_see(machine.vps, round));
        if outcome.is_err() {
            break;
        }
    }
    STOP.store(true, SeqCst);
    (1..machine.vps).fold(outcome, |outcome, vp| outcome.and(smp::finish(vp)))
}

fn others(machine: &Machine) -> u64 {
    (1 << machine.vps) - 2
}

fn succeeds(result: tlfs::HypercallOutput, reps: usize) -> Outcome {
    equal!(result.status(), HvStatus::SUCCESS, "flush");
    equal!(result.reps_completed(), reps, "reps completed");
    Ok(())
}

const ALL_SPACES: u64 = FlushFlags::ALL_VIRTUAL_ADDRESS_SPACES.0;
const ALL_VPS: u64 = FlushFlags::ALL_PROCESSORS.0;

fn flush_space(machine: &Machine) -> Outcome {
    let code = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0);
    let inputs = [
        [cpu::cr3(), 0, others(machine)],
        [0, ALL_SPACES, others(machine)],
        [cpu::cr3(), ALL_VPS, 0],
        [0, ALL_SPACES | ALL_VPS, 0],
    ];
    inputs.into_iter().try_for_each(|words| {
        with_watchers(machine, 0, |input| succeeds(hypercall::slow(code, input, &words), 0))
    })
}

fn flush_list(machine: &Machine) -> Outcome {
    let page = Window::address(SLOT);
    // The page itself; the page among those that follow another; the page last of many.
    let lists: [&[u64]; 3] =
        [&[page], &[(page - 3 * PAGE) | 6], &[0, PAGE, 2 * PAGE, (3 * PAGE) | 0xfff, page]];
    lists.into_iter().try_for_each(|list| {
        let mut words = [0; 16];
        words[..3].copy_from_slice(&[cpu::cr3(), 0, others(machine)]);
        words[3..3 + list.len()].copy_from_slice(list);
        let control = rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, list.len() as u64, 0);
        with_watchers(machine, 0, |input| succeeds(hypercall::slow(control, input, &words), list.len()))
    })
}

fn flush_space_ex(machine: &Machine) -> Outcome {
    let code = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0);
    let set = others(machine);
    let inputs: [(&[u64], u64); 3] = [
        (&[cpu::cr3(), 0, 0, 1, set], 1),
        (&[0, ALL_SPACES, 0, 0b101, set, 0], 2),
        (&[0, ALL_SPACES, 1, 0], 0),
    ];
    inputs.into_iter().try_for_each(|(words, banks)| {
        with_watchers(machine, 0, |input| succeeds(hypercall::slow(variable(code, banks), input, words), 0))
    })
}

fn flush_list_ex(machine: &Machine) -> Outcome {
    let page = Window::address(SLOT);
    let set = others(machine);
    let inputs: [(&[u64], u64, u64); 3] = [
        (&[cpu::cr3(), 0, 0, 1, set, page], 1, 1),
        (&[cpu::cr3(), 0, 0, 0b11, set, 0, 0, page], 2, 2),
        (&[0, ALL_SPACES, 1, 0, page], 0, 1),
    ];
    inputs.into_iter().try_for_each(|(words, banks, reps)| {
        let control = variable(rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST_EX, reps, 0), banks);
        with_watchers(machine, 0, |input| succeeds(hypercall::slow(control, input, words), reps as usize))
    })
}

fn flush_global(machine: &Machine) -> Outcome {
    let code = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0);
    let words = [cpu::cr3(), 0, others(machine)];
    with_watchers(machine, GLOBAL, |input| succeeds(hypercall::slow(code, input, &words), 0))?;
    let words = [cpu::cr3(), FlushFlags::NON_GLOBAL_MAPPINGS_ONLY.0, others(machine)];
    with_watchers(machine, 0, |input| succeeds(hypercall::slow(code, input, &words), 0))
}

fn flush_halted(machine: &Machine) -> Outcome {
    static READY: AtomicU64 = AtomicU64::new(0);
    fn sleep(expected: u64) -> Outcome {
        let own = Cpu::current();
        let before = own.count(SHOOT);
        cpu::disable_interrupts();
        equal!(paging::peek(Window::address(SLOT)), Ok(expected - 1), "page before the halt");
        READY.fetch_add(1, SeqCst);
        while own.count(SHOOT) == before {
            cpu::enable_and_halt();
            cpu::disable_interrupts();
        }
        let seen = paging::peek(Window::address(SLOT));
        cpu::enable_interrupts();
        equal!(seen, Ok(expected), "page after the halt");
        Ok(())
    }
    let window = Window::new();
    let (pages, input) = ([Page::take(), Page::take()], Page::take());
    window.map(SLOT, pages[0], 0);
    for round in 1..=ROUNDS / 2 {
        READY.store(0, SeqCst);
        (1..machine.vps).for_each(|vp| smp::post(vp, sleep, round));
        let all = machine.vps as u64 - 1;
        check!(time::eventually(|| READY.load(SeqCst) == all), "not all VPs are ready");
        // Halted for a moment, and halted for long.
        time::wait(if round % 2 == 0 { 20_000 } else { 200 });
        let page = pages[round as usize % 2];
        page.set(0, round);
        window.map(SLOT, page, 0);
        let words = [cpu::cr3(), 0, others(machine)];
        succeeds(hypercall::slow(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0.into(), input, &words), 0)?;
        apic::command(0, apic::TO_OTHERS | u32::from(SHOOT));
        (1..machine.vps).try_for_each(smp::finish)?;
    }
    Ok(())
}

fn flush_unmap(machine: &Machine) -> Outcome {
    let window = Window::new();
    let (page, input) = (Page::take(), Page::take());
    let words = [cpu::cr3(), 0, others(machine), Window::address(SLOT)];
    let control = rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, 1, 0);
    page.set(0, 77);
    window.map(SLOT, page, 0);
    STOP.store(false, SeqCst);
    (1..machine.vps).for_each(|vp| smp::post(vp, watch, 0));
    let mut outcome = Ok(());
    for round in 0..ROUNDS {
        let expected = if round % 2 == 0 {
            window.set(SLOT, 0);
            u64::MAX
        } else {
            window.map(SLOT, page, 0);
            77
        };
        let flushed = succeeds(hypercall::slow(control, input, &words), 1);
        outcome = flushed.and_then(|()| all_see(machine.vps, expected));
        if outcome.is_err() {
            break;
        }
    }
    STOP.store(true, SeqCst);
    (1..machine.vps).fold(outcome, |outcome, vp| outcome.and(smp::finish(vp)))
}

fn flush_rules(_: &Machine) -> Outcome {
    let input = Page::take();
    let space = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0);
    let space_ex = u64::from(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE_EX.0);
    // Nobody, and VPs that do not exist.
    for mask in [0, 1 << 63, u64::MAX] {
        let status = hypercall::slow(space, input, &[cpu::cr3(), 0, mask]).status();
        equal!(status, HvStatus::SUCCESS, "mask {mask:#x}");
    }
    for flags in [1 << 4, 1 << 32, 1 << 63] {
        let status = hypercall::slow(space, input, &[cpu::cr3(), flags, 1]).status();
        check!(!status.is_success(), "reserved flags {flags:#x}: {status:?}");
        let status = hypercall::slow(variable(space_ex, 1), input, &[cpu::cr3(), flags, 0, 1, 1]).status();
        check!(!status.is_success(), "reserved flags {flags:#x} with a set: {status:?}");
    }
    let list = rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, 1, 0);
    let words = [cpu::cr3(), FlushFlags::NON_GLOBAL_MAPPINGS_ONLY.0, 1, PAGE];
    let status = hypercall::slow(list, input, &words).status();
    check!(!status.is_success(), "a list of pages that are not global: {status:?}");
    for (format, valid, banks) in [(2, 1, 1), (0, 0b11, 1), (u64::MAX, 0, 0)] {
        let words = [cpu::cr3(), 0, format, valid, 1];
        let status = hypercall::slow(variable(space_ex, banks), input, &words).status();
        check!(!status.is_success(), "format {format:#x}, valid banks {valid:#x}, {banks} banks: {status:?}");
    }
    Ok(())
}

fn flush_race(machine: &Machine) -> Outcome {
    fn flush(vps: u64) -> Outcome {
        let input = Page::take();
        let own = Cpu::current().index() as u64;
        for round in 0..200 {
            let mask = ((1 << vps) - 1) & !(1 << own) | round & 1 << own;
            let words = [cpu::cr3(), 0, mask, Window::address(SLOT)];
            let result = if round % 3 == 0 {
                hypercall::slow(rep(CallCode::FLUSH_VIRTUAL_ADDRESS_LIST, 1, 0), input, &words)
            } else {
                hypercall::slow(CallCode::FLUSH_VIRTUAL_ADDRESS_SPACE.0.into(), input, &words)
            };
            equal!(result.status(), HvStatus::SUCCESS, "flush {round} of VP {own}");
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, flush, machine.vps as u64)
}

fn own_flush(_: &Machine) -> Outcome {
    let window = Window::new();
    let pages = [Page::take(), Page::take()];
    pages[0].set(0, 10);
    pages[1].set(0, 11);
    let address = Window::address(SLOT);
    let flushes: [(u64, fn()); 4] = [
        (0, || paging::invalidate(Window::address(SLOT))),
        (GLOBAL, || paging::invalidate(Window::address(SLOT))),
        (0, paging::flush),
        (GLOBAL, || {
            const PGE: u64 = 1 << 7;
            let cr4 = cpu::cr4();
            let _ = cpu::set_cr4(cr4 & !PGE);
            let _ = cpu::set_cr4(cr4);
        }),
    ];
    for (nth, (flags, flush)) in flushes.into_iter().enumerate() {
        for round in 0..10 {
            window.map(SLOT, pages[round % 2], flags);
            flush();
            equal!(paging::peek(address), Ok(10 + round as u64 % 2), "page after flush {nth}");
        }
    }
    window.set(SLOT, 0);
    paging::invalidate(address);
    let fault = paging::peek(address);
    check!(
        fault.is_err_and(|f| f.vector == 14 && f.address == address && f.error == 0),
        "no page gives {fault:x?}"
    );
    Ok(())
}

fn shoot_down(machine: &Machine) -> Outcome {
    fn hook(vector: u8) {
        if vector == SHOOT {
            paging::invalidate(Window::address(SLOT));
        }
    }
    fn prepare(_: u64) -> Outcome {
        Cpu::current().set_hook(Some(hook));
        Ok(())
    }
    smp::run_on_all(machine.vps, prepare, 0)?;
    let vps = machine.vps;
    with_watchers(machine, 0, |_| {
        let before: u32 = (1..vps).map(|vp| Cpu::of(vp).count(SHOOT)).sum();
        apic::command(0, apic::TO_OTHERS | u32::from(SHOOT));
        let all = || (1..vps).map(|vp| Cpu::of(vp).count(SHOOT)).sum::<u32>() == before + vps as u32 - 1;
        check!(time::eventually(all), "not all take the interrupt");
        Ok(())
    })
}

fn page_bits(_: &Machine) -> Outcome {
    let window = Window::new();
    let page = Page::take();
    let address = Window::address(SLOT);
    window.map(SLOT, page, 0);
    check!(paging::peek(address).is_ok(), "the page cannot be read");
    equal!(window.get(SLOT) & (ACCESSED | DIRTY), ACCESSED, "bits after a read");
    check!(paging::poke(address, 1).is_ok(), "the page cannot be written");
    equal!(window.get(SLOT) & (ACCESSED | DIRTY), ACCESSED | DIRTY, "bits after a write");
    window.set(SLOT, page.address() | PRESENT);
    paging::invalidate(address);
    let fault = paging::poke(address, 2);
    check!(fault.is_err_and(|f| f.vector == 14 && f.error == 0b11), "a read-only page gives {fault:x?}");
    window.set(SLOT, page.address() | PRESENT | WRITABLE | NO_EXECUTE);
    paging::invalidate(address);
    let fault = paging::execute(address);
    check!(fault.is_err_and(|f| f.vector == 14 && f.error == 0b1_0001), "a data page executes: {fault:x?}");
    // A reserved bit: one beyond all physical addresses.
    window.set(SLOT, page.address() | PRESENT | WRITABLE | 1 << 51);
    paging::invalidate(address);
    let fault = paging::peek(address);
    check!(fault.is_err_and(|f| f.vector == 14 && f.error & 0b1000 != 0), "a reserved bit gives {fault:x?}");
    Ok(())
}
