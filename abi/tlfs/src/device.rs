//! Interrupts of devices: who the device is, what it sends, where that goes.

use crate::{ids::PartitionId, vpset::VpSetHeader};

wire! {
    /// Input of `MapDeviceInterrupt`.
    ///
    /// The variable header starts within the target's set, at the bank mask: [`Self::FIXED_SIZE`].
    #[doc(alias = "hv_input_map_device_interrupt")]
    pub struct MapDeviceInterruptInput: 80 {
        0 => partition_id: PartitionId,
        8 => device_id: DeviceId,
        16 => flags: u32,
        20 => base_irt_index: u32,
        24 => logical_interrupt_entry: InterruptEntry,
        40 => interrupt_descriptor: InterruptDescriptor,
    }

    /// Output of `MapDeviceInterrupt`: what to write into the device.
    #[doc(alias = "hv_output_map_device_interrupt")]
    pub struct MapDeviceInterruptOutput: 56 {
        0 => interrupt_entry: InterruptEntry,
        16 => deprecated: [u64; 5],
    }

    /// Input of `UnmapDeviceInterrupt`; Linux's ends before the padding.
    #[doc(alias = "hv_input_unmap_device_interrupt")]
    pub struct UnmapDeviceInterruptInput: 40 {
        0 => partition_id: PartitionId,
        8 => device_id: DeviceId,
        /// As the map call returned it.
        16 => interrupt_entry: InterruptEntry,
        32 => flags: u32,
        36 => padding: u32,
    }

    /// Input of `RetargetDeviceInterrupt`.
    ///
    /// The variable header starts within the target's set, at the bank mask: [`Self::FIXED_SIZE`].
    #[doc(alias = "hv_retarget_device_interrupt")]
    pub struct RetargetDeviceInterruptInput: 64 {
        0 => partition_id: PartitionId,
        8 => device_id: DeviceId,
        16 => interrupt_entry: InterruptEntry,
        32 => reserved: u64,
        40 => target: InterruptTarget,
    }

    /// What a device sends, or what makes it send that; the data's meaning depends on the source.
    #[doc(alias = "hv_interrupt_entry")]
    pub struct InterruptEntry: 16 {
        0 => source: InterruptSource,
        4 => reserved: u32,
        /// A [`MsiEntry`] or an [`IoApicRte`].
        8 => data: u64,
    }

    /// The interrupt that is wanted.
    #[doc(alias = "hv_device_interrupt_descriptor")]
    pub struct InterruptDescriptor: 40 {
        /// A [`crate::vp::InterruptType`].
        0 => interrupt_type: crate::vp::InterruptType,
        4 => trigger_mode: TriggerMode,
        8 => vector_count: u32,
        12 => reserved: u32,
        16 => target: InterruptTarget,
    }

    /// Where an interrupt goes.
    #[doc(alias = "hv_device_interrupt_target")]
    pub struct InterruptTarget: 24 {
        0 => vector: u32,
        4 => flags: InterruptTargetFlags,
        /// Without [`InterruptTargetFlags::PROCESSOR_SET`] the format is instead a mask of processors 0 to 63,
        /// and the rest is absent.
        8 => vp_set: VpSetHeader,
    }
}

impl MapDeviceInterruptInput {
    /// Bytes before the variable header.
    pub const FIXED_SIZE: usize = 72;
}

impl RetargetDeviceInterruptInput {
    /// Bytes before the variable header.
    pub const FIXED_SIZE: usize = 56;
}

impl InterruptEntry {
    /// An entry for a message that a device sends.
    #[must_use]
    pub const fn msi(entry: MsiEntry) -> Self {
        Self { source: InterruptSource::MSI, reserved: 0, data: entry.into_bits() }
    }

    /// An entry for an I/O APIC pin.
    #[must_use]
    pub const fn io_apic(entry: IoApicRte) -> Self {
        Self { source: InterruptSource::IO_APIC, reserved: 0, data: entry.into_bits() }
    }
}

bit_word! {
    /// A device; the low bits' meaning depends on the type.
    #[doc(alias = "hv_device_id")]
    pub struct DeviceId(u64) {
        #[bits(62)]
        pub id: u64,
        /// One of [`DeviceType`].
        #[bits(2)]
        pub device_type: u8,
    }

    /// A [`DeviceId`] of `DeviceType::PCI`.
    pub struct PciDeviceId(u64) {
        /// Bus, device and function.
        pub requester_id: u16,
        pub segment: u16,
        /// The buses behind the bridge, if the device's requests show those.
        pub subordinate_bus: u8,
        pub secondary_bus: u8,
        #[bits(2)]
        pub phantom_function_bits: u8,
        /// Requests show a bus of the range, not the requester.
        pub source_shadow: bool,
        #[bits(11)]
        pub reserved: u16,
        #[bits(2)]
        pub device_type: u8,
    }

    /// A [`DeviceId`] of `DeviceType::IO_APIC`.
    pub struct IoApicDeviceId(u64) {
        pub io_apic_id: u8,
        #[bits(54)]
        pub reserved: u64,
        #[bits(2)]
        pub device_type: u8,
    }

    /// A message signalled interrupt: the low half of its address, and its data.
    #[doc(alias = "hv_msi_entry")]
    pub struct MsiEntry(u64) {
        #[bits(2)]
        pub reserved0: u8,
        pub logical_destination_mode: bool,
        pub redirection_hint: bool,
        pub reserved1: u8,
        pub destination_id: u8,
        /// `0xfee`.
        #[bits(12)]
        pub msi_base: u16,
        pub vector: u8,
        #[bits(3)]
        pub delivery_mode: u8,
        #[bits(3)]
        pub reserved2: u8,
        pub level_assert: bool,
        pub level_triggered: bool,
        pub reserved3: u16,
    }

    /// An entry of an I/O APIC's redirection table.
    #[doc(alias = "hv_ioapic_rte")]
    pub struct IoApicRte(u64) {
        pub vector: u8,
        #[bits(3)]
        pub delivery_mode: u8,
        pub logical_destination_mode: bool,
        pub delivery_status: bool,
        pub active_low: bool,
        pub remote_irr: bool,
        pub level_triggered: bool,
        pub masked: bool,
        #[bits(39)]
        pub reserved: u64,
        pub destination_id: u8,
    }
}

flag_set! {
    /// How a target is expressed.
    #[doc(alias = "HV_DEVICE_INTERRUPT_TARGET")]
    pub struct InterruptTargetFlags(u32) {
        MULTICAST = 1,
        PROCESSOR_SET = 2,
    }
}

open_enum! {
    /// The kind of a device.
    #[doc(alias = "hv_device_type")]
    pub struct DeviceType(u8) {
        LOGICAL = 0,
        PCI = 1,
        IO_APIC = 2,
        ACPI = 3,
    }

    /// What an interrupt entry describes.
    #[doc(alias = "hv_interrupt_source")]
    pub struct InterruptSource(u32) {
        MSI = 1,
        IO_APIC = 2,
    }

    /// How an interrupt is triggered.
    #[doc(alias = "hv_interrupt_trigger_mode")]
    pub struct TriggerMode(u32) {
        EDGE = 0,
        LEVEL = 1,
    }
}
