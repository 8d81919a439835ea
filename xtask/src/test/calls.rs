//! Calls of `cargo xtask` itself: what its options do, and that bad input is refused in one line.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::kernel::Source;
use crate::run;

/// A call that fails. A `%` in an argument is the folder that [`prepare`] fills.
struct Refusal {
    arguments: &'static [&'static str],
    /// What its one line must name: the thing, and what to do.
    names: &'static [&'static str],
}

const fn refusal(arguments: &'static [&'static str], names: &'static [&'static str]) -> Refusal {
    Refusal { arguments, names }
}

/// What is refused before anything is built.
const BAD_INPUT: [Refusal; 16] = [
    refusal(&["run", "--kernel", "%/none"], &["--kernel", "/none"]),
    refusal(&["run", "--kernel", "%/garbage"], &["/garbage", "bzImage"]),
    refusal(&["run", "--kernel", "%/short"], &["/short", "cut off"]),
    refusal(&["run", "--child-kernel", "%/garbage"], &["--child-kernel", "/garbage", "bzImage"]),
    refusal(&["run", "--child-kernel", "%/none"], &["--child-kernel", "/none", "bzImage"]),
    refusal(&["run", "--child-initramfs", "%/none"], &["--child-initramfs", "/none"]),
    refusal(&["run", "--memory", "512M"], &["512 MiB", "--memory"]),
    refusal(&["run", "--memory", "lots"], &["lots", "512M"]),
    refusal(&["run", "--cpus", "0"], &["--cpus", "1..=64"]),
    refusal(&["run", "--frob"], &["--frob", "--help"]),
    refusal(&["run", "--overlay", "%/none"], &["--overlay", "/none"]),
    refusal(&["run", "--file", "%/none:/etc/none"], &["--file", "/none"]),
    refusal(&["run", "--disk", "floppy:1M"], &["floppy", "virtio"]),
    refusal(&["run", "--child-disk", "%/none"], &["--child-disk", "/none", "neither a file nor a size"]),
    refusal(&["run", "--child-disk", "8M", "--no-child"], &["--child-disk", "--no-child"]),
    refusal(&["test", "no-such-test"], &["no-such-test", "--list"]),
];

/// What the hypervisor refuses when it starts, and a child that goes off without a word.
const BAD_MACHINES: [Refusal; 5] = [
    refusal(&["run", "--batch", "--no-child", "--cpu", "EPYC-v4,+x2apic,-svm"], &["SVM", "-cpu EPYC-v4"]),
    refusal(&["run", "--batch", "--no-child", "--cpu", "EPYC-v4,-x2apic"], &["x2APIC", "+x2apic"]),
    refusal(
        &["run", "--batch", "--no-child", "--cpu", "EPYC-v4,+x2apic,-npt"],
        &["nested paging", "-cpu EPYC-v4"],
    ),
    refusal(&["run", "--batch", "--no-child", "--cpu", "EPYC-v4,+x2apic,-xsave"], &["XSAVE", "-cpu EPYC-v4"]),
    refusal(
        &["run", "--batch", "--child-cmdline", "console=ttyS0 rdinit=/bin/poweroff -- -f"],
        &["demo-child", "stopped"],
    ),
];

/// A run with all options, each of which `options.sh` looks for.
const OPTIONS: [&str; 31] = [
    "run",
    "--batch",
    "--scenario",
    "options",
    "--cpus",
    "2",
    "--memory",
    "2G",
    "--disk",
    "nvme:32M",
    "--disk",
    "virtio:%/disk",
    "--child-disk",
    "24M",
    "--nic",
    "e1000e",
    "--overlay",
    "%/overlay",
    "--file",
    "%/garbage:/etc/garbage",
    "--kernel",
    "%/kernel",
    "--cmdline",
    "bulkhead.option=17",
    "--child-vps",
    "3",
    "--child-memory",
    "300M",
    "--child-cmdline",
    "console=ttyS0 panic=-1 bulkhead.option=18",
    "--hypervisor-cmdline=log=serial",
];

/// Bad input is refused before anything is built.
///
/// # Errors
/// A call succeeds, or says something else.
pub(super) fn bad_input() -> Result<()> {
    refuse(&BAD_INPUT)
}

/// A machine on which the hypervisor cannot run is refused, and one whose child fails has failed.
///
/// # Errors
/// A call succeeds, or says something else.
pub(super) fn bad_machines() -> Result<()> {
    refuse(&BAD_MACHINES)
}

/// All options have their effect.
///
/// # Errors
/// The run fails, or has not looked.
pub(super) fn options() -> Result<()> {
    let folder = prepare()?;
    let said = call(&folder, &OPTIONS)?;
    if !said.succeeds {
        super::show_end(&said.output);
    }
    ensure!(said.succeeds, "{}", said.complaint);
    for line in [
        "BULKHEAD-TEST option-cpus: ok",
        "BULKHEAD-TEST option-cmdline: ok",
        "BULKHEAD-TEST demo-destroy: ok",
        "  disk 0: /dev/vdb",
        // Of 300 MiB, some are the kernel's.
        ", 3 processors, 2",
        "child: command line: console=ttyS0 panic=-1 bulkhead.option=18",
        "Bulkhead on 2 processors",
    ] {
        ensure!(said.output.contains(line), "it did not say: {line}");
    }
    Ok(())
}

fn refuse(refusals: &[Refusal]) -> Result<()> {
    let folder = prepare()?;
    for Refusal { arguments, names } in refusals {
        let said = call(&folder, arguments)?;
        let words = arguments.join(" ");
        ensure!(!said.succeeds, "`cargo xtask {words}` succeeds");
        println!("  {words}: {}", said.complaint);
        for name in *names {
            ensure!(
                said.complaint.contains(name),
                "`cargo xtask {words}` does not name {name}: {}",
                said.complaint
            );
        }
    }
    Ok(())
}

/// What a call said.
struct Said {
    succeeds: bool,
    output: String,
    /// Its line on standard error that begins with `error: `.
    complaint: String,
}

fn call(folder: &Path, arguments: &[&str]) -> Result<Said> {
    let place = folder.to_string_lossy();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments.iter().map(|argument| argument.replace('%', &place)));
    let done = command.output().context("cannot call cargo xtask")?;
    let said = String::from_utf8_lossy(&done.stderr);
    let complaints: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    let complaint = match complaints.as_slice() {
        [] => String::new(),
        [one] => (*one).to_string(),
        [_, ..] => bail!("more than one line of errors: {said}"),
    };
    let output = String::from_utf8_lossy(&done.stdout).into_owned();
    Ok(Said { succeeds: done.status.success(), output, complaint })
}

/// A folder with what the calls name.
fn prepare() -> Result<std::path::PathBuf> {
    let folder = run::folder("calls")?;
    let kernel = Source::find()?.bzimage()?;
    let content = fs::read(&kernel)?;
    fs::write(folder.join("short"), &content[..content.len() / 2])?;
    fs::write(folder.join("garbage"), [0x5a; 20_000])?;
    fs::write(folder.join("disk"), [0x5a; 1 << 20])?;
    symlink(kernel, folder.join("kernel"))?;
    fs::create_dir_all(folder.join("overlay/etc/bulkhead"))?;
    fs::write(folder.join("overlay/etc/bulkhead/overlay"), "laid over\n")?;
    Ok(folder)
}
