//! The check of `abi/` against Linux's headers, which lies outside the workspace because it builds C.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{cargo, run, tools};

/// Runs the tests of `abi/header_check` against the headers in `linux`.
///
/// # Errors
/// A structure differs, or the test does not build.
pub(crate) fn check(linux: &Path) -> Result<()> {
    let manifest = tools::workspace().join("abi/header_check/Cargo.toml");
    ensure!(manifest.is_file(), "there is no {}", manifest.display());
    let log = run::folder("headers")?.join("cargo-test.log");
    let mut command = cargo::command();
    command.args(["test", "--quiet", "--manifest-path"]).arg(manifest);
    command
        .env("BULKHEAD_LINUX_SRC", linux)
        .env("CARGO_TARGET_DIR", tools::target_dir().join("header_check"));
    tools::logged(&mut command, &log).context("our structures differ from Linux's")
}
