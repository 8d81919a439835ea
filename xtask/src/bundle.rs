//! The boot bundle: the one module that QEMU's `-initrd` can pass to the hypervisor.
//!
//! It is a `newc` archive with the entries `kernel`, `initramfs` and `cmdline`, in this order.

use crate::cpio::Archive;

/// Bytes of nothing behind the archive. QEMU puts the module at the end of memory without asking the firmware,
/// which has reserved some of the last pages for its disk drivers by then (seen: 48 KiB with three disks).
const SLACK: usize = 256 << 10;

/// Packs the root's kernel, initramfs and command line.
pub(crate) fn pack(kernel: &[u8], initramfs: &[u8], cmdline: &str) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.file("kernel", 0o644, kernel);
    archive.file("initramfs", 0o644, initramfs);
    archive.file("cmdline", 0o644, cmdline.as_bytes());
    let mut bytes = archive.finish();
    bytes.resize(bytes.len() + SLACK, 0);
    bytes
}
