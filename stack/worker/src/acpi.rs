//! The ACPI tables of a virtual machine.
//!
//! The machine is a plain PC without PCI: fixed hardware (PM1, PM timer, SCI) rather than hardware-reduced
//! ACPI, since that is what gives a guest without enlightenments its PM timer and everyone a power button.
//! Table formats: ACPI 6.5 chapter 5.

mod aml;

use crate::layout::{
    ACPI_TABLES, CENTURY, IO_APIC, LOCAL_APIC, PM_CONTROL, PM_EVENT, PM_TIMER, RESET_PORT, RESET_VALUE,
    RTC_PORT, SCI_IRQ, SERIAL_IRQ, SERIAL_PORT, SLEEP_TYPE_S5,
};

const HEADER: usize = 36;
const XSDT_ENTRIES: [&[u8; 4]; 2] = [b"FACP", b"APIC"];

/// All tables as one run of bytes for guest-physical [`ACPI_TABLES`]; the RSDP comes first. `has_bus`: there is
/// a VMBus.
pub fn tables(vps: u32, has_bus: bool) -> Vec<u8> {
    let mut image = Image::default();
    let rsdp = image.reserve(36);
    let facs = image.append(&facs());
    let dsdt = image.append(&table(b"DSDT", 2, &dsdt(has_bus)));
    let fadt = image.append(&table(b"FACP", 6, &fadt(facs, dsdt)));
    let madt = image.append(&table(b"APIC", 5, &madt(vps)));
    let entries = [fadt, madt].map(u64::to_le_bytes);
    debug_assert_eq!(entries.len(), XSDT_ENTRIES.len());
    let xsdt = image.append(&table(b"XSDT", 1, entries.as_flattened()));
    image.bytes[rsdp..rsdp + 36].copy_from_slice(&root_pointer(xsdt));
    image.bytes
}

/// Bytes that will lie at [`ACPI_TABLES`].
#[derive(Default)]
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Leaves room at a 64-byte boundary, which is what the strictest table (FACS) needs; returns the offset.
    fn reserve(&mut self, len: usize) -> usize {
        let at = self.bytes.len().next_multiple_of(64);
        self.bytes.resize(at + len, 0);
        at
    }

    /// Adds a table; returns its guest-physical address.
    fn append(&mut self, table: &[u8]) -> u64 {
        let at = self.reserve(table.len());
        self.bytes[at..].copy_from_slice(table);
        ACPI_TABLES + at as u64
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// `body` behind a system description table header (§5.2.6).
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).expect("tables are short");
    let mut table = Vec::with_capacity(HEADER + body.len());
    table.extend(signature);
    table.extend(len.to_le_bytes());
    table.extend([revision, 0]);
    table.extend(b"BULKHDBULKHEAD");
    table.extend(1u32.to_le_bytes());
    table.extend(b"BLKH");
    table.extend(1u32.to_le_bytes());
    table.extend(body);
    table[9] = checksum(&table);
    table
}

/// Root system description pointer (§5.2.5.3): two checksums, of the first 20 bytes and of all 36.
fn root_pointer(xsdt: u64) -> [u8; 36] {
    let mut rsdp = [0; 36];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    rsdp[9..15].copy_from_slice(b"BULKHD");
    rsdp[15] = 2;
    rsdp[20] = 36;
    rsdp[24..32].copy_from_slice(&xsdt.to_le_bytes());
    rsdp[8] = checksum(&rsdp[..20]);
    rsdp[32] = checksum(&rsdp);
    rsdp
}

/// Firmware control structure (§5.2.10): no waking vector, no global lock owner.
fn facs() -> [u8; 64] {
    let mut facs = [0; 64];
    facs[..4].copy_from_slice(b"FACS");
    facs[4] = 64;
    facs[32] = 2;
    facs
}

