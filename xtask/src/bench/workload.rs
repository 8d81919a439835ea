//! The operations, and what nested KVM needs for them on the same emulated machine.

/// An operation that is measured.
pub(super) struct Workload {
    pub(super) name: &'static str,
    /// What one operation is.
    pub(super) what: &'static str,
    pub(super) kind: Kind,
    pub(super) kvm: Option<Peer>,
}

/// What an operation occupies.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Kind {
    /// Processor, memory or system calls: nothing that a hypervisor must see.
    Steady,
    /// Something a hypervisor may have to do with.
    Other,
    /// Waiting, which takes no processor time.
    Waiting,
}

/// Nested KVM as a peer: QEMU microvm on kvm_amd with nested paging, 4 processors, the same QEMU and processor model.
/// Measured once, when Bulkhead was planned; the times were single runs on a shared machine (20 % either way).
#[derive(Clone, Copy)]
pub(super) struct Peer {
    /// Time as a ratio to the same kernel bare.
    pub(super) ratio: f64,
    /// World switches for one operation.
    pub(super) switches: Option<f64>,
    /// Instructions outside the guest for one operation.
    pub(super) outside: Option<f64>,
}

/// The name of the boot's row; its region is 0.
pub(super) const BOOT: &str = "boot";

use Kind::{Other, Steady, Waiting};

/// All operations, in the order in which they are shown.
pub(super) const ALL: [Workload; 16] = [
    Workload {
        name: BOOT,
        what: "from the start of the machine, or of the child, to the first process",
        kind: Other,
        kvm: Some(Peer { ratio: 1.4, switches: None, outside: None }),
    },
    of("cpu-loop-1", "1,000 steps of arithmetic on one processor", Steady, Some((1.13, 0.0, 0.0))),
    of("cpu-loop-all", "the same on all processors at once", Steady, Some((1.25, 0.0, 0.0))),
    of("memory-copy", "copying 8 MiB", Steady, Some((1.4, 14.0, 123_000.0))),
    of("chase", "a step of a random walk through 32 MiB", Steady, Some((1.7, 0.0, 5.0))),
    of("getpid", "a system call", Steady, Some((1.5, 0.0, 10.0))),
    of("clock-gettime", "reading the clock", Steady, Some((1.5, 0.0, 4.0))),
    of("cpuid", "CPUID", Other, Some((3700.0, 1.03, 3050.0))),
    of("page-fault", "the first touch of a page of memory", Steady, Some((1.5, 0.04, 215.0))),
    of("fork", "a process that ends at once", Steady, Some((2.1, 12.0, 80_000.0))),
    of("fork-exec", "a process that starts a program", Other, Some((2.6, 94.0, 690_000.0))),
    of("pipe-1", "a byte to another process and back, on one processor", Other, Some((1.8, 0.3, 1250.0))),
    of("pipe-2", "the same on two processors", Other, Some((2.8, 5.6, 42_700.0))),
    of("tlb-shootdown", "unmapping a page in use by all processors", Other, Some((2.0, 38.0, 158_000.0))),
    of("sleep-200us", "a sleep of 200 µs", Waiting, Some((1.8, 4.1, 29_900.0))),
    of("idle", "100 ms with nothing to do", Waiting, None),
];

const fn of(name: &'static str, what: &'static str, kind: Kind, kvm: Option<(f64, f64, f64)>) -> Workload {
    let kvm = match kvm {
        Some((ratio, switches, outside)) => {
            Some(Peer { ratio, switches: Some(switches), outside: Some(outside) })
        }
        None => None,
    };
    Workload { name, what, kind, kvm }
}
