//! The root pointer (ACPI 6.5 §5.2.5).

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{AcpiError, Reader};
use crate::addr::Hpa;

const BYTES: usize = 36;
/// Bytes that the checksum of the first form covers.
const OLD_BYTES: usize = 20;
/// Where firmware without any better way leaves the root pointer, on a 16-byte boundary.
const BIOS_AREA: core::ops::Range<u64> = 0xe_0000..0x10_0000;
/// Where real-mode firmware notes the segment of its extended data area.
const EXTENDED_AREA_SEGMENT: Hpa = Hpa(0x40e);

/// How the loader names the root pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsdpSource {
    /// It lies in memory.
    At(Hpa),
    /// The loader gives a copy, padded with zeros.
    Copy([u8; BYTES]),
}

/// The root pointer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rsdp {
    /// The root table with 32-bit entries.
    pub rsdt: Hpa,
    /// The root table with 64-bit entries.
    pub xsdt: Option<Hpa>,
}

impl RsdpSource {
    /// Copies what the loader gives; more than a root pointer is cut.
    pub(crate) fn copy(from: &[u8]) -> Self {
        let mut bytes = [0; BYTES];
        for (byte, &from) in bytes.iter_mut().zip(from) {
            *byte = from;
        }
        Self::Copy(bytes)
    }

    /// Searches where BIOS firmware leaves the root pointer.
    pub fn search(read: Reader) -> Option<Self> {
        let mut segment = [0; 2];
        read(EXTENDED_AREA_SEGMENT, &mut segment);
        let extended = u64::from(u16::from_le_bytes(segment)) << 4;
        let candidates = (extended..extended + 1024).step_by(16).chain(BIOS_AREA.step_by(16));
        candidates.map(|start| Self::At(Hpa(start))).find(|source| source.rsdp(read).is_ok())
    }

    /// Returns the content.
    ///
    /// # Errors
    /// Signature or checksum is wrong.
    pub fn rsdp(&self, read: Reader) -> Result<Rsdp, AcpiError> {
        let mut bytes = [0; BYTES];
        match *self {
            Self::At(start) => read(start, &mut bytes),
            Self::Copy(copy) => bytes = copy,
        }
        Ok(RootPointer::new(bytes)?.tables())
    }
}

/// The root pointer as it lies in memory, of a correct signature and checksum.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, packed)]
pub struct RootPointer {
    signature: [u8; 8],
    /// Of the first 20 bytes, which are all that revision 0 has.
    checksum: u8,
    oem: [u8; 6],
    revision: u8,
    rsdt: u32,
    len: u32,
    xsdt: u64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

impl RootPointer {
    /// Takes bytes for a root pointer.
    ///
    /// # Errors
    /// Signature or checksum is wrong.
    pub fn new(bytes: [u8; BYTES]) -> Result<Self, AcpiError> {
        let this: Self = zerocopy::transmute!(bytes);
        let is_valid = this.signature == *b"RSD PTR " && this.old_sum() == 0;
        is_valid.then_some(this).ok_or(AcpiError::BadRsdp)
    }

    /// Returns where the root tables are.
    pub fn tables(&self) -> Rsdp {
        let has_xsdt = self.revision >= 2 && self.xsdt != 0 && sum(self.as_bytes()) == 0;
        Rsdp { rsdt: Hpa(u64::from(self.rsdt)), xsdt: has_xsdt.then_some(Hpa(self.xsdt)) }
    }

    /// Returns a root pointer that knows only the XSDT at `xsdt`, so that nobody finds the old tables.
    #[must_use]
    pub fn renewed(self, xsdt: Hpa) -> Self {
        let (len, revision) = (BYTES as u32, 2);
        let (checksum, extended_checksum, reserved) = (0, 0, [0; 3]);
        let mut new =
            Self { checksum, revision, rsdt: 0, len, xsdt: xsdt.0, extended_checksum, reserved, ..self };
        new.checksum = new.old_sum().wrapping_neg();
        new.extended_checksum = sum(new.as_bytes()).wrapping_neg();
        new
    }

    fn old_sum(&self) -> u8 {
        self.as_bytes().first_chunk::<OLD_BYTES>().map_or(0, |old| sum(old))
    }
}

/// Adds bytes up, which gives 0 where a checksum is right.
pub fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}
