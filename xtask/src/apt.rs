//! Debian packages from suites the machine does not use, without touching its configuration.
//!
//! The sources are derived at run time from those the machine has: the same mirrors and keyrings, with
//! other suites. They and the package lists live in the cache.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cache, progress, tools};

/// One place packages come from: what a deb822 stanza says.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    signed_by: Option<String>,
}

/// A private apt configuration over some suites.
pub(crate) struct Apt {
    folder: PathBuf,
    /// The suite preferred by `install`, if it is not the newest stable one.
    target: Option<String>,
}

impl Apt {
    /// The machine's own suites and the backports of its release: for packages that are installed.
    ///
    /// # Errors
    /// The machine is not Debian, or its sources cannot be read.
    pub(crate) fn host() -> Result<Self> {
        let release = release()?;
        let mut sources = machine_sources(&release)?;
        let backports = format!("{release}-backports");
        sources.push(Source { suites: vec![backports.clone()], ..main_archive(&sources, &release)? });
        Self::prepare("host", &sources, Some(backports))
    }

    /// The backports of Debian 13: the newest kernels, for packages that are only unpacked.
    ///
    /// # Errors
    /// As for [`Apt::host`].
    pub(crate) fn kernels() -> Result<Self> {
        let release = release()?;
        let archive = main_archive(&machine_sources(&release)?, &release)?;
        let source = Source { suites: vec!["trixie-backports".into()], ..archive };
        Self::prepare("kernels", &[source], None)
    }

    fn prepare(name: &str, sources: &[Source], target: Option<String>) -> Result<Self> {
        let folder = cache::root()?.join("apt").join(name);
        for sub in ["sources", "lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(sub))?;
        }
        let apt = Self { folder, target };
        let text: String = sources.iter().map(stanza).collect();
        let file = apt.folder.join("sources/bulkhead.sources");
        if fs::read_to_string(&file).unwrap_or_default() != text {
            fs::remove_file(apt.stamp()).or_else(ignore_missing)?;
            fs::write(&file, text)?;
        }
        Ok(apt)
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("updated")
    }

    /// Forgets the package lists, so that the next use fetches them anew.
    ///
    /// # Errors
    /// The stamp cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        fs::remove_file(self.stamp()).or_else(ignore_missing)?;
        Ok(())
    }

    /// A command of apt's family with this configuration.
    fn command(&self, program: &str, privileged: bool) -> Command {
        let mut command = if privileged && !is_root() {
            let mut sudo = Command::new("sudo");
            sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
            sudo
        } else {
            Command::new(program)
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        let folder = self.folder.display();
        for option in [
            format!("Dir::State::lists={folder}/lists"),
            "Dir::Etc::sourcelist=/dev/null".into(),
            format!("Dir::Etc::sourceparts={folder}/sources"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=3".into(),
            "APT::Update::Post-Invoke-Success::=".into(),
            "DPkg::Lock::Timeout=600".into(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }

    /// Fetches the package lists once.
    fn update(&self) -> Result<()> {
        let _lock = cache::lock("apt")?;
        if self.stamp().exists() {
            return Ok(());
        }
        progress::step("fetching Debian's package lists", || {
            let log = self.folder.join("update.log");
            tools::logged(self.command("apt-get", false).args(["-q", "update"]), &log)?;
            fs::write(self.stamp(), "")?;
            Ok(())
        })
    }

    /// Installs packages into the machine, preferring the backports for those that `prefer` names.
    ///
    /// # Errors
    /// There is neither root nor sudo, or apt fails.
    pub(crate) fn install(&self, packages: &[&str], prefer_backports: bool) -> Result<()> {
        if !is_root() && !tools::exists("sudo") {
            bail!("installing {} needs root: run this as root or install sudo", packages.join(" "));
        }
        self.update()?;
        let _lock = cache::lock("apt")?;
        let log = self.folder.join("install.log");
        let mut command = self.command("apt-get", true);
        command.args(["-q", "-y", "--no-install-recommends", "install"]);
        if let (true, Some(suite)) = (prefer_backports, &self.target) {
            command.args(["-t", suite]);
        }
        tools::logged(command.args(packages), &log)
    }

    /// Every version apt knows of packages with this name: one control stanza each.
    ///
    /// # Errors
    /// The lists cannot be fetched, or no such package exists.
    pub(crate) fn show(&self, package: &str) -> Result<Vec<Control>> {
        self.update()?;
        let text = tools::output(self.command("apt-cache", false).args(["show", package]))
            .with_context(|| format!("Debian's lists hold no package `{package}`"))?;
        Ok(text.split("\n\n").filter(|stanza| stanza.contains("Version:")).map(Control::parse).collect())
    }

    /// The names of all packages that begin with `prefix`.
    ///
    /// # Errors
    /// The lists cannot be fetched.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        self.update()?;
        let text = tools::output(self.command("apt-cache", false).args(["pkgnames", prefix]))?;
        Ok(text.lines().map(String::from).collect())
    }

    /// Downloads `package=version` and unpacks it into `into`, which need not exist.
    ///
    /// # Errors
    /// The download or the unpacking fails.
    pub(crate) fn unpack(&self, control: &Control, into: &Path) -> Result<()> {
        self.update()?;
        let _lock = cache::lock("apt")?;
        let downloads = self.folder.join("download");
        if downloads.exists() {
            fs::remove_dir_all(&downloads)?;
        }
        fs::create_dir_all(&downloads)?;
        let wanted = format!("{}={}", control.package, control.version);
        let mut download = self.command("apt-get", false);
        download.current_dir(&downloads).args(["-q", "download", &wanted]);
        tools::output(&mut download).with_context(|| format!("cannot download the package {wanted}"))?;
        let file = fs::read_dir(&downloads)?.next().context("apt-get download left no file")??.path();
        fs::create_dir_all(into)?;
        tools::output(Command::new("dpkg-deb").arg("-x").arg(&file).arg(into))?;
        fs::remove_file(file)?;
        Ok(())
    }
}

/// What we use of a package's control stanza.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    /// The package's name.
    pub(crate) package: String,
    /// Its full Debian version.
    pub(crate) version: String,
    /// The names it depends on, without versions or alternatives.
    pub(crate) depends: Vec<String>,
}

impl Control {
    fn parse(stanza: &str) -> Self {
        let field = |name: &str| {
            let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.unwrap_or_default().trim().to_string()
        };
        let depends = field("Depends");
        let names = depends.split(',').filter_map(|part| part.split_whitespace().next()).map(String::from);
        Self { package: field("Package"), version: field("Version"), depends: names.collect() }
    }
}

/// Which of these packages are not installed.
///
/// # Errors
/// There is no `dpkg-query`: the machine is not Debian.
pub(crate) fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    let query = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
        .output()
        .context("this machine has no dpkg: the set-up knows Debian only")?;
    let text = String::from_utf8_lossy(&query.stdout);
    let installed: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(packages.iter().copied().filter(|package| !installed.contains(package)).collect())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// The code name of the machine's Debian release.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let debian = text.lines().any(|line| line == "ID=debian");
    match name {
        Some(name) if debian => Ok(name.trim_matches('"').to_string()),
        _ => bail!("this machine is not a Debian release: the set-up knows Debian 12 and newer"),
    }
}

