//! Features of a partition: processor, XSAVE and synthetic features, and privileges.
//!
//! Processor features are the ones of the specification plus those that only Linux's header names.

flag_set! {
    /// Bank 0 of the processor features; `PropertyCode::PROCESSOR_FEATURES0`.
    ///
    /// At creation of a partition a set bit disables the feature.
    #[doc(alias = "hv_partition_processor_features")]
    pub struct ProcessorFeatures0(u64) {
        SSE3 = 1 << 0,
        LAHF_SAHF = 1 << 1,
        SSSE3 = 1 << 2,
        SSE4_1 = 1 << 3,
        SSE4_2 = 1 << 4,
        SSE4A = 1 << 5,
        XOP = 1 << 6,
        POPCNT = 1 << 7,
        CMPXCHG16B = 1 << 8,
        ALTMOVCR8 = 1 << 9,
        LZCNT = 1 << 10,
        MISALIGN_SSE = 1 << 11,
        MMX_EXT = 1 << 12,
        AMD_3DNOW = 1 << 13,
        EXTENDED_AMD_3DNOW = 1 << 14,
        PAGE_1GB = 1 << 15,
        AES = 1 << 16,
        PCLMULQDQ = 1 << 17,
        PCID = 1 << 18,
        FMA4 = 1 << 19,
        F16C = 1 << 20,
        RDRAND = 1 << 21,
        RD_WR_FS_GS = 1 << 22,
        SMEP = 1 << 23,
        ENHANCED_FAST_STRING = 1 << 24,
        BMI1 = 1 << 25,
        BMI2 = 1 << 26,
        HLE_DEPRECATED = 1 << 27,
        RTM_DEPRECATED = 1 << 28,
        MOVBE = 1 << 29,
        NPIEP1 = 1 << 30,
        DEP_X87_FPU_SAVE = 1 << 31,
        RDSEED = 1 << 32,
        ADX = 1 << 33,
        INTEL_PREFETCH = 1 << 34,
        SMAP = 1 << 35,
        HLE = 1 << 36,
        RTM = 1 << 37,
        RDTSCP = 1 << 38,
        CLFLUSHOPT = 1 << 39,
        CLWB = 1 << 40,
        SHA = 1 << 41,
        X87_POINTERS_SAVED = 1 << 42,
        INVPCID = 1 << 43,
        IBRS = 1 << 44,
        STIBP = 1 << 45,
        IBPB = 1 << 46,
        UNRESTRICTED_GUEST = 1 << 47,
        MDD = 1 << 48,
        FAST_SHORT_REP_MOV = 1 << 49,
        L1D_CACHE_FLUSH = 1 << 50,
        RDCL_NO = 1 << 51,
        IBRS_ALL = 1 << 52,
        SKIP_L1D_FLUSH = 1 << 53,
        SSB_NO = 1 << 54,
        RSBA_NO = 1 << 55,
        VIRT_SPEC_CTRL = 1 << 56,
        RDPID = 1 << 57,
        UMIP = 1 << 58,
        MDS_NO = 1 << 59,
        MD_CLEAR = 1 << 60,
        TAA_NO = 1 << 61,
        TSX_CTRL = 1 << 62,
    }

    /// Bank 1 of the processor features; `PropertyCode::PROCESSOR_FEATURES1`.
    ///
    /// At creation of a partition a set bit disables the feature.
    #[doc(alias = "hv_partition_processor_features")]
    pub struct ProcessorFeatures1(u64) {
        ACOUNT_MCOUNT = 1 << 0,
        TSC_INVARIANT = 1 << 1,
        CLZERO = 1 << 2,
        RDPRU = 1 << 3,
        LA57 = 1 << 4,
        MBEC = 1 << 5,
        NESTED_VIRT = 1 << 6,
        PSFD = 1 << 7,
        CET_SS = 1 << 8,
        CET_IBT = 1 << 9,
        VMX_EXCEPTION_INJECT = 1 << 10,
        ENQCMD = 1 << 11,
        UMWAIT_TPAUSE = 1 << 12,
        MOVDIRI = 1 << 13,
        MOVDIR64B = 1 << 14,
        CLDEMOTE = 1 << 15,
        SERIALIZE = 1 << 16,
        TSC_DEADLINE_TMR = 1 << 17,
        TSC_ADJUST = 1 << 18,
        FZL_REP_MOVSB = 1 << 19,
        FS_REP_STOSB = 1 << 20,
        FS_REP_CMPSB = 1 << 21,
        TSX_LD_TRK = 1 << 22,
        VMX_INS_OUTS_EXIT_INFO = 1 << 23,
        HLAT = 1 << 24,
        SBDR_SSDP_NO = 1 << 25,
        FBSDP_NO = 1 << 26,
        PSDP_NO = 1 << 27,
        FB_CLEAR = 1 << 28,
        BTC_NO = 1 << 29,
        IBPB_RSB_FLUSH = 1 << 30,
        STIBP_ALWAYS_ON = 1 << 31,
        PERF_GLOBAL_CTRL = 1 << 32,
        NPT_EXECUTE_ONLY = 1 << 33,
        NPT_AD_FLAGS = 1 << 34,
        NPT_1GB_PAGE = 1 << 35,
        CMPCCXADD = 1 << 40,
        PREFETCH_I = 1 << 45,
        SHA512 = 1 << 46,
        SM3 = 1 << 50,
        SM4 = 1 << 51,
        SBPB = 1 << 54,
        IBPB_BR_TYPE = 1 << 55,
        SRSO_NO = 1 << 56,
        SRSO_USER_KERNEL_NO = 1 << 57,
    }

    /// XSAVE features; `PropertyCode::PROCESSOR_XSAVE_FEATURES`.
    #[doc(alias = "hv_partition_processor_xsave_features")]
    pub struct XsaveFeatures(u64) {
        XSAVE = 1 << 0,
        XSAVEOPT = 1 << 1,
        AVX = 1 << 2,
    }

    /// What of the hypervisor a partition sees; `PropertyCode::SYNTHETIC_PROC_FEATURES`.
    #[doc(alias = "hv_partition_synthetic_processor_features")]
    pub struct SyntheticFeatures(u64) {
        HYPERVISOR_PRESENT = 1 << 0,
        /// Leaves `0x40000000` to `0x40000006`.
        HV1 = 1 << 1,
        ACCESS_VP_RUN_TIME_REG = 1 << 2,
        ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 3,
        ACCESS_SYNIC_REGS = 1 << 4,
        ACCESS_SYNTHETIC_TIMER_REGS = 1 << 5,
        ACCESS_INTR_CTRL_REGS = 1 << 6,
        ACCESS_HYPERCALL_REGS = 1 << 7,
        ACCESS_VP_INDEX = 1 << 8,
        ACCESS_PARTITION_REFERENCE_TSC = 1 << 9,
        ACCESS_GUEST_IDLE_REG = 1 << 10,
        ACCESS_FREQUENCY_REGS = 1 << 11,
        ENABLE_EXTENDED_GVA_RANGES_FOR_FLUSH_VIRTUAL_ADDRESS_LIST = 1 << 15,
        FAST_HYPERCALL_OUTPUT = 1 << 18,
        START_VIRTUAL_PROCESSOR = 1 << 20,
        DIRECT_SYNTHETIC_TIMERS = 1 << 22,
        EXTENDED_PROCESSOR_MASKS = 1 << 24,
        TB_FLUSH_HYPERCALLS = 1 << 25,
        SYNTHETIC_CLUSTER_IPI = 1 << 26,
        NOTIFY_LONG_SPIN_WAIT = 1 << 27,
        QUERY_NUMA_DISTANCE = 1 << 28,
        SIGNAL_EVENTS = 1 << 29,
        RETARGET_DEVICE_INTERRUPT = 1 << 30,
        RESTORE_TIME = 1 << 31,
        ENLIGHTENED_VMCS = 1 << 32,
    }

    /// Privileges; CPUID leaf 3 EAX and EBX, `PropertyCode::PRIVILEGE_FLAGS`.
    #[doc(alias = "HV_PARTITION_PRIVILEGE_MASK")]
    pub struct Privileges(u64) {
        ACCESS_VP_RUN_TIME_REG = 1 << 0,
        ACCESS_PARTITION_REFERENCE_COUNTER = 1 << 1,
        ACCESS_SYNIC_REGS = 1 << 2,
        ACCESS_SYNTHETIC_TIMER_REGS = 1 << 3,
        ACCESS_INTR_CTRL_REGS = 1 << 4,
        ACCESS_HYPERCALL_MSRS = 1 << 5,
        ACCESS_VP_INDEX = 1 << 6,
        ACCESS_RESET_REG = 1 << 7,
        ACCESS_STATS_REG = 1 << 8,
        ACCESS_PARTITION_REFERENCE_TSC = 1 << 9,
        ACCESS_GUEST_IDLE_REG = 1 << 10,
        ACCESS_FREQUENCY_REGS = 1 << 11,
        ACCESS_REENLIGHTENMENT_CONTROLS = 1 << 13,
        ACCESS_TSC_INVARIANT_CONTROLS = 1 << 15,
        CREATE_PARTITIONS = 1 << 32,
        ACCESS_PARTITION_ID = 1 << 33,
        ACCESS_MEMORY_POOL = 1 << 34,
        ADJUST_MESSAGE_BUFFERS = 1 << 35,
        POST_MESSAGES = 1 << 36,
        SIGNAL_EVENTS = 1 << 37,
        CREATE_PORT = 1 << 38,
        CONNECT_PORT = 1 << 39,
        ACCESS_STATS = 1 << 40,
        DEBUGGING = 1 << 43,
        /// With `CREATE_PARTITIONS` makes Linux the root partition.
        CPU_MANAGEMENT = 1 << 44,
        ACCESS_VSM = 1 << 48,
        ACCESS_VP_REGISTERS = 1 << 49,
        ENABLE_EXTENDED_HYPERCALLS = 1 << 52,
        START_VIRTUAL_PROCESSOR = 1 << 53,
        ISOLATION = 1 << 54,
    }

    /// What the root's user space may rely on; bank 0 of `PropertyCode::VMM_CAPABILITIES`.
    #[doc(alias = "hv_partition_property_vmm_capabilities")]
    pub struct VmmCapabilities(u64) {
        MAP_GPA_PRESERVE_ADJUSTABLE = 1 << 0,
        VMM_CAN_PROVIDE_OVERLAY_GPFN = 1 << 1,
        VP_AFFINITY_PROPERTY = 1 << 2,
        ASSIGNABLE_SYNTHETIC_PROC_FEATURES = 1 << 4,
        VMM_ENABLE_INTEGRATED_SCHEDULER = 1 << 6,
    }
}

