//! The table of boots. A test is added by an entry here and a script in `images/root/scenarios`.

use super::{Boot, Kind, Program, Test};
use crate::iso::Firmware;
use crate::options::{DiskKind, NicKind};

/// What `machine.sh` says `ok` to.
const MACHINE: &[&str] = &["processors", "work-on-each", "timers", "clocks", "no-complaints"];

/// What `devices.sh` says `ok` to.
const DEVICES: &[&str] = &[
    "virtio-blk-read",
    "virtio-blk-write",
    "virtio-blk-interrupts",
    "nvme-read",
    "nvme-write",
    "nvme-interrupts",
    "ahci-read",
    "ahci-write",
    "ahci-interrupts",
    "virtio-net-dhcp",
    "virtio-net-ping",
    "virtio-net-interrupts",
    "e1000e-dhcp",
    "e1000e-ping",
    "e1000e-interrupts",
];

/// What `signals.sh` says `ok` to.
const SIGNALS: &[&str] = &[
    "signals/discovery",
    "signals/message",
    "signals/queue",
    "signals/event",
    "signals/wake",
    "signals/event-doorbell",
    "signals/intercept",
    "signals",
];

/// A visit to the root's shell and to the child's, as `cargo xtask run` offers it on a terminal. A command line is
/// echoed before it runs, so that what is awaited must not be part of what was typed.
const VISIT: &[(&str, &str)] = &[
    (
        "This is the root's shell",
        "bulkhead create two --memory 256 --kernel /var/lib/bulkhead/images/vmlinuz \
         --initramfs /var/lib/bulkhead/images/initramfs --start && echo two has $((40 + 2))\n",
    ),
    ("two has 42", "bulkhead list\n"),
    ("two   running", "bulkhead console demo; echo left $((40 + 6))\n"),
    // A carriage return is what a terminal's Enter key sends, and 0x1d is Ctrl-].
    ("Connected to demo", "\recho in the child $((40 + 3))\r"),
    // The console client takes all that comes with the Ctrl-], so the next line waits until it has left.
    ("in the child 43", "\x1d"),
    ("left 46", "bulkhead destroy two && echo destroyed $((40 + 4))\n"),
    ("destroyed 44", "bulkhead stop demo --timeout 60 && echo stopped $((40 + 5))\n"),
    ("stopped 45", "exit\n"),
];

