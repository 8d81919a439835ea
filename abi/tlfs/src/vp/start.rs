//! How a guest starts its own processors.

use super::InputVtl;
use crate::{
    ids::{PartitionId, VpIndex},
    register::{SegmentRegister, TableRegister},
};

wire! {
    /// Input of `StartVirtualProcessor` and of `EnableVpVtl`.
    #[doc(alias = "hv_enable_vp_vtl")]
    pub struct StartVirtualProcessorInput: 240 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => target_vtl: InputVtl,
        13 => padding: [u8; 3],
        16 => context: InitialVpContext,
    }

    /// Where a processor starts (`TLFS datatypes/hv_initial_vp_context`).
    #[doc(alias = "hv_init_vp_context")]
    pub struct InitialVpContext: 224 {
        0 => rip: u64,
        8 => rsp: u64,
        16 => rflags: u64,
        24 => cs: SegmentRegister,
        40 => ds: SegmentRegister,
        56 => es: SegmentRegister,
        72 => fs: SegmentRegister,
        88 => gs: SegmentRegister,
        104 => ss: SegmentRegister,
        120 => tr: SegmentRegister,
        136 => ldtr: SegmentRegister,
        152 => idtr: TableRegister,
        168 => gdtr: TableRegister,
        184 => efer: u64,
        192 => cr0: u64,
        200 => cr3: u64,
        208 => cr4: u64,
        216 => pat: u64,
    }

    /// Header of `GetVpIndexFromApicId`; each repetition adds an [`ApicId`] and outputs a [`VpIndex`].
    ///
    /// The specification pads the elements to 8 bytes; Linux passes and expects 4.
    #[doc(alias = "hv_get_vp_from_apic_id_in")]
    pub struct GetVpIndexFromApicIdInput: 16 {
        0 => partition_id: PartitionId,
        8 => target_vtl: InputVtl,
        9 => padding: [u8; 7],
    }

    /// An element of `GetVpIndexFromApicId`.
    pub struct ApicId: 4 {
        0 => apic_id: u32,
    }
}
