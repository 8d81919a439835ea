//! The synthetic interrupt controller: messages, event flags, event rings, timers.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    ids::{ConnectionId, PartitionId, PortId, SintIndex, VpIndex},
    status::HvStatus,
    vp::InputVtl,
    vpset::VpSetHeader,
};

/// Payload bytes of a message.
#[doc(alias = "HV_MESSAGE_PAYLOAD_BYTE_COUNT")]
pub const MESSAGE_PAYLOAD_SIZE: usize = 240;
/// Bytes of event flags of one interrupt source.
#[doc(alias = "HV_EVENT_FLAGS_BYTE_COUNT")]
pub const EVENT_FLAGS_SIZE: usize = 256;
/// Event flags of one interrupt source.
#[doc(alias = "HV_EVENT_FLAGS_COUNT")]
pub const EVENT_FLAGS_COUNT: u32 = 2048;
/// Entries of an event ring.
#[doc(alias = "HV_SYNIC_EVENT_RING_MESSAGE_COUNT")]
pub const EVENT_RING_ENTRIES: usize = 63;
/// Bytes of one interrupt source's slot in the message, event flags and event ring pages alike.
pub const SLOT_SIZE: usize = 256;
/// Offset of the pending flag in a message slot.
pub const MESSAGE_FLAGS_OFFSET: usize = 5;
/// Offset of the entries in an event ring.
pub const EVENT_RING_DATA_OFFSET: usize = 4;

