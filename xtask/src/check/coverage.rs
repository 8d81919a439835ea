//! `docs/tlfs/coverage.toml` against the sources: what the interface has, what the tables dispatch, which tests exist.
//!
//! The sources are read as text ([`scan`]), which holds as long as a table is a `match` whose arms name constants.

mod file;
mod scan;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::source;
use crate::{progress, tools};
use file::{Entry, Section, State};
use scan::{Arm, Constants};

/// The file.
const FILE: &str = "docs/tlfs/coverage.toml";
/// Where hypercalls are dispatched, by caller.
const CALLS: [(&str, &str); 2] =
    [("root", "hypervisor/kernel/src/hypercall/table"), ("child", "hypervisor/kernel/src/child/hypercall")];
/// Where synthetic MSRs are dispatched, by caller.
const MSRS: [(&str, &str); 3] = [
    ("root", "hypervisor/kernel/src/root/msr"),
    ("child", "hypervisor/kernel/src/child/synthetic"),
    ("child", "hypervisor/kernel/src/child/msr"),
];
/// Where registers by name are, and those that are MSRs.
const REGISTERS: [&str; 2] = ["hypervisor/kernel/src/child/registers", "abi/tlfs/src/register/msr"];
/// The numbers of synthetic MSRs, and of the hypervisor's CPUID leaves.
const SYNTHETIC: std::ops::Range<u64> = 0x4000_0000..0x4000_0200;

/// Compares the file with the sources and prints how much of the interface there is.
///
/// # Errors
/// They disagree.
pub(super) fn check() -> Result<()> {
    let workspace = tools::workspace();
    let text = fs::read_to_string(workspace.join(FILE)).with_context(|| format!("cannot read {FILE}"))?;
    let file = file::parse(&text).context(FILE)?;
    let mut wrong = Vec::new();
    hypercalls(&workspace, file.section("hypercall")?, &mut wrong)?;
    msrs(&workspace, file.section("msr")?, &mut wrong)?;
    leaves(&workspace, file.section("cpuid")?, &mut wrong)?;
    registers(&workspace, file.section("register")?, &mut wrong)?;
    let tests = known_tests(&workspace)?;
    for (kind, section) in file.sections() {
        progress::say(format_args!("  {kind}: {}", summary(section)));
        for (name, entry) in section {
            wrong.extend(
                entry.unknown_test(&tests).map(|test| format!("{kind} {name}: there is no test `{test}`")),
            );
        }
    }
    ensure!(wrong.is_empty(), "{FILE} disagrees with the sources: {}", wrong.join("; "));
    Ok(())
}

fn summary(section: &Section) -> String {
    let count = |state| section.values().filter(|entry| entry.state == state).count();
    let counts = State::ALL.map(|state| format!("{} {}", count(state), state.word()));
    format!("{} entries, {}", section.len(), counts.join(", "))
}

/// The code of a module and of the files in its folder, without comments.
fn module(workspace: &Path, path: &str) -> Result<String> {
    let mut files: Vec<PathBuf> = Vec::from([workspace.join(format!("{path}.rs"))]);
    let folder = workspace.join(path);
    if folder.is_dir() {
        files.extend(source::files(&folder, &["rs"])?);
    }
    let mut code = String::new();
    for path in files.iter().filter(|path| path.is_file()) {
        code.push_str(&source::code(&fs::read_to_string(path)?).join("\n"));
        code.push('\n');
    }
    Ok(code)
}

fn hypercalls(workspace: &Path, section: &Section, wrong: &mut Vec<String>) -> Result<()> {
    let named = scan::members(&module(workspace, "abi/tlfs/src/call")?, "CallCode");
    same_names("hypercall", &named, section, wrong);
    let mut dispatched: BTreeMap<String, Vec<(&str, Arm)>> = BTreeMap::new();
    for (caller, path) in CALLS {
        for arm in scan::arms(&module(workspace, path)?) {
            dispatched.entry(arm.name.clone()).or_default().push((caller, arm));
        }
    }
    for (name, entry) in section {
        let arms = dispatched.remove(name).unwrap_or_default();
        let callers: BTreeSet<&str> = arms.iter().map(|(caller, _)| *caller).collect();
        wrong.extend(entry.wrong_callers(&callers).map(|what| format!("hypercall {name}: {what}")));
        for (caller, arm) in arms.iter().filter(|(_, arm)| arm.privilege != entry.privilege) {
            let (code, file) = (&arm.privilege, &entry.privilege);
            wrong.push(format!("hypercall {name}: the {caller} needs {code}, the file says {file}"));
        }
    }
    wrong.extend(
        dispatched.keys().map(|name| format!("hypercall {name} is dispatched and not in the interface")),
    );
    Ok(())
}

fn msrs(workspace: &Path, section: &Section, wrong: &mut Vec<String>) -> Result<()> {
    let mut named = scan::constants(&module(workspace, "abi/tlfs/src/msr")?);
    named.retain(|_, number| SYNTHETIC.contains(number));
    same_names("msr", &named, section, wrong);
    let mut callers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (caller, path) in MSRS {
        let code = module(workspace, path)?;
        for name in scan::mentioned(&code, "hv::", &named) {
            callers.entry(name).or_default().insert(caller);
        }
    }
    for (name, entry) in section {
        let callers = callers.remove(name.as_str()).unwrap_or_default();
        wrong.extend(entry.wrong_callers(&callers).map(|what| format!("msr {name}: {what}")));
    }
    Ok(())
}

