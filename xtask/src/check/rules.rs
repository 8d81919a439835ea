//! Who may depend on whom, and where `unsafe` may stand.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::source;
use crate::{cargo, tools};

/// A crate, the workspace's crates it may use, and (for the hypervisor's) the only foreign ones.
struct Rule {
    name: &'static str,
    own: &'static [&'static str],
    foreign: Option<&'static [&'static str]>,
}

/// What may be used. A crate that is not listed may not exist: it has to find its place here first.
const RULES: [Rule; 14] = [
    Rule { name: "tlfs", own: &[], foreign: Some(&["bitfield-struct", "zerocopy"]) },
    Rule { name: "hal", own: &[], foreign: Some(&["bitfield-struct", "zerocopy"]) },
    Rule { name: "model", own: &["tlfs"], foreign: Some(&["bitfield-struct", "zerocopy"]) },
    Rule { name: "kernel", own: &["hal", "model", "tlfs"], foreign: Some(&["zerocopy"]) },
    Rule { name: "vmbus", own: &[], foreign: None },
    Rule { name: "storvsp", own: &["vmbus"], foreign: None },
    Rule { name: "control", own: &[], foreign: None },
    Rule { name: "cli", own: &["control", "tlfs"], foreign: None },
    Rule { name: "manager", own: &["control"], foreign: None },
    Rule { name: "worker", own: &["control", "storvsp", "tlfs", "vmbus"], foreign: None },
    Rule { name: "guest", own: &["tlfs"], foreign: None },
    Rule { name: "bench", own: &[], foreign: None },
    Rule { name: "signals", own: &["tlfs", "worker"], foreign: None },
    Rule { name: "xtask", own: &[], foreign: None },
];

/// Where `unsafe` may stand: the folder or file, and why.
const UNSAFE: [(&str, &str); 5] = [
    ("hypervisor/hal/", "it is what speaks to the processor"),
    ("stack/cli/src/raw.rs", "it makes the one ioctl that mshv-ioctls lacks"),
    ("stack/worker/src/raw.rs", "it maps memory and makes the ioctls that mshv-ioctls lacks"),
    ("tests/bench/src/raw.rs", "it marks regions for the counting plugin, and forks"),
    ("tests/guest/", "it is a kernel of its own, to test the hypervisor from inside"),
];

/// The workspace's packages, as Cargo describes them.
fn packages() -> Result<Vec<Value>> {
    let mut metadata = cargo::command();
    metadata.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&tools::output(&mut metadata)?)?;
    metadata["packages"].as_array().cloned().context("cargo metadata lists no packages")
}

/// Checks the dependencies that the manifests declare, those of tests aside.
///
/// # Errors
/// A crate uses one that its rule does not list, or has no rule.
pub(super) fn dependencies() -> Result<()> {
    let packages = packages()?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(rule) = RULES.iter().find(|rule| rule.name == name) else {
            wrong.push(format!("{name} has no rule"));
            continue;
        };
        let uses = package["dependencies"].as_array().into_iter().flatten();
        for used in uses.filter(|used| used["kind"].is_null()).filter_map(|used| used["name"].as_str()) {
            let allowed = if names.contains(&used) {
                rule.own.contains(&used)
            } else {
                rule.foreign.is_none_or(|foreign| foreign.contains(&used))
            };
            if !allowed {
                wrong.push(format!("{name} may not use {used}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Checks that `unsafe` stands only where it may, and that no crate escapes the workspace's lints, which
/// demand a SAFETY comment for each block.
///
/// # Errors
/// There is an `unsafe` elsewhere, or a manifest without the lints.
pub(super) fn unsafe_code() -> Result<()> {
    let workspace = tools::workspace();
    let mut wrong = Vec::new();
    for path in source::files(&workspace, &["rs"])? {
        let shown = path.strip_prefix(&workspace)?.display().to_string();
        if UNSAFE.iter().any(|(place, _)| shown.starts_with(place)) {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        for (index, line) in source::code(&text).iter().enumerate() {
            if source::has_word(line, "unsafe") {
                wrong.push(format!("{shown}:{}", index + 1));
            }
        }
    }
    for package in packages()? {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap_or_default())?;
        if !manifest.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{} does not take the workspace's lints", package["name"]));
        }
    }
    let places: Vec<String> = UNSAFE.iter().map(|(place, why)| format!("{place} ({why})")).collect();
    ensure!(
        wrong.is_empty(),
        "`unsafe` may stand in {}; it stands in {}",
        places.join(", "),
        wrong.join(", ")
    );
    Ok(())
}
