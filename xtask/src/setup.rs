//! Set-up: what must be on the machine and in the cache before anything can be built or run.

use std::fs;
use std::path::{Path, PathBuf};
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
///
/// What counts is whether its `core` is there. A toolchain that was copied or cleaned can list the target as installed
/// without having it, and then `rustup target add` does nothing until the target was removed.
fn rust_target() -> Result<()> {
    let target = cargo::IMAGE_TARGET;
    let sysroot = tools::output(cargo::command_of("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    if has_core(sysroot, target) {
        return Ok(());
    }
    progress::step(&format!("adding the Rust target {target}"), || {
        rustup_target("add", target)?;
        if !has_core(sysroot, target) {
            make_removable(sysroot, target)?;
            rustup_target("remove", target)?;
            rustup_target("add", target)?;
        }
        anyhow::ensure!(
            has_core(sysroot, target),
            "rustup says that it has added the Rust target {target}, and {} has none; reinstall the toolchain",
            sysroot.display()
        );
        Ok(())
    })
}

/// Whether the library `core` of the target is in the toolchain.
fn has_core(sysroot: &Path, target: &str) -> bool {
    let library = sysroot.join("lib/rustlib").join(target).join("lib");
    let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
    let files = fs::read_dir(library).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.file_name().to_str().is_some_and(is_core))
}

/// Lets rustup remove a target whose files are gone, which it refuses: an empty file stands in for each that its list
/// of the target names.
fn make_removable(sysroot: &Path, target: &str) -> Result<()> {
    let list = sysroot.join(format!("lib/rustlib/manifest-rust-std-{target}"));
    let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    for path in list.lines().filter_map(|line| line.strip_prefix("file:")).map(|path| sysroot.join(path)) {
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or(sysroot))?;
            fs::write(&path, "")?;
        }
    }
    Ok(())
}

fn rustup_target(action: &str, target: &str) -> Result<()> {
    tools::output(cargo::command_of("rustup").args(["target", action, target]))
        .with_context(|| format!("the Rust target {target} is missing and rustup cannot {action} it"))?;
    Ok(())
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
