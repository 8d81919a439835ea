//! The command line of `cargo xtask`.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchOptions;
use crate::machine;

/// Builds, runs and tests Bulkhead.
///
/// Everything that is needed is fetched and built on first use, and kept in $XDG_CACHE_HOME/bulkhead.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Do the set-up alone: Debian packages, Rust target, root kernel, child's kernel
    Setup(SetupOptions),
    /// Boot the machine: hypervisor, root and a child named `demo`
    ///
    /// On a terminal this ends in a shell of the root (`exit` or Ctrl-A x leaves). Without a terminal it runs the
    /// same demonstration, prints what the root and the child report, powers off and exits 0.
    Run(Box<RunOptions>),
    /// Run the tests: unit tests on the host, then real boots in the emulated machine
    ///
    /// The last line is `N passed, N failed`. Each boot leaves its console and its files in target/xtask/NAME.
    Test(TestOptions),
    /// Check the sources: formatting, lints, dependency rules, size budgets, unsafe rules, layouts against Linux
    Check,
    /// Measure the same kernel bare, as root and as a child, side by side; the report goes to docs/performance
    Bench(BenchOptions),
    /// Make a GRUB image which boots the same under BIOS and UEFI
    Iso(Box<IsoOptions>),
}

#[derive(Args)]
pub(crate) struct SetupOptions {
    /// Look for newer packages, even where older ones are in the cache
    #[arg(long)]
    pub(crate) update: bool,
}

#[derive(Args)]
pub(crate) struct RunOptions {
    #[command(flatten)]
    pub(crate) machine: MachineOptions,
    #[command(flatten)]
    pub(crate) root: RootOptions,
    #[command(flatten)]
    pub(crate) child: ChildOptions,
    /// Give the child a synthetic disk: a file, or a size such as 64M for a scratch disk. It is a virtio disk of the
    /// machine, behind those of --disk. Repeatable
    #[arg(long = "child-disk", value_name = "SOURCE", help_heading = "Child", conflicts_with_all = ["bare", "no_child"])]
    pub(crate) child_disks: Vec<Storage>,
    /// Boot the root kernel on the bare machine, without hypervisor and child
    #[arg(long)]
    pub(crate) bare: bool,
    /// Boot hypervisor and root alone
    #[arg(long)]
    pub(crate) no_child: bool,
    /// Behave as without a terminal, even on one
    #[arg(long)]
    pub(crate) batch: bool,
    /// Without a terminal: stop the machine after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) timeout: u64,
}

#[derive(Args)]
pub(crate) struct TestOptions {
    /// The tests to run (default: all)
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// List the tests, with what each proves
    #[arg(long)]
    pub(crate) list: bool,
    /// Run the boots without the hypervisor, where they say something without it
    #[arg(long)]
    pub(crate) bare: bool,
    /// Emulate each processor in a thread of its own: faster where many work at once, but QEMU then spoils the state of
    /// its first processor now and then (CAVEATS.md)
    #[arg(long)]
    pub(crate) threads: bool,
}

#[derive(Args)]
pub(crate) struct IsoOptions {
    #[command(flatten)]
    pub(crate) root: RootOptions,
    #[command(flatten)]
    pub(crate) child: ChildOptions,
    /// Where the image goes (default: target/xtask/iso/bulkhead.iso)
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

impl RunOptions {
    /// The child's options, if there is to be one.
    pub(crate) fn child(&self) -> Option<&ChildOptions> {
        (!self.bare && !self.no_child).then_some(&self.child)
    }
}

/// The emulated machine.
#[derive(Args, Clone)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineOptions {
    /// Processors of the machine
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) cpus: u32,
    /// Memory of the machine, such as 3G or 2048M
    #[arg(long, default_value = "3G", value_parser = bytes)]
    pub(crate) memory: u64,
    /// Give the machine a disk: KIND is virtio, nvme or ahci; SOURCE a file, or a size such as 64M for a scratch
    /// disk. Repeatable
    #[arg(long = "disk", value_name = "KIND:SOURCE")]
    pub(crate) disks: Vec<Disk>,
    /// Give the machine a network device: KIND is virtio or e1000e; NETDEV the value of QEMU's -netdev without its
    /// id (default: user). Repeatable
    #[arg(long = "nic", value_name = "KIND[:NETDEV]")]
    pub(crate) nics: Vec<Nic>,
    /// Processor model and features, as for QEMU's -cpu
    #[arg(long, default_value = machine::CPU, hide_default_value = true)]
    pub(crate) cpu: String,
    /// Emulate each processor in a thread of its own: faster where many work at once, but QEMU then spoils the state of
    /// its first processor now and then (CAVEATS.md)
    #[arg(long)]
    pub(crate) threads: bool,
}

