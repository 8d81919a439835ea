//! `cargo xtask test`: the tests on the host and the boots in the emulated machine, as one table.

mod boots;
mod calls;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::Source;
use crate::machine::{self, Spec};
use crate::options::{ChildOptions, Disk, DiskKind, Nic, NicKind, RootOptions, Storage, TestOptions};
use crate::run::{self, Parts};
use crate::{cargo, headers, iso, pattern, progress, setup, suite, tools};

/// One entry of the table.
struct Test {
    /// The name on the command line.
    name: &'static str,
    /// What it proves, in one sentence.
    proves: &'static str,
    kind: Kind,
}

/// How a test is run.
enum Kind {
    /// By what is called on the host, which may boot a machine itself.
    Host(fn() -> Result<()>),
    /// By a boot of the emulated machine.
    Boot(Boot),
}

/// A boot of the emulated machine that runs one scenario in the root.
struct Boot {
    /// The script of `images/root/scenarios`, without its `.sh`.
    scenario: &'static str,
    /// What the scenario must say `ok` to.
    expected: &'static [&'static str],
    cpus: u32,
    memory_mib: u64,
    disks: &'static [DiskKind],
    nics: &'static [NicKind],
    /// More words for the root's command line.
    words: &'static str,
    /// Assignments of the shell for the scenario, beside those that all get.
    settings: &'static str,
    /// Whether the scenario resets the machine on its way.
    reboots: bool,
    /// Boot a disc by this firmware, rather than the kernel directly.
    disc: Option<iso::Firmware>,
    /// More children's kernels that the root gets, by their series.
    children: &'static [&'static str],
    /// What the root gets to run, or to boot as a child; it says nothing on the bare machine either.
    program: Option<Program>,
    /// Whether the root needs the stack; what does says nothing on the bare machine.
    needs_stack: bool,
    /// What is typed on the console when it shows a line with the first text, step by step.
    dialogue: &'static [(&'static str, &'static str)],
    /// Seconds after which the machine is stopped: several times what an idle host needs.
    limit: u64,
}

impl Boot {
    /// What most boots are.
    const USUAL: Self = Self {
        scenario: "machine",
        expected: &[],
        cpus: 4,
        memory_mib: 2048,
        disks: &[],
        nics: &[],
        words: "",
        settings: "",
        reboots: false,
        disc: None,
        children: &[],
        program: None,
        dialogue: &[],
        needs_stack: false,
        limit: 300,
    };
}

/// A program that tests the interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Program {
    /// The tests of the crate `mshv-ioctls`, for the root.
    MshvIoctls,
    /// Our own test guest, for children.
    Guest,
    /// Messages and events to and from a child, for the root.
    Signals,
    /// The benchmark program, which children are worked hard with.
    Bench,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::MshvIoctls => "mshv-ioctls",
            Self::Guest => "guest",
            Self::Signals => "signals",
            Self::Bench => "bench",
        }
    }

    fn build(self) -> Result<PathBuf> {
        match self {
            Self::MshvIoctls => suite::mshv_ioctls(),
            Self::Guest => cargo::guest(),
            Self::Signals => cargo::signals(),
            Self::Bench => cargo::bench(),
        }
    }
}

/// The tests on the host; those of [`boots::TABLE`] follow them.
const HOST: [Test; 5] = [
    Test { name: "host", proves: "the unit tests of all crates pass on the host", kind: Kind::Host(host) },
    Test {
        name: "headers",
        proves: "our structures have the layout of Linux's headers",
        kind: Kind::Host(header_check),
    },
    Test {
        name: "bad-input",
        proves: "`cargo xtask` refuses bad input in one line that names the thing and what to do",
        kind: Kind::Host(calls::bad_input),
    },
    Test {
        name: "bad-machines",
        proves: "a processor without SVM, nested paging, x2APIC or XSAVE, and a child that fails, end a run in one line",
        kind: Kind::Host(calls::bad_machines),
    },
    Test {
        name: "options",
        proves: "the options of `cargo xtask run` have their effect in machine, root and child",
        kind: Kind::Host(calls::options),
    },
];

/// `cargo xtask test`.
///
/// # Errors
/// A test fails, or the set-up does.
pub(crate) fn command(options: &TestOptions) -> Result<()> {
    let table: Vec<Test> = HOST.into_iter().chain(boots::TABLE).collect();
    if options.list {
        for test in &table {
            println!("{:<22} {}", test.name, test.proves);
        }
        return Ok(());
    }
    let chosen = choose(&table, &options.names, options.bare)?;
    setup::host()?;
    let mut shared = Shared { bare: options.bare, root: None, child: None };
    let (mut passed, mut failed) = (0, Vec::new());
    for test in chosen {
        progress::say(format_args!("test {}: {} …", test.name, test.proves));
        let begin = Instant::now();
        let outcome = match &test.kind {
            Kind::Host(work) => work(),
            Kind::Boot(boot) => {
                shared.parts(boot).and_then(|parts| run_boot(test.name, boot, parts, options.threads))
            }
        };
        let took = begin.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("{}: passed ({took:.1} s)", test.name);
            }
            Err(error) => {
                failed.push(test.name);
                println!("{}: FAILED ({took:.1} s): {error:#}", test.name);
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    ensure!(failed.is_empty(), "failed: {}", failed.join(" "));
    Ok(())
}

/// The tests of these names, or all that apply.
fn choose<'a>(table: &'a [Test], names: &[String], bare: bool) -> Result<Vec<&'a Test>> {
    if let Some(name) = names.iter().find(|name| table.iter().all(|test| test.name != **name)) {
        bail!("there is no test `{name}`; `cargo xtask test --list` lists them");
    }
    let applies = |test: &&Test| match &test.kind {
        Kind::Host(_) => !bare,
        Kind::Boot(boot) => !bare || !(boot.needs_stack || boot.program.is_some()),
    };
    let named = |test: &&Test| names.is_empty() || names.iter().any(|name| name == test.name);
    Ok(table.iter().filter(named).filter(|test| !names.is_empty() || applies(test)).collect())
}

