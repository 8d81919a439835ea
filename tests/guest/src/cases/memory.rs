//! Memory that the root maps as it is touched, and the board's devices (Linux mshv_root: memory on demand).

use core::sync::atomic::Ordering::SeqCst;

use super::Case;
use crate::{
    report::{Outcome, check, equal, needs},
    rt::{
        machine::Machine,
        memory::{self, PAGE},
        percpu::Cpu,
        port, smp,
    },
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "memory_all",
        1,
        "every page of RAM keeps what is written, and was zero before (TLFS GPA space)",
        all,
    ),
    Case::new("memory_race", 4, "all VPs touch the same new pages at the same time (TLFS GPA space)", race),
    Case::new(
        "memory_backwards",
        1,
        "pages are touched from the top down, across borders (TLFS GPA space)",
        backwards,
    ),
    Case::new(
        "string_output",
        1,
        "REP OUTSB writes each byte, from memory across a page border (APM 3 OUTS)",
        string_output,
    ),
    Case::new(
        "open_bus",
        1,
        "ports and memory where nothing is read as all ones and take writes (PC)",
        open_bus,
    ),
];

/// The RAM behind the image and below 3 GiB.
fn free(machine: &Machine) -> impl Iterator<Item = u64> {
    let start = memory::free_start();
    machine.ram.into_iter().flat_map(move |(from, to)| {
        (from.max(start).next_multiple_of(PAGE)..to.min(3 << 30)).step_by(PAGE as usize)
    })
}

fn all(machine: &Machine) -> Outcome {
    let mut pages = 0;
    for page in free(machine) {
        let word = memory::ram(page + 8);
        if machine.is_partition {
            equal!(word.load(SeqCst), 0, "page {page:#x} at first");
        }
        word.store(page ^ 0xaaaa_5555, SeqCst);
        pages += 1;
    }
    for page in free(machine) {
        equal!(memory::ram(page + 8).load(SeqCst), page ^ 0xaaaa_5555, "page {page:#x}");
    }
    check!(pages > 1000, "only {pages} pages of RAM");
    Ok(())
}

fn race(machine: &Machine) -> Outcome {
    const PAGES: u64 = 2000;
    fn touch(first: u64) -> Outcome {
        for nth in 0..PAGES {
            memory::ram(first + nth * PAGE).fetch_add(1 << (8 * Cpu::current().index()), SeqCst);
        }
        Ok(())
    }
    needs!(machine.vps <= 8, "there are eight bytes to a word");
    let Some(first) = free(machine).find(|page| page.is_multiple_of(2 << 20)) else {
        return Err(crate::report::Failure::Skipped("there is no free RAM"));
    };
    smp::run_on_all(machine.vps, touch, first)?;
    let expected = (0..machine.vps).map(|vp| 1 << (8 * vp)).sum::<u64>();
    for nth in 0..PAGES {
        let seen = memory::ram(first + nth * PAGE).load(SeqCst);
        // Bare machines have used their memory before.
        let right = seen == expected || !machine.is_partition;
        check!(right, "page {nth} holds {seen:#x} instead of {expected:#x}");
    }
    Ok(())
}

fn backwards(machine: &Machine) -> Outcome {
    let Some(end) = free(machine).last() else {
        return Err(crate::report::Failure::Skipped("there is no free RAM"));
    };
    for nth in 1..2000 {
        let border = end - nth * 3 * PAGE;
        memory::across(border, 0x0102_0304_0506_0708 + nth);
        equal!(memory::read_across(border), 0x0102_0304_0506_0708 + nth, "a word across {border:#x}");
    }
    Ok(())
}

fn string_output(machine: &Machine) -> Outcome {
    const TEXT: &[u8] = b"CASE string_output: this line is one REP OUTSB\n";
    port::out_string(port::SERIAL, TEXT);
    // The same from two pages, of which the second was never touched.
    let Some(page) = free(machine).nth(100) else {
        return Err(crate::report::Failure::Skipped("there is no free RAM"));
    };
    let start = page + PAGE - TEXT.len() as u64 / 2;
    port::out_string(port::SERIAL, memory::place(start, TEXT));
    Ok(())
}

fn open_bus(machine: &Machine) -> Outcome {
    needs!(machine.is_partition, "a bare machine has devices anywhere");
    for port in [0x0200, 0x0c00, 0x3000, 0xffff] {
        equal!(port::in8(port), 0xff, "port {port:#x}");
        port::out8(port, 0);
    }
    equal!(port::in32(0x3004), u32::MAX, "port 0x3004");
    for address in [0xd000_0000, 0xfe00_0000, 0xfed0_0000] {
        let word = crate::rt::paging::peek(address);
        equal!(word, Ok(u64::MAX), "memory at {address:#x}");
        check!(crate::rt::paging::poke(address, 0).is_ok(), "memory at {address:#x} takes no write");
    }
    Ok(())
}