/// All boots, in the order they are run: what the later ones rest on comes first.
pub(super) const TABLE: [Test; 26] = [
    boot("cpus-1", "the root runs on 1 processor: work, timer interrupts, clocks, no complaints", machine(1)),
    boot("cpus-2", "the root runs on 2 processors", machine(2)),
    boot("cpus-4", "the root runs on 4 processors", machine(4)),
    boot("cpus-8", "the root runs on 8 processors", machine(8)),
    boot(
        "devices",
        "the root's drivers move data over virtio-blk, NVMe, AHCI, virtio-net and e1000e by interrupts",
        Boot {
            scenario: "devices",
            expected: DEVICES,
            disks: &[DiskKind::Virtio, DiskKind::Nvme, DiskKind::Ahci],
            nics: &[NicKind::Virtio, NicKind::E1000e],
            ..Boot::USUAL
        },
    ),
    boot(
        "poweroff",
        "the machine goes off when the root says so",
        Boot { scenario: "poweroff", expected: &["poweroff"], ..Boot::USUAL },
    ),
    boot(
        "reboot",
        "the machine starts anew when the root says so, and comes up again",
        Boot {
            scenario: "reboot",
            expected: &["reboot"],
            disks: &[DiskKind::Virtio],
            reboots: true,
            ..Boot::USUAL
        },
    ),
    boot(
        "mshv-ioctls",
        "a client of /dev/mshv that was not written for us, the crate mshv-ioctls, passes its own tests",
        Boot {
            scenario: "mshv-ioctls",
            expected: &["mshv-ioctls"],
            program: Some(Program::MshvIoctls),
            limit: 900,
            ..Boot::USUAL
        },
    ),
    boot(
        "signals",
        "messages and events pass between the root and a child, over what /dev/mshv offers",
        Boot { scenario: "signals", expected: SIGNALS, program: Some(Program::Signals), ..Boot::USUAL },
    ),
    boot(
        "child",
        "a stock Debian kernel with 4 VPs finds the interface and uses it, goes off and gives its memory back",
        Boot {
            scenario: "child",
            expected: &["child-4", "child-interrupts-4", "child-memory", "hypervisor-log"],
            settings: "TEST_VPS=4",
            needs_stack: true,
            ..Boot::USUAL
        },
    ),
    boot(
        "child-vps",
        "the same with 1, 2 and 8 VPs on 4 processors",
        Boot {
            scenario: "child",
            expected: &["child-1", "child-2", "child-8", "child-interrupts-8", "child-memory"],
            settings: "TEST_VPS='1 2 8'",
            needs_stack: true,
            limit: 600,
            ..Boot::USUAL
        },
    ),
    boot(
        "child-1",
        "the same with 1 and 2 VPs on a machine with 1 processor",
        Boot {
            scenario: "child",
            expected: &["child-1", "child-2", "child-interrupts-2", "child-memory"],
            settings: "TEST_VPS='1 2'",
            cpus: 1,
            needs_stack: true,
            limit: 600,
            ..Boot::USUAL
        },
    ),
    boot(
        "hidden",
        "a child with 4 VPs from which the hypervisor is hidden runs as on a bare machine",
        Boot {
            scenario: "hidden",
            expected: &[
                "hidden-report",
                "hidden-work",
                "hidden-hypervisor",
                "hidden-interrupts",
                "hidden-off",
            ],
            needs_stack: true,
            ..Boot::USUAL
        },
    ),
    boot(
        "disks",
        "a child's stock driver finds synthetic disks; what it writes and flushes is in the root, also after a restart",
        Boot { settings: "TEST_VPS=4\nTEST_CHANNELS=1", ..SYNTHETIC_DISKS },
    ),
    boot(
        "disks-channels",
        "the same with 8 VPs, for which a controller has a second channel",
        Boot { settings: "TEST_VPS=8\nTEST_CHANNELS=2", ..SYNTHETIC_DISKS },
    ),
    boot(
        "disks-6.1",
        "the same with a kernel of 2022, whose bus is a module and speaks an older version",
        Boot {
            settings: "TEST_VPS=4\nTEST_CHANNELS=1\nTEST_SUFFIX=-6.1",
            children: &["6.1"],
            ..SYNTHETIC_DISKS
        },
    ),
    boot(
        "stress",
        "all VPs of a child work hard for two minutes, find nothing wrong, and the child answers afterwards",
        Boot {
            scenario: "stress",
            expected: &["stress", "stress-timers", "stress-wakeups", "stress-answer", "stress-idle-answer"],
            settings: "TEST_SECONDS=120",
            needs_stack: true,
            program: Some(Program::Bench),
            limit: 900,
            ..Boot::USUAL
        },
    ),
    boot(
        "refusals",
        "`bulkhead` refuses what cannot be done in one line that names the thing and what to do",
        Boot { scenario: "refusals", expected: &["refusals"], needs_stack: true, ..Boot::USUAL },
    ),
    boot(
        "killed",
        "a worker that is killed leaves nothing behind, and neither does the daemon",
        Boot {
            scenario: "killed",
            expected: &["killed-pages", "killed-again", "killed-all-pages", "killed-new", "killed-memory"],
            needs_stack: true,
            program: Some(Program::Guest),
            ..Boot::USUAL
        },
    ),
    boot(
        "tlfs",
        "the interface keeps its promises to a guest of our own, one case per child",
        Boot {
            scenario: "tlfs",
            expected: &["tlfs"],
            needs_stack: true,
            program: Some(Program::Guest),
            limit: 1200,
            ..Boot::USUAL
        },
    ),
    boot(
        "children",
        "stock Debian kernels of several years run as children at the same time",
        Boot {
            scenario: "children",
            expected: &["boot-7", "boot-6.12", "boot-6.1"],
            children: &["7", "6.12", "6.1"],
            memory_mib: 3072,
            needs_stack: true,
            limit: 600,
            ..Boot::USUAL
        },
    ),
    boot(
        "cycles",
        "200 children come and go at every moment of their lives, and every deposited page comes back",
        Boot {
            scenario: "cycles",
            expected: &["cycles", "cycles-deposits", "cycles-pages", "cycles-memory", "cycles-workers"],
            needs_stack: true,
            program: Some(Program::Guest),
            limit: 900,
            ..Boot::USUAL
        },
    ),
    boot(
        "demo",
        "the demonstration that `cargo xtask run` gives without a terminal",
        Boot {
            scenario: "demo",
            expected: &["demo-root", "demo-child", "demo-stop", "demo-button", "demo-destroy"],
            needs_stack: true,
            ..Boot::USUAL
        },
    ),
    boot(
        "terminal",
        "the root's shell lists, makes, visits, stops and destroys children",
        Boot {
            scenario: "demo",
            expected: &["demo-root", "demo-child"],
            words: "bulkhead.then=shell",
            dialogue: VISIT,
            needs_stack: true,
            memory_mib: 3072,
            ..Boot::USUAL
        },
    ),
    boot("iso-bios", "the GRUB image boots to the same under BIOS", disc(Firmware::Bios)),
    boot("iso-uefi", "the GRUB image boots to the same under UEFI", disc(Firmware::Uefi)),
];

const fn boot(name: &'static str, proves: &'static str, boot: Boot) -> Test {
    Test { name, proves, kind: Kind::Boot(boot) }
}

const fn disc(firmware: Firmware) -> Boot {
    Boot { expected: MACHINE, disc: Some(firmware), limit: 420, ..Boot::USUAL }
}

/// Synthetic disks of a child.
const SYNTHETIC_DISKS: Boot = Boot {
    scenario: "disks",
    expected: &[
        "disks-done",
        "disks-file-size",
        "disks-device-size",
        "disks-read-only-size",
        "disks-file",
        "disks-device",
        "disks-read-only",
        "disks-read",
        "disks-channels",
        "disks-file-kept",
        "disks-device-kept",
        "disks-flush",
        "disks-retarget",
        "disks-again",
        "disks-channels-again",
        "disks-untouched",
        "disks-gone",
    ],
    disks: &[DiskKind::Virtio],
    needs_stack: true,
    limit: 600,
    ..Boot::USUAL
};

const fn machine(cpus: u32) -> Boot {
    Boot { expected: MACHINE, cpus, ..Boot::USUAL }
}
