//! Registers of a virtual processor: names, values, and the element of `SetVpRegisters`.

mod msr;
mod name;

pub use name::RegisterName;

wire! {
    /// The value of one register: 128 bits, a shorter value zero-extended.
    #[doc(alias = "hv_register_value")]
    pub struct RegisterValue: 16 {
        0 => low: u64,
        8 => high: u64,
    }

    /// A segment register (`TLFS datatypes/hv_x64_segment_register`).
    #[doc(alias = "hv_x64_segment_register")]
    pub struct SegmentRegister: 16 {
        0 => base: u64,
        /// In bytes, after the granularity is applied.
        8 => limit: u32,
        12 => selector: u16,
        14 => attributes: SegmentAttributes,
    }

    /// GDTR or IDTR (`TLFS datatypes/hv_x64_table_register`).
    #[doc(alias = "hv_x64_table_register")]
    pub struct TableRegister: 16 {
        0 => padding: [u16; 3],
        6 => limit: u16,
        8 => base: u64,
    }

    /// An x87 or MMX register.
    #[doc(alias = "HV_X64_FP_REGISTER")]
    pub struct FpRegister: 16 {
        0 => mantissa: u64,
        /// Biased exponent in bits 14:0, sign in bit 15.
        8 => exponent_sign: u64,
    }

    /// `RegisterName::FP_CONTROL_STATUS`.
    #[doc(alias = "HV_X64_FP_CONTROL_STATUS_REGISTER")]
    pub struct FpControlStatus: 16 {
        0 => control: u16,
        2 => status: u16,
        /// The abridged tag byte, as FXSAVE stores it.
        4 => tag: u8,
        5 => reserved: u8,
        6 => last_opcode: u16,
        8 => last_rip: u64,
    }

    /// `RegisterName::XMM_CONTROL_STATUS`.
    #[doc(alias = "HV_X64_XMM_CONTROL_STATUS_REGISTER")]
    pub struct XmmControlStatus: 16 {
        0 => last_rdp: u64,
        8 => mxcsr: u32,
        12 => mxcsr_mask: u32,
    }

    /// `RegisterName::PENDING_EVENT0`: an exception that waits to be raised.
    ///
    /// Unlike a [`PendingInterruption`] the hypervisor checks it for intercepts when it is raised.
    #[doc(alias = "HV_X64_PENDING_EXCEPTION_EVENT")]
    pub struct PendingExceptionEvent: 16 {
        0 => header: PendingEventHeader,
        4 => error_code: u32,
        /// CR2 of a page fault, DR6 of a debug exception.
        8 => parameter: u64,
    }

    /// One element of the list that `SetVpRegisters` applies in order.
    #[doc(alias = "hv_register_assoc")]
    pub struct RegisterAssoc: 32 {
        0 => name: RegisterName,
        4 => reserved1: u32,
        8 => reserved2: u64,
        16 => value: RegisterValue,
    }
}

