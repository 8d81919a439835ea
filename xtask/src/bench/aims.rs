//! What we set out to reach, and whether the numbers say we did.

use super::boot::Mode;
use super::table::Row;
use super::workload::{BOOT, Kind};

/// World switches in a second that a processor's timer ticks cause: Linux has 250, each an interrupt, its end, the
/// next deadline, and a window to deliver it.
const TICKS: f64 = 250.0 * 4.0;

/// One aim and what was measured for it.
pub(super) struct Aim {
    pub(super) what: String,
    pub(super) wanted: String,
    pub(super) measured: String,
    pub(super) met: bool,
}

/// Judges all aims that the rows say something about.
pub(super) fn judge(rows: &[Row], cpus: u32) -> Vec<Aim> {
    let row = |name: &str| rows.iter().find(|row| row.workload.name == name);
    let mut aims = Vec::new();
    for mode in [Mode::Root, Mode::Child] {
        aims.extend(steady(rows, mode, cpus));
    }
    for mode in [Mode::Root, Mode::Child] {
        let cost = row("cpuid").and_then(|row| row.cost(mode));
        aims.extend(cost.map(|cost| {
            let per_exit = cost.hypervisor / cost.switches.max(1.0);
            at_most(format!("{mode}: hypervisor instructions for a CPUID exit"), 400.0, per_exit)
        }));
    }
    for (name, what, switches, outside) in [
        ("pipe-2", "a pipe round on two processors", 2.0, 5000.0),
        ("sleep-200us", "a timer sleep", 2.0, 3000.0),
    ] {
        let Some(cost) = row(name).and_then(|row| row.cost(Mode::Child)) else { continue };
        aims.push(at_most(format!("child: world switches for {what}"), switches, cost.switches));
        let spent = cost.hypervisor + cost.root;
        aims.push(at_most(format!("child: instructions outside it for {what}"), outside, spent));
    }
    let boot = row(BOOT).and_then(|row| row.judged(Mode::Child));
    aims.extend(boot.map(|ratio| at_most("child: boot, as a ratio to bare".into(), 1.3, ratio)));
    aims.extend(against_kvm(rows));
    aims.extend(share_of_root(rows));
    aims
}

fn at_most(what: String, limit: f64, value: f64) -> Aim {
    Aim { what, wanted: format!("at most {}", plain(limit)), measured: plain(value), met: value <= limit }
}

/// A number with as many places as it needs to be read.
fn plain(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// No exits in steady state, but for timer ticks.
fn steady(rows: &[Row], mode: Mode, cpus: u32) -> Option<Aim> {
    let steady = rows.iter().filter(|row| row.workload.kind == Kind::Steady);
    let costs: Vec<_> = steady.filter_map(|row| Some((row.workload.name, row.cost(mode)?))).collect();
    if costs.is_empty() {
        return None;
    }
    let exits = costs.iter().filter(|(_, cost)| cost.rate > TICKS * f64::from(cpus));
    let exits: Vec<String> = exits.map(|(name, cost)| format!("{name} {}", plain(cost.switches))).collect();
    Some(Aim {
        what: format!("{mode}: exits in processor, memory and system-call work"),
        wanted: "none but timer ticks".into(),
        measured: if exits.is_empty() { "none but timer ticks".into() } else { exits.join(", ") },
        met: exits.is_empty(),
    })
}

/// Each of the child's ratios at or below that of KVM.
fn against_kvm(rows: &[Row]) -> Option<Aim> {
    let compared = |row: &Row| Some((row.workload.name, row.judged(Mode::Child)?, row.workload.kvm?.ratio));
    let compared: Vec<_> = rows.iter().filter_map(compared).collect();
    if compared.is_empty() {
        return None;
    }
    let above = compared.iter().filter(|(_, own, kvm)| own > kvm);
    let above: Vec<String> =
        above.map(|(name, own, kvm)| format!("{name} {} > {}", plain(*own), plain(*kvm))).collect();
    Some(Aim {
        what: "child: time ratios against nested KVM's".into(),
        wanted: "each at or below".into(),
        measured: if above.is_empty() { format!("all {}", compared.len()) } else { above.join(", ") },
        met: above.is_empty(),
    })
}

/// What the root pays beyond nested paging is what the hypervisor executes for it.
fn share_of_root(rows: &[Row]) -> Option<Aim> {
    let steady = rows.iter().filter(|row| row.workload.kind == Kind::Steady);
    let share = |row: &Row| {
        let cost = row.cost(Mode::Root)?;
        Some((row.workload.name, 100.0 * cost.hypervisor / (cost.hypervisor + cost.root)))
    };
    let (name, worst) = steady.filter_map(share).max_by(|one, other| one.1.total_cmp(&other.1))?;
    Some(Aim {
        what: "root: what it pays beyond nested paging, as the hypervisor's share of the instructions".into(),
        wanted: "at most 5 % in processor, memory and system-call work".into(),
        measured: format!("{worst:.2} % ({name})"),
        met: worst <= 5.0,
    })
}

#[cfg(test)]
mod tests {
    use super::{at_most, plain};

    #[test]
    fn limit_itself_meets_the_aim() {
        assert!(at_most("x".into(), 2.0, 2.0).met);
        assert!(!at_most("x".into(), 2.0, 2.1).met);
        assert_eq!((plain(327.4), plain(2.0), plain(1.3)), ("327".into(), "2".into(), "1.30".into()));
    }
}
