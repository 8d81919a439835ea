//! The root kernel: Debian's newest `linux-source` of the 7 series, configured as a root partition.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{Apt, Control};
use crate::cache::{self, Key};
use crate::{progress, tools};

/// Raised when the way the kernel is built changes in a manner its other inputs do not show.
const RECIPE: &str = "1";
/// How many lines `make` prints for our configuration.
const STEPS: usize = 2500;
/// What of the source tree is kept, for checking our structures against Linux's.
const HEADERS: [&str; 3] = ["include", "arch/x86/include", "drivers/hv"];

/// Debian's source package of the newest kernel of the series.
pub(crate) struct Source {
    apt: Apt,
    control: Control,
}

impl Source {
    /// Finds the package. The choice is kept in the cache, so that a later start needs no package lists.
    ///
    /// # Errors
    /// Debian's lists cannot be fetched or hold no such package.
    pub(crate) fn find() -> Result<Self> {
        let apt = Apt::kernels()?;
        let mut names = apt.names("linux-source-7.")?;
        names.sort_by_key(|name| minor(name));
        let newest = names.pop().context("Debian has no package `linux-source-7.*`")?;
        let control = apt.show(&newest)?.into_iter().next().context("the package has no version")?;
        Ok(Self { apt, control })
    }

    /// The upstream version, such as `7.3.4`.
    pub(crate) fn version(&self) -> &str {
        self.control.version.split('-').next().unwrap_or(&self.control.version)
    }

    /// The folder with the headers of this source.
    ///
    /// # Errors
    /// The package cannot be fetched or unpacked.
    pub(crate) fn headers(&self) -> Result<PathBuf> {
        let key = Key::new().with(&self.control.version).with(HEADERS.join(" "));
        cache::artefact("linux-headers", self.version(), &key, |folder| {
            let what =
                format!("unpacking the headers of Linux {} (about half a minute, once)", self.version());
            progress::step(&what, || self.unpack(folder, &HEADERS))
        })
    }

    /// The root kernel's bzImage, built with the configuration of `images/root.config`.
    ///
    /// # Errors
    /// The package cannot be fetched, or the build fails.
    pub(crate) fn bzimage(&self) -> Result<PathBuf> {
        let fragment = tools::workspace().join("images/root.config");
        let key = Key::new().with(&self.control.version).with(RECIPE).with_file(&fragment)?;
        let folder = cache::artefact("root-kernel", self.version(), &key, |folder| {
            let tree = folder.join("tree");
            let what = format!("fetching and unpacking the source of Linux {}", self.version());
            progress::step(&what, || self.unpack(&tree, &[]))?;
            let what = format!(
                "building the root kernel {} (about 10 minutes on two processors, once)",
                self.version()
            );
            progress::step(&what, || build(&tree, &fragment, &folder.join("build.log")))?;
            fs::copy(tree.join("arch/x86/boot/bzImage"), folder.join("bzImage"))?;
            fs::copy(tree.join(".config"), folder.join("config"))?;
            fs::remove_dir_all(&tree)?;
            Ok(())
        })?;
        Ok(folder.join("bzImage"))
    }

    /// Unpacks the source tree, or the named parts of it, into `folder`.
    fn unpack(&self, folder: &Path, parts: &[&str]) -> Result<()> {
        let package = folder.join("package");
        self.apt.unpack(&self.control, &package)?;
        let name = &self.control.package;
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(folder).args(["--strip-components=1", "-xf"]);
        tar.arg(package.join("usr/src").join(format!("{name}.tar.xz")));
        tar.args(parts.iter().map(|part| format!("{name}/{part}")));
        tools::output(&mut tar)?;
        fs::remove_dir_all(package)?;
        Ok(())
    }
}

/// The number after the last dot of `linux-source-7.3`.
fn minor(name: &str) -> u32 {
    name.rsplit('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Configures the tree from nothing plus our fragment, checks that nothing of it was lost, and builds.
fn build(tree: &Path, fragment: &Path, log: &Path) -> Result<()> {
    let make = |arguments: &[&str]| {
        let mut command = Command::new("make");
        // What goes into the image must not depend on who builds it, and where.
        command.env("KBUILD_BUILD_USER", "bulkhead").env("KBUILD_BUILD_HOST", "bulkhead");
        command.env("KBUILD_BUILD_TIMESTAMP", "1970-01-01");
        command.arg("-C").arg(tree).args(arguments);
        tools::watched(&mut command, log, |steps| {
            progress::say(format_args!("  {steps} of about {STEPS} steps"))
        })
    };
    make(&["tinyconfig"])?;
    let wanted = fs::read_to_string(fragment).context("cannot read images/root.config")?;
    let config = tree.join(".config");
    let base = fs::read_to_string(&config)?;
    let kept = base.lines().filter(|line| symbol(line).is_none_or(|symbol| !sets(&wanted, symbol)));
    fs::write(&config, format!("{}\n{wanted}", kept.collect::<Vec<_>>().join("\n")))?;
    make(&["olddefconfig"])?;
    let result = fs::read_to_string(&config)?;
    for line in wanted.lines().filter(|line| line.starts_with("CONFIG_")) {
        anyhow::ensure!(
            result.lines().any(|got| got == line),
            "images/root.config asks for {line}, which this kernel's configuration drops: a dependency is missing or the option was renamed"
        );
    }
    let jobs = std::thread::available_parallelism().map_or(2, usize::from);
    make(&[&format!("-j{jobs}"), "bzImage"])
}

/// The symbol a line of a configuration is about.
fn symbol(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    line.starts_with("CONFIG_").then(|| line.split(['=', ' ']).next())?
}

fn sets(fragment: &str, wanted: &str) -> bool {
    fragment.lines().any(|line| symbol(line) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::{minor, symbol};

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(minor("linux-source-7.10") > minor("linux-source-7.3"));
    }

    #[test]
    fn lines_that_unset_a_symbol_name_it_too() {
        assert_eq!(symbol("CONFIG_SMP=y"), Some("CONFIG_SMP"));
        assert_eq!(symbol("# CONFIG_SMP is not set"), Some("CONFIG_SMP"));
        assert_eq!(symbol("# CPU"), None);
    }
}