/// Reads a value as one of its typed views, and makes a value of it.
macro_rules! views {
    ($( $(#[$meta:meta])* $method:ident: $view:ty, )*) => {
        impl RegisterValue {
            $( $(#[$meta])*
            #[must_use]
            pub const fn $method(self) -> $view {
                zerocopy::transmute!(self)
            } )*
        }

        $( impl From<$view> for RegisterValue {
            fn from(view: $view) -> Self {
                zerocopy::transmute!(view)
            }
        } )*
    };
}

views! {
    /// All 128 bits.
    as_u128: u128,
    /// As a segment register.
    as_segment: SegmentRegister,
    /// As a descriptor table register.
    as_table: TableRegister,
    /// As an x87 register.
    as_fp: FpRegister,
    /// As the x87 control and status words.
    as_fp_control_status: FpControlStatus,
    /// As the SSE control and status word.
    as_xmm_control_status: XmmControlStatus,
    /// As a pending exception.
    as_pending_exception: PendingExceptionEvent,
}

impl RegisterValue {
    /// A 64-bit value, zero-extended.
    #[must_use]
    pub const fn new(low: u64) -> Self {
        Self { low, high: 0 }
    }

    /// The low 64 bits.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.low
    }
}

impl From<u64> for RegisterValue {
    fn from(low: u64) -> Self {
        Self::new(low)
    }
}

bit_word! {
    /// Attributes of a segment, in the form of VMX except for the missing "unusable" bit.
    pub struct SegmentAttributes(u16) {
        #[bits(4)]
        pub segment_type: u8,
        /// Set for code and data segments.
        pub non_system_segment: bool,
        #[bits(2)]
        pub descriptor_privilege_level: u8,
        pub present: bool,
        #[bits(4)]
        pub reserved: u8,
        pub available: bool,
        /// L of a code segment: 64-bit code.
        pub long: bool,
        /// D or B: 32-bit operands or stack.
        pub default: bool,
        pub granularity: bool,
    }

    /// `RegisterName::EXPLICIT_SUSPEND`, `INTERCEPT_SUSPEND` and `DISPATCH_SUSPEND`.
    #[doc(alias = "hv_explicit_suspend_register")]
    pub struct Suspend(u64) {
        pub suspended: bool,
        #[bits(63)]
        pub reserved: u64,
    }

    /// `RegisterName::INTERRUPT_STATE`.
    #[doc(alias = "hv_x64_interrupt_state_register")]
    pub struct InterruptState(u64) {
        /// The shadow of STI or of a load of SS.
        pub interrupt_shadow: bool,
        pub nmi_masked: bool,
        #[bits(62)]
        pub reserved: u64,
    }

    /// `RegisterName::PENDING_INTERRUPTION`: an event in the middle of its delivery.
    #[doc(alias = "hv_x64_pending_interruption_register")]
    pub struct PendingInterruption(u64) {
        pub interruption_pending: bool,
        /// One of [`InterruptionType`].
        #[bits(3)]
        pub interruption_type: u8,
        pub deliver_error_code: bool,
        /// In bytes; needed for software interrupts and exceptions.
        #[bits(4)]
        pub instruction_length: u8,
        pub nested_event: bool,
        #[bits(6)]
        pub reserved: u8,
        pub vector: u16,
        pub error_code: u32,
    }

    /// The first word of [`PendingExceptionEvent`].
    pub struct PendingEventHeader(u32) {
        pub event_pending: bool,
        /// One of [`PendingEventType`].
        #[bits(3)]
        pub event_type: u8,
        #[bits(4)]
        pub reserved0: u8,
        pub deliver_error_code: bool,
        #[bits(7)]
        pub reserved1: u8,
        pub vector: u16,
    }

    /// `RegisterName::DELIVERABILITY_NOTIFICATIONS`: report when an interrupt could be delivered.
    pub struct DeliverabilityNotifications(u64) {
        pub nmi: bool,
        pub interrupt: bool,
        /// The lowest class of vectors, 0 meaning any, that must be deliverable.
        #[bits(4)]
        pub interrupt_priority: u8,
        #[bits(42)]
        pub reserved: u64,
        /// A bit for each interrupt source to report once its message slot is free.
        pub sints: u16,
    }

    /// `RegisterName::INTERNAL_ACTIVITY_STATE`: why the processor does not run.
    pub struct InternalActivityState(u64) {
        pub startup_suspend: bool,
        pub halt_suspend: bool,
        pub idle_suspend: bool,
        #[bits(61)]
        pub reserved: u64,
    }
}

open_enum! {
    /// The kind of a [`PendingInterruption`] (`TLFS 6.0b, HV_X64_PENDING_INTERRUPTION_TYPE`).
    pub struct InterruptionType(u8) {
        INTERRUPT = 0,
        NMI = 2,
        EXCEPTION = 3,
        SOFTWARE_INTERRUPT = 4,
        PRIVILEGED_SOFTWARE_EXCEPTION = 5,
        SOFTWARE_EXCEPTION = 6,
    }

    /// The kind of a pending event.
    pub struct PendingEventType(u8) {
        EXCEPTION = 0,
        VIRTUALIZATION_FAULT = 5,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        PendingEventHeader, PendingExceptionEvent, RegisterValue, SegmentAttributes, SegmentRegister,
    };

    #[test]
    fn value_keeps_a_segment_in_its_layout() {
        let attributes = SegmentAttributes::new().with_segment_type(0xb).with_present(true).with_long(true);
        let cs = SegmentRegister { base: 1, limit: 2, selector: 3, attributes };
        let value = RegisterValue::from(cs);
        assert_eq!(value.low, 1);
        assert_eq!(value.high, 2 | 3 << 32 | 0x208b << 48);
        assert_eq!(value.as_segment(), cs);
    }

    #[test]
    fn value_keeps_128_bits_low_half_first() {
        let value = RegisterValue::from(0x1_u128 << 64 | 0x2);
        assert_eq!((value.low, value.high), (2, 1));
        assert_eq!(value.as_u128(), 0x1_u128 << 64 | 0x2);
        assert_eq!(RegisterValue::from(5_u64).as_u128(), 5);
    }

    #[test]
    fn pending_exception_has_its_vector_in_the_high_half_of_the_first_word() {
        let header = PendingEventHeader::new().with_event_pending(true).with_vector(14);
        let event = PendingExceptionEvent { header, error_code: 2, parameter: 0x1000 };
        assert_eq!(RegisterValue::from(event).low, 2 << 32 | 14 << 16 | 1);
    }
}
