//! Machines as text.

use std::fmt::Write as _;

use control::{State, VmStatus};

const HEADINGS: [&str; 8] = ["NAME", "STATE", "VPS", "MEMORY", "UPTIME", "PID", "EXITS", "RESETS"];

/// All machines, one a line; the reason of a failure follows its line's columns.
pub(crate) fn list(machines: &[VmStatus]) -> String {
    let rows: Vec<_> = machines.iter().map(cells).collect();
    let mut widths = HEADINGS.map(str::len);
    for (row, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    let mut text = String::new();
    line(&mut text, &widths, &HEADINGS.map(str::to_owned), "");
    for (row, reason) in &rows {
        line(&mut text, &widths, row, reason);
    }
    text
}

/// One machine, one line, and one line for each of its disks and processors.
pub(crate) fn status(machine: &VmStatus) -> String {
    const INTERRUPTS_ENABLED: u64 = 1 << 9;
    let mut text = format!("{}: {}\n", machine.name, machine.state);
    for (number, disk) in machine.disks.iter().enumerate() {
        let access = if disk.read_only { ", read-only" } else { "" };
        let _ = writeln!(text, "  disk {number}: {}{access}", disk.path.display());
    }
    for vp in &machine.processors {
        let interrupts = if vp.rflags & INTERRUPTS_ENABLED != 0 { "on" } else { "off" };
        let _ = writeln!(
            text,
            "  VP {}: RIP {:#x}, RSP {:#x}, CR3 {:#x}, interrupts {interrupts}, {} exits",
            vp.vp, vp.rip, vp.rsp, vp.cr3, vp.exits
        );
    }
    text
}

fn line(text: &mut String, widths: &[usize; 8], cells: &[String; 8], reason: &str) {
    let start = text.len();
    for (width, cell) in widths.iter().zip(cells) {
        let _ = write!(text, "{cell:<width$}  ");
    }
    text.push_str(reason);
    let end = text[start..].trim_end().len();
    text.truncate(start + end);
    text.push('\n');
}

fn cells(machine: &VmStatus) -> ([String; 8], &str) {
    let absent = || "-".to_owned();
    let (state, reason) = match &machine.state {
        State::Failed { reason } => ("failed".to_owned(), reason.as_str()),
        state => (state.to_string(), ""),
    };
    let cells = [
        machine.name.to_string(),
        state,
        machine.vps.to_string(),
        format!("{} MiB", machine.memory_mib),
        machine.uptime_s.map_or_else(absent, uptime),
        machine.pid.map_or_else(absent, |pid| pid.to_string()),
        machine.exits.to_string(),
        machine.resets.to_string(),
    ];
    (cells, reason)
}

fn uptime(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use control::DiskConfig;

    use super::*;

    fn machine(name: &str, state: State) -> VmStatus {
        VmStatus {
            name: name.parse().unwrap(),
            state,
            vps: 4,
            memory_mib: 1024,
            uptime_s: Some(3725),
            pid: None,
            exits: 12,
            resets: 0,
            disks: Vec::new(),
            processors: Vec::new(),
        }
    }

    #[test]
    fn columns_line_up_and_a_failure_ends_with_its_reason() {
        let failed = State::Failed { reason: "triple fault".into() };
        let text = list(&[machine("a", State::Running), machine("longer-name", failed)]);
        let expected = "\
NAME         STATE    VPS  MEMORY    UPTIME   PID  EXITS  RESETS
a            running  4    1024 MiB  1:02:05  -    12     0
longer-name  failed   4    1024 MiB  1:02:05  -    12     0       triple fault
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_machine_is_shown_with_its_disks() {
        let disk = |path: &str, read_only| DiskConfig { path: path.into(), read_only };
        let disks = vec![disk("/a.img", false), disk("/dev/sdb", true)];
        let text = status(&VmStatus { disks, ..machine("a", State::Created) });
        assert_eq!(text, "a: created\n  disk 0: /a.img\n  disk 1: /dev/sdb, read-only\n");
    }

    #[test]
    fn no_machines_is_a_heading_alone() {
        assert_eq!(list(&[]).lines().count(), 1);
    }
}