wire! {
    /// A message (`TLFS datatypes/hv_message`).
    #[doc(alias = "hv_message")]
    pub struct HvMessage: 256 {
        0 => header: MessageHeader,
        16 => payload: [u8; 240],
    }

    /// The head of a message.
    #[doc(alias = "hv_message_header")]
    pub struct MessageHeader: 16 {
        /// `NONE` if the slot is free.
        0 => message_type: MessageType,
        4 => payload_size: u8,
        5 => flags: MessageFlags,
        6 => reserved: u16,
        /// A partition of intercept messages, a port of posted ones, else zero.
        8 => origin: u64,
    }

    /// `MessageType::TIMER_EXPIRED`; times in 100 ns of the partition reference time.
    #[doc(alias = "hv_timer_message_payload")]
    pub struct TimerExpired: 24 {
        0 => timer_index: u32,
        4 => reserved: u32,
        8 => expiration_time: u64,
        16 => delivery_time: u64,
    }

    /// `MessageType::SYNIC_SINT_INTERCEPT`: an interrupt source with `as_intercept` was signalled.
    #[doc(alias = "hv_notification_message_payload")]
    pub struct SintIntercept: 4 {
        0 => sint_index: SintIndex,
    }

    /// `MessageType::ASYNC_CALL_COMPLETION`.
    #[doc(alias = "hv_async_completion_message_payload")]
    pub struct AsyncCallCompletion: 24 {
        0 => partition_id: PartitionId,
        8 => status: u32,
        12 => completion_count: u32,
        16 => sub_status: u64,
    }

    /// `MessageType::SCHEDULER_VP_SIGNAL_BITSET`: these processors of one partition may run.
    #[doc(alias = "hv_vp_signal_bitset_scheduler_message")]
    pub struct SchedulerVpSignalBitset: 160 {
        0 => partition_id: PartitionId,
        8 => overflow_count: u32,
        12 => vp_count: u16,
        14 => reserved: u16,
        16 => vp_set: VpSetHeader,
        /// Of the banks in the mask only, in order.
        32 => banks: [u64; 16],
    }

    /// `MessageType::SCHEDULER_VP_SIGNAL_PAIR`: these processors may run.
    #[doc(alias = "hv_vp_signal_pair_scheduler_message")]
    pub struct SchedulerVpSignalPair: 240 {
        0 => overflow_count: u32,
        4 => vp_count: u8,
        5 => reserved1: [u8; 3],
        8 => partition_ids: [PartitionId; 19],
        160 => vp_indexes: [VpIndex; 19],
        236 => reserved2: u32,
    }

    /// An event ring, one slot of the page of `msr::SIRBP`.
    ///
    /// The hypervisor puts a port in the next entry if that is zero, else sets `ring_full`; then it sets
    /// `signal_masked` and, if that was clear, signals the source. The root zeroes what it takes.
    #[doc(alias = "hv_synic_event_ring")]
    pub struct EventRing: 256 {
        0 => signal_masked: u8,
        1 => ring_full: u8,
        2 => reserved: u16,
        4 => data: [u32; 63],
    }

    /// The configuration and progress of one synthetic timer.
    #[doc(alias = "hv_stimer_state")]
    pub struct StimerState: 40 {
        /// Bit 0: a message waits for delivery.
        0 => flags: u32,
        4 => reserved: u32,
        8 => config: u64,
        16 => count: u64,
        24 => adjustment: u64,
        32 => undelivered_expiration_time: u64,
    }

    /// `VpStateType::SYNTHETIC_TIMERS`.
    #[doc(alias = "hv_synthetic_timers_state")]
    pub struct SyntheticTimersState: 200 {
        0 => timers: [StimerState; 4],
        160 => reserved: [u64; 5],
    }

    /// Input of `PostMessage`.
    pub struct PostMessageInput: 256 {
        0 => connection_id: ConnectionId,
        4 => reserved: u32,
        8 => message_type: MessageType,
        /// At most [`MESSAGE_PAYLOAD_SIZE`].
        12 => payload_size: u32,
        16 => payload: [u8; 240],
    }

    /// Input of `SignalEvent`, commonly fast.
    pub struct SignalEventInput: 8 {
        0 => connection_id: ConnectionId,
        /// Relative to the port's first flag.
        4 => flag_number: u16,
        6 => reserved: u16,
    }

    /// Input of `SignalEventDirect`.
    #[doc(alias = "hv_input_signal_event_direct")]
    pub struct SignalEventDirectInput: 16 {
        0 => target_partition: PartitionId,
        8 => target_vp: VpIndex,
        12 => target_vtl: u8,
        13 => target_sint: u8,
        14 => flag_number: u16,
    }

    /// Output of `SignalEventDirect`.
    pub struct SignalEventDirectOutput: 1 {
        /// 1 if the flag was clear.
        0 => newly_signaled: u8,
    }

    /// Input of `PostMessageDirect`, laid out as the callers' bindings have it.
    #[doc(alias = "hv_input_post_message_direct")]
    pub struct PostMessageDirectInput: 280 {
        0 => partition_id: PartitionId,
        8 => vp_index: VpIndex,
        12 => vtl: u8,
        13 => padding: [u8; 3],
        16 => sint_index: SintIndex,
        /// A [`HvMessage`].
        20 => message: [u8; 256],
        276 => padding2: u32,
    }

    /// Input of `NotifyPortRingEmpty`, commonly fast.
    #[doc(alias = "hv_input_notify_port_ring_empty")]
    pub struct NotifyPortRingEmptyInput: 8 {
        0 => sint_index: SintIndex,
        4 => reserved: u32,
    }

    /// Input of `SendSyntheticClusterIpi`, commonly fast.
    #[doc(alias = "hv_send_ipi")]
    pub struct SendIpiInput: 16 {
        /// 16 to 255.
        0 => vector: u32,
        4 => target_vtl: InputVtl,
        5 => padding: [u8; 3],
        /// Processors 0 to 63.
        8 => processor_mask: u64,
    }

    /// Input of `SendSyntheticClusterIpiEx`; the variable header holds the banks of the set.
    #[doc(alias = "hv_send_ipi_ex")]
    pub struct SendIpiExInput: 24 {
        /// 16 to 255.
        0 => vector: u32,
        4 => target_vtl: InputVtl,
        5 => padding: [u8; 3],
        8 => vp_set: VpSetHeader,
    }
}

bit_word! {
    /// Flags of a message.
    #[doc(alias = "hv_message_flags")]
    pub struct MessageFlags(u8) {
        /// More wait: the receiver must write `msr::EOM`.
        pub message_pending: bool,
        #[bits(7)]
        pub reserved: u8,
    }
}

