//! The hypervisor's dearest functions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::boot::{Mode, Said};
use super::count::Counts;
use crate::tools;

/// For each operation the `limit` functions in which most instructions were executed, as text.
///
/// # Errors
/// The symbols cannot be read.
pub(super) fn hottest(image: &Path, counts: &BTreeMap<Mode, (Said, Counts)>, limit: usize) -> Result<String> {
    let symbols = symbols(&tools::output(Command::new("nm").args(["-C", "--defined-only"]).arg(image))?);
    let mut text = String::new();
    for (mode, (said, counts)) in counts {
        for sample in &said.samples {
            let Some(batch) = counts.fastest(sample.region) else { continue };
            let mut functions: BTreeMap<&str, f64> = BTreeMap::new();
            for (address, count) in &batch.spots {
                let name = symbols.range(..=address).next_back().map_or("?", |(_, name)| name);
                *functions.entry(name).or_default() += count / sample.iterations;
            }
            let mut functions: Vec<_> = functions.into_iter().filter(|(_, count)| *count >= 0.5).collect();
            functions.sort_by(|one, other| other.1.total_cmp(&one.1));
            if !functions.is_empty() {
                writeln!(text, "\n{mode}, {}: hypervisor instructions for one operation", sample.name)?;
            }
            for (name, count) in functions.iter().take(limit) {
                writeln!(text, "{count:12.1}  {name}")?;
            }
        }
    }
    Ok(text)
}

/// Functions by address, from the output of `nm`.
fn symbols(output: &str) -> BTreeMap<u64, String> {
    let entry = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        let name = rest.strip_prefix(['t', 'T', 'w', 'W'])?.trim_start();
        Some((u64::from_str_radix(address, 16).ok()?, name.to_string()))
    };
    output.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::symbols;

    #[test]
    fn only_code_has_symbols() {
        let symbols = symbols("ffffffff80201000 T run\nffffffff80300000 D data\n");
        assert_eq!(symbols.get(&0xffff_ffff_8020_1000).map(String::as_str), Some("run"));
        assert_eq!(symbols.len(), 1);
    }
}
