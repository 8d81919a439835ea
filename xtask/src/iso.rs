//! `cargo xtask iso`: a GRUB image with hypervisor and root, which boots under BIOS and UEFI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::machine::Boot;
use crate::options::IsoOptions;
use crate::run::{self, Files, Parts};
use crate::{progress, setup, tools};

/// Where Debian's package `ovmf` keeps the firmware: code, and the variables a machine starts with.
const OVMF: (&str, &str) = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd");

/// What starts the disc.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Firmware {
    Bios,
    Uefi,
}

/// `cargo xtask iso`.
///
/// # Errors
/// A part cannot be built, or GRUB's tool fails.
pub(crate) fn command(options: &IsoOptions) -> Result<()> {
    run::check_parts(&options.root, &options.child)?;
    setup::host()?;
    let folder = run::folder("iso")?;
    let parts = Parts::gather(&options.root, true, Some(&options.child))?;
    let words = format!("bulkhead.scenario={} bulkhead.then=shell", options.root.scenario);
    let files = parts.pack(&folder, &words, |_| {})?;
    let output = options.output.clone().unwrap_or_else(|| folder.join("bulkhead.iso"));
    make(&files, &output)?;
    progress::say(format_args!("the image is {}", output.display()));
    Ok(())
}

/// Makes a disc of these files and gives what boots it.
///
/// # Errors
/// As for [`command`].
pub(crate) fn boot(files: &Files, image: &Path, firmware: Firmware) -> Result<Boot> {
    make(files, image)?;
    let firmware = (firmware == Firmware::Uefi).then(|| (PathBuf::from(OVMF.0), PathBuf::from(OVMF.1)));
    Ok(Boot::Disc { image: image.to_path_buf(), firmware })
}

fn make(files: &Files, image: &Path) -> Result<()> {
    let tree = image.with_extension("tree");
    let grub = tree.join("boot/grub");
    fs::create_dir_all(&grub).with_context(|| format!("cannot make {}", grub.display()))?;
    fs::write(grub.join("grub.cfg"), menu(files))?;
    link(&files.kernel, &tree.join("vmlinuz"))?;
    link(&files.initramfs, &tree.join("initramfs"))?;
    if let Some(hypervisor) = &files.hypervisor {
        link(hypervisor, &tree.join("bulkhead.elf"))?;
    }
    let mut rescue = Command::new("grub-mkrescue");
    rescue.arg("-o").arg(image).arg(&tree).args(["--", "-volid", "BULKHEAD"]);
    tools::output(&mut rescue).context("GRUB's image cannot be made")?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

fn link(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// GRUB's menu, on the screen and on the first serial port.
fn menu(files: &Files) -> String {
    let load = if files.hypervisor.is_some() {
        format!(
            "  multiboot2 /bulkhead.elf {}\n  module2 /vmlinuz kernel {}\n  module2 /initramfs initramfs\n",
            quoted(&files.hypervisor_cmdline),
            quoted(&files.cmdline)
        )
    } else {
        format!("  linux /vmlinuz {}\n  initrd /initramfs\n", quoted(&files.cmdline))
    };
    format!(
        "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\n\
         set timeout=1\nset default=0\nmenuentry 'Bulkhead' {{\n{load}}}\n"
    )
}

/// Words that GRUB's shell leaves as they are, each in single quotes.
fn quoted(words: &str) -> String {
    let words = words.split_whitespace().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_survive_grubs_shell() {
        assert_eq!(quoted("a=1  b;c"), "'a=1' 'b;c'");
        assert_eq!(quoted(""), "");
    }
}
