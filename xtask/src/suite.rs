//! A foreign test suite: the tests of the newest `mshv-ioctls`, a client of `/dev/mshv` that knows nothing of us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cache::{self, Key};
use crate::{cargo, progress, tools};

/// The crate whose tests are run.
const CRATE: &str = "mshv-ioctls";
/// Raised when the way the tests are built changes.
const RECIPE: &str = "2";

/// The tests as one static program, built once per compiler; `setup --update` looks for a newer release.
///
/// # Errors
/// The crate cannot be fetched, or its tests do not build.
pub(crate) fn mshv_ioctls() -> Result<PathBuf> {
    let compiler = tools::output(Command::new("rustc").arg("--version"))?;
    let key = Key::new().with(RECIPE).with(compiler);
    let folder = cache::artefact("tests", CRATE, &key, |folder| {
        progress::step(&format!("building the tests of {CRATE} (about a minute, once)"), || build(folder))
    })?;
    Ok(folder.join(CRATE))
}

/// Forgets the tests, so that the next use fetches the newest release.
///
/// # Errors
/// The cache cannot be changed.
pub(crate) fn forget() -> Result<()> {
    cache::forget("tests", CRATE)
}

fn build(folder: &Path) -> Result<()> {
    let source = fetch(&folder.join("fetch"))?;
    let own = folder.join("source");
    tools::output(Command::new("cp").arg("-r").arg(&source).arg(&own))?;
    // The copy lies in no workspace: neither ours nor one that a folder above it might be.
    let manifest = own.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
    let mut test = cargo::command();
    test.current_dir(&own).env("CARGO_TARGET_DIR", folder.join("target"));
    test.args(["test", "--no-run", "--lib", "--message-format=json"]);
    let messages = tools::output(cargo::link_statically(&mut test))?;
    let mut built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = built.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    let program = program.context("cargo built no test program")?;
    tools::output(Command::new("strip").arg("--strip-debug").arg("-o").arg(folder.join(CRATE)).arg(program))?;
    for done in ["fetch", "source", "target"] {
        fs::remove_dir_all(folder.join(done))?;
    }
    Ok(())
}

/// Lets Cargo resolve the newest release and gives the folder it keeps its source in.
fn fetch(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("src/lib.rs"), "")?;
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[dependencies]\n{CRATE} = \"*\"\n\n[workspace]\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest)?;
    let mut metadata = cargo::command();
    metadata.current_dir(folder).args(["metadata", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&tools::output(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let found =
        packages.into_iter().find(|package| package["name"] == CRATE).context("Cargo found no such crate")?;
    progress::say(format_args!(
        "  the newest release of {CRATE} is {}",
        found["version"].as_str().unwrap_or("?")
    ));
    let path = PathBuf::from(found["manifest_path"].as_str().unwrap_or_default());
    ensure!(path.is_file(), "Cargo keeps no source of {CRATE}");
    Ok(path.parent().map(Path::to_path_buf).unwrap_or_default())
}
