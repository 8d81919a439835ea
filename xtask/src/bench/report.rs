//! The table: as text, as JSON, and as a page of the documentation.

use std::fmt::Write;
use std::fs;

use anyhow::Result;
use serde_json::{Value, json};

use super::aims::Aim;
use super::boot::Mode;
use super::table::{Cost, Row};
use super::workload::Peer;
use super::{Measured, Setting};
use crate::{progress, tools};

/// Reasons that are rarer than this for one operation are not shown.
const RARE: f64 = 0.005;

/// The columns of the table.
const COLUMNS: [&str; 15] = [
    "operation",
    "bare",
    "root",
    "(cpu)",
    "child",
    "(cpu)",
    "KVM",
    "root: sw.",
    "hv instr.",
    "child: sw.",
    "hv instr.",
    "root instr.",
    "outside",
    "KVM: sw.",
    "outside",
];

/// Writes the reports to `docs/performance`.
///
/// # Errors
/// A file cannot be written.
pub(super) fn save(measured: &Measured, rows: &[Row], aims: &[Aim]) -> Result<()> {
    let folder = tools::workspace().join("docs/performance");
    fs::create_dir_all(&folder)?;
    let json = serde_json::to_string_pretty(&json(measured, rows, aims))?;
    fs::write(folder.join("latest.json"), json + "\n")?;
    fs::write(folder.join("latest.md"), page(measured, rows, aims))?;
    progress::say(format_args!("the report is in {}", folder.display()));
    Ok(())
}

/// The report for a terminal.
pub(super) fn text(measured: &Measured, rows: &[Row], aims: &[Aim]) -> String {
    let mut text = setting(&measured.setting) + "\n";
    let lines: Vec<[String; 15]> = rows.iter().map(cells).collect();
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            lines.iter().map(|line| line[column].chars().count()).chain([COLUMNS[column].len()]).max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    let mut print = |cells: &[String]| {
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let _ = if index == 0 { write!(text, "{cell:width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    };
    print(&COLUMNS.map(str::to_string));
    lines.iter().for_each(|line| print(line));
    for line in reasons(rows) {
        let _ = writeln!(text, "{line}");
    }
    for Aim { what, wanted, measured, met } in aims {
        let _ = writeln!(text, "{}: {what}: {measured} (aim: {wanted})", if *met { "met" } else { "MISSED" });
    }
    for failure in &measured.failures {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    text
}

/// The page of the documentation.
fn page(measured: &Measured, rows: &[Row], aims: &[Aim]) -> String {
    let mut text = String::from("# Performance\n\nWritten by `cargo xtask bench`; do not edit.\n\n");
    let _ = writeln!(text, "{}\n", setting(&measured.setting));
    text.push_str(LEGEND);
    let _ = writeln!(text, "\n| {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", cells(row).join(" | "));
    }
    text.push_str("\n## Operations\n\n");
    for row in rows {
        let _ = writeln!(text, "- {}: {}", row.workload.name, row.workload.what);
    }
    text.push_str("\n## World switches by reason, for one operation\n\n");
    for line in reasons(rows) {
        let _ = writeln!(text, "- {line}");
    }
    text.push_str("\n## Aims\n\n| aim | wanted | measured | |\n|---|---|---|---|\n");
    for Aim { what, wanted, measured, met } in aims {
        let _ = writeln!(
            text,
            "| {what} | {wanted} | {measured} | {} |",
            if *met { "met" } else { "**missed**" }
        );
    }
    if !measured.failures.is_empty() {
        text.push_str("\n## Boots that failed and were repeated\n\n");
        for failure in &measured.failures {
            let _ = writeln!(text, "- {failure}");
        }
    }
    text
}

/// What the columns mean.
const LEGEND: &str = "\
One row is one operation. `bare` is its time on the machine without a hypervisor. `root` and `child` are the times
there as ratios to bare, of the medians of several boots; `(cpu)` is the ratio of the processor time that the emulator
used for it on the host, which what else the host does touches least. `sw.` are world switches of all guests, `hv instr.`
and `root instr.` the instructions that the hypervisor and the root execute, and `outside` both together. They come from
a boot in which a plugin counts, and from the batch that the host disturbed least. They repeat where times do not, but
for a child's timer ticks: the slower the emulation, the more of them an operation sees. KVM is nested KVM on the same
emulated machine (QEMU microvm, kvm_amd, 4 processors), measured once when Bulkhead was planned; its times are single
runs, good to 20 %.
";

fn setting(setting: &Setting) -> String {
    let Setting { cpus, runs, qemu, kernel, commit, host } = setting;
    format!(
        "{qemu}, TCG, {cpus} processors, on a host with {host}; Linux {kernel}; commit {commit}; medians of {runs} boots each"
    )
}

fn cells(row: &Row) -> [String; 15] {
    let number = |value: Option<f64>| value.map_or("–".to_string(), short);
    let bare = row.cells.get(&Mode::Bare).and_then(|cell| cell.time);
    let (root, child) = (row.ratio(Mode::Root), row.ratio(Mode::Child));
    let (root_cost, child_cost) = (row.cost(Mode::Root), row.cost(Mode::Child));
    let kvm = row.workload.kvm;
    [
        row.workload.name.to_string(),
        bare.map_or("–".to_string(), |time| duration(time.median)),
        number(root.map(|ratio| ratio.median)),
        number(root.map(|ratio| ratio.cpu)),
        number(child.map(|ratio| ratio.median)),
        number(child.map(|ratio| ratio.cpu)),
        number(kvm.map(|kvm| kvm.ratio)),
        number(root_cost.map(|cost| cost.switches)),
        number(root_cost.map(|cost| cost.hypervisor)),
        number(child_cost.map(|cost| cost.switches)),
        number(child_cost.map(|cost| cost.hypervisor)),
        number(child_cost.map(|cost| cost.root)),
        number(child_cost.map(|cost| cost.hypervisor + cost.root)),
        number(kvm.and_then(|kvm| kvm.switches)),
        number(kvm.and_then(|kvm| kvm.outside)),
    ]
}

/// A line for each operation and way of running that has world switches.
fn reasons(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        for mode in [Mode::Root, Mode::Child] {
            let Some(cost) = row.cost(mode) else { continue };
            let frequent = cost.reasons.iter().filter(|reason| reason.2 >= RARE).take(12);
            let words: Vec<String> =
                frequent.map(|(party, name, count)| format!("{party} {name} {}", short(*count))).collect();
            if !words.is_empty() {
                lines.push(format!("{}, {mode}: {}", row.workload.name, words.join(", ")));
            }
        }
    }
    lines
}

/// A number with three digits that count, and letters for thousands.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".into(),
        value if value < 0.005 => "~0".into(),
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value if value < 10_000.0 => format!("{value:.0}"),
        value if value < 1e7 => format!("{:.0}k", value / 1e3),
        value => format!("{:.0}M", value / 1e6),
    }
}

