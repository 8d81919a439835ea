//! The file systems in memory of the root and of the child.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::options::ExtraFile;
use crate::{cpio::Archive, tools};

/// What goes into the root's initramfs besides busybox and the scripts of `images/root`.
#[derive(Clone, Default)]
pub(crate) struct Contents {
    /// Programs for `/usr/bin`: name and file.
    pub(crate) programs: Vec<(&'static str, PathBuf)>,
    /// Programs for `/usr/lib/bulkhead/tests`: name and file.
    pub(crate) tests: Vec<(&'static str, PathBuf)>,
    /// What children boot.
    pub(crate) images: Vec<Image>,
    /// Text files of ours: path and content.
    pub(crate) texts: Vec<(String, String)>,
    /// Folders laid over everything, in this order.
    pub(crate) overlays: Vec<PathBuf>,
    /// Single files laid over everything.
    pub(crate) files: Vec<ExtraFile>,
}

/// A child's kernel and initramfs; the suffix tells their names from those of others.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) suffix: String,
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: Vec<u8>,
}

/// Packs the root's initramfs.
///
/// # Errors
/// A file or folder cannot be read.
pub(crate) fn root(busybox: &Path, contents: &Contents) -> Result<Vec<u8>> {
    let images = tools::workspace().join("images/root");
    let mut archive = base(busybox)?;
    archive.host_file("init", &images.join("init"))?;
    archive.host_folder("etc/bulkhead/scenarios", &images.join("scenarios"))?;
    for suite in ["mshv-ioctls", "tlfs"] {
        let name = format!("{suite}.exceptions");
        archive.host_file(&format!("etc/bulkhead/{name}"), &images.join(&name))?;
    }
    for (name, path) in &contents.programs {
        archive.host_file(&format!("usr/bin/{name}"), path)?;
    }
    for (name, path) in &contents.tests {
        archive.host_file(&format!("usr/lib/bulkhead/tests/{name}"), path)?;
    }
    for Image { suffix, kernel, initramfs } in &contents.images {
        archive.host_file(&format!("var/lib/bulkhead/images/vmlinuz{suffix}"), kernel)?;
        archive.file(&format!("var/lib/bulkhead/images/initramfs{suffix}"), 0o644, initramfs);
    }
    for (path, text) in &contents.texts {
        archive.file(path, 0o644, text.as_bytes());
    }
    for overlay in &contents.overlays {
        ensure!(overlay.is_dir(), "there is no folder `{}` to lay over the root", overlay.display());
        archive.host_folder("", overlay)?;
    }
    for file in &contents.files {
        archive.host_file(&file.path, &file.host)?;
    }
    Ok(archive.finish())
}

/// Packs the child's initramfs, with modules in the order in which its first process loads them.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn child(busybox: &Path, modules: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = base(busybox)?;
    for (index, (name, content)) in modules.iter().enumerate() {
        archive.file(&format!("lib/modules/{index:02}-{name}.ko"), 0o644, content);
    }
    archive.host_file("init", &tools::workspace().join("images/child/init"))?;
    Ok(archive.finish())
}

/// Busybox with a link for each of its commands, the console, and the usual folders.
fn base(busybox: &Path) -> Result<Archive> {
    let mut archive = Archive::new();
    for folder in
        ["bin", "dev", "proc", "sys", "run", "tmp", "root", "etc", "mnt", "usr/bin", "var/lib", "var/log"]
    {
        archive.folder(folder);
    }
    archive.link("sbin", "bin");
    archive.link("usr/sbin", "bin");
    archive.device("dev/console", 5, 1);
    archive.device("dev/null", 1, 3);
    archive.host_file("bin/busybox", busybox)?;
    let commands = tools::output(Command::new(busybox).arg("--list")).context("busybox does not run")?;
    for command in commands.lines().filter(|&command| command != "busybox") {
        archive.link(&format!("bin/{command}"), "busybox");
    }
    Ok(archive)
}
