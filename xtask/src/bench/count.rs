//! Counts of instructions and world switches, from the plugin in `tests/bench/plugin`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{progress, tools};

/// Where the hypervisor's code may be; Linux's begins behind it.
const TEXT: &str = "0xffffffff80000000-0xffffffff81000000";

/// Builds the plugin.
///
/// # Errors
/// The C compiler is missing or complains.
pub(super) fn build(folder: &Path) -> Result<PathBuf> {
    let source = tools::workspace().join("tests/bench/plugin/count.c");
    let plugin = folder.join("count.so");
    progress::step("building the counting plugin", || {
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"]);
        tools::output(compiler.arg(&plugin).arg(&source))?;
        Ok(plugin)
    })
}

/// What the plugin is to do.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Task {
    /// Take the processor time and leave the emulation alone.
    Time,
    /// Count instructions and world switches.
    Count,
    /// The same, and instructions by address.
    CountByAddress,
}

/// QEMU's arguments for the plugin, which writes to `out`.
pub(super) fn arguments(plugin: &Path, out: &Path, task: Task) -> [String; 2] {
    let more = match task {
        Task::Time => ",count=no".to_string(),
        Task::Count => String::new(),
        Task::CountByAddress => format!(",text={TEXT}"),
    };
    ["-plugin".into(), format!("{},out={}{more}", plugin.display(), out.display())]
}

/// What the plugin counted: the batches of each region.
pub(super) struct Counts(BTreeMap<u64, Vec<Batch>>);

/// From one mark to the next, all processors together.
#[derive(Default)]
pub(super) struct Batch {
    /// Time that passed on the host, in nanoseconds.
    pub(super) wall: f64,
    /// Processor time that the emulator used on the host, in nanoseconds.
    pub(super) cpu: f64,
    /// Instructions outside guests; on the bare machine all of them.
    pub(super) hypervisor: f64,
    /// Instructions of the root.
    pub(super) root: f64,
    /// Instructions of the child.
    pub(super) child: f64,
    /// World switches, by who left and why.
    pub(super) switches: Vec<Switch>,
    /// Instructions by the address of the piece of the hypervisor's code.
    pub(super) spots: Vec<(u64, f64)>,
}

/// Exits of one kind.
pub(super) struct Switch {
    /// `root` or `child`.
    pub(super) party: String,
    /// EXITCODE.
    pub(super) code: u64,
    /// What the plugin adds: the number of a port, an MSR or a hypercall.
    pub(super) detail: u64,
    pub(super) count: f64,
}

impl Counts {
    /// Reads what the plugin wrote.
    ///
    /// # Errors
    /// The file is missing or is not the plugin's.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut regions: BTreeMap<u64, Vec<Batch>> = BTreeMap::new();
        for line in text.lines() {
            let (region, batch) = batch(line)?;
            regions.entry(region).or_default().push(batch);
        }
        Ok(Self(regions))
    }

    /// The batches of a region.
    pub(super) fn batches(&self, region: u64) -> &[Batch] {
        self.0.get(&region).map_or(&[], Vec::as_slice)
    }

    /// The fastest batch of a region, which the host disturbed least. The slower the emulation, the more timer
    /// ticks fall into an operation.
    pub(super) fn fastest(&self, region: u64) -> Option<&Batch> {
        self.batches(region).iter().min_by(|one, other| one.wall.total_cmp(&other.wall))
    }
}

fn batch(line: &str) -> Result<(u64, Batch)> {
    let value: Value = serde_json::from_str(line)?;
    let spent = |party: &str| value["instructions"][party].as_f64().context("no instructions");
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    let switches = list("switches").into_iter().map(|switch| {
        Some(Switch {
            party: switch["party"].as_str()?.to_string(),
            code: switch["code"].as_u64()?,
            detail: switch["detail"].as_u64()?,
            count: switch["count"].as_f64()?,
        })
    });
    let spots =
        list("spots").iter().map(|spot| Some((spot[0].as_u64()?, spot[1].as_f64()?))).collect::<Option<_>>();
    let batch = Batch {
        wall: value["wall_ns"].as_f64().context("no time")?,
        cpu: value["cpu_ns"].as_f64().context("no processor time")?,
        hypervisor: spent("hypervisor")?,
        root: spent("root")?,
        child: spent("child")?,
        switches: switches.collect::<Option<_>>().context("a world switch is malformed")?,
        spots: spots.context("a spot is malformed")?,
    };
    Ok((value["region"].as_u64().context("no region")?, batch))
}

#[cfg(test)]
mod tests {
    use super::batch;

    #[test]
    fn batch_of_the_plugin_is_read() {
        let line = r#"{"region":7,"wall_ns":9,"cpu_ns":6,"instructions":{"hypervisor":9,"root":8,"child":0},
            "switches":[{"party":"root","code":114,"detail":0,"count":3}],"spots":[[18446744071564169216,5]]}"#;
        let (number, batch) = batch(line).unwrap();
        assert_eq!((number, batch.switches[0].code, batch.spots[0].0), (7, 0x72, 0xffff_ffff_8020_1000));
        assert!(super::batch("{}").is_err());
    }
}
