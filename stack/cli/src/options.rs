//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use control::{DiskConfig, RunDir, VmName};

/// Virtual machines on the Bulkhead hypervisor.
#[derive(Parser)]
#[command(name = "bulkhead", version, arg_required_else_help = false)]
pub(crate) struct Options {
    /// Directory in which bulkheadd listens
    #[arg(long, env = "BULKHEAD_RUN_DIR", default_value = RunDir::DEFAULT, global = true)]
    pub(crate) run_dir: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Define a virtual machine
    Create(Create),
    /// Start a virtual machine
    Start {
        /// Its name
        name: VmName,
    },
    /// Press the power button, and switch off after a while if that has no effect
    Stop {
        /// Its name
        name: VmName,
        /// Seconds to wait for the guest
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout: u64,
        /// Switch off at once
        #[arg(long, conflicts_with = "timeout")]
        force: bool,
    },
    /// End a virtual machine, if it runs, and forget it
    Destroy {
        /// Its name
        name: VmName,
    },
    /// Show all virtual machines
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one virtual machine
    Show {
        /// Its name
        name: VmName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Wait until a virtual machine does not run, and fail if it has failed
    Wait {
        /// Its name
        name: VmName,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the hypervisor's log
    Log,
    /// Attach to the serial console; Ctrl-] detaches
    Console(Console),
}

/// `PATH` or `PATH,ro`.
fn disk(text: &str) -> Result<DiskConfig, String> {
    let (path, read_only) = match text.strip_suffix(",ro") {
        Some(path) => (path, true),
        None => (text, false),
    };
    if path.is_empty() {
        return Err("it names no file".into());
    }
    Ok(DiskConfig { path: path.into(), read_only })
}

#[derive(Args)]
pub(crate) struct Create {
    /// Name for the virtual machine
    pub(crate) name: VmName,
    /// A bzImage, or an ELF vmlinux with a PVH entry
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: PathBuf,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    pub(crate) initramfs: Option<PathBuf>,
    /// Kernel command line
    #[arg(long, default_value = "console=ttyS0", value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) cmdline: String,
    /// Number of virtual processors
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) vps: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 512, value_name = "MIB")]
    pub(crate) memory: u64,
    /// A disk: a file or block device of the root as it is; with `,ro` the guest may only read it. Repeat for more
    #[arg(long = "disk", value_name = "PATH[,ro]", value_parser = disk)]
    pub(crate) disks: Vec<DiskConfig>,
    /// Hide the hypervisor from the guest
    #[arg(long)]
    pub(crate) no_enlightenments: bool,
    /// Start it too
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Args)]
pub(crate) struct Console {
    /// Whose console
    pub(crate) name: VmName,
    /// Only print, until the machine ends
    #[arg(long)]
    pub(crate) follow: bool,
    /// Only print what was said lately (also after the end)
    #[arg(long, conflicts_with = "follow")]
    pub(crate) dump: bool,
}

/// What is wrong with the command line, in one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    // The first paragraph says what is wrong; missing arguments are listed in lines of their own.
    let what: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let what = what.join(" ");
    format!("{}; 'bulkhead help' tells what there is", what.strip_prefix("error: ").unwrap_or(&what))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn complaint(arguments: &[&str]) -> String {
        let error = Options::try_parse_from(arguments).err().expect("the command line is wrong");
        one_line(&error)
    }

    #[test]
    fn command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn complaints_are_one_line_that_names_the_thing() {
        for (arguments, thing) in [
            (&["bulkhead", "list", "--frob"][..], "--frob"),
            (&["bulkhead", "frob"], "frob"),
            (&["bulkhead", "create", "a"], "--kernel"),
            (&["bulkhead", "create", "a", "--kernel", "k", "--vps", "many"], "many"),
            (&["bulkhead", "start", "../x"], "../x"),
            (&["bulkhead"], "subcommand"),
        ] {
            let line = complaint(arguments);
            assert!(line.contains(thing) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_disk_is_a_path_that_may_end_with_how_it_may_be_used() {
        let disk = |path: &str, read_only| DiskConfig { path: path.into(), read_only };
        assert_eq!(super::disk("a,b.img"), Ok(disk("a,b.img", false)));
        assert_eq!(super::disk("a.img,ro"), Ok(disk("a.img", true)));
        assert!(super::disk(",ro").is_err() && super::disk("").is_err());
    }

    #[test]
    fn command_line_of_the_kernel_may_start_with_a_dash() {
        let options =
            Options::try_parse_from(["bulkhead", "create", "a", "--kernel", "k", "--cmdline", "-x y"]);
        let Ok(Options { command: Command::Create(create), .. }) = options else { panic!("not understood") };
        assert_eq!(create.cmdline, "-x y");
    }
}