/// The root partition, and the hypervisor below it.
#[derive(Args, Clone)]
#[command(next_help_heading = "Hypervisor and root")]
pub(crate) struct RootOptions {
    /// Another root kernel (a bzImage with CONFIG_MSHV_ROOT=y)
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// More words for the root's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(crate) cmdline: String,
    /// The hypervisor's command line
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub(crate) hypervisor_cmdline: String,
    /// Lay a folder over the root's file system. Repeatable
    #[arg(long = "overlay", value_name = "FOLDER")]
    pub(crate) overlays: Vec<PathBuf>,
    /// Put a file into the root's file system. Repeatable
    #[arg(long = "file", value_name = "FILE:PATH")]
    pub(crate) files: Vec<ExtraFile>,
    /// Run this scenario of images/root/scenarios instead of the demonstration
    #[arg(long, value_name = "NAME", default_value = "demo")]
    pub(crate) scenario: String,
}

/// The child that is started first.
#[derive(Args, Clone)]
#[command(next_help_heading = "Child")]
pub(crate) struct ChildOptions {
    /// The child's kernel: a bzImage, or the series of a Debian cloud kernel (7.3, 6.12, 6.1)
    #[arg(long, value_name = "FILE|SERIES", default_value = "7")]
    pub(crate) child_kernel: String,
    /// The child's initramfs (default: a small one that reports about itself)
    #[arg(long, value_name = "FILE")]
    pub(crate) child_initramfs: Option<PathBuf>,
    /// The child's whole command line
    #[arg(long, value_name = "WORDS", default_value = "console=ttyS0 panic=-1")]
    pub(crate) child_cmdline: String,
    /// The child's virtual processors
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) child_vps: u32,
    /// The child's memory
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = bytes)]
    pub(crate) child_memory: u64,
}

impl Default for RootOptions {
    fn default() -> Self {
        defaults()
    }
}

impl Default for ChildOptions {
    fn default() -> Self {
        defaults()
    }
}

/// A group of options as an empty command line gives it.
fn defaults<T: Args>() -> T {
    let matches = T::augment_args(clap::Command::new("defaults")).get_matches_from(["defaults"]);
    T::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// A disk of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Disk {
    pub(crate) kind: DiskKind,
    pub(crate) storage: Storage,
}

/// The controller a disk hangs on.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum DiskKind {
    Virtio,
    Nvme,
    Ahci,
}

/// What is behind a disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Storage {
    /// An image that exists.
    File(PathBuf),
    /// A new image of this many bytes.
    Scratch(u64),
}

/// A network device of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Nic {
    pub(crate) kind: NicKind,
    pub(crate) backend: Option<String>,
}

/// The model of a network device.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum NicKind {
    Virtio,
    E1000e,
}

impl NicKind {
    /// QEMU's name of the device.
    pub(crate) fn device(self) -> &'static str {
        match self {
            Self::Virtio => "virtio-net-pci",
            Self::E1000e => "e1000e",
        }
    }
}

/// A file of the host with its place in the root's file system.
#[derive(Clone, Debug)]
pub(crate) struct ExtraFile {
    pub(crate) host: PathBuf,
    pub(crate) path: String,
}

