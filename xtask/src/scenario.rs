//! What scenarios in the root say about themselves, and whether it amounts to success.
//!
//! A scenario prints `BULKHEAD-TEST name: ok` or `BULKHEAD-TEST name: fail reason` for each thing it
//! tested, and at its end `BULKHEAD-TEST scenario: done`.

use anyhow::{Result, ensure};

/// What begins a line meant for us.
const MARK: &str = "BULKHEAD-TEST ";

/// Words that only a fault puts on the console.
const FAULTS: [&str; 8] = [
    "Kernel panic",
    "BUG: ",
    "Oops: ",
    "WARNING: CPU",
    "rcu: INFO: rcu_",
    "hypervisor panic",
    " in the hypervisor",
    "cannot start: ",
];

/// How many failures a message tells of.
const SHOWN_FAILURES: usize = 5;

/// One line of a scenario.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) result: Said,
}

/// What a line says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    Ok,
    Fail(String),
    Done,
}

/// Reads a line of the console; other text than a scenario's gives nothing.
pub(crate) fn parse(line: &str) -> Option<Line> {
    let (name, said) = line.split_once(MARK)?.1.split_once(": ")?;
    let result = match said.trim_end() {
        "ok" => Said::Ok,
        "done" => Said::Done,
        other => Said::Fail(other.strip_prefix("fail").unwrap_or(other).trim().to_string()),
    };
    Some(Line { name: name.to_string(), result })
}

/// Whether a line of the console tells of a fault.
pub(crate) fn is_fault(line: &str) -> bool {
    !line.contains(MARK) && FAULTS.iter().any(|fault| line.contains(fault))
}

/// What the lines tell of failures: how many, and the first few.
pub(crate) fn failure(lines: &[Line]) -> Option<String> {
    let failures = lines.iter().filter_map(|line| match &line.result {
        Said::Fail(reason) => Some(format!("{}: {reason}", line.name)),
        Said::Ok | Said::Done => None,
    });
    let failures: Vec<String> = failures.collect();
    let shown = failures.iter().take(SHOWN_FAILURES).cloned().collect::<Vec<_>>().join("; ");
    match failures.len() {
        0 => None,
        1..=SHOWN_FAILURES => Some(shown),
        count => Some(format!("{count} failures, such as {shown}")),
    }
}

/// Whether the lines have all of `expected`, and the scenario's end.
///
/// # Errors
/// What is missing.
pub(crate) fn complete(lines: &[Line], expected: &[&str]) -> Result<()> {
    ensure!(lines.iter().any(|line| line.result == Said::Done), "the scenario did not come to its end");
    for name in expected {
        let passed = lines.iter().any(|line| line.name == *name && line.result == Said::Ok);
        ensure!(passed, "{name}: the scenario said nothing about it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Said, complete, failure, is_fault, parse};

    #[test]
    fn lines_are_found_behind_time_stamps() {
        let line = parse("[    1.0] BULKHEAD-TEST disk: fail checksum differs").unwrap();
        assert_eq!((line.name.as_str(), line.result), ("disk", Said::Fail("checksum differs".into())));
        assert_eq!(parse("BULKHEAD-TEST disk: ok").unwrap().result, Said::Ok);
        assert_eq!(parse("disk: ok"), None);
        let lines = [parse("BULKHEAD-TEST a: ok").unwrap(), parse("BULKHEAD-TEST b: fail why").unwrap()];
        assert_eq!(failure(&lines).as_deref(), Some("b: why"));
    }

    #[test]
    fn success_needs_the_end_and_all_that_was_expected() {
        let lines: Vec<_> = ["a: ok", "b: ok", "s: done"]
            .iter()
            .filter_map(|l| parse(&format!("BULKHEAD-TEST {l}")))
            .collect();
        assert!(complete(&lines, &["a", "b"]).is_ok());
        assert!(complete(&lines, &["c"]).is_err());
        assert!(complete(&lines[..2], &["a"]).is_err());
    }

    #[test]
    fn faults_of_the_root_are_noticed() {
        assert!(is_fault("[ 1.0] Kernel panic - not syncing: x"));
        assert!(!is_fault("BULKHEAD-TEST dmesg: fail WARNING: CPU: 0"));
    }
}
