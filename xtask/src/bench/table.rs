//! From what was measured to one row for each operation.

use std::collections::BTreeMap;

use super::boot::{Mode, Said};
use super::count::{Batch, Counts};
use super::workload::{ALL, BOOT, Kind, Workload};
use super::{Measured, reason};

/// One operation.
pub(super) struct Row {
    pub(super) workload: &'static Workload,
    /// For each way of running what is known.
    pub(super) cells: BTreeMap<Mode, Cell>,
}

/// One operation in one way of running, for one operation.
#[derive(Default)]
pub(super) struct Cell {
    pub(super) time: Option<Time>,
    pub(super) cost: Option<Cost>,
}

/// Nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Time {
    /// The median of the boots' medians.
    pub(super) median: f64,
    /// The best batch of all boots: what disturbances of the host have left alone.
    pub(super) best: f64,
    /// The emulator's processor time: the median of the boots.
    pub(super) cpu: f64,
}

/// Instructions and world switches.
#[derive(Default)]
pub(super) struct Cost {
    pub(super) hypervisor: f64,
    pub(super) root: f64,
    pub(super) child: f64,
    /// World switches of all parties.
    pub(super) switches: f64,
    /// World switches in a second.
    pub(super) rate: f64,
    /// Party, reason and count, the most frequent first.
    pub(super) reasons: Vec<(String, String, f64)>,
}

impl Row {
    fn time(&self, mode: Mode) -> Option<Time> {
        self.cells.get(&mode)?.time
    }

    pub(super) fn cost(&self, mode: Mode) -> Option<&Cost> {
        self.cells.get(&mode)?.cost.as_ref()
    }

    /// The times as ratios to bare.
    pub(super) fn ratio(&self, mode: Mode) -> Option<Time> {
        let (bare, own) = (self.time(Mode::Bare)?, self.time(mode)?);
        Some(Time { median: own.median / bare.median, best: own.best / bare.best, cpu: own.cpu / bare.cpu })
    }

    /// The ratio to hold against an aim: the worse of the two that are shown, so that a bare machine which the host
    /// disturbed flatters nobody; the time that passed where waiting is what is measured.
    pub(super) fn judged(&self, mode: Mode) -> Option<f64> {
        let ratio = self.ratio(mode)?;
        Some(if self.workload.kind == Kind::Waiting { ratio.median } else { ratio.median.max(ratio.cpu) })
    }
}

/// All rows of which something is known.
pub(super) fn rows(measured: &Measured) -> Vec<Row> {
    let mut modes: Vec<Mode> = measured.times.keys().chain(measured.counts.keys()).copied().collect();
    modes.sort_unstable();
    modes.dedup();
    let row = |workload: &'static Workload| {
        let cell = |&mode: &Mode| {
            let time = measured.times.get(&mode).and_then(|boots| time(workload.name, boots));
            let cost =
                measured.counts.get(&mode).and_then(|(said, counts)| cost(workload.name, said, counts));
            (mode, Cell { time, cost })
        };
        let mut cells: BTreeMap<Mode, Cell> = modes.iter().map(cell).collect();
        cells.retain(|_, cell| cell.time.is_some() || cell.cost.is_some());
        Row { workload, cells }
    };
    ALL.iter().map(row).filter(|row| !row.cells.is_empty()).collect()
}

fn time(name: &str, boots: &[(Said, Counts)]) -> Option<Time> {
    let times: Vec<Time> = boots.iter().filter_map(|(said, counts)| once(name, said, counts)).collect();
    Some(Time {
        median: median(times.iter().map(|time| time.median).collect())?,
        best: times.iter().map(|time| time.best).reduce(f64::min)?,
        cpu: median(times.iter().map(|time| time.cpu).collect())?,
    })
}

/// The times of one boot.
fn once(name: &str, said: &Said, counts: &Counts) -> Option<Time> {
    let (region, iterations) = region(name, said)?;
    let cpu = median(counts.batches(region).iter().map(|batch| batch.cpu / iterations).collect())?;
    if name == BOOT {
        let boot = said.boot.as_nanos() as f64;
        return Some(Time { median: boot, best: boot, cpu });
    }
    let sample = said.samples.iter().find(|sample| sample.name == name)?;
    Some(Time { median: sample.median, best: sample.min, cpu })
}

fn cost(name: &str, said: &Said, counts: &Counts) -> Option<Cost> {
    let (region, iterations) = region(name, said)?;
    Some(share(counts.fastest(region)?, iterations))
}

/// The number of an operation's region, and how many operations a batch of it has.
fn region(name: &str, said: &Said) -> Option<(u64, f64)> {
    if name == BOOT {
        return Some((0, 1.0));
    }
    let sample = said.samples.iter().find(|sample| sample.name == name)?;
    Some((sample.region, sample.iterations))
}

/// One operation's share of a batch.
fn share(batch: &Batch, iterations: f64) -> Cost {
    let mut reasons: BTreeMap<(&str, String), f64> = BTreeMap::new();
    for switch in &batch.switches {
        *reasons.entry((&switch.party, reason::name(switch.code, switch.detail))).or_default() +=
            switch.count;
    }
    let mut reasons: Vec<_> = reasons
        .into_iter()
        .map(|((party, name), count)| (party.to_string(), name, count / iterations))
        .collect();
    reasons.sort_by(|one, other| other.2.total_cmp(&one.2));
    let switches: f64 = batch.switches.iter().map(|switch| switch.count).sum();
    Cost {
        hypervisor: batch.hypervisor / iterations,
        root: batch.root / iterations,
        child: batch.child / iterations,
        switches: switches / iterations,
        rate: switches * 1e9 / batch.wall,
        reasons,
    }
}

/// The middle of the values, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values.get(low)? + values.get(high)?) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::count::{Batch, Switch};
    use super::{median, share};

    #[test]
    fn median_of_an_even_number_is_between() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn equal_reasons_are_counted_together() {
        let switch = |code, detail, count| Switch { party: "child".into(), code, detail, count };
        let batch = Batch {
            hypervisor: 100.0,
            // The flush of an address space has a code for few and one for many processors.
            switches: vec![switch(0x78, 0, 1.0), switch(0x81, 0x02, 2.0), switch(0x81, 0x13, 4.0)],
            ..Batch::default()
        };
        let cost = share(&batch, 2.0);
        assert_eq!((cost.hypervisor, cost.switches, cost.reasons.len()), (50.0, 3.5, 2));
        assert_eq!(cost.reasons[0].2, 3.0);
    }
}