impl FromStr for Disk {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, source) = text.split_once(':').context("a disk is KIND:SOURCE, such as nvme:64M")?;
        let kind = DiskKind::from_str(kind, true)
            .map_err(|_| anyhow::anyhow!("`{kind}` is no kind of disk: use virtio, nvme or ahci"))?;
        Ok(Self { kind, storage: source.parse()? })
    }
}

impl FromStr for Storage {
    type Err = anyhow::Error;

    fn from_str(source: &str) -> Result<Self> {
        let path = PathBuf::from(source);
        if path.is_file() {
            return Ok(Self::File(path));
        }
        let size = bytes(source).with_context(|| format!("`{source}` is neither a file nor a size"))?;
        Ok(Self::Scratch(size))
    }
}

impl FromStr for Nic {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, backend) = match text.split_once(':') {
            Some((kind, backend)) => (kind, Some(backend.to_string())),
            None => (text, None),
        };
        let kind = NicKind::from_str(kind, true)
            .map_err(|_| anyhow::anyhow!("`{kind}` is no kind of network device: use virtio or e1000e"))?;
        Ok(Self { kind, backend })
    }
}

impl FromStr for ExtraFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (host, path) =
            text.rsplit_once(':').context("an extra file is FILE:PATH, such as tool:/bin/tool")?;
        ensure!(PathBuf::from(host).is_file(), "there is no file `{host}`");
        let path = path.trim_start_matches('/');
        ensure!(
            !path.is_empty() && !path.ends_with('/'),
            "`{text}` names no place in the root's file system"
        );
        Ok(Self { host: host.into(), path: path.into() })
    }
}

/// A size: a number with K, M or G; MiB without a letter, as QEMU has it.
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KIB" => 10,
        "" | "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        _ => bail!("`{text}` is no size, such as 512M or 3G"),
    };
    let number: u64 = digits.parse().with_context(|| format!("`{text}` is no size, such as 512M or 3G"))?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .with_context(|| format!("`{text}` is out of range"))
}

/// What is wrong with the command line, in one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    // The first paragraph says what is wrong; missing arguments are listed in lines of their own.
    let what: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    format!("{}; `cargo xtask --help` tells what there is", what.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{Cli, Disk, DiskKind, Nic, NicKind, Storage, bytes};

    #[test]
    fn command_line_definition_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn complaints_are_one_line_that_names_the_thing() {
        use clap::Parser;
        for (arguments, thing) in [
            (&["xtask", "run", "--frob"][..], "--frob"),
            (&["xtask", "frob"], "frob"),
            (&["xtask", "run", "--memory", "lots"], "lots"),
            (&["xtask", "run", "--disk", "floppy:1M"], "floppy"),
        ] {
            let error = Cli::try_parse_from(arguments).err().unwrap();
            let line = super::one_line(&error);
            assert!(line.contains(thing) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn groups_of_options_have_defaults() {
        assert_eq!(super::ChildOptions::default().child_vps, 4);
        assert!(super::RootOptions::default().kernel.is_none());
    }

    #[test]
    fn sizes_have_units_and_limits() {
        assert_eq!(bytes("3G").unwrap(), 3 << 30);
        assert_eq!(bytes("512").unwrap(), 512 << 20);
        for bad in ["", "G", "0M", "12X", "99999999999999G", "-1M"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn disks_name_their_controller() {
        let disk: Disk = "nvme:64M".parse().unwrap();
        assert_eq!(disk, Disk { kind: DiskKind::Nvme, storage: Storage::Scratch(64 << 20) });
        assert!("floppy:1M".parse::<Disk>().is_err());
        assert_eq!("8M".parse::<Storage>().unwrap(), Storage::Scratch(8 << 20));
        assert!("nvme:/no/such/file".parse::<Disk>().is_err());
    }

    #[test]
    fn nics_may_have_a_backend_of_their_own() {
        let nic: Nic = "e1000e:user,restrict=on".parse().unwrap();
        assert_eq!(nic, Nic { kind: NicKind::E1000e, backend: Some("user,restrict=on".into()) });
    }
}
