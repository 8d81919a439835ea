//! ACPI without the tables that describe IOMMUs, which are the hypervisor's (ACPI 6.5 §5.2.5 to §5.2.8).
//!
//! The root gets a copy of the root pointer and of the root table, always in the form with 64-bit entries. All
//! other tables stay where they are.

use hal::{
    acpi::{RootPointer, RsdpSource, sum},
    addr::{Hpa, PAGE_SIZE},
};
use model::ensure;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Error, Memory, reached, read};

const HIDDEN: [[u8; 4]; 2] = [*b"IVRS", *b"DMAR"];
/// A root table beyond this many bytes is nonsense.
const MAX_ROOT_BYTES: u32 = 1 << 16;
/// Offset of the root table's copy in the page, and so what is left of the page.
const COPY_AT: u64 = 64;
const COPY_BYTES: u64 = PAGE_SIZE as u64 - COPY_AT;

#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Head {
    signature: [u8; 4],
    len: u32,
    revision: u8,
    checksum: u8,
    rest: [u8; 26],
}

const HEAD_BYTES: u64 = size_of::<Head>() as u64;

/// Returns a root pointer to what the root may see, made in the page `spare` if the firmware's own will not do.
pub(super) fn hide(memory: &mut impl Memory, source: RsdpSource, spare: Hpa) -> Result<Hpa, Error> {
    let rsdp = match source {
        RsdpSource::At(at) => read(memory, at, 0)?,
        RsdpSource::Copy(copy) => copy,
    };
    let rsdp = RootPointer::new(rsdp).map_err(|_| Error::BadAcpi)?;
    let tables = rsdp.tables();
    let (root, entry_bytes) = tables.xsdt.map_or((tables.rsdt, 4), |xsdt| (xsdt, 8));
    let head: [u8; size_of::<Head>()] = read(memory, root, 0)?;
    let mut head = Head::read_from_bytes(&head).map_err(|_| Error::BadAcpi)?;
    let signature = if entry_bytes == 8 { b"XSDT" } else { b"RSDT" };
    let has_length = (HEAD_BYTES as u32..=MAX_ROOT_BYTES).contains(&head.len);
    ensure(head.signature == *signature && has_length, Error::BadAcpi)?;
    let copy = Hpa(spare.0 + COPY_AT);
    let (mut copied, mut entry_sum, mut is_hiding) = (HEAD_BYTES, 0_u8, false);
    for offset in (HEAD_BYTES..=u64::from(head.len) - entry_bytes).step_by(entry_bytes as usize) {
        let entry = match entry_bytes {
            8 => u64::from_le_bytes(read(memory, root, offset)?),
            _ => u64::from(u32::from_le_bytes(read(memory, root, offset)?)),
        };
        if HIDDEN.contains(&read(memory, Hpa(entry), 0)?) {
            is_hiding = true;
            continue;
        }
        if copied + 8 <= COPY_BYTES {
            let at = Hpa(copy.0 + copied);
            reached(memory.write(at, entry.as_bytes()), at)?;
            entry_sum = entry_sum.wrapping_add(sum(entry.as_bytes()));
        }
        copied += 8;
    }
    match source {
        RsdpSource::At(at) if !is_hiding => return Ok(at),
        _ if copied > COPY_BYTES => return Err(Error::AcpiTooLong),
        _ => {}
    }
    head = Head { signature: *b"XSDT", len: copied as u32, revision: 1, checksum: 0, ..head };
    head.checksum = sum(head.as_bytes()).wrapping_add(entry_sum).wrapping_neg();
    reached(
        memory.write(copy, head.as_bytes()) && memory.write(spare, rsdp.renewed(copy).as_bytes()),
        spare,
    )?;
    Ok(spare)
}
