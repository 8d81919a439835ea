//! Partitions that misbehave: none of this may harm the root or another partition, and a guest that only makes odd
//! calls stays alive itself.

use tlfs::msr::{GUEST_IDLE, HYPERCALL, RESET};

use super::{Case, Kind};
use crate::{
    report::{Outcome, check, equal},
    rt::{cpu, hypercall, machine::Machine, memory::Page, msr, percpu::Cpu, port, smp, time},
};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        "fuzz",
        4,
        "all call codes, fast and slow, with random control words and parameters return (TLFS hypercall-interface)",
        fuzz,
    )
    .hypercalls(),
    Case::new("fuzz_msrs", 4, "random accesses to MSRs return or raise #GP (TLFS, APM 2 RDMSR)", fuzz_msrs)
        .partition(),
    Case::new(
        "fuzz_apic",
        2,
        "random accesses to the APIC page and to ports do no harm (SDM 3A APIC register map)",
        fuzz_apic,
    )
    .partition()
    .xapic(),
    Case::new("exit_storm", 4, "all VPs leave the guest as often as they can (TLFS)", storm).hypercalls(),
    Case::new(
        "triple_fault",
        1,
        "a triple fault ends this machine and is told (TLFS unrecoverable exception)",
        triple_fault,
    )
    .ends(Kind::Fault),
    Case::new(
        "triple_fault_other",
        4,
        "so does one of another VP, while the rest works (TLFS unrecoverable exception)",
        triple_fault_other,
    )
    .ends(Kind::Fault),
    Case::new("spin_forever", 4, "VPs that never leave the guest can be stopped (TLFS)", spin)
        .ends(Kind::Hang),
    Case::new("halt_forever", 4, "VPs that halt with interrupts disabled can be stopped (TLFS)", halt)
        .ends(Kind::Hang),
    Case::new("fuzz_forever", 4, "VPs that make hypercalls without end can be stopped (TLFS)", fuzz_forever)
        .hypercalls()
        .ends(Kind::Hang),
    Case::new("neighbour", 2, "a guest that does nothing odd runs on beside those that do (TLFS)", neighbour)
        .partition()
        .ends(Kind::Hang),
];

/// A generator of numbers that look random (xorshift64*), always the same for a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number with few bits, many bits, or a special one.
    fn odd(&mut self) -> u64 {
        let value = self.next();
        match value >> 60 {
            0..4 => value & 0xff,
            4..6 => value & 0xffff,
            6 => u64::MAX - (value & 0xf),
            7 => 1 << (value & 0x3f),
            8 => 0,
            _ => value,
        }
    }
}

/// How long to misbehave, in microseconds: `seconds=N` on the command line, or 5.
fn duration(machine: &Machine) -> u64 {
    machine.parameter("seconds").and_then(|value| value.parse::<u64>().ok()).unwrap_or(5) * 1_000_000
}

/// Where the specification has call codes.
const CODES: u64 = 0x200;

/// Every call in both conventions, and one of any code after each.
fn all_calls(random: &mut Random, input: &Page, output: &Page) {
    const KNOWN: [u64; 10] = [0x02, 0x03, 0x08, 0x0b, 0x13, 0x14, 0x15, 0x5c, 0x5d, 0x9a];
    for code in 0..CODES {
        for is_fast in [false, true] {
            one_call(random, code, is_fast, input, output);
            let any = match random.next() % 4 {
                0 => random.next() & 0xffff,
                _ => KNOWN[random.next() as usize % KNOWN.len()],
            };
            one_call(random, any, is_fast, input, output);
        }
    }
}

/// One hypercall: any control word, parameters in the two pages, filled with anything. An address elsewhere would be a
/// mistake of the guest's that ends it.
fn one_call(random: &mut Random, code: u64, is_fast: bool, input: &Page, output: &Page) {
    let control = match random.next() % 4 {
        0 => random.next() & !0xffff,
        1 => 0,
        2 => (random.next() & 0x3ff) << 17 | (random.next() & 0xfff) << 32 | (random.next() & 0xfff) << 48,
        _ => (random.next() & 3) << 17 | (random.next() & 0x3f) << 32 | (random.next() & 7) << 48,
    };
    // An interrupt with one of the vectors 16 to 31 would be taken for a fault by the processor that gets it.
    let harmless = |value: u64| if (16..32).contains(&(value as u32)) { value | 0x20 } else { value };
    for word in 0..24 {
        input.set(word, harmless(random.odd()));
    }
    let place = |random: &mut Random, page: &Page| match random.next() % 8 {
        0 => page.address() + (random.next() & 0xfff),
        1 => page.address() + (random.next() & 0xff8),
        _ => page.address(),
    };
    let (mut first, mut second) = (place(random, input), place(random, output));
    let control = if is_fast {
        (first, second) = (harmless(random.odd()), random.odd());
        control | 1 << 16
    } else {
        control & !(1 << 16)
    };
    // A fault is as good an answer as a status.
    let _ = hypercall::try_call(control & !0xffff | code, first, second);
}

