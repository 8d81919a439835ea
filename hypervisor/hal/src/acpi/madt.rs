//! The interrupt controllers (ACPI 6.5 §5.2.12).

use super::{HEAD_BYTES, Table};
use crate::addr::Hpa;

const FIRST_ENTRY: u64 = HEAD_BYTES + 8;
const LOCAL_APIC: u8 = 0;
const IO_APIC: u8 = 1;
const LOCAL_X2APIC: u8 = 9;
/// An APIC id that names all processors, so none.
const NO_APIC: u32 = 0xff;

/// The table of interrupt controllers.
#[derive(Clone, Copy, Debug)]
pub struct Madt(pub(super) Table);

/// A logical processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its x2APIC id.
    pub apic_id: u32,
    /// The number by which AML names it.
    pub uid: u32,
    /// Whether it can be started now.
    pub is_enabled: bool,
    /// Whether it may be enabled while the system runs.
    pub can_be_enabled: bool,
}

/// An IO-APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its id.
    pub id: u8,
    /// Its registers.
    pub start: Hpa,
    /// The number of its first input among the system's.
    pub first_gsi: u32,
}

impl Madt {
    /// Returns the processors that firmware lists, in its order.
    pub fn processors(&self) -> impl Iterator<Item = Processor> {
        self.entries().filter_map(|(kind, at)| {
            let (apic_id, uid, flags) = match kind {
                LOCAL_APIC => {
                    let [_, _, uid, apic_id] = self.0.bytes(at)?;
                    (u32::from(apic_id), u32::from(uid), self.0.word(at + 4)?)
                }
                LOCAL_X2APIC => (self.0.word(at + 4)?, self.0.word(at + 12)?, self.0.word(at + 8)?),
                _ => return None,
            };
            let exists = kind == LOCAL_X2APIC || apic_id != NO_APIC;
            let (is_enabled, can_be_enabled) = (flags & 1 != 0, flags & 2 != 0);
            exists.then_some(Processor { apic_id, uid, is_enabled, can_be_enabled })
        })
    }

    /// Returns the IO-APICs.
    pub fn io_apics(&self) -> impl Iterator<Item = IoApic> {
        self.entries().filter(|&(kind, _)| kind == IO_APIC).filter_map(|(_, at)| {
            let start = Hpa(u64::from(self.0.word(at + 4)?));
            Some(IoApic { id: self.0.byte(at + 2)?, start, first_gsi: self.0.word(at + 8)? })
        })
    }

    /// The type and offset of each entry that ends inside the table.
    fn entries(&self) -> impl Iterator<Item = (u8, u64)> {
        let mut at = FIRST_ENTRY;
        core::iter::from_fn(move || {
            let [kind, len] = self.0.bytes(at)?;
            let (entry, len) = (at, u64::from(len));
            at += len;
            (len >= 2 && at <= u64::from(self.0.len)).then_some((kind, entry))
        })
    }
}
