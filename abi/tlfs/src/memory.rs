//! Guest physical memory, deposited memory, and flushes of virtual addresses.

use crate::{ids::PartitionId, partition::ProximityDomainInfo, vpset::VpSetHeader};

wire! {
    /// Header of `MapGpaPages`; each repetition adds a `u64`, the page number in the caller.
    ///
    /// With [`MapGpaFlags::LARGE_PAGE`] a repetition maps 512 pages, and the target advances by 512.
    #[doc(alias = "hv_input_map_gpa_pages")]
    pub struct MapGpaPagesInput: 24 {
        0 => target_partition_id: PartitionId,
        /// Page number in the target.
        8 => target_gpa_base: u64,
        16 => map_flags: MapGpaFlags,
        20 => padding: u32,
    }

    /// Input of `UnmapGpaPages`; repetitions add nothing.
    #[doc(alias = "hv_input_unmap_gpa_pages")]
    pub struct UnmapGpaPagesInput: 24 {
        0 => target_partition_id: PartitionId,
        /// Page number in the target.
        8 => target_gpa_base: u64,
        16 => unmap_flags: UnmapGpaFlags,
        20 => padding: u32,
    }

    /// Header of `DepositMemory`; each repetition adds a `u64`, the page number in the caller.
    #[doc(alias = "hv_deposit_memory")]
    pub struct DepositMemoryInput: 8 {
        0 => partition_id: PartitionId,
    }

    /// Input of `WithdrawMemory`; each repetition outputs a `u64`, the page number in the caller.
    #[doc(alias = "hv_input_withdraw_memory")]
    pub struct WithdrawMemoryInput: 16 {
        0 => partition_id: PartitionId,
        8 => proximity_domain_info: ProximityDomainInfo,
    }

    /// Output of `GetMemoryBalance`, in pages.
    pub struct GetMemoryBalanceOutput: 16 {
        0 => pages_available: u64,
        8 => pages_in_use: u64,
    }

    /// Input of `GetGpaPagesAccessStates`; each repetition outputs one [`GpaAccessState`].
    #[doc(alias = "hv_input_get_gpa_pages_access_state")]
    pub struct GetGpaPagesAccessStatesInput: 24 {
        0 => partition_id: PartitionId,
        8 => flags: GpaAccessFlags,
        16 => gpa_page_number: u64,
    }

    /// Input of `FlushVirtualAddressSpace`, and header of `FlushVirtualAddressList`, where each repetition
    /// adds a [`GvaRange`].
    #[doc(alias = "hv_tlb_flush")]
    pub struct FlushVirtualAddressInput: 24 {
        /// CR3.
        0 => address_space: u64,
        8 => flags: FlushFlags,
        /// Processors 0 to 63.
        16 => processor_mask: u64,
    }

    /// Header of `FlushVirtualAddressSpaceEx` and `FlushVirtualAddressListEx`; the variable header holds
    /// the banks of the set, and each repetition of the latter adds a [`GvaRange`] after them.
    #[doc(alias = "hv_tlb_flush_ex")]
    pub struct FlushVirtualAddressExInput: 32 {
        /// CR3.
        0 => address_space: u64,
        8 => flags: FlushFlags,
        16 => vp_set: VpSetHeader,
    }

    /// Input of `FlushGuestPhysicalAddressSpace`, and header of `FlushGuestPhysicalAddressList`.
    #[doc(alias = "hv_guest_mapping_flush")]
    pub struct FlushGuestPhysicalAddressInput: 16 {
        /// The nested page table's root.
        0 => address_space: u64,
        8 => flags: u64,
    }
}

