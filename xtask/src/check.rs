//! `cargo xtask check`: everything about the sources that a machine can judge.

mod coverage;
mod rules;
mod sizes;
mod source;

use anyhow::{Result, bail};

use crate::kernel::Source;
use crate::{cargo, headers, progress, setup, tools};

/// A check and its name.
type Check = (&'static str, fn() -> Result<()>);

/// `cargo xtask check`. All checks are made, whatever the earlier ones found.
///
/// # Errors
/// A check finds something; what it found has been printed.
pub(crate) fn command() -> Result<()> {
    setup::host()?;
    let checks: [Check; 8] = [
        ("formatting", formatting),
        ("lints", lints),
        ("lints of the hypervisor image", image_lints),
        ("dependency rules", rules::dependencies),
        ("unsafe rules", rules::unsafe_code),
        ("size budgets", sizes::check),
        ("TLFS coverage", coverage::check),
        ("layouts against Linux's headers", || headers::check(&Source::find()?.headers()?)),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = progress::step(name, check) {
            println!("{name}: {error:#}");
            failed.push(name);
        }
    }
    println!("{} checks passed, {} failed", checks.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn formatting() -> Result<()> {
    tools::shown_to_user(cargo::command().args(["fmt", "--all", "--check"]))
}

fn lints() -> Result<()> {
    let mut clippy = cargo::command();
    clippy.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    tools::shown_to_user(&mut clippy)
}

/// What is built only for the bare machine is seen only with its target.
fn image_lints() -> Result<()> {
    let mut clippy = cargo::command();
    clippy.args(["clippy", "--quiet", "--target", cargo::IMAGE_TARGET]);
    for package in ["hal", "model", "tlfs", "kernel", "guest"] {
        clippy.args(["--package", package]);
    }
    tools::shown_to_user(clippy.args(["--", "-D", "warnings"]))
}
