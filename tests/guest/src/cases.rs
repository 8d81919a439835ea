//! The cases, and what runs them.

mod apic;
mod apic_timer;
mod clock;
mod feature;
mod hostile;
mod hv_apic;
mod hypercall;
mod ipi;
mod memory;
mod start;
mod state;
mod stimer;
mod synic;
mod tlb;

use core::fmt::Write;

use crate::{
    report::{Failure, Outcome},
    rt::{
        apic::{self as lapic, Mode},
        cpu,
        machine::Machine,
        percpu::Cpu,
        port::Console,
        smp,
    },
};

/// What a case comes to when all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It says so, and switches the machine off.
    Report,
    /// The machine ends by a triple fault.
    Fault,
    /// The machine runs on until it is stopped.
    Hang,
}

/// What a case needs besides processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// A PC.
    Machine,
    /// The hypervisor's interface.
    Partition,
    /// The hypervisor's interface with hypercalls enabled.
    Hypercalls,
}

/// One thing that is proved.
pub(crate) struct Case {
    /// By which it is chosen.
    pub(crate) name: &'static str,
    /// What it proves, and where that is written.
    pub(crate) what: &'static str,
    /// How many processors it takes.
    pub(crate) vps: usize,
    /// What else it takes.
    pub(crate) needs: Needs,
    /// The mode that the local APICs are in.
    pub(crate) mode: Mode,
    /// How it ends.
    pub(crate) kind: Kind,
    /// What it does.
    pub(crate) run: fn(&Machine) -> Outcome,
}

impl Case {
    /// A case for any machine with x2APIC.
    const fn new(name: &'static str, vps: usize, what: &'static str, run: fn(&Machine) -> Outcome) -> Self {
        Self { name, what, vps, needs: Needs::Machine, mode: Mode::X2Apic, kind: Kind::Report, run }
    }

    /// The same, for a partition.
    const fn partition(self) -> Self {
        Self { needs: Needs::Partition, ..self }
    }

    /// The same, with hypercalls enabled.
    const fn hypercalls(self) -> Self {
        Self { needs: Needs::Hypercalls, ..self }
    }

    /// The same, in xAPIC mode.
    const fn xapic(self) -> Self {
        Self { mode: Mode::XApic, ..self }
    }

    /// The same, with another end.
    const fn ends(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// A table of cases that run in both modes of the APIC: function, processors, what is proved.
macro_rules! in_both_modes {
    ($($run:ident $vps:literal $what:literal;)*) => {
        &[$(
            $crate::cases::Case::new(concat!("xapic_", stringify!($run)), $vps, $what, $run).xapic(),
            $crate::cases::Case::new(concat!("x2apic_", stringify!($run)), $vps, $what, $run),
        )*]
    };
}

use in_both_modes;

/// All cases, by topic.
const TOPICS: &[&[Case]] = &[
    feature::CASES,
    hypercall::CASES,
    clock::CASES,
    synic::CASES,
    stimer::CASES,
    hv_apic::CASES,
    hv_apic::ANYWHERE,
    apic::CASES,
    apic::MODES,
    apic_timer::CASES,
    ipi::CASES,
    ipi::HYPERCALLS,
    start::CASES,
    tlb::CASES,
    tlb::ANYWHERE,
    state::CASES,
    memory::CASES,
    hostile::CASES,
];

fn all() -> impl Iterator<Item = &'static Case> {
    TOPICS.iter().copied().flatten()
}

/// Runs what the command line names.
pub(crate) fn run(mut machine: Machine) {
    let Some(names) = machine.parameter("case") else {
        say(format_args!("CASE guest: FAILED the command line has no case=NAME"));
        return;
    };
    if names == "list" {
        all().for_each(list);
        return;
    }
    // The machine changes below, and with it what its command line may borrow.
    let mut kept = [0; 256];
    let length = names.len().min(kept.len());
    kept[..length].copy_from_slice(&names.as_bytes()[..length]);
    let names = str::from_utf8(&kept[..length]).unwrap_or_default();
    let told = machine.told_vps();
    let mut running = 1;
    for name in names.split(',') {
        let Some(case) = all().find(|case| case.name == name) else {
            say(format_args!("CASE {name}: FAILED there is no such case"));
            continue;
        };
        say(format_args!("CASE {name}: begin"));
        machine.vps = told.unwrap_or(case.vps).max(running);
        let outcome = one(&machine, case, &mut running);
        match outcome {
            Ok(()) => say(format_args!("CASE {name}: ok")),
            Err(Failure::Skipped(reason)) => say(format_args!("CASE {name}: skipped {reason}")),
            Err(Failure::Wrong { place, text }) => {
                say(format_args!("CASE {name}: FAILED {}:{} {text}", place.file(), place.line()));
            }
        }
    }
}

/// Brings the processors up on first use, and runs the case.
fn one(machine: &Machine, case: &Case, running: &mut usize) -> Outcome {
    if case.needs != Needs::Machine && !machine.is_partition {
        return Err(Failure::Skipped("there is no hypervisor"));
    }
    if machine.vps < case.vps {
        return Err(Failure::Skipped("the machine has too few processors"));
    }
    if *running == 1 {
        lapic::choose(if lapic::has_x2apic() { case.mode } else { Mode::XApic });
        lapic::start();
        lapic::enable();
        cpu::enable_interrupts();
        smp::start_all(machine.vps)?;
        *running = machine.vps;
    }
    if case.needs == Needs::Hypercalls {
        crate::rt::hypercall::enable();
    }
    Cpu::current().forget();
    (case.run)(machine)
}

fn list(case: &Case) {
    let kind = match case.kind {
        Kind::Report => "report",
        Kind::Fault => "fault",
        Kind::Hang => "hang",
    };
    say(format_args!("LIST {} {} {kind} {}", case.name, case.vps, case.what));
}

fn say(arguments: core::fmt::Arguments<'_>) {
    // The console takes everything.
    let _ = writeln!(Console, "{arguments}");
}