impl SyntheticFeatures {
    /// What the features allow a partition that has them.
    #[must_use]
    pub fn privileges(self) -> Privileges {
        type F = SyntheticFeatures;
        type P = Privileges;
        let has = |feature: F| self.contains(feature);
        P::ACCESS_VP_RUN_TIME_REG.when(has(F::ACCESS_VP_RUN_TIME_REG))
            | P::ACCESS_PARTITION_REFERENCE_COUNTER.when(has(F::ACCESS_PARTITION_REFERENCE_COUNTER))
            | P::ACCESS_SYNIC_REGS.when(has(F::ACCESS_SYNIC_REGS))
            | P::ACCESS_SYNTHETIC_TIMER_REGS.when(has(F::ACCESS_SYNTHETIC_TIMER_REGS))
            | P::ACCESS_INTR_CTRL_REGS.when(has(F::ACCESS_INTR_CTRL_REGS))
            | P::ACCESS_HYPERCALL_MSRS.when(has(F::ACCESS_HYPERCALL_REGS))
            | P::ACCESS_VP_INDEX.when(has(F::ACCESS_VP_INDEX))
            | P::ACCESS_PARTITION_REFERENCE_TSC.when(has(F::ACCESS_PARTITION_REFERENCE_TSC))
            | P::ACCESS_GUEST_IDLE_REG.when(has(F::ACCESS_GUEST_IDLE_REG))
            | P::ACCESS_FREQUENCY_REGS.when(has(F::ACCESS_FREQUENCY_REGS))
            | (P::SIGNAL_EVENTS | P::POST_MESSAGES).when(has(F::SIGNAL_EVENTS))
    }
}
