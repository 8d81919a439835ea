//! The benchmark program: the first and only program of the machine it measures, so that nothing disturbs it.
//!
//! As first process it prints `BENCH ready`, then a line `BENCH {…}` of JSON for each workload, then `BENCH done`,
//! and switches the machine off. `bench.only=NAME,NAME` on the kernel's command line chooses workloads, and
//! `bench.batch=MS` how long one batch takes (default: 60).
//!
//! Elsewhere it is called with an argument: `mark begin|end REGION` marks a region for the counting plugin; `stress
//! SECONDS` works all processors hard; `exit` and `echo PROCESSOR` are what it starts itself.

mod measure;
mod raw;
mod stress;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::stdio::{stdin, stdout};
use rustix::system::{RebootCommand, reboot};

use measure::Meter;

/// The region that ends when the first process starts.
const BOOT: u32 = 0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["exit"] => Ok(()),
        ["echo", processor] => echo(processor),
        ["mark", edge, region] => mark(edge, region),
        ["stress", seconds] => seconds.parse().context("the seconds are a number").and_then(stress::run),
        _ if std::process::id() == 1 => init(),
        _ => Err(anyhow::anyhow!(
            "this program is the first process of a machine, or is told `mark EDGE REGION`"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("BENCH failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first process. The machine goes off whatever happens, so that whoever waits for it learns of a failure.
fn init() -> Result<()> {
    raw::mark_end(BOOT);
    let outcome = measure_all();
    if let Err(error) = &outcome {
        println!("BENCH failed: {error:#}");
    }
    println!("BENCH done");
    // What was said leaves the serial port before the power does.
    std::thread::sleep(Duration::from_millis(100));
    reboot(RebootCommand::PowerOff).context("cannot switch off")?;
    outcome
}

fn measure_all() -> Result<()> {
    let uptime = measure::uptime();
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("cannot mount /proc")?;
    let words = std::fs::read_to_string("/proc/cmdline")?;
    let meter = Meter::new(parameter(&words, "bench.only"), parameter(&words, "bench.batch"))?;
    println!("BENCH ready {{\"uptime_ns\":{},\"processors\":{}}}", uptime.as_nanos(), work::processors());
    work::all(&meter)
}

/// The value of `name=value` on the command line; the last one counts.
fn parameter<'a>(words: &'a str, name: &str) -> Option<&'a str> {
    words.split_whitespace().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// Marks one edge of a region that spans more than this program.
fn mark(edge: &str, region: &str) -> Result<()> {
    let region = region.parse().context("the region is a number")?;
    match edge {
        "begin" => raw::mark_begin(region),
        "end" => raw::mark_end(region),
        _ => bail!("an edge is `begin` or `end`"),
    }
    Ok(())
}

/// The other end of the pipes: returns each byte, bound to one processor, until there are no more.
fn echo(processor: &str) -> Result<()> {
    work::bind(processor.parse()?)?;
    let mut byte = [0];
    while rustix::io::read(stdin(), &mut byte)? == 1 {
        rustix::io::write(stdout(), &byte)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn last_parameter_counts() {
        assert_eq!(parameter("a=1 b=2 a=3\n", "a"), Some("3"));
        assert_eq!(parameter("ab=1", "a"), None);
    }
}
