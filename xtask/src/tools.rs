//! Running other programs so that a failure names the program, what it was asked and its last words.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Time between signs of life.
const TICK: Duration = Duration::from_secs(30);
/// How many lines of a failed program's output go into the error.
const LAST_WORDS: usize = 15;

/// The folder of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The folder Cargo builds into: `CARGO_TARGET_DIR`, or `target` in the workspace.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// A command line as one would type it, for messages.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs a command and gives its standard output.
///
/// # Errors
/// The program is missing or exits non-zero; the message holds the end of its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let result =
        command.stdin(Stdio::null()).output().with_context(|| format!("`{line}` could not be started"))?;
    if !result.status.success() {
        let words = tail(&String::from_utf8_lossy(&result.stderr), LAST_WORDS);
        bail!("`{line}` failed ({}):\n{words}", result.status);
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs a command with everything it prints going to `log`. `tick` is called every half minute with the number of
/// lines it has printed.
///
/// # Errors
/// The program is missing or exits non-zero; the message names the log and holds its end.
pub(crate) fn watched(command: &mut Command, log: &Path, tick: impl Fn(usize)) -> Result<()> {
    let line = shown(command);
    let mut file = File::options().create(true).read(true).append(true).open(log)?;
    let begin = file.seek(SeekFrom::End(0))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("`{line}` could not be started"))?;
    let mut since = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
        if since.elapsed() > TICK {
            since = Instant::now();
            tick(printed(&mut file, begin)?.lines().count());
        }
    };
    if !status.success() {
        let words = tail(&printed(&mut file, begin)?, LAST_WORDS);
        bail!("`{line}` failed ({status}); the whole log is {}:\n{words}", log.display());
    }
    Ok(())
}

/// What a log holds from `begin` on.
fn printed(file: &mut File, begin: u64) -> Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(begin))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Runs a command with everything it prints going to `log`.
///
/// # Errors
/// As for [`watched`].
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    watched(command, log, |_| {})
}

/// Runs a command with the terminal passed on to it.
///
/// # Errors
/// The program is missing or exits non-zero.
pub(crate) fn shown_to_user(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command.status().with_context(|| format!("`{line}` could not be started"))?;
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(())
}

/// The last `count` lines of a text.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Whether a program of this name is on `PATH`.
pub(crate) fn exists(program: &str) -> bool {
    let Some(path) = std::env::var_os("PATH") else { return false };
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::tail;

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
        assert_eq!(tail("", 2), "");
    }
}
