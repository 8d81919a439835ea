//! Sets of virtual processors (`TLFS datatypes/hv_vp_set`).

wire! {
    /// The head of a set. A sparse set goes on with one `u64` for each bit set in the mask, in order:
    /// bit `n` of the word for bank `b` stands for processor `64 * b + n`.
    ///
    /// Which part of it counts as fixed header differs by call; see the input structures.
    #[doc(alias = "hv_vpset")]
    pub struct VpSetHeader: 16 {
        0 => format: VpSetFormat,
        8 => valid_bank_mask: u64,
    }
}

open_enum! {
    /// How a set is expressed.
    #[doc(alias = "hv_generic_set_format")]
    pub struct VpSetFormat(u64) {
        SPARSE_4K = 0,
        /// Every processor of the partition.
        ALL = 1,
    }
}

/// Processors in one bank of a sparse set.
#[doc(alias = "HV_VCPUS_PER_SPARSE_BANK")]
pub const VPS_PER_BANK: u32 = 64;
/// Most banks of a sparse set.
#[doc(alias = "HV_MAX_SPARSE_VCPU_BANKS")]
pub const MAX_BANKS: usize = 64;
