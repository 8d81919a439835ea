//! Identifiers: partitions, virtual and logical processors, ports, connections, interrupt sources.

macro_rules! id {
    ($( $(#[$meta:meta])* pub struct $name:ident($raw:ident); )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(transparent)]
        pub struct $name(pub $raw);
    )* };
}

id! {
    /// A partition (`TLFS datatypes/hv_partition_id`).
    #[doc(alias = "HV_PARTITION_ID")]
    pub struct PartitionId(u64);

    /// A virtual processor within its partition (`TLFS datatypes/hv_vp_index`).
    #[doc(alias = "HV_VP_INDEX")]
    pub struct VpIndex(u32);

    /// A logical, that is physical, processor.
    #[doc(alias = "HV_LOGICAL_PROCESSOR_INDEX")]
    pub struct LpIndex(u32);

    /// A port within its partition; only the low 24 bits may be set (`TLFS datatypes/hv_port_id`).
    #[doc(alias = "hv_port_id")]
    pub struct PortId(u32);

    /// A connection within its partition; only the low 24 bits may be set (`TLFS datatypes/hv_connection_id`).
    #[doc(alias = "hv_connection_id")]
    pub struct ConnectionId(u32);

    /// A synthetic interrupt source, 0 to 15 (`TLFS datatypes/hv_synic_sint_index`).
    #[doc(alias = "HV_SYNIC_SINT_INDEX")]
    pub struct SintIndex(u32);
}

impl PartitionId {
    /// No partition.
    #[doc(alias = "HV_PARTITION_ID_INVALID")]
    pub const INVALID: Self = Self(0);
    /// The partition that calls.
    #[doc(alias = "HV_PARTITION_ID_SELF")]
    pub const SELF: Self = Self(u64::MAX);
}

impl VpIndex {
    /// Any processor of the partition, at the hypervisor's choice.
    #[doc(alias = "HV_ANY_VP")]
    pub const ANY: Self = Self(u32::MAX);
    /// The processor that calls.
    #[doc(alias = "HV_VP_INDEX_SELF")]
    pub const SELF: Self = Self(u32::MAX - 1);
    /// Processors that the sparse sets of the interface can name: 64 banks of 64.
    pub const SPARSE_LIMIT: u32 = 64 * 64;
}

impl PortId {
    /// The bits that hold the identifier; the others must be zero.
    pub const MASK: u32 = 0x00ff_ffff;
}

impl ConnectionId {
    /// The bits that hold the identifier; the others must be zero.
    pub const MASK: u32 = 0x00ff_ffff;
}

impl SintIndex {
    /// Sources of one virtual processor.
    #[doc(alias = "HV_SYNIC_SINT_COUNT")]
    pub const COUNT: usize = 16;
    /// The source of the hypervisor's own messages: intercepts and scheduler signals.
    #[doc(alias = "HV_SYNIC_INTERCEPTION_SINT_INDEX")]
    pub const INTERCEPTION: Self = Self(0);
    /// The source that VMBus uses.
    #[doc(alias = "HV_SYNIC_VMBUS_SINT_INDEX")]
    pub const VMBUS: Self = Self(2);
    /// The source whose event ring carries the doorbells of the Linux root.
    #[doc(alias = "HV_SYNIC_DOORBELL_SINT_INDEX")]
    pub const DOORBELL: Self = Self(5);
}
