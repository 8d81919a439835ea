//! ACPI tables built byte by byte, and read.

use std::{vec, vec::Vec};

use super::{AcpiError, GenericAddress, Rsdp, RsdpSource, Tables};
use crate::addr::Hpa;

const RSDT: u64 = 0x1000;
const XSDT: u64 = 0x1100;
const MADT: u64 = 0x1200;
const FADT: u64 = 0x1400;
const MCFG: u64 = 0x1600;
const RSDP: u64 = 0xe0040;

fn balance(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
}

fn table(signature: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut table = vec![0; 36];
    table[..4].copy_from_slice(signature);
    table[4..8].copy_from_slice(&(payload.len() as u32 + 36).to_le_bytes());
    table.extend(payload);
    balance(&mut table, 9);
    table
}

fn madt() -> Vec<u8> {
    let mut payload = vec![0; 8];
    payload.extend([0, 8, 1, 0, 1, 0, 0, 0]);
    payload.extend([0, 8, 2, 3, 2, 0, 0, 0]);
    payload.extend([0, 8, 3, 0xff, 1, 0, 0, 0]);
    payload.extend([1, 12, 5, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0]);
    payload.extend([9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0]);
    table(b"APIC", &payload)
}

fn fadt() -> Vec<u8> {
    let mut payload = vec![0; 276 - 36];
    let mut put = |at: usize, bytes: &[u8]| payload[at - 36..at - 36 + bytes.len()].copy_from_slice(bytes);
    put(64, &0x604_u32.to_le_bytes());
    put(76, &0x608_u32.to_le_bytes());
    put(112, &(1_u32 << 10 | 1 << 8).to_le_bytes());
    put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
    put(128, &[0x0f]);
    put(208, &[1, 32, 0, 3, 0x08, 0x18, 0, 0, 0, 0, 0, 0]);
    table(b"FACP", &payload)
}

fn root(signature: &[u8; 4], entry_bytes: usize) -> Vec<u8> {
    let entries = [MADT, 0xdead_0000, FADT, MCFG];
    let payload: Vec<u8> =
        entries.iter().flat_map(|entry| entry.to_le_bytes()[..entry_bytes].to_vec()).collect();
    table(signature, &payload)
}

fn rsdp() -> [u8; 36] {
    let mut bytes = [0; 36];
    bytes[..8].copy_from_slice(b"RSD PTR ");
    bytes[15] = 2;
    bytes[16..20].copy_from_slice(&(RSDT as u32).to_le_bytes());
    bytes[20] = 36;
    bytes[24..32].copy_from_slice(&XSDT.to_le_bytes());
    balance(&mut bytes[..20], 8);
    balance(&mut bytes, 32);
    bytes
}

/// The fixture's memory; zeros elsewhere.
fn read(start: Hpa, into: &mut [u8]) {
    let mut mcfg = vec![0; 8];
    mcfg.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 1, 0, 2, 0x7f, 0, 0, 0, 0]);
    let places = [
        (RSDT, root(b"RSDT", 4)),
        (XSDT, root(b"XSDT", 8)),
        (MADT, madt()),
        (FADT, fadt()),
        (MCFG, table(b"MCFG", &mcfg)),
        (RSDP, rsdp().to_vec()),
    ];
    for (at, byte) in (start.0..).zip(into) {
        let inside = |(place, bytes): &(u64, Vec<u8>)| {
            bytes.get(usize::try_from(at.checked_sub(*place)?).ok()?).copied()
        };
        *byte = places.iter().find_map(inside).unwrap_or(0);
    }
}

fn tables() -> Tables {
    Tables::new(&Rsdp { rsdt: Hpa(RSDT), xsdt: Some(Hpa(XSDT)) }, read).unwrap()
}

#[test]
fn the_root_pointer_is_found_in_the_bios_area() {
    let source = RsdpSource::search(read).unwrap();
    assert_eq!(source, RsdpSource::At(Hpa(RSDP)));
    assert_eq!(source.rsdp(read), Ok(Rsdp { rsdt: Hpa(RSDT), xsdt: Some(Hpa(XSDT)) }));
}

#[test]
fn a_copied_root_pointer_of_the_first_form_has_no_xsdt() {
    let mut bytes = rsdp();
    bytes[15] = 0;
    balance(&mut bytes[..20], 8);
    let source = RsdpSource::copy(&bytes[..20]);
    assert_eq!(source.rsdp(read), Ok(Rsdp { rsdt: Hpa(RSDT), xsdt: None }));
}

#[test]
fn a_spoilt_root_pointer_is_refused() {
    let mut bytes = rsdp();
    bytes[17] ^= 1;
    assert_eq!(RsdpSource::copy(&bytes).rsdp(read), Err(AcpiError::BadRsdp));
    assert_eq!(RsdpSource::copy(b"RSD").rsdp(read), Err(AcpiError::BadRsdp));
}

#[test]
fn both_root_tables_lead_to_the_same_tables_and_skip_broken_ones() {
    let old = Tables::new(&Rsdp { rsdt: Hpa(RSDT), xsdt: Some(Hpa(0x5000)) }, read).unwrap();
    for tables in [tables(), old] {
        let signatures: Vec<_> = tables.iter().map(|table| table.signature).collect();
        assert_eq!(signatures, [*b"APIC", *b"FACP", *b"MCFG"]);
    }
    let bad = Rsdp { rsdt: Hpa(MADT), xsdt: None };
    assert_eq!(Tables::new(&bad, read).map(|_| ()), Err(AcpiError::BadRoot));
}

#[test]
fn the_madt_lists_processors_that_can_be_started() {
    assert_eq!(tables().madt().unwrap().processors().collect::<Vec<_>>(), [0, 0x100]);
}

#[test]
fn an_entry_without_length_ends_the_madt() {
    fn broken(start: Hpa, into: &mut [u8]) {
        let mut payload = vec![0; 8];
        payload.extend([0, 0, 1, 0, 1, 0, 0, 0]);
        let table = table(b"APIC", &payload);
        for (at, byte) in (start.0 as usize..).zip(into) {
            *byte = table.get(at).copied().unwrap_or(0);
        }
    }
    let madt = super::Madt(super::Table::new(Hpa(0), broken).unwrap());
    assert_eq!(madt.processors().count(), 0);
}

#[test]
fn the_fadt_prefers_its_wider_fields() {
    let fadt = tables().fadt().unwrap();
    assert_eq!((fadt.pm1a_control, fadt.pm1b_control), (Some(0x604), None));
    let timer = fadt.pm_timer.unwrap();
    assert_eq!((timer.port, timer.mask()), (0x1808, u32::MAX));
    assert_eq!(fadt.reset, Some((GenericAddress { space: 1, address: 0xcf9 }, 0x0f)));
}