/// Fixed description table (§5.2.9) behind its header. Offsets in the comments and in `put` are those of the
/// table, so [`HEADER`] is subtracted once.
fn fadt(facs: u64, dsdt: u64) -> Vec<u8> {
    /// There is no VGA to probe, and the absence of the "8042" bit keeps Linux from waiting for a keyboard.
    const BOOT_FLAGS: u16 = 1 << 0 | 1 << 2;
    /// WBINVD works; all processors have C1; there is no sleep button and no RTC wake; the PM timer has 32
    /// bits; the reset register works. The clear bit 4 says that the power button is a fixed one.
    const FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10;
    let mut fadt = vec![0; 276 - HEADER];
    let mut put =
        |at: usize, bytes: &[u8]| fadt[at - HEADER..at - HEADER + bytes.len()].copy_from_slice(bytes);
    let facs_low = u32::try_from(facs).expect("the tables lie below 1 MiB");
    let dsdt_low = u32::try_from(dsdt).expect("the tables lie below 1 MiB");
    put(36, &facs_low.to_le_bytes());
    put(40, &dsdt_low.to_le_bytes());
    put(46, &u16::from(SCI_IRQ).to_le_bytes());
    put(56, &u32::from(PM_EVENT).to_le_bytes());
    put(64, &u32::from(PM_CONTROL).to_le_bytes());
    put(76, &u32::from(PM_TIMER).to_le_bytes());
    // Lengths of the event block, the control block and the timer.
    put(88, &[4, 2]);
    put(91, &[4]);
    // C2 and C3 do not exist.
    put(96, &101u16.to_le_bytes());
    put(98, &1001u16.to_le_bytes());
    put(108, &[CENTURY]);
    put(109, &BOOT_FLAGS.to_le_bytes());
    put(112, &FLAGS.to_le_bytes());
    put(116, &io_register(RESET_PORT, 8));
    put(128, &[RESET_VALUE]);
    put(131, &[5]);
    put(140, &dsdt.to_le_bytes());
    put(148, &io_register(PM_EVENT, 32));
    put(172, &io_register(PM_CONTROL, 16));
    put(208, &io_register(PM_TIMER, 32));
    put(268, b"BULKHEAD");
    fadt
}

/// Generic address structure (§5.2.3.2) of an I/O port; the access size follows from the width.
fn io_register(port: u16, bits: u8) -> [u8; 12] {
    let access = match bits {
        8 => 1,
        16 => 2,
        _ => 3,
    };
    let [low, high] = port.to_le_bytes();
    [1, bits, 0, access, low, high, 0, 0, 0, 0, 0, 0]
}

/// Multiple APIC description table (§5.2.12) behind its header. The APIC id of a VP is its index.
fn madt(vps: u32) -> Vec<u8> {
    const ENABLED: u32 = 1;
    const PC_AT_COMPATIBLE: u32 = 1;
    const LEVEL_ACTIVE_HIGH: u16 = 0b1101;
    let mut madt = Vec::new();
    madt.extend(u32::try_from(LOCAL_APIC).expect("it lies below 4 GiB").to_le_bytes());
    madt.extend(PC_AT_COMPATIBLE.to_le_bytes());
    for vp in 0..vps {
        match u8::try_from(vp) {
            Ok(id @ 0..=254) => {
                madt.extend([0, 8, id, id]);
                madt.extend(ENABLED.to_le_bytes());
            }
            _ => {
                madt.extend([9, 16, 0, 0]);
                madt.extend([vp, ENABLED, vp].map(u32::to_le_bytes).as_flattened());
            }
        }
    }
    madt.extend([1, 12, 0, 0]);
    madt.extend(u32::try_from(IO_APIC).expect("it lies below 4 GiB").to_le_bytes());
    madt.extend(0u32.to_le_bytes());
    // ISA interrupt 0 is pin 2; the SCI is level triggered.
    for (source, pin, flags) in [(0, 2, 0), (SCI_IRQ, SCI_IRQ, LEVEL_ACTIVE_HIGH)] {
        madt.extend([2, 10, 0, source]);
        madt.extend(u32::from(pin).to_le_bytes());
        madt.extend(flags.to_le_bytes());
    }
    // NMI is LINT1 of every processor.
    madt.extend([4, 6, 0xff, 0, 0, 1]);
    madt
}