fn fuzz(machine: &Machine) -> Outcome {
    fn run(us: u64) -> Outcome {
        let mut random = Random::new(4711 + Cpu::current().index() as u64);
        let (input, output) = (Page::take(), Page::take());
        // Interrupts that it sends itself, of which vectors below 32 would be taken for faults.
        cpu::disable_interrupts();
        let begin = cpu::tsc();
        // A round is 2048 calls. The first one is made to its end, however long that takes.
        loop {
            all_calls(&mut random, input, output);
            if time::us(cpu::tsc() - begin) >= us {
                return Ok(());
            }
        }
    }
    smp::run_on_all(machine.vps, run, duration(machine))?;
    let page = msr::read(HYPERCALL);
    check!(page & 1 != 0, "the hypercall page is gone: {page:#x}");
    let status = hypercall::fast(tlfs::CallCode::NOTIFY_LONG_SPIN_WAIT, 1, 0);
    equal!(status, tlfs::HvStatus::SUCCESS, "an ordinary call afterwards");
    Ok(())
}

/// MSRs by which a guest would end itself, or wait for what does not come.
const SPARED: [u32; 6] = [msr::GS_BASE, msr::EFER, RESET, GUEST_IDLE, msr::APIC_BASE, 0x830];

fn fuzz_msrs(machine: &Machine) -> Outcome {
    fn run(us: u64) -> Outcome {
        let mut random = Random::new(815 + Cpu::current().index() as u64);
        let page = Page::take();
        cpu::disable_interrupts();
        let begin = cpu::tsc();
        while time::us(cpu::tsc() - begin) < us {
            let number = match random.next() % 8 {
                0 => random.next() as u32,
                1 => 0xc000_0000 | random.next() as u32 & 0x1fff,
                2 => 0xc001_0000 | random.next() as u32 & 0x1fff,
                3 => random.next() as u32 & 0x1fff,
                4 => msr::X2APIC | random.next() as u32 & 0xff,
                _ => 0x4000_0000 | random.next() as u32 & 0x1ff,
            };
            if SPARED.contains(&number) {
                continue;
            }
            let _ = msr::try_read(number);
            // Pages of the hypervisor's must go where they do no harm.
            let is_page = (0x4000_0000..0x4000_0200).contains(&number);
            let value = if is_page { page.address() | random.next() & 0xfff } else { random.odd() };
            let _ = msr::try_write(number, value);
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, run, duration(machine))
}

fn fuzz_apic(machine: &Machine) -> Outcome {
    fn run(us: u64) -> Outcome {
        let mut random = Random::new(42 + Cpu::current().index() as u64);
        cpu::disable_interrupts();
        let begin = cpu::tsc();
        while time::us(cpu::tsc() - begin) < us {
            let offset = random.next() & 0xfff;
            // Not the command register, by which it would restart the others.
            let address = crate::rt::apic::BASE + if offset & 0xff0 == 0x300 { 0x20 } else { offset & !3 };
            let _ = crate::rt::paging::poke_32(address, random.odd() as u32);
            let _ = crate::rt::paging::peek(address & !7);
            let port = random.next() as u16;
            // Not power and reset, and not what can switch the machine off by way of a keyboard.
            if !(0x600..0x610).contains(&port)
                && ![0xcf8, 0xcf9, 0x64, 0x92].contains(&port)
                && port != port::SERIAL
            {
                port::in8(port);
            }
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, run, duration(machine))
}

fn storm(machine: &Machine) -> Outcome {
    fn run(us: u64) -> Outcome {
        let begin = cpu::tsc();
        while time::us(cpu::tsc() - begin) < us {
            cpu::cpuid(0, 0);
            hypercall::fast(tlfs::CallCode::NOTIFY_LONG_SPIN_WAIT, 1, 0);
            msr::read(tlfs::msr::TIME_REF_COUNT);
            port::in8(0x61);
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, run, duration(machine))
}

fn triple_fault(_: &Machine) -> Outcome {
    cpu::triple_fault()
}

fn triple_fault_other(machine: &Machine) -> Outcome {
    fn work(_: u64) -> Outcome {
        loop {
            cpu::cpuid(0, 0);
        }
    }
    (2..machine.vps).for_each(|vp| smp::post(vp, work, 0));
    smp::post(1, |_| cpu::triple_fault(), 0);
    work(0)
}

fn spin(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        cpu::disable_interrupts();
        loop {
            core::hint::spin_loop();
        }
    }
    smp::run_on_all(machine.vps, run, 0)
}

fn halt(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        cpu::disable_interrupts();
        loop {
            cpu::halt();
        }
    }
    smp::run_on_all(machine.vps, run, 0)
}

fn fuzz_forever(machine: &Machine) -> Outcome {
    fn run(_: u64) -> Outcome {
        let mut random = Random::new(Cpu::current().index() as u64);
        let (input, output) = (Page::take(), Page::take());
        cpu::disable_interrupts();
        loop {
            all_calls(&mut random, input, output);
        }
    }
    smp::run_on_all(machine.vps, run, 0)
}

/// Computes, remembers and sleeps, and says every second that all is as it should be.
fn neighbour(machine: &Machine) -> Outcome {
    fn live(page: u64) -> Outcome {
        let own = Cpu::current().index();
        let page = crate::rt::memory::shared(page);
        let mut last = super::clock::now();
        for round in 0.. {
            let word = own * 8 + round as usize % 8;
            page.set(word, round);
            super::hv_apic::nap(100_000);
            equal!(page.get(word), round, "what VP {own} remembers");
            let now = super::clock::now();
            check!(now > last, "time goes from {last} to {now} at VP {own}");
            last = now;
            if own == 0 && round % 10 == 0 {
                super::say(format_args!("CASE neighbour: alive {}", round / 10));
            }
        }
        Ok(())
    }
    smp::run_on_all(machine.vps, live, Page::take().address())
}
