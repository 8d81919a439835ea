//! Where things are in a virtual machine: guest-physical addresses, ports and interrupt lines.
//!
//! Guest RAM starts at 0, leaves out the last gibibyte below 4 GiB (where the APICs are, and later devices),
//! and goes on at 4 GiB. Everything that the loader writes besides the kernel and its files lies below 1 MiB.

/// Global descriptor table for the boot processor.
pub const GDT: u64 = 0x500;
/// `struct hvm_start_info` and what it points to, for a PVH kernel.
pub const PVH_INFO: u64 = 0x6000;
/// `struct boot_params`, for a bzImage.
pub const ZERO_PAGE: u64 = 0x7000;
/// Identity-mapping page tables: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// The kernel's command line.
pub const CMDLINE: u64 = 0x2_0000;
/// End of the RAM below the firmware area.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// The ACPI tables, in the area that a kernel searches for the RSDP.
pub const ACPI_TABLES: u64 = 0xe_0000;
/// Start of the RAM above the firmware area.
pub const HIGH_MEMORY: u64 = 0x10_0000;
/// Start of the hole below 4 GiB.
pub const MMIO_HOLE: u64 = 0xc000_0000;
/// End of that hole, where RAM goes on.
pub const FOUR_GIB: u64 = 1 << 32;

/// The I/O APIC's registers.
pub const IO_APIC: u64 = 0xfec0_0000;
/// The local APICs' registers, which the hypervisor emulates.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// COM1.
pub const SERIAL_PORT: u16 = 0x3f8;
/// COM1's interrupt line.
pub const SERIAL_IRQ: u8 = 4;
/// CMOS clock: index, then data.
pub const RTC_PORT: u16 = 0x70;
/// Where in CMOS memory the century is.
pub const CENTURY: u8 = 0x32;
/// ACPI PM1a event block: status, then enable.
pub const PM_EVENT: u16 = 0x600;
/// ACPI PM1a control block.
pub const PM_CONTROL: u16 = 0x604;
/// ACPI PM timer.
pub const PM_TIMER: u16 = 0x608;
/// ACPI system control interrupt.
pub const SCI_IRQ: u8 = 9;
/// The value of SLP_TYP that means power-off.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Reset control register of a PC chip set.
pub const RESET_PORT: u16 = 0xcf9;
/// What to write there for a reset of the whole machine.
pub const RESET_VALUE: u8 = 0x06;
/// The I/O APIC pin of the PIT's channel 0 (ISA interrupt 0).
pub const PIT_PIN: u8 = 2;
