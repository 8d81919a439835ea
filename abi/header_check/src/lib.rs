//! Evaluates C expressions over the headers of a Linux source tree and compares them with our values.
//!
//! The tree is named by the environment variable `BULKHEAD_LINUX_SRC` and only read: nothing of it is
//! part of this repository. Its headers include three others, for which `shim/` has our own.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// The environment variable that names the Linux source tree.
pub const SOURCE_VARIABLE: &str = "BULKHEAD_LINUX_SRC";

/// The Linux source tree.
///
/// # Panics
/// If the variable is missing or names no source tree: an absent contract must not look like a kept one.
#[must_use]
pub fn linux_source() -> PathBuf {
    let source = std::env::var_os(SOURCE_VARIABLE).unwrap_or_else(|| {
        panic!("{SOURCE_VARIABLE} is not set: it must name an unpacked Linux source tree")
    });
    let source = PathBuf::from(source);
    let header = source.join("include/hyperv/hvhdk.h");
    assert!(
        header.is_file(),
        "{SOURCE_VARIABLE} names no Linux source tree: {} is missing",
        header.display()
    );
    source
}

/// The text of a file of the Linux source tree.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn linux_file(path: &str) -> String {
    let path = linux_source().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names with the given prefix that a C header defines: macros with a value, and enumerators.
#[must_use]
pub fn defined_names(header: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in header.lines() {
        let line = line.trim_start();
        let (name, rest) = match line.strip_prefix("#define") {
            Some(definition) => split_identifier(definition.trim_start()),
            None => split_identifier(line),
        };
        let defined = if line.starts_with("#define") {
            !rest.starts_with('(') && !rest.trim().is_empty()
        } else {
            rest.trim_start().starts_with('=')
        };
        if defined && name.starts_with(prefix) {
            names.insert(name.to_owned());
        }
    }
    names
}

fn split_identifier(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// The declaration of a C header that begins with this line, up to the line that closes its brace.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn declaration(header: &str, first_line: &str) -> String {
    let mut lines = header.lines().skip_while(|line| *line != first_line);
    let mut text = String::new();
    for line in &mut lines {
        text.push_str(line);
        text.push('\n');
        if line.starts_with('}') {
            return text;
        }
    }
    panic!("the header has no `{first_line}`");
}

/// A list of C expressions and the values that we hold them to have.
#[derive(Default)]
pub struct Comparison {
    declarations: String,
    expected: Vec<(String, u64)>,
}

impl Comparison {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty list of expressions that may use these declarations too.
    #[must_use]
    pub fn over(declarations: String) -> Self {
        Self { declarations, ..Self::default() }
    }

    /// Expects the integer expression to have the value.
    pub fn value(&mut self, expression: impl Into<String>, ours: u64) {
        self.expected.push((expression.into(), ours));
    }

    /// Expects the C type to have the size.
    pub fn size(&mut self, c_type: &str, ours: usize) {
        self.value(format!("sizeof({c_type})"), ours as u64);
    }

    /// Expects the field of the C type to have the offset.
    pub fn offset(&mut self, c_type: &str, field: &str, ours: usize) {
        self.value(format!("offsetof({c_type}, {field})"), ours as u64);
    }

    /// Expects the bit field of the C type to be these bits of its first word.
    pub fn mask(&mut self, c_type: &str, field: &str, ours: u64) {
        self.mask_at(c_type, 0, field, ours);
    }

    /// Expects the bit field of the C type to be these bits of the word that starts at the byte.
    pub fn mask_at(&mut self, c_type: &str, start: usize, field: &str, ours: u64) {
        self.value(format!("MASK({c_type}, {start}, {field})"), ours);
    }

