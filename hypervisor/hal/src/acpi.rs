//! The ACPI tables that a hypervisor needs before any operating system runs (ACPI 6.5 §5.2).
//!
//! Only fixed tables are read; AML is the root's business. All parsing is pure: memory comes from a reader, and
//! a table whose checksum is wrong does not exist.

mod fadt;
mod madt;
mod power;
mod rsdp;

pub use fadt::{Fadt, GenericAddress, PmTimer};
pub use madt::Madt;
pub use power::{power_off, reset};
pub use rsdp::{RootPointer, Rsdp, RsdpSource, sum};

use crate::addr::Hpa;
use crate::sync::Once;

/// Copies physical memory. What is out of reach reads as zeros.
pub type Reader = fn(Hpa, &mut [u8]);

/// Bytes of the head that every table has.
const HEAD_BYTES: u64 = 36;
/// A longer table than this is nonsense.
const MAX_TABLE_BYTES: u32 = 16 << 20;

/// Why there are no ACPI tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// No root pointer was found.
    NoRsdp,
    /// The root pointer's signature or checksum is wrong.
    BadRsdp,
    /// The root table's signature, length or checksum is wrong.
    BadRoot,
}

/// A table in memory, of a correct checksum.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its four-letter name.
    pub signature: [u8; 4],
    /// Its first byte.
    pub start: Hpa,
    /// Its length in bytes, head included.
    pub len: u32,
    read: Reader,
}

impl Table {
    /// Checks the table at `start`.
    fn new(start: Hpa, read: Reader) -> Option<Self> {
        let mut head = [0; 8];
        read(start, &mut head);
        let [s0, s1, s2, s3, length @ ..] = head;
        let table = Self { signature: [s0, s1, s2, s3], start, len: u32::from_le_bytes(length), read };
        let sane = (HEAD_BYTES as u32..=MAX_TABLE_BYTES).contains(&table.len);
        (sane && start.checked_add(u64::from(table.len)).is_some() && table.sum() == 0).then_some(table)
    }

    fn sum(&self) -> u8 {
        let mut total = 0_u8;
        let mut offset = 0;
        while offset < self.len {
            let mut chunk = [0; 64];
            let len = chunk.len().min((self.len - offset) as usize);
            (self.read)(Hpa(self.start.0 + u64::from(offset)), &mut chunk[..len]);
            total = total.wrapping_add(sum(&chunk));
            offset += 64;
        }
        total
    }

    /// Copies `N` bytes at `offset`; nothing where the table is shorter.
    fn bytes<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        if offset.checked_add(N as u64)? > u64::from(self.len) {
            return None;
        }
        (self.read)(Hpa(self.start.0 + offset), &mut bytes);
        Some(bytes)
    }

    fn byte(&self, offset: u64) -> Option<u8> {
        self.bytes::<1>(offset).map(|[byte]| byte)
    }

    fn word(&self, offset: u64) -> Option<u32> {
        self.bytes(offset).map(u32::from_le_bytes)
    }

    fn long(&self, offset: u64) -> Option<u64> {
        self.bytes(offset).map(u64::from_le_bytes)
    }
}

/// All tables that the root table names.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    root: Table,
    entry_bytes: u64,
}

impl Tables {
    /// Checks the root table that `rsdp` points at: the XSDT, or the RSDT where there is none.
    ///
    /// # Errors
    /// Neither is good.
    pub fn new(rsdp: &Rsdp, read: Reader) -> Result<Self, AcpiError> {
        let root = |start: Hpa, signature: &[u8; 4], entry_bytes| {
            let root = Table::new(start, read).filter(|table| table.signature == *signature)?;
            Some(Self { root, entry_bytes })
        };
        let xsdt = rsdp.xsdt.and_then(|start| root(start, b"XSDT", 8));
        xsdt.or_else(|| root(rsdp.rsdt, b"RSDT", 4)).ok_or(AcpiError::BadRoot)
    }

    /// Returns the tables in the root table's order.
    pub fn iter(&self) -> impl Iterator<Item = Table> {
        let count = (u64::from(self.root.len) - HEAD_BYTES) / self.entry_bytes;
        (0..count).filter_map(|index| {
            let offset = HEAD_BYTES + index * self.entry_bytes;
            let start = if self.entry_bytes == 8 {
                self.root.long(offset)
            } else {
                self.root.word(offset).map(u64::from)
            };
            Table::new(Hpa(start?), self.root.read)
        })
    }

    /// Returns the first table of that name.
    pub fn find(&self, signature: &[u8; 4]) -> Option<Table> {
        self.iter().find(|table| table.signature == *signature)
    }

    /// Returns the processors and interrupt controllers.
    pub fn madt(&self) -> Option<Madt> {
        self.find(b"APIC").map(Madt)
    }

    /// Returns the fixed hardware.
    pub fn fadt(&self) -> Option<Fadt> {
        self.find(b"FACP").and_then(|table| Fadt::new(&table))
    }
}

static TABLES: Once<Tables> = Once::new();

/// Returns the machine's tables.
///
/// # Panics
/// Boot did not get there yet.
pub fn tables() -> &'static Tables {
    TABLES.get().expect("boot finds the ACPI tables before anybody asks for them")
}

/// Finds the machine's tables. Boot only.
///
/// # Errors
/// There are none, or they are broken.
pub(crate) fn discover(source: Option<RsdpSource>, read: Reader) -> Result<&'static Tables, AcpiError> {
    let rsdp = source.ok_or(AcpiError::NoRsdp)?.rsdp(read)?;
    let tables = Tables::new(&rsdp, read)?;
    TABLES.set(tables).map_err(|_| AcpiError::BadRoot)
}

#[cfg(test)]
mod tests;
