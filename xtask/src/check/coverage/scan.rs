//! What the sources name, found in their text. Comments are gone already, except where noted.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};

/// Names and their numbers.
pub(super) type Constants = BTreeMap<String, u64>;

/// An arm of a dispatch table: `C::NAME => call.simple(P::PRIVILEGE, handler)`, or another kind than `simple`.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Arm {
    pub(super) name: String,
    pub(super) privilege: String,
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The word at the start of a text.
fn word(text: &str) -> &str {
    text.split(|char: char| !is_word(char)).next().unwrap_or_default()
}

/// A number as Rust writes it in hexadecimal, at the start of a text.
fn number(text: &str) -> Option<u64> {
    let digits = word(text).strip_prefix("0x")?.replace('_', "");
    u64::from_str_radix(&digits, 16).ok()
}

/// `pub const NAME: u32 = 0x…;`.
pub(super) fn constants(code: &str) -> Constants {
    let lines = code.lines().filter_map(|line| line.trim().strip_prefix("pub const "));
    let parts = lines.filter_map(|line| line.split_once(": u32 = "));
    parts.filter_map(|(name, value)| Some((name.to_string(), number(value)?))).collect()
}

/// The values `NAME = 0x…,` of the open enumeration `kind`.
pub(super) fn members(code: &str, kind: &str) -> Constants {
    let Some((_, body)) = code.split_once(&format!("pub struct {kind}(")) else { return Constants::new() };
    let lines = body.lines().skip(1).map(str::trim).take_while(|line| !line.starts_with('}'));
    let parts = lines.filter_map(|line| line.split_once(" = "));
    parts.filter_map(|(name, value)| Some((name.to_string(), number(value)?))).collect()
}

/// The arms of hypercall tables.
pub(super) fn arms(code: &str) -> Vec<Arm> {
    let pieces: Vec<&str> = code.split("=>").collect();
    let mut found = Vec::new();
    for pair in pieces.windows(2) {
        let Some(privilege) = arm_privilege(pair[1]) else { continue };
        for name in pattern(pair[0])
            .filter_map(|name| name.strip_prefix("C::").or_else(|| name.strip_prefix("CallCode::")))
        {
            found.push(Arm { name: name.to_string(), privilege: privilege.clone() });
        }
    }
    found
}

/// The alternatives of the pattern that a text ends with.
fn pattern(text: &str) -> impl Iterator<Item = &str> {
    let start = text.rfind(|char: char| !is_word(char) && !" \n|:".contains(char)).map_or(0, |at| at + 1);
    text[start..].split('|').map(str::trim)
}

/// The first argument of the `call.kind(…)` that a text begins with: privileges, by their names.
fn arm_privilege(text: &str) -> Option<String> {
    let method =
        text.trim_start_matches(|char: char| char.is_whitespace() || char == '{').strip_prefix("call.")?;
    let arguments = method[word(method).len()..].strip_prefix('(')?;
    let privilege = arguments.split(',').next().filter(|privilege| privilege.contains("::"))?;
    let names: Vec<&str> = privilege.split("::").skip(1).map(word).filter(|name| *name != "with").collect();
    Some(names.join(" "))
}

/// Words behind `prefix` that stand left of an arrow, as `leaf::NAME =>`.
pub(super) fn left_of_arrows<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    let pieces = code.split("=>");
    pieces.flat_map(move |piece| {
        pattern(piece).filter_map(move |name| name.strip_prefix(prefix)).map(String::from)
    })
}

/// The constants that are named behind `prefix`, alone or by a range `prefixA..=prefixB`.
pub(super) fn mentioned<'a>(code: &str, prefix: &str, named: &'a Constants) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_word) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let name = word(rest);
        let Some(&first) = named.get(name) else { continue };
        let last = rest[name.len()..].strip_prefix("..=").and_then(|end| end.strip_prefix(prefix));
        let last = last.and_then(|end| named.get(word(end))).copied().unwrap_or(first);
        found.extend(
            named.iter().filter(|(_, number)| (first..=last).contains(number)).map(|(name, _)| name.as_str()),
        );
    }
    found
}

