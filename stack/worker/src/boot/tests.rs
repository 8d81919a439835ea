use std::path::Path;

use super::*;
use crate::layout::{PAGE_TABLES, PVH_INFO, ZERO_PAGE};

const LOAD_AT: u64 = 0x100_0000;

/// A file that is gone with the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("bulkhead-boot-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

fn config(kernel: &Path, memory_mib: u64) -> VmConfig {
    VmConfig {
        name: "t".parse().unwrap(),
        vps: 2,
        memory_mib,
        kernel: kernel.to_owned(),
        initramfs: None,
        cmdline: "console=ttyS0".into(),
        enlightenments: true,
        disks: Vec::new(),
    }
}

fn set(bytes: &mut [u8], at: usize, value: u64, size: usize) {
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

/// Two sectors of setup code and 4 KiB of kernel that wants 8 MiB at 16 MiB.
fn bzimage() -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    for (at, value, size) in [
        (0x1f1, 2, 1),
        (0x1f4, 256, 4),
        (0x1fe, 0xaa55, 2),
        (0x201, 0x6a, 1),
        (0x206, 0x020f, 2),
        (0x211, 1, 1),
        (0x214, 0x10_0000, 4),
        (0x22c, 0x7fff_ffff, 4),
        (0x234, 1, 1),
        (0x236, 1, 2),
        (0x238, 2047, 4),
        (0x248, 0x100, 4),
        (0x24c, 0x800, 4),
        (0x258, LOAD_AT, 8),
        (0x260, 8 << 20, 4),
    ] {
        set(&mut image, at, value, size);
    }
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image.extend([0x90; 4096]);
    image
}

