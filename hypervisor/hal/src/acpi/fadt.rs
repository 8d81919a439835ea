//! The fixed hardware (ACPI 6.5 §5.2.9).

use super::Table;

const IN_IO_SPACE: u8 = 1;
const TIMER_IS_32_BITS: u32 = 1 << 8;
const HAS_RESET_REGISTER: u32 = 1 << 10;

/// What the hypervisor uses of the fixed hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fadt {
    /// Port of the PM1a control register.
    pub pm1a_control: Option<u16>,
    /// Port of the PM1b control register.
    pub pm1b_control: Option<u16>,
    /// The timer at 3.579545 MHz.
    pub pm_timer: Option<PmTimer>,
    /// The register that resets the machine, and the value to write.
    pub reset: Option<(GenericAddress, u8)>,
}

/// The power-management timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmTimer {
    /// Its port.
    pub port: u16,
    /// Whether it counts 32 bits instead of 24.
    pub is_32_bits: bool,
}

impl PmTimer {
    /// Returns the bits that count.
    pub fn mask(&self) -> u32 {
        if self.is_32_bits { u32::MAX } else { 0xff_ffff }
    }
}

/// A register in some address space (ACPI 6.5 §5.2.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenericAddress {
    /// The address space: 0 memory, 1 I/O ports, 2 PCI configuration of bus 0.
    pub space: u8,
    /// The address in it.
    pub address: u64,
}

impl GenericAddress {
    fn new(table: &Table, offset: u64) -> Option<Self> {
        let [space, ..] = table.bytes::<4>(offset)?;
        let address = table.long(offset + 4)?;
        (address != 0).then_some(Self { space, address })
    }

    /// Returns the port, if this is one.
    pub fn port(&self) -> Option<u16> {
        u16::try_from(self.address).ok().filter(|_| self.space == IN_IO_SPACE)
    }
}

impl Fadt {
    pub(super) fn new(table: &Table) -> Option<Self> {
        // The later, wider field rules where it is filled in; some firmware fills in only the older.
        let port = |old: u64, new: u64| {
            let narrow = || u16::try_from(table.word(old)?).ok().filter(|&port| port != 0);
            GenericAddress::new(table, new).map_or_else(narrow, |register| register.port())
        };
        let flags = table.word(112)?;
        let reset = || Some((GenericAddress::new(table, 116)?, table.byte(128)?));
        let is_32_bits = flags & TIMER_IS_32_BITS != 0;
        Some(Self {
            pm1a_control: port(64, 172),
            pm1b_control: port(68, 184),
            pm_timer: port(76, 208).map(|port| PmTimer { port, is_32_bits }),
            reset: if flags & HAS_RESET_REGISTER != 0 { reset() } else { None },
        })
    }
}