/// What boots share, built when the first of them needs it.
struct Shared {
    bare: bool,
    root: Option<Parts>,
    child: Option<Parts>,
}

impl Shared {
    /// The parts for this boot.
    fn parts(&mut self, boot: &Boot) -> Result<&Parts> {
        let place = if boot.needs_stack { &mut self.child } else { &mut self.root };
        match place {
            Some(parts) => Ok(parts),
            None => {
                let child = ChildOptions::default();
                let child = boot.needs_stack.then_some(&child);
                Ok(place.insert(Parts::gather(&RootOptions::default(), !self.bare, child)?))
            }
        }
    }
}

fn run_boot(name: &str, boot: &Boot, parts: &Parts, threads: bool) -> Result<()> {
    let folder = run::folder(name)?;
    let template = pattern::write(folder.join("pattern.img"))?;
    let sum = pattern::sha256(&template)?;
    let settings = format!("TEST_CPUS={}\nTEST_DISK_SHA256={sum}\n{}\n", boot.cpus, boot.settings);
    let disks = boot.disks.iter().enumerate().map(|(index, &kind)| disk(kind, &template, &folder, index));
    let words = format!("bulkhead.scenario={} {}", boot.scenario, boot.words);
    let images = boot.children.iter().map(|series| parts.stock_image(series)).collect::<Result<Vec<_>>>()?;
    let tests =
        boot.program.map(|program| Ok::<_, anyhow::Error>((program.name(), program.build()?))).transpose()?;
    let files = parts.pack(&folder, &words, |contents| {
        contents.texts.push(("etc/bulkhead/test.conf".into(), settings));
        contents.images.extend(images);
        contents.tests.extend(tests);
    })?;
    let spec = Spec {
        cpus: boot.cpus,
        memory_mib: boot.memory_mib,
        cpu: machine::CPU.into(),
        threads,
        boot: match boot.disc {
            None => files.direct(),
            Some(firmware) => iso::boot(&files, &folder.join("boot.iso"), firmware)?,
        },
        disks: disks.collect::<Result<_>>()?,
        nics: boot.nics.iter().map(|&kind| Nic { kind, backend: None }).collect(),
        reboots: boot.reboots,
    };
    let mut dialogue = boot.dialogue.iter().peekable();
    let outcome = run::batch(&spec, &folder, Duration::from_secs(boot.limit), |line| {
        dialogue.next_if(|(shown, _)| line.contains(shown)).map(|(_, typed)| *typed)
    });
    let verdict =
        outcome.and_then(|outcome| outcome.verdict(boot.expected)).and_then(|()| match dialogue.next() {
            None => Ok(()),
            Some((shown, _)) => bail!("the console never showed `{shown}`"),
        });
    let console = folder.join("console.log");
    if verdict.is_err() {
        show_end(&String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()));
    }
    verdict.with_context(|| format!("the console is in {}", console.display()))
}

/// Prints the last lines of a console, for who has only what a test run printed.
fn show_end(text: &str) {
    const LINES: usize = 40;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("waiting for:")).collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        println!("  | {}", line.trim_end());
    }
}

/// A copy of the template behind a controller.
fn disk(kind: DiskKind, template: &Path, folder: &Path, index: usize) -> Result<Disk> {
    let path = folder.join(format!("disk{index}.img"));
    std::fs::copy(template, &path)?;
    Ok(Disk { kind, storage: Storage::File(path) })
}

fn host() -> Result<()> {
    let mut command = cargo::command();
    let log = run::folder("host")?.join("cargo-test.log");
    tools::logged(command.args(["test", "--quiet", "--workspace"]), &log)
}

fn header_check() -> Result<()> {
    headers::check(&Source::find()?.headers()?)
}

#[cfg(test)]
mod tests {
    use super::{HOST, boots, choose};

    fn table() -> Vec<super::Test> {
        HOST.into_iter().chain(boots::TABLE).collect()
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = table().iter().map(|test| test.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn unknown_name_is_refused() {
        assert!(choose(&table(), &["no-such-test".into()], false).is_err());
        assert_eq!(choose(&table(), &["host".into()], false).unwrap().len(), 1);
    }
}
