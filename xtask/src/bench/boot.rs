//! One boot of the benchmark program, in one of the ways it can run, to its end.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

use crate::console::{Console, Heard};
use crate::cpio::Archive;
use crate::initramfs::Image;
use crate::kernel::Source;
use crate::machine::{CPU, QEMU};
use crate::options::{ChildOptions, RootOptions};
use crate::{bundle, cargo, progress, run, scenario};

/// How long a machine may be silent: the longest is the start of a child under the plugin.
const STALL: Duration = Duration::from_secs(240);
/// The same after a fault, or after the benchmark, when nothing but the end is to come.
const STALL_AT_END: Duration = Duration::from_secs(10);
/// Memory of the machine.
const MEMORY: &str = "3G";
/// Memory of the child, in MiB.
const CHILD_MEMORY: u32 = 1024;
/// The command line of the measured kernel. It is quiet because a serial port is dear for a child.
const WORDS: &str = "console=ttyS0 panic=-1 quiet";
/// What the root does to measure a child.
const SCRIPT: &str = include_str!("child.sh");

/// How the measured kernel runs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, ValueEnum)]
pub(super) enum Mode {
    /// On the machine.
    Bare,
    /// As the hypervisor's root partition.
    Root,
    /// As a child of such a root.
    Child,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bare => "bare",
            Self::Root => "root",
            Self::Child => "child",
        })
    }
}

/// What the benchmark program said in one boot.
pub(super) struct Said {
    /// From the start of the machine, or of the child, to its first process; by the host's clock.
    pub(super) boot: Duration,
    /// The same by the measured kernel's clock, which starts with the kernel.
    pub(super) uptime: Duration,
    /// One for each operation.
    pub(super) samples: Vec<Sample>,
}

/// One operation in one boot; times in nanoseconds for one operation.
pub(super) struct Sample {
    pub(super) region: u64,
    pub(super) name: String,
    /// Of one batch.
    pub(super) iterations: f64,
    pub(super) median: f64,
    pub(super) min: f64,
}

/// What is booted.
pub(super) struct Parts {
    folder: PathBuf,
    cpus: u32,
    kernel: PathBuf,
    hypervisor: PathBuf,
    /// The benchmark program's file system.
    initramfs: PathBuf,
    /// The boot bundle in which it is the root's.
    root: PathBuf,
    /// The boot bundle whose root starts it as a child.
    parent: Option<PathBuf>,
    cmdline: String,
}

impl Parts {
    /// Builds and packs everything.
    ///
    /// # Errors
    /// Something cannot be built or fetched.
    pub(super) fn gather(folder: &Path, cpus: u32, only: &[String], child: bool) -> Result<Self> {
        let program = cargo::bench()?;
        let initramfs = pack(&program)?;
        let mut cmdline = WORDS.to_string();
        if !only.is_empty() {
            cmdline.push_str(&format!(" bench.only={}", only.join(",")));
        }
        let options = ChildOptions::default();
        let parts = run::Parts::gather(&RootOptions::default(), true, child.then_some(&options))?;
        let settings = format!("CPUS={cpus}\nMEMORY={CHILD_MEMORY}\nCMDLINE='{cmdline}'\n");
        let kernel = Source::find()?.bzimage()?;
        let image = Image { suffix: String::new(), kernel: kernel.clone(), initramfs: initramfs.clone() };
        let files = parts.pack(folder, "bulkhead.scenario=bench", |contents| {
            contents.images = vec![image];
            contents.programs.push(("bench", program));
            contents.texts.push(("etc/bulkhead/bench.conf".into(), settings));
            contents.texts.push(("etc/bulkhead/scenarios/bench.sh".into(), SCRIPT.into()));
        })?;
        let own = (folder.join("bench.initramfs"), folder.join("bench.bundle"));
        fs::write(&own.1, bundle::pack(&fs::read(&kernel)?, &initramfs, &cmdline))?;
        fs::write(&own.0, initramfs)?;
        Ok(Self {
            folder: folder.to_path_buf(),
            cpus,
            kernel,
            hypervisor: files.hypervisor.context("the hypervisor was not built")?,
            initramfs: own.0,
            root: own.1,
            parent: child.then_some(files.bundle),
            cmdline,
        })
    }

    /// The hypervisor's ELF file.
    pub(super) fn hypervisor(&self) -> &Path {
        &self.hypervisor
    }