/// The machine's sources of its own release: main archive, updates, security.
fn machine_sources(release: &str) -> Result<Vec<Source>> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        sources.extend(match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822(&text),
            Some("list") => one_line(&text),
            _ => Vec::new(),
        });
    }
    for source in &mut sources {
        source.suites.retain(|suite| suite == release || suite.starts_with(&format!("{release}-")));
        source.suites.retain(|suite| !suite.ends_with("-backports"));
    }
    sources.retain(|source| !source.suites.is_empty());
    Ok(sources)
}

/// The source that holds the release itself.
fn main_archive(sources: &[Source], release: &str) -> Result<Source> {
    let found = sources.iter().find(|source| source.suites.iter().any(|suite| suite == release));
    found.cloned().with_context(|| format!("/etc/apt names no source for the suite `{release}`"))
}

/// Reads stanzas of `Name: value` lines; continuation lines hold keys we do not need.
fn deb822(text: &str) -> Vec<Source> {
    let field = |stanza: &str, name: &str| {
        let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_string())
    };
    let words = |text: String| text.split_whitespace().map(String::from).collect::<Vec<_>>();
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let (Some(uris), Some(suites)) = (field(stanza, "URIs"), field(stanza, "Suites")) else { continue };
        let (types, components) = (field(stanza, "Types"), field(stanza, "Components"));
        let binary = types.is_some_and(|types| types.split_whitespace().any(|kind| kind == "deb"));
        let main = components.is_some_and(|list| list.split_whitespace().any(|name| name == "main"));
        let disabled = field(stanza, "Enabled").is_some_and(|value| value == "no");
        let Some(uri) = words(uris).into_iter().next().filter(|_| binary && main && !disabled) else {
            continue;
        };
        let signed_by = field(stanza, "Signed-By").filter(|path| path.starts_with('/'));
        sources.push(Source { uri, suites: words(suites), signed_by });
    }
    sources
}

/// Reads lines of the form `deb [options] uri suite components…`.
fn one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        if !words.any(|component| component == "main") {
            continue;
        }
        let signed_by = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        sources.push(Source {
            uri: uri.into(),
            suites: vec![suite.into()],
            signed_by: signed_by.map(String::from),
        });
    }
    sources
}

fn stanza(source: &Source) -> String {
    let keyring = source.signed_by.as_deref().unwrap_or("/usr/share/keyrings/debian-archive-keyring.gpg");
    format!(
        "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: {keyring}\n\n",
        source.uri,
        source.suites.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::{Control, deb822, one_line};

    #[test]
    fn deb822_stanza_gives_mirror_suites_and_keyring() {
        let text = "Types: deb deb-src\n# remark\nURIs: http://mirror/debian\nSuites: a a-updates\n\
                    Components: main contrib\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: x\nSuites: b\nComponents: c\n";
        let sources = deb822(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].uri, "http://mirror/debian");
        assert_eq!(sources[0].suites, ["a", "a-updates"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/k.gpg"));
    }

    #[test]
    fn one_line_source_may_have_options() {
        let text = "# deb http://no/ x main\ndeb http://m/debian a main contrib\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://n/debian b main\ndeb http://o/ c other\n";
        let sources = one_line(text);
        assert_eq!(sources.len(), 2);
        assert_eq!((sources[0].uri.as_str(), sources[0].signed_by.as_deref()), ("http://m/debian", None));
        assert_eq!((sources[1].suites[0].as_str(), sources[1].signed_by.as_deref()), ("b", Some("/k.gpg")));
    }

    #[test]
    fn control_stanza_names_dependencies_without_versions() {
        let control = Control::parse("Package: p\nVersion: 1-2\nDepends: a (= 1) | b, c\n");
        assert_eq!((control.package.as_str(), control.version.as_str()), ("p", "1-2"));
        assert_eq!(control.depends, ["a", "c"]);
    }
}