/// The definition block: what cannot be found by probing.
fn dsdt(has_bus: bool) -> Vec<u8> {
    let off = aml::integer(u32::from(SLEEP_TYPE_S5));
    let zero = aml::integer(0);
    let s5 = aml::name("_S5", &aml::package(&[off.clone(), off, zero.clone(), zero.clone()]));
    let serial = aml::device(
        "COM1",
        &[
            aml::name("_HID", &aml::eisa_id("PNP0501")),
            aml::name("_UID", &zero),
            aml::name("_CRS", &aml::resources(&[aml::io_ports(SERIAL_PORT, 8), aml::irq(SERIAL_IRQ)])),
        ],
    );
    let clock = aml::device(
        "RTC0",
        &[
            aml::name("_HID", &aml::eisa_id("PNP0B00")),
            aml::name("_CRS", &aml::resources(&[aml::io_ports(RTC_PORT, 2)])),
        ],
    );
    let mut devices = vec![serial, clock];
    devices.extend(has_bus.then(bus));
    [s5, aml::scope("_SB", &devices)].concat()
}

/// What Linux's `drivers/hv/vmbus_drv.c` looks for: a device of this name in a container, with resources even if there
/// are none.
fn bus() -> Vec<u8> {
    let bus = aml::device(
        "VMBS",
        &[
            aml::name("_HID", &aml::string("VMBUS")),
            aml::name("_UID", &aml::integer(0)),
            aml::name("_STA", &aml::integer(0xf)),
            aml::name("_CRS", &aml::resources(&[])),
        ],
    );
    aml::device("VMOD", &[aml::name("_HID", &aml::string("VMOD")), bus])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(image: &[u8], address: u64) -> &[u8] {
        &image[usize::try_from(address - ACPI_TABLES).unwrap()..]
    }

    fn u32_at(bytes: &[u8], offset: usize) -> u32 {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    #[test]
    fn every_table_is_reachable_and_sums_to_zero() {
        let image = tables(4, true);
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!((checksum(&image[..20]), checksum(&image[..36])), (0, 0));
        let xsdt = at(&image, u64_at(&image, 24));
        assert_eq!(&xsdt[..4], b"XSDT");
        let mut seen = vec![xsdt];
        for (entry, signature) in XSDT_ENTRIES.iter().enumerate() {
            let table = at(&image, u64_at(xsdt, HEADER + 8 * entry));
            assert_eq!(&table[..4], *signature);
            seen.push(table);
        }
        seen.push(at(&image, u64_at(seen[1], 140)));
        assert_eq!(&seen[3][..4], b"DSDT");
        for table in seen {
            assert_eq!(checksum(&table[..u32_at(table, 4) as usize]), 0);
        }
    }

    #[test]
    fn facs_is_aligned_and_found_by_its_32_bit_pointer() {
        let image = tables(1, false);
        let fadt = at(&image, u64_at(at(&image, u64_at(&image, 24)), HEADER));
        let facs = u64::from(u32_at(fadt, 36));
        assert_eq!(facs % 64, 0);
        assert_eq!(&at(&image, facs)[..4], b"FACS");
    }

    #[test]
    fn a_bus_is_described_only_where_there_is_one() {
        let name = b"VMBUS\0";
        let [with, without] = [true, false].map(dsdt);
        assert!(with.windows(name.len()).any(|bytes| bytes == name));
        assert!(!without.windows(name.len()).any(|bytes| bytes == name));
    }

    #[test]
    fn processors_beyond_apic_id_254_are_x2apic_entries() {
        let madt = madt(300);
        let (mut local, mut extended, mut at) = (0, 0, 8);
        while at < madt.len() {
            match madt[at] {
                0 => local += 1,
                9 => extended += 1,
                _ => {}
            }
            at += usize::from(madt[at + 1]);
        }
        assert_eq!((local, extended, at), (255, 45, madt.len()));
    }

    #[test]
    fn tables_fit_the_firmware_area_with_the_most_processors() {
        assert!(tables(control::MAX_VPS, true).len() <= 0x2_0000);
    }
}