    /// The folder for one boot's files.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Boots, and listens until the machine goes off. `more` goes to QEMU's command line.
    ///
    /// # Errors
    /// The machine hangs, or the program did not come to its end.
    pub(super) fn boot(&self, mode: Mode, name: &str, more: &[String]) -> Result<Said> {
        let folder = self.folder(name)?;
        let mut command = self.command(mode)?;
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(File::create(folder.join("qemu.log"))?);
        let log = folder.join("console.log");
        listen(command, &log).with_context(|| format!("the console is in {}", log.display()))
    }

    fn command(&self, mode: Mode) -> Result<Command> {
        let mut command = Command::new(QEMU);
        command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-m", MEMORY]);
        command.args(["-smp", &self.cpus.to_string(), "-nodefaults", "-no-reboot", "-display", "none"]);
        command.args(["-serial", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        let (kernel, initrd, words) = match mode {
            Mode::Bare => (&self.kernel, &self.initramfs, self.cmdline.as_str()),
            Mode::Root => (&self.hypervisor, &self.root, "panic=exit"),
            Mode::Child => {
                (&self.hypervisor, self.parent.as_ref().context("no child was packed")?, "panic=exit")
            }
        };
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", words]);
        Ok(command)
    }
}

/// The file system in which the benchmark program is the first process, and all there is.
fn pack(program: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    ["dev", "proc"].iter().for_each(|path| archive.folder(path));
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.host_file("init", program)?;
    Ok(archive.finish())
}

/// A QEMU that does not outlive us.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // After a normal end both do nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn listen(mut command: Command, log: &Path) -> Result<Said> {
    let begin = Instant::now();
    let mut machine = Running(command.spawn().with_context(|| format!("cannot start {QEMU}"))?);
    let output = machine.0.stdout.take().context("QEMU has no standard output")?;
    let console = Console::new(output, log)?;
    let (mut started, mut ready, mut done) = (begin, None, false);
    let (mut samples, mut fault, mut last) = (Vec::new(), None, String::new());
    loop {
        let over = done || fault.is_some();
        let stall = if over { STALL_AT_END } else { STALL };
        let line = match console.next(stall) {
            Heard::Line(line) => line,
            Heard::End => break,
            Heard::Silence if over => {
                progress::say("  the machine did not go off by itself");
                break;
            }
            Heard::Silence => {
                bail!("the machine said nothing for {} s; its last words: {last}", stall.as_secs())
            }
        };
        let failed = scenario::failure(scenario::parse(&line).as_slice());
        if let Some(what) = failed.or_else(|| scenario::is_fault(&line).then(|| line.clone())) {
            fault.get_or_insert(what);
        }
        if let Some((_, words)) = line.split_once("BENCH ").filter(|_| fault.is_none()) {
            match words.trim().split_once(' ').unwrap_or((words.trim(), "")) {
                ("start", _) => started = Instant::now(),
                ("ready", facts) => ready = Some((started.elapsed(), uptime(facts)?)),
                ("done", _) => done = true,
                ("failed:", reason) => bail!("the benchmark failed: {reason}"),
                _ => samples.push(Sample::parse(words)?),
            }
        }
        if !line.trim().is_empty() {
            last = line;
        }
    }
    if let Some(fault) = fault {
        bail!("{fault}");
    }
    ensure!(done, "the benchmark did not come to its end; the last words: {last}");
    let (boot, uptime) = ready.context("the benchmark did not say when it was ready")?;
    Ok(Said { boot, uptime, samples })
}

fn uptime(facts: &str) -> Result<Duration> {
    let facts: Value = serde_json::from_str(facts)?;
    Ok(Duration::from_nanos(facts["uptime_ns"].as_u64().context("no uptime")?))
}

impl Sample {
    fn parse(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text).with_context(|| format!("not a result: {text}"))?;
        let number = |name: &str| value[name].as_f64().with_context(|| format!("{text} has no {name}"));
        Ok(Self {
            region: value["region"].as_u64().context("no region")?,
            name: value["name"].as_str().context("no name")?.to_string(),
            iterations: number("iterations")?,
            median: number("ns_per_op")?,
            min: number("min")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Sample;

    #[test]
    fn results_are_read() {
        let text = r#"{"region":7,"name":"cpuid","iterations":70,"ns_per_op":51.5,"min":40.0,"max":56.4}"#;
        let sample = Sample::parse(text).unwrap();
        assert_eq!((sample.region, sample.name.as_str()), (7, "cpuid"));
        assert!((sample.median - 51.5).abs() < 1e-9 && (sample.min - 40.0).abs() < 1e-9);
        assert!(Sample::parse("{}").is_err());
    }
}