    /// Compares.
    ///
    /// # Panics
    /// If an expression does not compile or has another value; the message lists every difference.
    pub fn run(self) {
        let expressions = self.expected.iter().map(|(expression, _)| expression.as_str());
        let theirs = evaluate(&self.declarations, expressions);
        assert_eq!(theirs.len(), self.expected.len(), "the C program answered in part");
        let mut differences = String::new();
        for ((expression, ours), theirs) in self.expected.iter().zip(theirs) {
            if *ours != theirs {
                let _ = writeln!(differences, "{expression}: Linux has {theirs:#x}, we have {ours:#x}");
            }
        }
        assert!(differences.is_empty(), "differences:\n{differences}");
    }
}

/// `MASK` sets one bit field to ones in a zeroed object, and reads 64 bits of the object.
const PRELUDE: &str = r"
#include <stdio.h>
#include <string.h>
#define MSHV_DEBUGFS_C
#define NSEC_PER_SEC 1000000000
#define MASK(type, start, field) ({ \
    union { type object; u8 bytes[(start) + 8]; } probe; \
    u64 word; \
    memset(&probe, 0, sizeof(probe)); \
    probe.object.field = ~0ull; \
    memcpy(&word, probe.bytes + (start), sizeof(word)); \
    word; })
#define COUNTER(table, index) \
    ((index) < sizeof(table) / sizeof(*(table)) && (table)[index] ? (table)[index] : (char *)0)
";

fn evaluate<'a>(declarations: &str, expressions: impl Iterator<Item = &'a str>) -> Vec<u64> {
    let source = linux_source();
    let mut program = PRELUDE.to_owned();
    for header in ["include/hyperv/hvhdk.h", "include/hyperv/hvgdk.h", "drivers/hv/mshv_debugfs_counters.c"] {
        let _ = writeln!(program, "#include \"{}\"", source.join(header).display());
    }
    program.push_str(declarations);
    program.push_str("int main(void)\n{\n");
    for expression in expressions {
        let _ = writeln!(program, "printf(\"%llu\\n\", (unsigned long long)({expression}));");
    }
    program.push_str("return 0;\n}\n");
    compile_and_run(&program)
        .lines()
        .map(|line| line.parse().unwrap_or_else(|error| panic!("the C program printed {line:?}: {error}")))
        .collect()
}

fn compile_and_run(program: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let binary = std::env::temp_dir().join(format!("bulkhead-header-check-{}-{number}", std::process::id()));
    let mut compiler = Command::new("gcc")
        .args(["-std=gnu11", "-w", "-x", "c", "-I"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("shim"))
        .arg("-o")
        .args([binary.as_os_str(), "-".as_ref()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("gcc: {error}"));
    let mut stdin = compiler.stdin.take().expect("standard input is piped");
    stdin.write_all(program.as_bytes()).expect("gcc reads its input");
    drop(stdin);
    assert!(
        compiler.wait().expect("gcc ends").success(),
        "gcc rejects the comparison; see its message above"
    );
    let output = Command::new(&binary).output();
    let _ = std::fs::remove_file(&binary);
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    assert!(output.status.success(), "the C program failed: {}", output.status);
    String::from_utf8(output.stdout).expect("the C program prints numbers")
}

#[cfg(test)]
mod tests {
    use super::{declaration, defined_names};

    #[test]
    fn names_are_those_of_valued_macros_and_enumerators() {
        let header = "\
            #define HV_ONE 1\n\
            #define HV_FUNCTION(a) a\n\
            #define HV_GUARD\n\
            enum {\n\tHV_TWO\t= 2,\n\tHV_IMPLICIT,\n};\n\
            u32 x; /* HV_COMMENT = 3 */\n";
        assert_eq!(Vec::from_iter(defined_names(header, "HV_")), ["HV_ONE", "HV_TWO"]);
        assert!(defined_names(header, "OTHER_").is_empty());
    }

    #[test]
    fn a_declaration_ends_with_its_brace() {
        let header = "struct a {\n\tu8 x;\n};\nstruct b {\n\tstruct {\n\t\tu8 y;\n\t};\n} __packed;\nu8 z;\n";
        assert_eq!(
            declaration(header, "struct b {"),
            "struct b {\n\tstruct {\n\t\tu8 y;\n\t};\n} __packed;\n"
        );
    }
}