/// A time from nanoseconds.
fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e4 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e10 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

fn json(measured: &Measured, rows: &[Row], aims: &[Aim]) -> Value {
    let setting = &measured.setting;
    let uptimes: Vec<Value> = measured
        .times
        .iter()
        .flat_map(|(mode, boots)| {
            boots.iter().map(move |(said, _)| json!([mode.to_string(), said.uptime.as_nanos() as u64]))
        })
        .collect();
    json!({
        "setting": {
            "qemu": setting.qemu,
            "processors": setting.cpus,
            "kernel": setting.kernel,
            "commit": setting.commit,
            "boots": setting.runs,
            "host": setting.host,
        },
        "operations": rows.iter().map(operation).collect::<Vec<_>>(),
        "failed_boots": measured.failures,
        "first_process_by_the_kernels_clock_ns": uptimes,
        "aims": aims.iter().map(|aim| json!({
            "aim": aim.what, "wanted": aim.wanted, "measured": aim.measured, "met": aim.met,
        })).collect::<Vec<_>>(),
    })
}

fn operation(row: &Row) -> Value {
    let mut value = json!({ "name": row.workload.name, "what": row.workload.what });
    for (mode, cell) in &row.cells {
        let time = cell
            .time
            .map(|time| json!({ "median_ns": time.median, "best_ns": time.best, "cpu_ns": time.cpu }));
        let ratio = row
            .ratio(*mode)
            .map(|ratio| json!({ "median": ratio.median, "best": ratio.best, "cpu": ratio.cpu }));
        value[mode.to_string()] =
            json!({ "time": time, "ratio_to_bare": ratio, "cost": cell.cost.as_ref().map(cost) });
    }
    value["nested_kvm"] = row.workload.kvm.map_or(Value::Null, |Peer { ratio, switches, outside }| {
        json!({ "ratio_to_bare": ratio, "switches": switches, "instructions_outside": outside })
    });
    value
}

fn cost(cost: &Cost) -> Value {
    let reasons = cost.reasons.iter().filter(|reason| reason.2 >= RARE);
    let reasons =
        reasons.map(|(party, name, count)| json!({ "party": party, "reason": name, "count": count }));
    json!({
        "hypervisor_instructions": cost.hypervisor,
        "root_instructions": cost.root,
        "child_instructions": cost.child,
        "switches": cost.switches,
        "reasons": reasons.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::{duration, short};

    #[test]
    fn numbers_keep_three_digits() {
        let texts = [0.0, 0.001, 1.017, 12.34, 327.2, 42_700.0, 2.5e7].map(short);
        assert_eq!(texts, ["0", "~0", "1.02", "12.3", "327", "43k", "25M"]);
        assert_eq!(duration(3.2e9), "3200.0 ms");
        assert_eq!(duration(51.4), "51 ns");
    }
}
