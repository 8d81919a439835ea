//! Hypercalls: the call codes, the control word and the result word (`TLFS hypercall-interface`).

use crate::status::HvStatus;

open_enum! {
    /// The code of a hypercall. Codes from `0x8000` are extended hypercalls.
    #[doc(alias = "HV_CALL_CODE")]
    pub struct CallCode(u16) {
        SWITCH_VIRTUAL_ADDRESS_SPACE = 0x0001,
        FLUSH_VIRTUAL_ADDRESS_SPACE = 0x0002,
        FLUSH_VIRTUAL_ADDRESS_LIST = 0x0003,
        GET_LOGICAL_PROCESSOR_RUN_TIME = 0x0004,
        NOTIFY_LONG_SPIN_WAIT = 0x0008,
        #[doc(alias = "HVCALL_SEND_IPI")]
        SEND_SYNTHETIC_CLUSTER_IPI = 0x000b,
        MODIFY_VTL_PROTECTION_MASK = 0x000c,
        ENABLE_PARTITION_VTL = 0x000d,
        ENABLE_VP_VTL = 0x000f,
        VTL_CALL = 0x0011,
        VTL_RETURN = 0x0012,
        FLUSH_VIRTUAL_ADDRESS_SPACE_EX = 0x0013,
        FLUSH_VIRTUAL_ADDRESS_LIST_EX = 0x0014,
        #[doc(alias = "HVCALL_SEND_IPI_EX")]
        SEND_SYNTHETIC_CLUSTER_IPI_EX = 0x0015,
        CREATE_PARTITION = 0x0040,
        INITIALIZE_PARTITION = 0x0041,
        FINALIZE_PARTITION = 0x0042,
        DELETE_PARTITION = 0x0043,
        GET_PARTITION_PROPERTY = 0x0044,
        SET_PARTITION_PROPERTY = 0x0045,
        GET_PARTITION_ID = 0x0046,
        GET_NEXT_CHILD_PARTITION = 0x0047,
        DEPOSIT_MEMORY = 0x0048,
        WITHDRAW_MEMORY = 0x0049,
        GET_MEMORY_BALANCE = 0x004a,
        MAP_GPA_PAGES = 0x004b,
        UNMAP_GPA_PAGES = 0x004c,
        INSTALL_INTERCEPT = 0x004d,
        CREATE_VP = 0x004e,
        DELETE_VP = 0x004f,
        GET_VP_REGISTERS = 0x0050,
        SET_VP_REGISTERS = 0x0051,
        TRANSLATE_VIRTUAL_ADDRESS = 0x0052,
        READ_GPA = 0x0053,
        WRITE_GPA = 0x0054,
        CLEAR_VIRTUAL_INTERRUPT = 0x0056,
        DELETE_PORT = 0x0058,
        DISCONNECT_PORT = 0x005b,
        POST_MESSAGE = 0x005c,
        SIGNAL_EVENT = 0x005d,
        POST_DEBUG_DATA = 0x0069,
        RETRIEVE_DEBUG_DATA = 0x006a,
        RESET_DEBUG_SESSION = 0x006b,
        MAP_STATS_PAGE = 0x006c,
        UNMAP_STATS_PAGE = 0x006d,
        MAP_SPARSE_GPA_PAGES = 0x006e,
        SET_SYSTEM_PROPERTY = 0x006f,
        ADD_LOGICAL_PROCESSOR = 0x0076,
        GET_SYSTEM_PROPERTY = 0x007b,
        MAP_DEVICE_INTERRUPT = 0x007c,
        UNMAP_DEVICE_INTERRUPT = 0x007d,
        #[doc(alias = "HVCALL_RETARGET_INTERRUPT")]
        RETARGET_DEVICE_INTERRUPT = 0x007e,
        ENTER_SLEEP_STATE = 0x0084,
        NOTIFY_PARTITION_EVENT = 0x0087,
        NOTIFY_PORT_RING_EMPTY = 0x008b,
        MODIFY_SPARSE_GPA_PAGES = 0x0090,
        REGISTER_INTERCEPT_RESULT = 0x0091,
        UNREGISTER_INTERCEPT_RESULT = 0x0092,
        ASSERT_VIRTUAL_INTERRUPT = 0x0094,
        CREATE_PORT = 0x0095,
        CONNECT_PORT = 0x0096,
        #[doc(alias = "HVCALL_START_VP")]
        START_VIRTUAL_PROCESSOR = 0x0099,
        GET_VP_INDEX_FROM_APIC_ID = 0x009a,
        TRANSLATE_VIRTUAL_ADDRESS_EX = 0x00ac,
        CHECK_FOR_IO_INTERCEPT = 0x00ad,
        FLUSH_GUEST_PHYSICAL_ADDRESS_SPACE = 0x00af,
        FLUSH_GUEST_PHYSICAL_ADDRESS_LIST = 0x00b0,
        SIGNAL_EVENT_DIRECT = 0x00c0,
        POST_MESSAGE_DIRECT = 0x00c1,
        DISPATCH_VP = 0x00c2,
        GET_GPA_PAGES_ACCESS_STATES = 0x00c9,
        ACQUIRE_SPARSE_SPA_PAGE_HOST_ACCESS = 0x00d7,
        RELEASE_SPARSE_SPA_PAGE_HOST_ACCESS = 0x00d8,
        MODIFY_SPARSE_GPA_PAGE_HOST_VISIBILITY = 0x00db,
        MAP_VP_STATE_PAGE = 0x00e1,
        UNMAP_VP_STATE_PAGE = 0x00e2,
        GET_VP_STATE = 0x00e3,
        SET_VP_STATE = 0x00e4,
        GET_VP_SET_FROM_MDA = 0x00e5,
        GET_VP_CPUID_VALUES = 0x00f4,
        GET_PARTITION_PROPERTY_EX = 0x0101,
        MMIO_READ = 0x0106,
        MMIO_WRITE = 0x0107,
        SET_PARTITION_PROPERTY_EX = 0x010a,
        #[doc(alias = "HVCALL_DISABLE_HYP_EX")]
        DISABLE_HYPERVISOR_EX = 0x010f,
        INSTALL_INTERCEPT_EX = 0x0110,
        SET_VIRTUAL_INTERRUPT_TARGET = 0x011f,
        MAP_STATS_PAGE2 = 0x0131,
        EXT_QUERY_CAPABILITIES = 0x8001,
        EXT_GET_BOOT_ZEROED_MEMORY = 0x8002,
        EXT_MEMORY_HEAT_HINT = 0x8003,
    }
}