/// One segment of 16 bytes at 16 MiB that takes 64 KiB there, and a PVH note.
fn elf() -> Vec<u8> {
    let mut image = vec![0; 64 + 2 * 56];
    image[..6].copy_from_slice(b"\x7fELF\x02\x01");
    for (at, value, size) in [(18, 62, 2), (32, 64, 8), (54, 56, 2), (56, 2, 2)] {
        set(&mut image, at, value, size);
    }
    let load = [(0, 1, 4), (8, 0x100, 8), (24, LOAD_AT, 8), (32, 16, 8), (40, 0x1_0000, 8)];
    let note = [(56, 4, 4), (64, 0x200, 8), (88, 40, 8), (96, 40, 8), (104, 4, 8)];
    for (at, value, size) in load.into_iter().chain(note) {
        set(&mut image, 64 + at, value, size);
    }
    image.resize(0x228, 0);
    image[0x100..0x110].fill(0xf4);
    // A foreign note comes first.
    image[0x200..0x214].copy_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0GNU\0\0\0\0\0");
    image[0x214..0x228].copy_from_slice(b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x40\0\0\x01");
    image
}

fn read<const N: usize>(ram: &GuestRam, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    ram.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn message(result: Result<(GuestRam, Entry), BootError>) -> String {
    let line = result.unwrap_err().to_string();
    assert!(!line.contains('\n'));
    line
}

#[test]
fn bzimage_starts_in_long_mode_at_its_preferred_address() {
    let kernel = TempFile::new("bz", &bzimage());
    let (ram, entry) = load(&config(&kernel.0, 64)).unwrap();
    assert_eq!(entry, Entry::Long { rip: LOAD_AT + 0x200, cr3: PAGE_TABLES, boot_params: ZERO_PAGE });
    assert_eq!(read::<4>(&ram, LOAD_AT), [0x90; 4]);
    assert_eq!(&read::<14>(&ram, CMDLINE), b"console=ttyS0\0");
    assert_eq!(&read::<8>(&ram, ACPI_TABLES), b"RSD PTR ");
    assert_eq!(read::<8>(&ram, ZERO_PAGE + 0x70), ACPI_TABLES.to_le_bytes());
    assert_eq!(&read::<4>(&ram, ZERO_PAGE + 0x202), b"HdrS");
    assert_eq!(read::<1>(&ram, ZERO_PAGE + 0x1e8), [4]);
    // The last gibibyte of the identity map.
    assert_eq!(read::<8>(&ram, PAGE_TABLES + 5 * 0x1000 + 511 * 8), 0xffe0_0083u64.to_le_bytes());
}

#[test]
fn initramfs_lies_page_aligned_at_the_top_of_low_memory() {
    let kernel = TempFile::new("bz-initramfs", &bzimage());
    let initramfs = TempFile::new("initramfs", &[7; 5000]);
    let config = VmConfig { initramfs: Some(initramfs.0.clone()), ..config(&kernel.0, 64) };
    let (ram, _) = load(&config).unwrap();
    let at = (64 << 20) - 0x2000;
    assert_eq!(read::<4>(&ram, ZERO_PAGE + 0x218), u32::to_le_bytes(at));
    assert_eq!(read::<4>(&ram, ZERO_PAGE + 0x21c), 5000u32.to_le_bytes());
    assert_eq!(read::<2>(&ram, u64::from(at) + 4999), [7, 0]);
}

#[test]
fn pvh_kernel_starts_in_protected_mode_with_its_start_info() {
    let kernel = TempFile::new("elf", &elf());
    let initramfs = TempFile::new("elf-initramfs", &[7; 10]);
    let config = VmConfig { initramfs: Some(initramfs.0.clone()), ..config(&kernel.0, 64) };
    let (ram, entry) = load(&config).unwrap();
    assert_eq!(entry, Entry::Protected { eip: 0x0100_0040, ebx: PVH_INFO, esi: 0 });
    assert_eq!(read::<4>(&ram, LOAD_AT), [0xf4; 4]);
    assert_eq!(read::<4>(&ram, PVH_INFO), 0x336e_c578u32.to_le_bytes());
    assert_eq!(read::<4>(&ram, PVH_INFO + 12), 1u32.to_le_bytes());
    let modules = u64::from_le_bytes(read(&ram, PVH_INFO + 16));
    let initramfs_at = u64::from_le_bytes(read(&ram, modules));
    assert_eq!(
        (read::<2>(&ram, initramfs_at + 9), u64::from_le_bytes(read(&ram, modules + 8))),
        ([7, 0], 10)
    );
    let map = u64::from_le_bytes(read(&ram, PVH_INFO + 40));
    assert_eq!(read::<4>(&ram, map + 16), 1u32.to_le_bytes());
}

#[test]
fn truncated_kernels_are_called_broken() {
    for (name, image, keep) in
        [("short-bz", bzimage(), 3000), ("short-elf", elf(), 0x108), ("tiny-elf", elf(), 20)]
    {
        let kernel = TempFile::new(name, &image[..keep]);
        let line = message(load(&config(&kernel.0, 64)));
        assert!(line.contains("broken") && line.contains(kernel.0.to_str().unwrap()), "{line}");
    }
}

#[test]
fn missing_and_foreign_files_are_named() {
    let line = message(load(&config(Path::new("/no/such/kernel"), 64)));
    assert!(line.contains("/no/such/kernel") && line.contains("--kernel"), "{line}");
    let line = message(load(&config(Path::new("/dev/null"), 64)));
    assert!(line.contains("not a regular file"), "{line}");
    let text = TempFile::new("text", b"#!/bin/sh\n");
    assert!(message(load(&config(&text.0, 64))).contains("is no kernel"));
}

#[test]
fn elf_without_an_entry_asks_for_config_pvh() {
    let mut image = elf();
    image[0x21c] = 0x11;
    let kernel = TempFile::new("no-note", &image);
    assert!(message(load(&config(&kernel.0, 64))).contains("CONFIG_PVH"));
}

#[test]
fn too_little_memory_says_how_much_is_needed() {
    for (name, image, need) in [("big-bz", bzimage(), "24"), ("big-elf", elf(), "17")] {
        let kernel = TempFile::new(name, &image);
        let line = message(load(&config(&kernel.0, 16)));
        assert!(line.contains("16 MiB") && line.contains(&format!("at least {need} ")), "{line}");
    }
}

#[test]
fn initramfs_that_does_not_fit_beside_the_kernel_is_too_much() {
    let kernel = TempFile::new("bz-full", &bzimage());
    let initramfs = TempFile::new("full", &vec![0; 9 << 20]);
    let config = VmConfig { initramfs: Some(initramfs.0.clone()), ..config(&kernel.0, 32) };
    assert!(message(load(&config)).contains("at least 33 "));
}

#[test]
fn hostile_headers_are_errors() {
    let mut image = elf();
    set(&mut image, 64 + 24, u64::MAX - 10, 8);
    let kernel = TempFile::new("far-elf", &image);
    assert!(message(load(&config(&kernel.0, 64))).contains("broken"));
    let mut image = bzimage();
    set(&mut image, 0x258, u64::MAX, 8);
    let kernel = TempFile::new("far-bz", &image);
    assert!(message(load(&config(&kernel.0, 64))).contains("broken"));
}