open_enum! {
    /// What a message tells. Types with the high bit are the hypervisor's own.
    #[doc(alias = "hv_message_type")]
    pub struct MessageType(u32) {
        NONE = 0x0000_0000,
        UNMAPPED_GPA = 0x8000_0000,
        GPA_INTERCEPT = 0x8000_0001,
        UNACCEPTED_GPA = 0x8000_0003,
        GPA_ATTRIBUTE_INTERCEPT = 0x8000_0004,
        TIMER_EXPIRED = 0x8000_0010,
        INVALID_VP_REGISTER_VALUE = 0x8000_0020,
        UNRECOVERABLE_EXCEPTION = 0x8000_0021,
        UNSUPPORTED_FEATURE = 0x8000_0022,
        OPAQUE_INTERCEPT = 0x8000_003f,
        EVENTLOG_BUFFERCOMPLETE = 0x8000_0040,
        HYPERCALL_INTERCEPT = 0x8000_0050,
        SYNIC_EVENT_INTERCEPT = 0x8000_0060,
        SYNIC_SINT_INTERCEPT = 0x8000_0061,
        SYNIC_SINT_DELIVERABLE = 0x8000_0062,
        ASYNC_CALL_COMPLETION = 0x8000_0070,
        INSUFFICIENT_MEMORY = 0x8000_0071,
        SCHEDULER_VP_SIGNAL_BITSET = 0x8000_0100,
        SCHEDULER_VP_SIGNAL_PAIR = 0x8000_0101,
        X64_IO_PORT_INTERCEPT = 0x8001_0000,
        X64_MSR_INTERCEPT = 0x8001_0001,
        X64_CPUID_INTERCEPT = 0x8001_0002,
        X64_EXCEPTION_INTERCEPT = 0x8001_0003,
        X64_APIC_EOI = 0x8001_0004,
        X64_LEGACY_FP_ERROR = 0x8001_0005,
        /// Linux calls the number `X64_IOMMU_PRQ`.
        REGISTER_INTERCEPT = 0x8001_0006,
        X64_HALT = 0x8001_0007,
        X64_INTERRUPTION_DELIVERABLE = 0x8001_0008,
        X64_SIPI_INTERCEPT = 0x8001_0009,
        X64_RDTSC_INTERCEPT = 0x8001_000a,
        X64_APIC_SMI_INTERCEPT = 0x8001_000b,
        X64_APIC_INIT_SIPI_INTERCEPT = 0x8001_000d,
        X64_APIC_WRITE_INTERCEPT = 0x8001_000e,
        X64_SNP_GUEST_REQUEST_INTERCEPT = 0x8001_0011,
        X64_EXCEPTION_TRAP_INTERCEPT = 0x8001_0012,
        X64_SEV_VMGEXIT_INTERCEPT = 0x8001_0013,
        X64_MSR_LIST_INTERCEPT = 0x8001_0015,
    }
}

impl MessageType {
    /// Set in the types that only the hypervisor may send.
    #[doc(alias = "HV_MESSAGE_TYPE_HYPERVISOR_MASK")]
    pub const HYPERVISOR_MASK: u32 = 0x8000_0000;
}

impl HvMessage {
    /// A message with the given payload, which must not be larger than a message holds.
    #[must_use]
    pub fn new<T: IntoBytes + Immutable>(message_type: MessageType, origin: u64, payload: &T) -> Self {
        const { assert!(size_of::<T>() <= MESSAGE_PAYLOAD_SIZE) };
        let mut message = Self::ZEROED;
        message.header.message_type = message_type;
        message.header.payload_size = size_of::<T>() as u8;
        message.header.origin = origin;
        for (to, from) in message.payload.iter_mut().zip(payload.as_bytes()) {
            *to = *from;
        }
        message
    }

    /// The start of the payload as a `T`, whatever the type and size say.
    #[must_use]
    pub fn payload_as<T: FromBytes>(&self) -> T {
        const { assert!(size_of::<T>() <= MESSAGE_PAYLOAD_SIZE) };
        match T::read_from_prefix(&self.payload) {
            Ok((payload, _)) => payload,
            Err(_) => unreachable!(),
        }
    }

    /// The partition that an intercept message is about.
    #[must_use]
    pub const fn sender(&self) -> PartitionId {
        PartitionId(self.header.origin)
    }

    /// The port that a posted message came through.
    #[must_use]
    pub const fn port(&self) -> PortId {
        PortId(self.header.origin as u32)
    }
}

impl AsyncCallCompletion {
    /// The status.
    #[must_use]
    pub const fn hv_status(&self) -> HvStatus {
        HvStatus(self.status as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::{HvMessage, MessageType, TimerExpired};
    use crate::PartitionId;

    #[test]
    fn message_carries_type_origin_and_payload() {
        let expired = TimerExpired { timer_index: 3, expiration_time: 7, ..TimerExpired::ZEROED };
        let message = HvMessage::new(MessageType::TIMER_EXPIRED, 9, &expired);
        assert_eq!(message.header.message_type, MessageType::TIMER_EXPIRED);
        assert_eq!(message.header.payload_size, 24);
        assert_eq!(message.sender(), PartitionId(9));
        assert_eq!(message.payload_as::<TimerExpired>(), expired);
        assert!(message.payload[24..].iter().all(|byte| *byte == 0));
    }
}