/// Ranges of numbers, `0x…..=0x…`.
pub(super) fn ranges(code: &str) -> Vec<RangeInclusive<u64>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("..=0x") {
        let start = code[..at].rfind(|char: char| !is_word(char)).map_or(0, |before| before + 1);
        if let (Some(first), Some(last)) = (number(&code[start..at]), number(&code[at + 3..])) {
            found.push(first..=last);
        }
    }
    found
}

/// The constants of a group: names and `A-B`, separated by commas.
///
/// # Errors
/// A name is unknown.
pub(super) fn group<'a>(names: &str, named: &'a Constants) -> Result<Vec<&'a str>> {
    let number = |name: &str| named.get(name).copied().with_context(|| format!("there is no {name}"));
    let mut members = Vec::new();
    for part in names.split(", ") {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first)?..=number(last)?;
        members
            .extend(named.iter().filter(|(_, number)| range.contains(number)).map(|(name, _)| name.as_str()));
    }
    Ok(members)
}

/// All texts in quotes of a source, escapes aside.
pub(super) fn texts(source: &str) -> Vec<String> {
    source.lines().flat_map(|line| line.split('"').skip(1).step_by(2)).map(String::from).collect()
}

/// The names of functions.
pub(super) fn functions(code: &str) -> Vec<String> {
    code.match_indices("fn ").map(|(at, fun)| word(&code[at + fun.len()..]).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Constants {
        [("A", 1), ("B", 2), ("C", 3), ("D", 9)].map(|(name, number)| (name.to_string(), number)).into()
    }

    #[test]
    fn arms_have_their_privilege_whatever_the_layout() {
        let code = "match code {\n C::A => call.rep(P::CREATE, m::a),\n CallCode::B | C::D => {\n call.simple(P::NONE, b)\n }\n\
                    Ok(()) if code == CallCode::C => end(X),\n C::E => call.unknown(),\n _ => table(call) }";
        let arm = |name: &str, privilege: &str| Arm { name: name.into(), privilege: privilege.into() };
        assert_eq!(arms(code), [arm("A", "CREATE"), arm("B", "NONE"), arm("D", "NONE")]);
    }

    #[test]
    fn enumerations_and_constants_give_numbers() {
        let code =
            "x\npub struct Kind(u16) {\n _\n A_B = 0x00_1f,\n #[doc(alias = _)]\n C = 0x2,\n}\nD = 0x3,";
        assert_eq!(members(code, "Kind"), [("A_B".to_string(), 0x1f), ("C".to_string(), 2)].into());
        let code = "pub const X: u32 = 0x4000_0001;\npub const Y: u64 = 0x1;\nconst Z: u32 = 0x2;";
        assert_eq!(constants(code), [("X".to_string(), 0x4000_0001)].into());
    }

    #[test]
    fn ranges_cover_what_lies_between() {
        let named = named();
        let found = mentioned("hv::A..=hv::C => 1, hv::D if x => 2, rehv::D", "hv::", &named);
        assert_eq!(found, ["A", "B", "C", "D"].into());
        assert_eq!(mentioned("hv::A, hv::NONE", "hv::", &named), ["A"].into());
        assert_eq!(ranges("N(0x2_0000..=0x2_000f) => a, 1..=2, 0x7..=0x8"), [0x2_0000..=0x2_000f, 7..=8]);
    }

    #[test]
    fn arrows_have_names_at_their_left() {
        let found: Vec<_> =
            left_of_arrows("match leaf { leaf::A => f(leaf::C), leaf::B | leaf::D => 1 }", "leaf::")
                .collect();
        assert_eq!(found, ["A", "B", "D"]);
    }

    #[test]
    fn groups_expand_their_ranges() {
        let named = named();
        assert_eq!(group("A-B, D", &named).unwrap(), ["A", "B", "D"]);
        assert!(group("A, X", &named).is_err());
    }

    #[test]
    fn tests_are_found_as_texts_and_functions() {
        assert_eq!(texts("boot(\"cpus-1\", \"why\")"), ["cpus-1", "why"]);
        assert_eq!(functions("fn a() {}\n    fn b_c<T>() {}"), ["a", "b_c"]);
    }
}
