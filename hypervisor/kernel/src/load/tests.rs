//! A small machine with a made-up kernel.

use std::{format, string::ToString, vec, vec::Vec};

use hal::boot::{MemoryKind, MemoryRange};

use super::{Error, Hpa, Machine, MemoryMap, Module, RootImage, RsdpSource, Span, acpi, e820::E820, load};

const MIB: u64 = 1 << 20;
const SPARE: Hpa = Hpa(0x5000);
const RSDP: Hpa = Hpa(0xf_0000);
const BODY_BYTES: usize = 0x5_0000;
const INIT_SIZE: u64 = MIB;

struct Ram(Vec<u8>);

impl Ram {
    fn at(&self, at: Hpa, len: u64) -> Option<&[u8]> {
        self.0.get(at.0 as usize..)?.get(..len as usize)
    }
    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(*self.at(Hpa(at), 8).unwrap().first_chunk().unwrap())
    }
}

impl super::Memory for Ram {
    fn read(&self, at: Hpa, into: &mut [u8]) -> bool {
        self.at(at, into.len() as u64).map(|from| into.copy_from_slice(from)).is_some()
    }
    fn write(&mut self, at: Hpa, from: &[u8]) -> bool {
        let place = self.0.get_mut(at.0 as usize..).and_then(|rest| rest.get_mut(..from.len()));
        place.map(|place| place.copy_from_slice(from)).is_some()
    }
    fn copy(&mut self, from: Hpa, to: Hpa, len: u64) -> bool {
        let (from, to, len) = (from.0 as usize, to.0 as usize, len as usize);
        let is_memory = from.max(to) + len <= self.0.len();
        if is_memory {
            self.0.copy_within(from..from + len, to);
        }
        is_memory
    }
    fn zero(&mut self, at: Hpa, len: u64) -> bool {
        self.write(at, &vec![0; len as usize])
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|index| ((index * seed) >> 3) as u8).collect()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A relocatable kernel with two setup sectors that prefers 2 MiB.
fn kernel() -> Vec<u8> {
    let mut image = vec![0; 3 * 512];
    put(&mut image, 0x1f1, &[2]);
    put(&mut image, 0x1f4, &(BODY_BYTES as u32 / 16).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS\x0f\x02");
    put(&mut image, 0x211, &[0x81]);
    put(&mut image, 0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000_u32.to_le_bytes());
    put(&mut image, 0x234, &[1]);
    put(&mut image, 0x238, &2047_u32.to_le_bytes());
    put(&mut image, 0x258, &(2 * MIB).to_le_bytes());
    put(&mut image, 0x260, &(INIT_SIZE as u32).to_le_bytes());
    put(&mut image, 0x26c, b"code, not header");
    image.extend(pattern(BODY_BYTES, 7));
    image
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in entries.iter().chain(&[("TRAILER!!!", &[][..])]) {
        let fields = [1, 0o100644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend(b"070701");
        bytes.extend(fields.map(|field| format!("{field:08X}")).concat().bytes());
        bytes.extend(format!("{name}\0").bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(*data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn map(ranges: &[(u64, u64, u32)]) -> MemoryMap {
    let mut map = MemoryMap::default();
    for &(start, end, kind) in ranges {
        map.add(MemoryRange { start: Hpa(start), len: end - start, kind: MemoryKind(kind) }).unwrap();
    }
    map
}

/// A machine of `mib` MiB with ACPI tables of the given names, and an RSDT or an XSDT.
struct Bench {
    ram: Ram,
    map: MemoryMap,
    modules: Vec<Module>,
    hypervisor: Vec<Span>,
}

impl Bench {
    fn new(mib: u64) -> Self {
        let map = map(&[(0, 0x9_fc00, 1), (0x9_fc00, 0xa_0000, 2), (0xf_0000, MIB, 2), (MIB, mib * MIB, 1)]);
        let mut bench =
            Self { ram: Ram(vec![0; (mib * MIB) as usize]), map, modules: vec![], hypervisor: vec![] };
        bench.tables(8, &["FACP"]);
        bench
    }

    fn module(&mut self, start: u64, bytes: &[u8], name: &'static str) {
        put(&mut self.ram.0, start as usize, bytes);
        self.modules.push(Module { start: Hpa(start), len: bytes.len() as u64, name });
    }

    fn load(&mut self) -> Result<RootImage, Error> {
        let Self { ram, map, modules, hypervisor } = self;
        load(ram, &Machine { modules, memory: map, hypervisor, rsdp: RsdpSource::At(RSDP), spare: SPARE })
    }

    fn tables(&mut self, entry_bytes: usize, names: &[&str]) {
        let (ram, root, table) = (&mut self.ram.0, RSDP.0 as usize + 0x100, RSDP.0 as usize + 0x4000);
        put(ram, root, if entry_bytes == 8 { b"XSDT" } else { b"RSDT" });
        put(ram, root + 4, &(36 + (names.len() * entry_bytes) as u32).to_le_bytes());
        put(ram, root + 10, b"OEM-ID");
        for (index, name) in names.iter().enumerate() {
            let at = table + index * 8;
            put(ram, at, name.as_bytes());
            put(ram, root + 36 + index * entry_bytes, &at.to_le_bytes()[..entry_bytes]);
        }
        let mut rsdp = *b"RSD PTR \0OEM-ID\0....\x24\0\0\0........\0\0\0\0";
        let field = if entry_bytes == 8 { 24 } else { 16 };
        rsdp[15] = if entry_bytes == 8 { 2 } else { 0 };
        put(&mut rsdp, field, &root.to_le_bytes()[..entry_bytes]);
        rsdp[8] = sum(&rsdp[..20]).wrapping_neg();
        rsdp[32] = sum(&rsdp).wrapping_neg();
        put(ram, RSDP.0 as usize, &rsdp);
    }

    /// The names of the tables that a root sees.
    fn seen(&self, rsdp: Hpa) -> Vec<std::string::String> {
        let ram = &self.ram;
        assert_eq!((sum(ram.at(rsdp, 20).unwrap()), sum(ram.at(rsdp, 36).unwrap())), (0, 0));
        let root = ram.word(rsdp.0 + 24);
        let len = ram.word(root + 4) & 0xffff_ffff;
        assert_eq!((sum(ram.at(Hpa(root), len).unwrap()), ram.at(Hpa(root), 4).unwrap()), (0, &b"XSDT"[..]));
        let entries = (root + 36..root + len).step_by(8).map(|at| ram.at(Hpa(ram.word(at)), 4).unwrap());
        entries.map(|name| str::from_utf8(name).unwrap().to_string()).collect()
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

#[test]
fn a_bundle_becomes_a_kernel_that_can_be_entered() {
    let mut bench = Bench::new(16);
    let initramfs = pattern(0x1_2345, 5);
    let entries: [(&str, &[u8]); 4] =
        [("other", b"x"), ("cmdline", b"console=ttyS0\n"), ("initramfs", &initramfs), ("kernel", &kernel())];
    bench.module(0x80_0001, &archive(&entries), "");
    bench.hypervisor = vec![Span { start: Hpa(0xf0_0800), len: 0x1000 }];
    let root = bench.load().unwrap();

    let RootImage { entry, boot_params: page, kernel: at, .. } = root;
    assert_eq!((entry, at), (2 * MIB, Span { start: Hpa(2 * MIB), len: INIT_SIZE }));
    assert_eq!(root.initramfs, Span { start: Hpa(0xfe_d000), len: 0x1_2345 });
    assert_eq!((page, root.rsdp), (0x8_e000, RSDP));
    let ram = &bench.ram;
    assert_eq!(ram.at(Hpa(entry), BODY_BYTES as u64), Some(&pattern(BODY_BYTES, 7)[..]));
    assert_eq!(ram.at(root.initramfs.start, root.initramfs.len), Some(&initramfs[..]));
    let word = |offset| ram.word(page + offset) as u32;
    assert_eq!((ram.word(page + 0x70), word(0x202)), (RSDP.0, u32::from_le_bytes(*b"HdrS")));
    assert_eq!((word(0x210) & 0xffff, word(0x214)), (0x01ff, entry as u32));
    assert_eq!((word(0x218), word(0x21c)), (root.initramfs.start.0 as u32, 0x1_2345));
    assert_eq!((word(0x228), word(0x26c)), (page as u32 + 0x1000, 0));
    assert_eq!(ram.at(Hpa(page + 0x1000), 14), Some(&b"console=ttyS0\0"[..]));
    let ranges = (0..word(0x1e8) & 0xff).map(|index| 0x2d0 + u64::from(index) * 20);
    let ranges = ranges.map(|at| (ram.word(page + at), ram.word(page + at + 8), word(at + 16)));
    assert_eq!(
        ranges.collect::<Vec<_>>(),
        [
            (0, 0x5000, 1),
            (0x5000, 0x1000, 2),
            (0x6000, 0x9_9c00, 1),
            (0x9_fc00, 0x400, 2),
            (0xf_0000, 0x1_0000, 2),
            (0x10_0000, 0xe0_0000, 1),
            (0xf0_0000, 0x2000, 2),
            (0xf0_2000, 0xf_e000, 1),
        ]
    );
    assert!(root.to_string().starts_with("kernel at 0x200000 (1024 KiB), initramfs at 0xfed000 (72 KiB)"));
}

#[test]
fn files_survive_wherever_the_loader_left_them() {
    // 4 MiB leave 2 MiB beside the kernel, so that old and new places overlap in every way.
    let (kernel, initramfs) = (kernel(), pattern(0xc_0000, 5));
    for kernel_at in (MIB..4 * MIB - 0x5_0600).step_by(0x2_9000) {
        for initramfs_at in (MIB..4 * MIB - 0xc_0000).step_by(0x1_f000) {
            if initramfs_at < kernel_at + 0x5_0600 && kernel_at < initramfs_at + 0xc_0000 {
                continue;
            }
            let mut bench = Bench::new(4);
            bench.module(kernel_at, &kernel, "kernel quiet");
            bench.module(initramfs_at, &initramfs, "initramfs");
            let root = bench.load().unwrap();
            let body = bench.ram.at(Hpa(root.entry), BODY_BYTES as u64);
            assert!(
                body == kernel.get(3 * 512..),
                "kernel from {kernel_at:#x}, initramfs from {initramfs_at:#x}"
            );
            let files = bench.ram.at(root.initramfs.start, root.initramfs.len);
            assert!(
                files == Some(&initramfs),
                "kernel from {kernel_at:#x}, initramfs from {initramfs_at:#x}"
            );
        }
    }
}

#[test]
fn multiboot_modules_are_known_by_their_first_word() {
    let mut bench = Bench::new(16);
    bench.module(8 * MIB, b"fonts", "font");
    bench.module(9 * MIB, &kernel(), "kernel root=/dev/sda  ro ");
    let root = bench.load().unwrap();
    assert_eq!(root.initramfs.len, 0);
    assert_eq!(bench.ram.at(Hpa(root.boot_params + 0x1000), 17), Some(&b"root=/dev/sda  ro"[..]));
}

#[test]
fn a_cut_or_spoilt_bundle_is_an_error_and_no_panic() {
    let whole = archive(&[("cmdline", b"quiet"), ("kernel", &[0; 0x300]), ("initramfs", b"files")]);
    for cut in 0..whole.len() - 4 {
        let mut bench = Bench::new(4);
        bench.module(2 * MIB, &whole[..cut], "");
        assert!(bench.load().is_err(), "cut at {cut}");
        bench.modules.clear();
        let mut spoilt = whole.clone();
        spoilt[cut] = b'F';
        bench.module(2 * MIB, &spoilt, "");
        assert!(bench.load().is_err(), "spoilt at {cut}");
    }
}

#[test]
fn what_is_no_bundle_is_named() {
    let load = |entries: &[(&str, &[u8])]| {
        let mut bench = Bench::new(16);
        bench.module(8 * MIB, &archive(entries), "");
        bench.load().unwrap_err()
    };
    assert_eq!(Bench::new(16).load(), Err(Error::NoBundle));
    assert_eq!(load(&[("initramfs", b"x")]), Error::NoKernel);
    assert_eq!(load(&[("cmdline", &[b'x'; 2048]), ("kernel", &kernel())]), Error::CommandLineTooLong(2048));
    assert_eq!(load(&[("kernel", &[b'x'; 2048])]), Error::NotLinux);
    assert!(Error::NoKernel.to_string().contains("no entry named kernel"));
}

#[test]
fn a_broken_kernel_is_refused_for_what_is_broken() {
    let load = |at: usize, value: &[u8]| {
        let (mut bench, mut image) = (Bench::new(16), kernel());
        put(&mut image, at, value);
        bench.module(8 * MIB, &image, "kernel quiet");
        bench.load()
    };
    assert_eq!(load(0x202, b"hdrs"), Err(Error::NotLinux));
    assert_eq!(load(0x206, &[11]), Err(Error::KernelTooOld(0x20b)));
    assert_eq!(load(0x1f1, &[3]), Err(Error::KernelTruncated(0x5_0800, 0x5_0600)));
    assert_eq!(load(0x211, &[0]), Err(Error::BadKernel));
    assert_eq!(load(0x230, &[1]), Err(Error::BadKernel));
    assert_eq!(load(0x238, &[4, 0]), Err(Error::CommandLineTooLong(5)));
    assert_eq!(load(0x260, &[0, 0, 0, 1]), Err(Error::NoRoom("kernel", 16 * MIB)));
    assert_eq!(load(0x201, &[0]), Err(Error::NotLinux));
}

#[test]
fn only_a_relocatable_kernel_makes_way() {
    for (relocatable, entry) in [(1, Ok(4 * MIB)), (0, Err(Error::NoRoom("kernel", INIT_SIZE)))] {
        let (mut bench, mut image) = (Bench::new(16), kernel());
        image[0x234] = relocatable;
        bench.module(8 * MIB, &image, "kernel");
        bench.hypervisor = vec![Span { start: Hpa(2 * MIB + 0x1000), len: 0x1000 }];
        assert_eq!(bench.load().map(|root| root.entry), entry);
    }
}

#[test]
fn an_initramfs_without_room_is_an_error() {
    let mut bench = Bench::new(4);
    bench.module(MIB, &kernel(), "kernel");
    bench.module(2 * MIB, &vec![0; MIB as usize + 1], "initramfs");
    assert_eq!(bench.load(), Err(Error::NoRoom("initramfs", MIB + 1)));
}

#[test]
fn parameters_go_high_where_firmware_leaves_nothing_low() {
    let mut bench = Bench::new(16);
    bench.map = map(&[(2 * MIB, 16 * MIB, 1)]);
    bench.module(8 * MIB, &kernel(), "kernel");
    assert_eq!(bench.load().map(|root| root.boot_params), Ok(16 * MIB - 0x2000));
}

#[test]
fn memory_with_two_names_is_not_usable() {
    let firmware = map(&[(0, 0x8000, 1), (0x4000, 0xa000, 3), (0x2000, 0x3000, 1), (0x9000, 0xc000, 1)]);
    let map = E820::new(&firmware, &[], Hpa(0x1000)).unwrap();
    let ranges: Vec<_> = map.iter().map(|range| (range.start.0, range.kind.0, range.len)).collect();
    let usable = [(0, 1, 0x1000), (0x2000, 1, 0x2000), (0xa000, 1, 0x2000)];
    assert_eq!(ranges, [usable[0], (0x1000, 2, 0x1000), usable[1], (0x4000, 3, 0x6000), usable[2]]);
}

#[test]
fn a_map_that_linux_cannot_hold_is_an_error() {
    let ranges: Vec<_> = (0..128).map(|index| (index << 16, (index << 16) + 0x8000, 1)).collect();
    assert_eq!(E820::new(&map(&ranges), &[], Hpa(0x1000)).err(), Some(Error::MapTooLong));
    assert!(E820::new(&map(&ranges[..126]), &[], Hpa(0x1000)).is_ok());
}

#[test]
fn tables_of_iommus_are_hidden_and_others_kept() {
    for entry_bytes in [4, 8] {
        let mut bench = Bench::new(4);
        bench.tables(entry_bytes, &["FACP", "DMAR", "APIC", "IVRS"]);
        let rsdp = acpi::hide(&mut bench.ram, RsdpSource::At(RSDP), SPARE).unwrap();
        assert_eq!((rsdp, bench.seen(rsdp)), (SPARE, vec!["FACP".to_string(), "APIC".to_string()]));
        let root = bench.ram.word(rsdp.0 + 24);
        assert_eq!(bench.ram.at(Hpa(root + 10), 6), Some(&b"OEM-ID"[..]));
    }
}

#[test]
fn the_firmwares_root_pointer_is_kept_where_nothing_is_to_hide() {
    let mut bench = Bench::new(4);
    assert_eq!(acpi::hide(&mut bench.ram, RsdpSource::At(RSDP), SPARE), Ok(RSDP));
    // A loader's copy has no address that the root could be given.
    let copy = *bench.ram.at(RSDP, 36).unwrap().first_chunk().unwrap();
    assert_eq!(acpi::hide(&mut bench.ram, RsdpSource::Copy(copy), SPARE), Ok(SPARE));
    assert_eq!(bench.seen(SPARE), ["FACP"]);
}

#[test]
fn broken_acpi_is_an_error() {
    let mut bench = Bench::new(4);
    let mut hide = |at: u64, value: u8| {
        let old = core::mem::replace(&mut bench.ram.0[at as usize], value);
        let result = acpi::hide(&mut bench.ram, RsdpSource::At(RSDP), SPARE);
        bench.ram.0[at as usize] = old;
        result
    };
    assert_eq!(hide(RSDP.0, b'X'), Err(Error::BadAcpi));
    assert_eq!(hide(RSDP.0 + 9, 1), Err(Error::BadAcpi));
    assert_eq!(hide(RSDP.0 + 0x100, b'Y'), Err(Error::BadAcpi));
    assert_eq!(hide(RSDP.0 + 0x104, 35), Err(Error::BadAcpi));
    assert_eq!(hide(RSDP.0 + 0x107, 1), Err(Error::BadAcpi));
    assert_eq!(hide(RSDP.0 + 0x100 + 40, 1), Err(Error::OutOfReach(Hpa(0x1_000f_4000))));
    let names = vec!["FACP"; 500];
    bench.tables(8, &[&names[..], &["IVRS"]].concat());
    assert_eq!(acpi::hide(&mut bench.ram, RsdpSource::At(RSDP), SPARE), Err(Error::AcpiTooLong));
}
