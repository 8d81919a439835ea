//! Status codes, the low 16 bits of every hypercall result (`TLFS datatypes/hv_status`).

open_enum! {
    /// How a hypercall ended.
    ///
    /// Linux turns `INSUFFICIENT_*MEMORY` into a deposit and a retry, so only calls that it retries may
    /// return those (`Linux drivers/hv/hv_proc.c:hv_result_needs_memory`).
    #[doc(alias = "HV_STATUS")]
    pub struct HvStatus(u16) {
        /// The call succeeded.
        SUCCESS = 0x0,
        /// The call code is not known.
        INVALID_HYPERCALL_CODE = 0x2,
        /// The control word is malformed: rep count, rep start, header size or reserved bits.
        INVALID_HYPERCALL_INPUT = 0x3,
        /// An input or output address is not aligned to 8 bytes or crosses a page.
        INVALID_ALIGNMENT = 0x4,
        /// An input parameter is wrong.
        INVALID_PARAMETER = 0x5,
        /// The caller lacks the right.
        ACCESS_DENIED = 0x6,
        /// The partition's state does not allow the operation.
        INVALID_PARTITION_STATE = 0x7,
        /// The operation cannot be performed now.
        OPERATION_DENIED = 0x8,
        /// No such property.
        UNKNOWN_PROPERTY = 0x9,
        /// The property cannot take the value.
        PROPERTY_VALUE_OUT_OF_RANGE = 0xa,
        /// The partition's pool is empty: deposit pages to it and retry.
        INSUFFICIENT_MEMORY = 0xb,
        /// Partitions are nested too deeply.
        PARTITION_TOO_DEEP = 0xc,
        /// No such partition.
        INVALID_PARTITION_ID = 0xd,
        /// No such virtual processor.
        INVALID_VP_INDEX = 0xe,
        /// The object was not found.
        NOT_FOUND = 0x10,
        /// The port identifier is unknown or not unique.
        INVALID_PORT_ID = 0x11,
        /// The connection identifier is unknown or not unique.
        INVALID_CONNECTION_ID = 0x12,
        /// The port has no free message buffer.
        INSUFFICIENT_BUFFERS = 0x13,
        /// The external interrupt was not asserted, or is not acknowledged yet.
        NOT_ACKNOWLEDGED = 0x14,
        /// The virtual processor's state does not allow the operation.
        INVALID_VP_STATE = 0x15,
        /// The external interrupt is already acknowledged.
        ACKNOWLEDGED = 0x16,
        /// Save or restore was continued without being begun.
        INVALID_SAVE_RESTORE_STATE = 0x17,
        /// A needed part of the synthetic interrupt controller is disabled.
        INVALID_SYNIC_STATE = 0x18,
        /// The object or value is in use.
        OBJECT_IN_USE = 0x19,
        /// The proximity domain or its flags are wrong.
        INVALID_PROXIMITY_DOMAIN_INFO = 0x1a,
        /// There is no data to retrieve.
        NO_DATA = 0x1b,
        /// The debug connection has seen no activity.
        INACTIVE = 0x1c,
        /// A resource is exhausted; of `WithdrawMemory`, the pool holds no more free pages.
        NO_RESOURCES = 0x1d,
        /// The feature is not available to the caller.
        FEATURE_UNAVAILABLE = 0x1e,
        /// The debug packet is incomplete.
        PARTIAL_PACKET = 0x1f,
        /// The processor lacks a requested feature.
        PROCESSOR_FEATURE_NOT_SUPPORTED = 0x20,
        /// Cache line flush sizes differ.
        PROCESSOR_CACHE_LINE_FLUSH_SIZE_INCOMPATIBLE = 0x30,
        /// The buffer does not hold all of the data.
        INSUFFICIENT_BUFFER = 0x33,
        /// The processor is not compatible.
        INCOMPATIBLE_PROCESSOR = 0x37,
        /// The platform has no more device domains.
        INSUFFICIENT_DEVICE_DOMAINS = 0x38,
        /// CPUID features differ among processors.
        CPUID_FEATURE_VALIDATION_ERROR = 0x3c,
        /// XSAVE features differ among processors.
        CPUID_XSAVE_FEATURE_VALIDATION_ERROR = 0x3d,
        /// The processor did not start in time.
        PROCESSOR_STARTUP_TIMEOUT = 0x3e,
        /// SMX is enabled by the firmware.
        SMX_ENABLED = 0x3f,
        /// No such logical processor.
        INVALID_LP_INDEX = 0x41,
        /// The register cannot take the value, or is not known.
        INVALID_REGISTER_VALUE = 0x50,
        /// The trust level's state does not allow the operation.
        INVALID_VTL_STATE = 0x51,
        /// The processor lacks no-execute pages.
        NX_NOT_DETECTED = 0x55,
        /// No such device.
        INVALID_DEVICE_ID = 0x57,
        /// The device's state does not allow the operation.
        INVALID_DEVICE_STATE = 0x58,
        /// Pending page requests of the device were dropped.
        PENDING_PAGE_REQUESTS = 0x59,
        /// The page request asks for an access that the guest does not have.
        PAGE_REQUEST_INVALID = 0x60,
        /// The operation failed.
        OPERATION_FAILED = 0x71,
        /// Nested virtualization is active.
        NOT_ALLOWED_WITH_NESTED_VIRT_ACTIVE = 0x72,
        /// The root's pool is empty: deposit pages to it and retry.
        INSUFFICIENT_ROOT_MEMORY = 0x73,
        /// The partition's pool has no contiguous run: deposit one and retry.
        INSUFFICIENT_CONTIGUOUS_MEMORY = 0x75,
        /// The operation timed out.
        TIME_OUT = 0x78,
        /// The call completes later by an `ASYNC_CALL_COMPLETION` message.
        CALL_PENDING = 0x79,
        /// The root's pool has no contiguous run: deposit one and retry.
        INSUFFICIENT_CONTIGUOUS_ROOT_MEMORY = 0x83,
        /// The trust level is enabled already.
        VTL_ALREADY_ENABLED = 0x86,
    }
}

impl HvStatus {
    /// Whether the call succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }

    /// `Err` for every status but success, for use with `?`.
    ///
    /// # Errors
    /// The status itself.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }
}