flag_set! {
    /// How to map (`TLFS datatypes/hv_map_gpa_flags`).
    ///
    /// `NO_ACCESS`, `ZEROED` and `ONES` are values of one field; see [`MapGpaFlags::SPECIAL_MASK`].
    #[doc(alias = "HV_MAP_GPA_FLAGS")]
    pub struct MapGpaFlags(u32) {
        READABLE = 0x1,
        WRITABLE = 0x2,
        KERNEL_EXECUTABLE = 0x4,
        USER_EXECUTABLE = 0x8,
        /// Linux sets it on demand-paged mappings; the specification does not name it.
        ADJUSTABLE = 0x8000,
        /// Every access intercepts; the page numbers are ignored.
        NO_ACCESS = 0x1_0000,
        ZEROED = 0x2_0000,
        NO_OVERLAY = 0x10_0000,
        NOT_CACHED = 0x20_0000,
        CLEAR_ACCESSED = 0x100_0000,
        SET_ACCESSED = 0x200_0000,
        CLEAR_DIRTY = 0x400_0000,
        SET_DIRTY = 0x800_0000,
        DONT_SET_RANGE_ACCESSED = 0x1000_0000,
        LARGE_PAGE = 0x8000_0000,
    }

    /// How to unmap (`TLFS datatypes/hv_unmap_gpa_flags`).
    pub struct UnmapGpaFlags(u32) {
        KEEP_PRECOMMITTED = 0x1,
        LARGE_PAGE = 0x2,
    }

    /// What to do to the access states after they are read.
    #[doc(alias = "hv_gpa_page_access_state_flags")]
    pub struct GpaAccessFlags(u64) {
        CLEAR_ACCESSED = 1 << 0,
        SET_ACCESSED = 1 << 1,
        CLEAR_DIRTY = 1 << 2,
        SET_DIRTY = 1 << 3,
    }

    /// What happened to a page.
    #[doc(alias = "hv_gpa_page_access_state")]
    pub struct GpaAccessState(u8) {
        ACCESSED = 1 << 0,
        DIRTY = 1 << 1,
    }

    /// What to flush (`TLFS hypercalls/HvCallFlushVirtualAddressSpace`).
    pub struct FlushFlags(u64) {
        /// The processor mask or set is ignored.
        ALL_PROCESSORS = 1 << 0,
        /// The address space is ignored.
        ALL_VIRTUAL_ADDRESS_SPACES = 1 << 1,
        NON_GLOBAL_MAPPINGS_ONLY = 1 << 2,
        USE_EXTENDED_RANGE_FORMAT = 1 << 3,
    }
}

impl MapGpaFlags {
    /// The rights.
    #[doc(alias = "HV_MAP_GPA_PERMISSIONS_MASK")]
    pub const PERMISSIONS_MASK: Self = Self(0xf);
    /// The field that holds `NO_ACCESS`, `ZEROED` or [`MapGpaFlags::ONES`].
    pub const SPECIAL_MASK: Self = Self(0x3_0000);
    /// Both other values of the field together: all bits one.
    pub const ONES: Self = Self(0x3_0000);
}

bit_word! {
    /// A range of pages to flush: the first page number and how many follow it.
    #[doc(alias = "HV_GVA_RANGE")]
    pub struct GvaRange(u64) {
        #[bits(12)]
        pub additional_pages: u16,
        #[bits(52)]
        pub page_number: u64,
    }

    /// A [`GvaRange`] with [`FlushFlags::USE_EXTENDED_RANGE_FORMAT`].
    pub struct GvaRangeExtended(u64) {
        #[bits(11)]
        pub additional_pages: u16,
        pub large_page: bool,
        /// Of a large page, bits 8:1 of the field are reserved and bit 0 selects 1 GiB over 2 MiB.
        #[bits(52)]
        pub page_number: u64,
    }

    /// A range of guest physical pages.
    #[doc(alias = "hv_gpa_page_range")]
    pub struct GpaPageRange(u64) {
        #[bits(11)]
        pub additional_pages: u16,
        pub large_page: bool,
        #[bits(52)]
        pub base_page: u64,
    }
}

/// Page numbers that fit in the input page of `MapGpaPages`.
pub const MAP_GPA_MAX_REPS: usize = (crate::PAGE_SIZE - size_of::<MapGpaPagesInput>()) / 8;
/// Page numbers that fit in the input page of `DepositMemory`.
pub const DEPOSIT_MAX_REPS: usize = (crate::PAGE_SIZE - size_of::<DepositMemoryInput>()) / 8;
/// Page numbers that fit in the output page of `WithdrawMemory`.
pub const WITHDRAW_MAX_REPS: usize = crate::PAGE_SIZE / 8;
