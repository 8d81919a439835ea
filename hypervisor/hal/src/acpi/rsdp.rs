//! The root pointer (ACPI 6.5 §5.2.5).

use super::{AcpiError, Reader};
use crate::addr::Hpa;

const BYTES: usize = 36;
/// Bytes that the checksum of the first form covers.
const OLD_BYTES: usize = 20;
const SIGNATURE: &[u8; 8] = b"RSD PTR ";
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
        Rsdp::new(&bytes)
    }
}

impl Rsdp {
    fn new(bytes: &[u8; BYTES]) -> Result<Self, AcpiError> {
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        if !bytes.starts_with(SIGNATURE) || sum(&bytes[..OLD_BYTES]) != 0 {
            return Err(AcpiError::BadRsdp);
        }
        let [.., r0, r1, r2, r3] = bytes[..OLD_BYTES] else { return Err(AcpiError::BadRsdp) };
        let rsdt = Hpa(u64::from(u32::from_le_bytes([r0, r1, r2, r3])));
        let [x0, x1, x2, x3, x4, x5, x6, x7] = bytes[24..32] else { return Err(AcpiError::BadRsdp) };
        let xsdt = u64::from_le_bytes([x0, x1, x2, x3, x4, x5, x6, x7]);
        let is_new = bytes[15] >= 2 && sum(bytes) == 0 && xsdt != 0;
        Ok(Self { rsdt, xsdt: is_new.then_some(Hpa(xsdt)) })
    }
}