fn leaves(workspace: &Path, section: &Section, wrong: &mut Vec<String>) -> Result<()> {
    let mut named = scan::constants(&module(workspace, "abi/tlfs/src/cpuid")?);
    named.retain(|name, number| SYNTHETIC.contains(number) && name != "MAX_FUNCTION_MIN");
    same_names("cpuid", &named, section, wrong);
    let code = fs::read_to_string(workspace.join("hypervisor/model/src/cpuid.rs"))?;
    let filled: BTreeSet<String> = scan::left_of_arrows(&source::code(&code).join("\n"), "leaf::").collect();
    for (name, entry) in section {
        if filled.contains(name) == (entry.state == State::Absent) {
            wrong.push(format!("cpuid {name}: the file says {}, model/src/cpuid.rs not", entry.state.word()));
        }
    }
    Ok(())
}

fn registers(workspace: &Path, section: &Section, wrong: &mut Vec<String>) -> Result<()> {
    let named = scan::members(&module(workspace, "abi/tlfs/src/register/name")?, "RegisterName");
    let code = REGISTERS.map(|path| module(workspace, path)).into_iter().collect::<Result<String>>()?;
    let mut handled = scan::mentioned(&code, "N::", &named);
    handled.extend(scan::mentioned(&code, "RegisterName::", &named));
    let ranges = scan::ranges(&code);
    let in_range = |number: &u64| ranges.iter().any(|range| range.contains(number));
    handled.extend(named.iter().filter(|(_, number)| in_range(number)).map(|(name, _)| name.as_str()));
    let mut left: BTreeSet<&str> = named.keys().map(String::as_str).collect();
    for (group, entry) in section {
        let members = scan::group(&entry.names, &named).with_context(|| format!("register {group}"))?;
        for name in members.iter().filter(|name| !left.remove(**name)) {
            wrong.push(format!("register {name} is in two groups"));
        }
        let count = members.iter().filter(|name| handled.contains(**name)).count();
        let fits = match entry.state {
            State::Absent => count == 0,
            State::Implemented => count == members.len(),
            State::Partial | State::Refused => count > 0,
        };
        if !fits {
            let (state, of) = (entry.state.word(), members.len());
            wrong.push(format!("register {group}: the file says {state}, the sources have {count} of {of}"));
        }
    }
    wrong.extend(left.iter().map(|name| format!("register {name} is in no group")));
    Ok(())
}

/// The file has an entry for each constant, with its number, and no other.
fn same_names(kind: &str, named: &Constants, section: &Section, wrong: &mut Vec<String>) {
    for (name, number) in named {
        match section.get(name) {
            None => wrong.push(format!("{kind} {name} ({number:#x}) has no entry")),
            Some(entry) if entry.number != Some(*number) => {
                wrong.push(format!("{kind} {name} is {number:#x} in abi/tlfs"));
            }
            Some(_) => {}
        }
    }
    let unknown = section.keys().filter(|name| !named.contains_key(*name));
    wrong.extend(unknown.map(|name| format!("{kind} {name} is not in abi/tlfs")));
}

/// What an entry may name as its test: a boot, a case of the test guest, or a unit test.
fn known_tests(workspace: &Path) -> Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    for path in ["xtask/src/test.rs", "xtask/src/test/boots.rs"] {
        known.extend(scan::texts(&fs::read_to_string(workspace.join(path))?));
    }
    for folder in ["abi", "hypervisor", "tests/guest"] {
        for path in source::files(&workspace.join(folder), &["rs"])? {
            // Most cases of the test guest are named after their function, some by a text.
            if folder == "tests/guest" {
                known.extend(scan::texts(&fs::read_to_string(&path)?));
            }
            known.extend(scan::functions(&source::code(&fs::read_to_string(path)?).join("\n")));
        }
    }
    Ok(known)
}

impl Entry {
    /// What is wrong with the callers that the file names, as the tables have `dispatched`.
    fn wrong_callers(&self, dispatched: &BTreeSet<&str>) -> Option<String> {
        let said: BTreeSet<&str> = self.caller.split(", ").filter(|caller| *caller != "none").collect();
        if &said != dispatched {
            let list = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(" and ");
            return Some(format!("dispatched for [{}], the file says [{}]", list(dispatched), list(&said)));
        }
        let absent = self.state == State::Absent;
        (absent != said.is_empty()).then(|| format!("{} and called by [{}]", self.state.word(), self.caller))
    }

    /// A test that the entry names and that does not exist.
    fn unknown_test<'a>(&'a self, known: &BTreeSet<String>) -> Option<&'a str> {
        self.test.split(", ").find(|test| *test != "none" && !known.contains(*test))
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, State};
    use std::collections::BTreeSet;

    fn entry(state: State, caller: &str) -> Entry {
        Entry { state, caller: caller.into(), test: "boot, none".into(), ..Entry::default() }
    }

    #[test]
    fn callers_are_those_that_dispatch() {
        let both = BTreeSet::from(["child", "root"]);
        assert_eq!(entry(State::Partial, "root, child").wrong_callers(&both), None);
        assert!(entry(State::Partial, "root").wrong_callers(&both).is_some());
        assert!(entry(State::Absent, "root, child").wrong_callers(&both).is_some());
        assert_eq!(entry(State::Absent, "none").wrong_callers(&BTreeSet::new()), None);
        assert!(entry(State::Implemented, "none").wrong_callers(&BTreeSet::new()).is_some());
    }

    #[test]
    fn a_test_that_nobody_wrote_is_found() {
        assert_eq!(entry(State::Absent, "none").unknown_test(&BTreeSet::from(["boot".into()])), None);
        assert_eq!(entry(State::Absent, "none").unknown_test(&BTreeSet::new()), Some("boot"));
    }
}
