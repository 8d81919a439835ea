//! Set-up: what must be on the machine and in the cache before anything can be built or run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Apt};
use crate::cache::{self, Key};
use crate::kernel::Source;
use crate::machine::QEMU;
use crate::options::SetupOptions;
use crate::{cargo, child, progress, suite, tools};

/// What the kernel's build, the disc image and the tests use.
const PACKAGES: [&str; 22] = [
    "bc",
    "binutils",
    "bison",
    "build-essential",
    "ca-certificates",
    "flex",
    "grub-common",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "kmod",
    "libelf-dev",
    "libssl-dev",
    "make",
    "mtools",
    "ovmf",
    "perl",
    "python3",
    "rsync",
    "tar",
    "xorriso",
    "xz-utils",
    "zstd",
];

/// QEMU and what must have its version.
const QEMU_PACKAGES: [&str; 5] =
    ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu"];

/// The first QEMU whose emulation has an x2APIC.
const QEMU_MAJOR: u32 = 9;

/// `cargo xtask setup`: everything that `run` and `test` need.
///
/// # Errors
/// A step fails.
pub(crate) fn command(options: &SetupOptions) -> Result<()> {
    if options.update {
        Apt::host()?.forget()?;
        Apt::kernels()?.forget()?;
        suite::forget()?;
    }
    host()?;
    busybox()?;
    child::stock("7")?;
    suite::mshv_ioctls()?;
    let kernel = Source::find()?.bzimage()?;
    progress::say(format_args!("the root kernel is {}", kernel.display()));
    progress::say("the set-up is complete");
    Ok(())
}

/// Sees to it that Debian's packages, QEMU and the Rust target are there.
///
/// # Errors
/// Something is missing and cannot be installed.
pub(crate) fn host() -> Result<()> {
    let missing = apt::missing(&PACKAGES)?;
    if !missing.is_empty() {
        let what = format!("installing Debian packages: {}", missing.join(" "));
        progress::step(&what, || Apt::host()?.install(&missing, false))?;
    }
    let has = qemu_major();
    if has.is_none_or(|major| major < QEMU_MAJOR) {
        let what = format!("installing QEMU {QEMU_MAJOR} or newer from Debian's backports");
        progress::step(&what, || Apt::host()?.install(&QEMU_PACKAGES, true))?;
        let major =
            qemu_major().with_context(|| format!("{QEMU} is still missing after its installation"))?;
        anyhow::ensure!(major >= QEMU_MAJOR, "Debian gave QEMU {major}; {QEMU_MAJOR} or newer is needed");
    }
    rust_target()
}

/// The first number of QEMU's version.
fn qemu_major() -> Option<u32> {
    let text = tools::output(Command::new(QEMU).arg("--version")).ok()?;
    text.split_whitespace().find_map(|word| word.split_once('.')?.0.parse().ok())
}

/// Adds the target of the hypervisor image to the toolchain.
fn rust_target() -> Result<()> {
    let target = cargo::IMAGE_TARGET;
    let sysroot = tools::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    if PathBuf::from(sysroot.trim()).join("lib/rustlib").join(target).is_dir() {
        return Ok(());
    }
    progress::step(&format!("adding the Rust target {target}"), || {
        tools::output(Command::new("rustup").args(["target", "add", target]))
            .with_context(|| format!("the Rust target {target} is missing and rustup cannot add it"))?;
        Ok(())
    })
}

/// A static busybox, unpacked from its package.
///
/// # Errors
/// The package cannot be fetched.
pub(crate) fn busybox() -> Result<PathBuf> {
    let apt = Apt::host()?;
    let control = apt.show("busybox-static")?.into_iter().next().context("the package has no version")?;
    let key = Key::new().with(&control.version);
    let folder = cache::artefact("busybox", "static", &key, |folder| {
        progress::step("fetching busybox", || apt.unpack(&control, folder))
    })?;
    let places = ["usr/bin/busybox", "bin/busybox"].map(|path| folder.join(path));
    places.into_iter().find(|path| path.is_file()).context("the package busybox-static has no busybox in it")
}
