//! Reading Rust sources just far enough to tell code from comments and text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Every file below `folder` with one of these extensions, sorted; hidden folders and `target` are left out.
///
/// # Errors
/// A folder cannot be read.
pub(super) fn files(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|own| extensions.iter().any(|extension| own == *extension))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The source with comments gone and the inside of each text replaced by one `_` per line, line by line.
pub(super) fn code(source: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let (length, kept) = token(rest, first, lines.last().and_then(|line| line.chars().last()));
        let (token, after) = rest.split_at(length);
        let mut parts = token.split('\n');
        push(&mut lines, parts.next(), kept);
        for part in parts {
            lines.push(String::new());
            push(&mut lines, Some(part), kept);
        }
        rest = after;
    }
    lines
}

fn push(lines: &mut [String], part: Option<&str>, kept: Kept) {
    let (Some(line), Some(part)) = (lines.last_mut(), part) else { return };
    match kept {
        Kept::All => line.push_str(part),
        Kept::Trace if !part.is_empty() => line.push('_'),
        Kept::Trace | Kept::Nothing => {}
    }
}

/// What of a token goes into the result.
#[derive(Clone, Copy)]
enum Kept {
    All,
    Trace,
    Nothing,
}

/// The length of the token at the start of `rest`, and what is kept of it.
fn token(rest: &str, first: char, before: Option<char>) -> (usize, Kept) {
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Kept::Nothing);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Kept::Nothing);
    }
    let in_word = before.is_some_and(|char| char.is_alphanumeric() || char == '_');
    if first == 'r'
        && !in_word
        && let Some(length) = raw_text(rest)
    {
        return (length, Kept::Trace);
    }
    match first {
        '"' => (quoted(rest, '"'), Kept::Trace),
        '\'' if is_char(rest) => (quoted(rest, '\''), Kept::Trace),
        _ => (first.len_utf8(), Kept::All),
    }
}

/// Comments nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(tail) = rest.get(at..) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else if let Some(char) = tail.chars().next() {
            at += char.len_utf8();
        } else {
            break;
        }
    }
    at
}

/// `r"…"` and `r#"…"#`.
fn raw_text(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|&byte| byte == b'#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end)? + end.len())
}

/// A text or character with escapes.
fn quoted(rest: &str, end: char) -> usize {
    let mut escaped = false;
    for (at, char) in rest.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if char == end => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Whether a quote begins a character rather than a lifetime.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    let (second, third) = (chars.next(), chars.next());
    second == Some('\\') || third == Some('\'')
}

/// Whether a line of code has this word in it.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.split(|char: char| !char.is_alphanumeric() && char != '_').any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::{code, has_word};

    #[test]
    fn comments_and_texts_are_no_code() {
        let lines = code("let a = \"unsafe // no\"; // unsafe\n/* unsafe\n /* x */ y */ let b = 'x';\n");
        assert_eq!(lines, ["let a = _; ", "", " let b = _;", ""]);
    }

    #[test]
    fn lifetimes_are_code_and_quotes_in_characters_are_not() {
        assert_eq!(code("fn f<'a>(x: &'a str) {} // '"), ["fn f<'a>(x: &'a str) {} "]);
        assert_eq!(code("let q = ['\"', '\\'']; unsafe {}"), ["let q = [_, _]; unsafe {}"]);
    }

    #[test]
    fn raw_text_ends_at_its_hashes() {
        assert_eq!(code("f(r#\"a\"b\nc\"#); x"), ["f(_", "_); x"]);
        assert_eq!(code("bar\"x\""), ["bar_"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe { x }", "unsafe") && has_word("#[unsafe(no_mangle)]", "unsafe"));
        assert!(!has_word("#![expect(unsafe_code)]", "unsafe"));
    }
}
