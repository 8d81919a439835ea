//! Building our own binaries: the hypervisor image and the stack that runs in the root.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{progress, tools};

/// The target of the hypervisor image.
pub(crate) const IMAGE_TARGET: &str = "x86_64-unknown-none";
/// The target of what runs in the root: glibc, linked statically, so that the root needs no libraries.
const STACK_TARGET: &str = "x86_64-unknown-linux-gnu";
/// The stack's packages and the binary each of them makes.
const STACK: [(&str, &str); 3] =
    [("cli", "bulkhead"), ("manager", "bulkheadd"), ("worker", "bulkhead-worker")];

/// A `cargo` command in the workspace.
pub(crate) fn command() -> Command {
    command_of("cargo")
}

/// A command of the Rust toolchain in the workspace, free of the variables that the outer `cargo run` has set.
pub(crate) fn command_of(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(tools::workspace());
    for variable in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO"] {
        command.env_remove(variable);
    }
    command
}

/// Makes what `cargo` builds for the stack's target static.
pub(crate) fn link_statically(command: &mut Command) -> &mut Command {
    command
        .args(["--target", STACK_TARGET])
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
}

/// Builds the hypervisor and gives the path of its ELF file.
///
/// # Errors
/// The build fails; the compiler's messages are in the error.
pub(crate) fn hypervisor() -> Result<PathBuf> {
    progress::step("building the hypervisor", || {
        let mut build = command();
        build.args([
            "build",
            "--quiet",
            "--package",
            "kernel",
            "--profile",
            "image",
            "--target",
            IMAGE_TARGET,
        ]);
        tools::shown_to_user(&mut build).context("the hypervisor does not build")?;
        built(IMAGE_TARGET, "image", "kernel")
    })
}

/// Builds the stack and gives each binary's name and path.
///
/// # Errors
/// The build fails.
pub(crate) fn stack() -> Result<Vec<(&'static str, PathBuf)>> {
    progress::step("building the virtualization stack", || {
        let mut build = command();
        build.args(["build", "--quiet", "--release"]);
        for (package, _) in STACK {
            build.args(["--package", package]);
        }
        tools::shown_to_user(link_statically(&mut build)).context("the stack does not build")?;
        STACK.iter().map(|(_, binary)| Ok((*binary, stripped(binary)?))).collect()
    })
}

/// Builds the kernel of our own that tests the interface from inside.
///
/// # Errors
/// The build fails.
pub(crate) fn guest() -> Result<PathBuf> {
    progress::step("building the test guest", || {
        let mut build = command();
        build.args([
            "build",
            "--quiet",
            "--package",
            "guest",
            "--profile",
            "image",
            "--target",
            IMAGE_TARGET,
        ]);
        tools::shown_to_user(&mut build).context("the test guest does not build")?;
        built(IMAGE_TARGET, "image", "guest")
    })
}

/// Builds the program that sends messages and events between the root and a child.
///
/// # Errors
/// The build fails.
pub(crate) fn signals() -> Result<PathBuf> {
    progress::step("building the test of messages and events", || {
        let mut build = command();
        build.args(["build", "--quiet", "--release", "--package", "signals"]);
        tools::shown_to_user(link_statically(&mut build)).context("the test does not build")?;
        stripped("signals")
    })
}

/// Builds the benchmark program, as static as what runs in the root.
///
/// # Errors
/// The build fails.
pub(crate) fn bench() -> Result<PathBuf> {
    let mut build = command();
    build.args(["build", "--quiet", "--release", "--package", "bench"]);
    tools::shown_to_user(link_statically(&mut build)).context("the benchmark program does not build")?;
    built(STACK_TARGET, "release", "bench")
}

/// A copy of one of the stack's binaries without what only a debugger reads: the root's initramfs is four times
/// smaller so, and every boot has to copy it.
fn stripped(binary: &str) -> Result<PathBuf> {
    let folder = tools::target_dir().join("xtask/stack");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(binary);
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(&copy).arg(built(STACK_TARGET, "release", binary)?);
    tools::output(&mut strip)?;
    Ok(copy)
}

/// The path of a binary that was just built.
fn built(target: &str, profile: &str, binary: &str) -> Result<PathBuf> {
    let path = tools::target_dir().join(target).join(profile).join(binary);
    ensure!(path.is_file(), "the build left no {}", path.display());
    Ok(path)
}
