//! `cargo xtask bench`: the same kernel and initramfs bare, as root, and as a child with as many processors, side
//! by side on the same emulated machine.
//!
//! Times come from several boots, with the ways of running taking turns, so that what disturbs the host disturbs all
//! of them. Counts come from one more boot each, in which a plugin counts: they repeat where times do not.

mod aims;
mod boot;
mod count;
mod reason;
mod report;
mod symbols;
mod table;
mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use crate::kernel::Source;
use crate::{progress, run, setup, tools};
use boot::{Mode, Parts, Said};
use count::{Counts, Task};

/// Measured when nothing else is asked for, in the order of the columns.
const MODES: [Mode; 3] = [Mode::Bare, Mode::Root, Mode::Child];
/// How often a boot is tried.
const ATTEMPTS: usize = 3;

#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Boots of each kind whose times are taken (0: counts only)
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Leave out the boots in which the plugin counts
    #[arg(long)]
    no_counts: bool,
    /// Measure these ways of running alone
    #[arg(long, value_delimiter = ',', value_enum)]
    modes: Vec<Mode>,
    /// Measure these operations alone
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Processors of the machine, and of the child
    #[arg(long, default_value_t = 4)]
    cpus: u32,
    /// Show the hypervisor's dearest functions for each operation, this many
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    hot: usize,
}

/// Everything that was measured, for the reports.
struct Measured {
    /// The boots whose times were taken.
    times: BTreeMap<Mode, Vec<(Said, Counts)>>,
    /// The boots in which the plugin counted.
    counts: BTreeMap<Mode, (Said, Counts)>,
    /// What went wrong, by the way of running.
    failures: Vec<String>,
    /// What was measured, where, and when.
    setting: Setting,
}

/// The machine and the versions.
struct Setting {
    cpus: u32,
    runs: usize,
    qemu: String,
    kernel: String,
    commit: String,
    /// What the host has, and how much of it others used when we began.
    host: String,
}

/// `cargo xtask bench`. The reports go to `docs/performance` if all of it was measured.
///
/// # Errors
/// Nothing could be measured, or something cannot be built. An aim that is missed is no error.
pub(crate) fn command(options: &BenchOptions) -> Result<()> {
    for name in &options.only {
        ensure!(workload::ALL.iter().any(|known| known.name == name), "there is no operation `{name}`");
    }
    setup::host()?;
    let setting = setting(options)?;
    let modes = if options.modes.is_empty() { MODES.to_vec() } else { options.modes.clone() };
    let folder = run::folder("bench")?;
    let parts = Parts::gather(&folder, options.cpus, &options.only, modes.contains(&Mode::Child))?;
    let mut measured =
        Measured { times: BTreeMap::new(), counts: BTreeMap::new(), failures: Vec::new(), setting };
    let plugin = count::build(&folder)?;
    let counting = if options.hot > 0 { Task::CountByAddress } else { Task::Count };
    for &mode in modes.iter().filter(|_| !options.no_counts) {
        let result = insist(&parts, mode, "counts", &plugin, counting, &mut measured.failures);
        measured.counts.extend(result.map(|result| (mode, result)));
    }
    for run in 1..=options.runs {
        for &mode in &modes {
            let result =
                insist(&parts, mode, &format!("times-{run}"), &plugin, Task::Time, &mut measured.failures);
            measured.times.entry(mode).or_default().extend(result);
        }
    }
    finish(options, &parts, &measured)
}

/// One boot, tried again if it fails. Failures are kept for the report: a machine that does not come through is a
/// result, too.
fn insist(
    parts: &Parts,
    mode: Mode,
    what: &str,
    plugin: &Path,
    task: Task,
    failures: &mut Vec<String>,
) -> Option<(Said, Counts)> {
    for attempt in 1..=ATTEMPTS {
        let name = format!("{mode}-{what}-{attempt}");
        match progress::step(&format!("{mode}: {what}"), || boot(parts, mode, &name, plugin, task)) {
            Ok(result) => return Some(result),
            Err(error) => {
                progress::say(format_args!("  failed: {error:#}"));
                failures.push(format!("{name}: {}", error.root_cause()));
            }
        }
    }
    None
}

/// Prints the reports and keeps them if they are complete.
fn finish(options: &BenchOptions, parts: &Parts, measured: &Measured) -> Result<()> {
    let rows = table::rows(measured);
    let aims = aims::judge(&rows, options.cpus);
    print!("{}", report::text(measured, &rows, &aims));
    if options.hot > 0 {
        print!("{}", symbols::hottest(parts.hypervisor(), &measured.counts, options.hot)?);
    }
    let wanted =
        options.modes.is_empty() && options.only.is_empty() && !options.no_counts && options.runs > 0;
    let complete = MODES.iter().all(|mode| {
        let boots = measured.times.get(mode).map_or(0, Vec::len);
        boots == options.runs && measured.counts.contains_key(mode)
    });
    if wanted && complete {
        report::save(measured, &rows, &aims)?;
    } else {
        progress::say("docs/performance stays as it was: not everything was measured");
    }
    ensure!(
        measured.times.values().any(|boots| !boots.is_empty()) || !measured.counts.is_empty(),
        "nothing could be measured: {}",
        measured.failures.join("; ")
    );
    Ok(())
}

/// One boot, with what the plugin has to say about it.
fn boot(parts: &Parts, mode: Mode, name: &str, plugin: &Path, task: Task) -> Result<(Said, Counts)> {
    let out = parts.folder(name)?.join("counts.json");
    let said = parts.boot(mode, name, &count::arguments(plugin, &out, task))?;
    Ok((said, Counts::read(&out)?))
}

fn setting(options: &BenchOptions) -> Result<Setting> {
    let qemu = tools::output(Command::new(crate::machine::QEMU).arg("--version"))?;
    let commit =
        Command::new("git").args(["rev-parse", "--short", "HEAD"]).current_dir(tools::workspace()).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = load.split(' ').next().unwrap_or("?").to_string();
    Ok(Setting {
        host: format!("{processors} processors and a load of {load}"),
        cpus: options.cpus,
        runs: options.runs,
        qemu: qemu.lines().next().unwrap_or_default().to_string(),
        kernel: Source::find()?.version().to_string(),
        commit: commit.unwrap_or_default(),
    })
}