impl CallCode {
    /// The first extended hypercall.
    pub const EXTENDED_BASE: u16 = 0x8000;
}

bit_word! {
    /// The control word of a hypercall, passed in RCX.
    #[doc(alias = "HV_HYPERCALL_INPUT")]
    pub struct HypercallInput(u64) {
        /// A [`CallCode`].
        pub code: u16,
        /// The input is in RDX and R8 (and XMM0 to XMM5), not in memory.
        pub fast: bool,
        /// Units of 8 bytes, without the fixed part of the header.
        #[bits(10)]
        pub variable_header_size: usize,
        #[bits(4)]
        pub reserved0: u8,
        /// The call is meant for the hypervisor below this one.
        pub nested: bool,
        #[bits(12)]
        pub rep_count: usize,
        #[bits(4)]
        pub reserved1: u8,
        #[bits(12)]
        pub rep_start: usize,
        #[bits(4)]
        pub reserved2: u8,
    }

    /// The result word of a hypercall, returned in RAX.
    #[doc(alias = "HV_HYPERCALL_OUTPUT")]
    pub struct HypercallOutput(u64) {
        /// A [`HvStatus`]; see [`HypercallOutput::status`].
        pub status_code: u16,
        pub reserved0: u16,
        /// Repetitions done, counted from zero, hence including those before the rep start.
        #[bits(12)]
        pub reps_completed: usize,
        #[bits(20)]
        pub reserved1: u32,
    }
}

impl HypercallInput {
    /// The call code.
    #[must_use]
    pub const fn call(&self) -> CallCode {
        CallCode(self.code())
    }

    /// Whether every reserved bit is zero.
    #[must_use]
    pub const fn reserved_clear(&self) -> bool {
        self.reserved0() == 0 && self.reserved1() == 0 && self.reserved2() == 0
    }
}

impl HypercallOutput {
    /// The result of a call with the given status, and repetitions done (0 for a simple call).
    #[must_use]
    pub const fn result(status: HvStatus, reps_completed: usize) -> Self {
        Self::new().with_status_code(status.0).with_reps_completed(reps_completed)
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> HvStatus {
        HvStatus(self.status_code())
    }
}

/// Most repetitions that the control word can express.
pub const MAX_REPS: usize = 0xfff;
/// XMM registers that carry input of a fast hypercall, after RDX and R8.
#[doc(alias = "HV_HYPERCALL_MAX_XMM_REGISTERS")]
pub const FAST_XMM_REGISTERS: usize = 6;

#[cfg(test)]
mod tests {
    extern crate std;

    use std::format;

    use super::{CallCode, HypercallInput, HypercallOutput};
    use crate::{HvStatus, memory::MapGpaFlags};

    #[test]
    fn control_word_decodes_as_linux_encodes_it() {
        let word = HypercallInput::from_bits(0x7c | 2 << 17 | 509 << 32 | 3 << 48);
        assert_eq!(word.call(), CallCode::MAP_DEVICE_INTERRUPT);
        assert_eq!((word.variable_header_size(), word.rep_count(), word.rep_start()), (2, 509, 3));
        assert!(!word.fast() && word.reserved_clear());
        assert!(!HypercallInput::from_bits(1 << 60).reserved_clear());
    }

    #[test]
    fn result_word_holds_status_and_completed_reps() {
        let word = HypercallOutput::result(HvStatus::NO_RESOURCES, 5);
        assert_eq!(u64::from(word), 0x5_0000_001d);
        assert_eq!(word.status(), HvStatus::NO_RESOURCES);
        assert_eq!(HvStatus::NO_RESOURCES.ok(), Err(HvStatus::NO_RESOURCES));
    }

    #[test]
    fn debug_names_what_it_knows_and_numbers_the_rest() {
        assert_eq!(format!("{:?}", CallCode::DISPATCH_VP), "DISPATCH_VP");
        assert_eq!(format!("{:?}", CallCode(0x7777)), "CallCode(0x7777)");
        let flags = MapGpaFlags::READABLE | MapGpaFlags::WRITABLE;
        assert_eq!(format!("{flags:?}"), "MapGpaFlags(0x3 READABLE WRITABLE)");
    }
}
