//! Size budgets: code lines of the hypervisor, and lines of each file. Clippy limits the length of functions.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::source;
use crate::{progress, tools};

/// Most code lines of the hypervisor: what a person can read in a few days.
const HYPERVISOR_LINES: usize = 14_000;
/// Lines beyond that which are there already and must go (docs/adr/0012-size-debt.md). This number only ever falls.
const DEBT: usize = 226;
/// A file has fewer lines than this, whatever they hold.
const FILE_LINES: usize = 600;

/// Counts, and prints the hypervisor's count.
///
/// # Errors
/// A budget is exceeded.
pub(super) fn check() -> Result<()> {
    let workspace = tools::workspace();
    let mut long = Vec::new();
    for path in source::files(&workspace, &["rs", "S", "s", "sh", "ld"])? {
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines >= FILE_LINES {
            long.push(format!("{} ({lines})", path.strip_prefix(&workspace)?.display()));
        }
    }
    let mut total = 0;
    for part in ["hal", "model", "kernel"] {
        let lines = code_lines(&workspace.join("hypervisor").join(part))?;
        progress::say(format_args!("  hypervisor/{part}: {lines} code lines"));
        total += lines;
    }
    progress::say(format_args!("  hypervisor: {total} of at most {HYPERVISOR_LINES} code lines"));
    let over = total.saturating_sub(HYPERVISOR_LINES);
    if over > 0 {
        progress::say(format_args!(
            "  hypervisor: {over} lines too many, of a debt of {DEBT} (docs/adr/0012-size-debt.md)"
        ));
    }
    ensure!(
        over <= DEBT,
        "the hypervisor has {total} code lines: {HYPERVISOR_LINES} are allowed, and a debt of {DEBT}"
    );
    ensure!(long.is_empty(), "files of {FILE_LINES} lines or more: {}", long.join(", "));
    Ok(())
}

/// Lines that hold code and are not part of the tests.
fn code_lines(folder: &Path) -> Result<usize> {
    let mut total = 0;
    for path in source::files(folder, &["rs", "S", "s", "ld"])? {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        total += count(&fs::read_to_string(&path)?);
    }
    Ok(total)
}

/// The code lines of one file. Tests stand in a module at its end, so counting ends there; where they stand in a file of
/// their own, only the two lines that name it are theirs.
fn count(text: &str) -> usize {
    let lines = source::code(text);
    let trimmed: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    let begins = |body: &str| trimmed.windows(2).position(|pair| pair == ["#[cfg(test)]", body]);
    let own = begins("mod tests {").map_or(trimmed.as_slice(), |at| &trimmed[..at]);
    let named = if begins("mod tests;").is_some() { 2 } else { 0 };
    // A `#` begins a comment in assembly and an attribute in Rust, where it is followed by a bracket.
    own.iter().filter(|line| !line.is_empty() && !line.starts_with("# ")).count() - named
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn blank_lines_comments_and_tests_do_not_count() {
        assert_eq!(
            count("//! Doc.\n\nfn f() {\n    // Why.\n    g();\n}\n\n#[cfg(test)]\nmod tests {\n    x\n}\n"),
            3
        );
        assert_eq!(count("#[cfg(test)]\nmod tests;\n\nfn f() {\n    g();\n}\n"), 3);
        assert_eq!(count("# remark\nmov rax, rbx // why\n/* more\n */\nret\n"), 2);
    }
}
