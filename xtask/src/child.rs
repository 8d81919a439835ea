//! The child's kernel: a stock Debian cloud kernel, taken from its package and not changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{Apt, Control};
use crate::cache::{self, Key};
use crate::{progress, tools};

/// The package that depends on a release's newest cloud kernel.
const META: &str = "linux-image-cloud-amd64";

/// A kernel as its packages hold it.
pub(crate) struct StockKernel {
    /// The bzImage.
    pub(crate) bzimage: PathBuf,
    /// The folder `lib/modules/VERSION`, where the package has modules.
    pub(crate) modules: Option<PathBuf>,
}

/// Checks that a word can be a series; whether Debian has it, only [`stock`] finds out.
///
/// # Errors
/// It cannot, and is no file either.
pub(crate) fn check_series(series: &str) -> Result<()> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(
        series.split('.').all(digits),
        "there is no kernel `{series}`: name a bzImage, or a series such as 7.3, 6.12 or 6.1"
    );
    Ok(())
}

/// The newest Debian cloud kernel of a series, such as `7`, `6.12` or `6.1`.
///
/// # Errors
/// The series is none of Debian's, or its package cannot be fetched.
pub(crate) fn stock(series: &str) -> Result<StockKernel> {
    check_series(series)?;
    let (apt, image) = find(series)?;
    let key = Key::new().with(&image.package).with(&image.version);
    let folder = cache::artefact("child-kernel", &image.package, &key, |folder| {
        progress::step(&format!("fetching the child's kernel: package {}", image.package), || {
            unpack(&apt, &image, folder)
        })
    })?;
    // Newer packages keep the kernel beside its modules, older ones in /boot.
    let modules =
        ["usr/lib/modules", "lib/modules"].iter().find_map(|path| only(&folder.join(path), "").ok());
    let beside = modules.as_ref().map(|folder| folder.join("vmlinuz")).filter(|path| path.is_file());
    let bzimage = match beside {
        Some(path) => path,
        None => only(&folder.join("boot"), "vmlinuz-")
            .with_context(|| format!("{} has no kernel in it", image.package))?,
    };
    Ok(StockKernel { bzimage, modules })
}

/// Finds the image package: series 7 comes from Debian 13's backports, older ones from the machine's release.
fn find(series: &str) -> Result<(Apt, Control)> {
    let apt = if series.split('.').next() == Some("7") { Apt::kernels()? } else { Apt::host()? };
    let prefix = format!("linux-image-{series}.");
    for meta in apt.show(META)? {
        let Some(name) = meta.depends.iter().find(|name| name.starts_with(&prefix)) else { continue };
        let image = apt.show(name)?.into_iter().next().context("the package has no version")?;
        return Ok((apt, image));
    }
    bail!("Debian has no cloud kernel of the series {series}: 7.3, 6.12 and 6.1 are known to exist")
}

/// Unpacks the image; newer packages keep the kernel and the modules in packages of their own.
fn unpack(apt: &Apt, image: &Control, folder: &Path) -> Result<()> {
    apt.unpack(image, folder)?;
    for name in &image.depends {
        if name.starts_with("linux-binary-") || name.starts_with("linux-modules-") {
            let part = apt.show(name)?.into_iter().next().context("the package has no version")?;
            apt.unpack(&part, folder)?;
        }
    }
    Ok(())
}

/// The one entry of a folder whose name begins with `prefix`.
fn only(folder: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    let found = entries.into_iter().find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    Ok(found.context("nothing found")?.path())
}

/// Modules that the child's first process loads: what hears the power button, and what a guest of the interface has
/// drivers for.
const MODULES: [&str; 9] =
    ["button", "evdev", "hv_vmbus", "hv_utils", "hv_balloon", "hv_netvsc", "hv_storvsc", "sd_mod", "hv_sock"];

impl From<PathBuf> for StockKernel {
    /// A kernel without modules.
    fn from(bzimage: PathBuf) -> Self {
        Self { bzimage, modules: None }
    }
}

impl StockKernel {
    /// The modules of [`MODULES`] that this kernel has as modules, with what they depend on before them:
    /// names and uncompressed content.
    ///
    /// # Errors
    /// A module cannot be read.
    pub(crate) fn guest_modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        if let Some(folder) = &self.modules {
            let all = module_files(folder)?;
            for name in MODULES {
                load(name, &all, &mut found)?;
            }
        }
        Ok(found)
    }
}

/// Every module below a folder: its name as the kernel spells it, and its file.
fn module_files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Some((module, _)) = name.split_once(".ko") {
                files.push((module.replace('-', "_"), entry.path()));
            }
        }
    }
    Ok(files)
}

/// Adds a module behind its dependencies; one that is built in, or already there, is passed over.
fn load(name: &str, all: &[(String, PathBuf)], found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    let Some((_, file)) = all.iter().find(|(module, _)| module == name) else { return Ok(()) };
    if found.iter().any(|(module, _)| module == name) {
        return Ok(());
    }
    let depends = tools::output(Command::new("/sbin/modinfo").args(["-F", "depends"]).arg(file))?;
    for dependency in depends.trim().split(',').filter(|dependency| !dependency.is_empty()) {
        load(&dependency.replace('-', "_"), all, found)?;
    }
    let packed = file.extension().is_some_and(|extension| extension == "xz");
    let content = if packed {
        let unpacked = Command::new("xz").arg("-dc").arg(file).output().context("cannot start xz")?;
        ensure!(unpacked.status.success(), "{} cannot be unpacked", file.display());
        unpacked.stdout
    } else {
        fs::read(file)?
    };
    found.push((name.to_string(), content));
    Ok(())
}
