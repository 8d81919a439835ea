//! The file itself: sections of entries, one entry a line, in a subset of TOML.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

/// How much of a thing there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum State {
    /// All that the specification says, or Linux needs.
    Implemented,
    /// Part of it; the note says which.
    Partial,
    /// It is known, and always answered with an error.
    Refused,
    /// It is answered like what nobody knows.
    #[default]
    Absent,
}

impl State {
    pub(super) const ALL: [Self; 4] = [Self::Implemented, Self::Partial, Self::Refused, Self::Absent];

    /// As the file has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Implemented => "implemented",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Absent => "absent",
        }
    }
}

/// What the file says of one thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// The call code, MSR or leaf; none for a group of registers.
    pub(super) number: Option<u64>,
    /// The registers of a group: names, and `A-B` for all numbers from A's to B's.
    pub(super) names: String,
    /// Who can use it: `root`, `child`, `root, child` or `none`.
    pub(super) caller: String,
    pub(super) state: State,
    /// What a caller's partition needs; `NONE` for nothing.
    pub(super) privilege: String,
    /// The tests that reach it, or `none`.
    pub(super) test: String,
}

/// Entries by name.
pub(super) type Section = BTreeMap<String, Entry>;

/// All that is in the file.
#[derive(Debug, Default)]
pub(super) struct File(BTreeMap<String, Section>);

impl File {
    /// A section.
    ///
    /// # Errors
    /// There is none of that name.
    pub(super) fn section(&self, name: &str) -> Result<&Section> {
        self.0.get(name).with_context(|| format!("there is no section [{name}]"))
    }

    pub(super) fn sections(&self) -> impl Iterator<Item = (&String, &Section)> {
        self.0.iter()
    }
}

/// Reads the file.
///
/// # Errors
/// A line is not understood, or lacks a key; the error names it.
pub(super) fn parse(text: &str) -> Result<File> {
    let mut file = File::default();
    let mut section = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(file.0.entry(name.to_string()).or_default());
            continue;
        }
        let section = section.as_deref_mut().with_context(|| format!("line {number} is in no section"))?;
        let (name, entry) = parse_line(line).with_context(|| format!("line {number}"))?;
        ensure!(section.insert(name.clone(), entry).is_none(), "line {number}: {name} is there twice");
    }
    Ok(file)
}

/// `NAME = { key = "value", … }`.
fn parse_line(line: &str) -> Result<(String, Entry)> {
    let (name, table) = line.split_once(" = ").context("NAME = { … } is expected")?;
    let table = table.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let mut rest = table.context("an entry is a table in braces on one line")?.trim();
    let mut values = BTreeMap::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(" = \"").context("a key and a text in quotes are expected")?;
        let (value, after) = after.split_once('"').context("a text does not end")?;
        values.insert(key.trim(), value.to_string());
        rest = after.trim_start_matches(',').trim();
    }
    let mut entry = Entry::default();
    let mut take = |key: &str| values.remove(key).with_context(|| format!("{name} has no `{key}`"));
    entry.state = state(&take("state")?)?;
    (entry.caller, entry.privilege, entry.test) = (take("caller")?, take("privilege")?, take("test")?);
    ensure!(!take("section")?.is_empty(), "{name} has an empty `section`");
    let note = take("note")?;
    ensure!(
        !note.is_empty() || entry.state == State::Implemented,
        "{name} is not whole and its note does not say why"
    );
    entry.names = take("names").unwrap_or_default();
    entry.number = take("number").ok().map(|number| hex(&number)).transpose()?;
    ensure!(entry.names.is_empty() == entry.number.is_some(), "{name} needs either `number` or `names`");
    if let Some(key) = values.keys().next() {
        bail!("{name} has an unknown key `{key}`");
    }
    Ok((name.to_string(), entry))
}

fn state(word: &str) -> Result<State> {
    let state = State::ALL.into_iter().find(|state| state.word() == word);
    state.with_context(|| format!("`{word}` is no state"))
}

fn hex(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").context("a number begins with 0x")?;
    u64::from_str_radix(digits, 16).with_context(|| format!("`{text}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::{State, parse};

    const LINE: &str = r#"A = { number = "0x40", caller = "root", state = "partial", privilege = "NONE", section = "s", test = "none", note = "some" }"#;

    #[test]
    fn an_entry_is_a_line() {
        let file = parse(&format!("# remark\n\n[hypercall]\n{LINE}\n")).unwrap();
        let entry = &file.section("hypercall").unwrap()["A"];
        assert_eq!((entry.number, entry.state, entry.caller.as_str()), (Some(0x40), State::Partial, "root"));
        assert!(file.section("msr").is_err());
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        for (from, to, complaint) in [
            (r#"state = "partial", "#, "", "`state`"),
            ("partial", "finished", "`finished`"),
            (r#""some""#, r#""""#, "note"),
            ("0x40", "64", "0x"),
            ("note =", "remark =", "`note`"),
            (r#"section = "s", "#, r#"section = "s", extra = "e", "#, "`extra`"),
        ] {
            let error = parse(&format!("[hypercall]\n{}", LINE.replace(from, to))).unwrap_err();
            assert!(format!("{error:#}").contains(complaint), "{error:#}");
        }
        assert!(parse(LINE).is_err(), "outside of a section");
        assert!(parse(&format!("[a]\n{LINE}\n{LINE}")).is_err(), "twice");
    }
}
