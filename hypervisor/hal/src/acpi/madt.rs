//! The interrupt controllers (ACPI 6.5 §5.2.12).

use super::{HEAD_BYTES, Table};

const FIRST_ENTRY: u64 = HEAD_BYTES + 8;
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 9;
/// An APIC id that names all processors, so none.
const NO_APIC: u32 = 0xff;
const ENABLED: u32 = 1;

/// The table of interrupt controllers.
#[derive(Clone, Copy, Debug)]
pub struct Madt(pub(super) Table);

impl Madt {
    /// Returns the x2APIC ids of the processors that can be started, in firmware's order.
    pub fn processors(&self) -> impl Iterator<Item = u32> {
        self.entries().filter_map(|(kind, at)| {
            let (apic_id, flags) = match kind {
                LOCAL_APIC => (u32::from(self.0.byte(at + 3)?), self.0.word(at + 4)?),
                LOCAL_X2APIC => (self.0.word(at + 4)?, self.0.word(at + 8)?),
                _ => return None,
            };
            let exists = kind == LOCAL_X2APIC || apic_id != NO_APIC;
            (exists && flags & ENABLED != 0).then_some(apic_id)
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
