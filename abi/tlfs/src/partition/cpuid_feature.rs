//! Where CPUID tells of the processor features of a partition.

use super::feature::{ProcessorFeatures0 as F0, ProcessorFeatures1 as F1};
use crate::vp::CpuidResult;

/// Registers of CPUID that list features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureWord {
    /// Leaf 1, ECX.
    Leaf1Ecx,
    /// Leaf 1, EDX.
    Leaf1Edx,
    /// Leaf 7, EBX.
    Leaf7Ebx,
    /// Leaf 7, ECX.
    Leaf7Ecx,
    /// Leaf 7, EDX.
    Leaf7Edx,
    /// Leaf 7, subleaf 1, EAX.
    Leaf7Sub1Eax,
    /// Leaf 0xd, subleaf 1, EAX.
    XsaveEax,
    /// Leaf 0x8000_0001, ECX.
    Ext1Ecx,
    /// Leaf 0x8000_0001, EDX.
    Ext1Edx,
    /// Leaf 0x8000_0007, EDX.
    Ext7Edx,
    /// Leaf 0x8000_0008, EBX.
    Ext8Ebx,
    /// Leaf 0x8000_0021, EAX.
    Ext21Eax,
}

use FeatureWord::{
    Ext1Ecx, Ext1Edx, Ext7Edx, Ext8Ebx, Ext21Eax, Leaf1Ecx, Leaf1Edx, Leaf7Ebx, Leaf7Ecx, Leaf7Edx,
    Leaf7Sub1Eax, XsaveEax,
};

impl FeatureWord {
    /// How many there are.
    pub const COUNT: usize = 12;

    /// The register of the processor whose CPUID is `cpuid`, a function of leaf and subleaf.
    pub fn read(self, cpuid: impl FnOnce(u32, u32) -> CpuidResult) -> u32 {
        match self {
            Leaf1Ecx => cpuid(1, 0).ecx,
            Leaf1Edx => cpuid(1, 0).edx,
            Leaf7Ebx => cpuid(7, 0).ebx,
            Leaf7Ecx => cpuid(7, 0).ecx,
            Leaf7Edx => cpuid(7, 0).edx,
            Leaf7Sub1Eax => cpuid(7, 1).eax,
            XsaveEax => cpuid(0xd, 1).eax,
            Ext1Ecx => cpuid(0x8000_0001, 0).ecx,
            Ext1Edx => cpuid(0x8000_0001, 0).edx,
            Ext7Edx => cpuid(0x8000_0007, 0).edx,
            Ext8Ebx => cpuid(0x8000_0008, 0).ebx,
            Ext21Eax => cpuid(0x8000_0021, 0).eax,
        }
    }
}

/// The features of each bank that CPUID tells of: the feature's bit in the bank, the register, and its bit there.
pub const CPUID_FEATURES: [&[(u64, FeatureWord, u8)]; 2] = [
    &[
        (F0::SSE3.0, Leaf1Ecx, 0),
        (F0::LAHF_SAHF.0, Ext1Ecx, 0),
        (F0::SSSE3.0, Leaf1Ecx, 9),
        (F0::SSE4_1.0, Leaf1Ecx, 19),
        (F0::SSE4_2.0, Leaf1Ecx, 20),
        (F0::SSE4A.0, Ext1Ecx, 6),
        (F0::XOP.0, Ext1Ecx, 11),
        (F0::POPCNT.0, Leaf1Ecx, 23),
        (F0::CMPXCHG16B.0, Leaf1Ecx, 13),
        (F0::ALTMOVCR8.0, Ext1Ecx, 4),
        (F0::LZCNT.0, Ext1Ecx, 5),
        (F0::MISALIGN_SSE.0, Ext1Ecx, 7),
        (F0::MMX_EXT.0, Ext1Edx, 22),
        (F0::AMD_3DNOW.0, Ext1Edx, 31),
        (F0::EXTENDED_AMD_3DNOW.0, Ext1Edx, 30),
        (F0::PAGE_1GB.0, Ext1Edx, 26),
        (F0::AES.0, Leaf1Ecx, 25),
        (F0::PCLMULQDQ.0, Leaf1Ecx, 1),
        (F0::PCID.0, Leaf1Ecx, 17),
        (F0::FMA4.0, Ext1Ecx, 16),
        (F0::F16C.0, Leaf1Ecx, 29),
        (F0::RDRAND.0, Leaf1Ecx, 30),
        (F0::RD_WR_FS_GS.0, Leaf7Ebx, 0),
        (F0::SMEP.0, Leaf7Ebx, 7),
        (F0::ENHANCED_FAST_STRING.0, Leaf7Ebx, 9),
        (F0::BMI1.0, Leaf7Ebx, 3),
        (F0::BMI2.0, Leaf7Ebx, 8),
        (F0::MOVBE.0, Leaf1Ecx, 22),
        (F0::RDSEED.0, Leaf7Ebx, 18),
        (F0::ADX.0, Leaf7Ebx, 19),
        (F0::INTEL_PREFETCH.0, Ext1Ecx, 8),
        (F0::SMAP.0, Leaf7Ebx, 20),
        (F0::RDTSCP.0, Ext1Edx, 27),
        (F0::CLFLUSHOPT.0, Leaf7Ebx, 23),
        (F0::CLWB.0, Leaf7Ebx, 24),
        (F0::SHA.0, Leaf7Ebx, 29),
        (F0::X87_POINTERS_SAVED.0, Ext8Ebx, 2),
        (F0::INVPCID.0, Leaf7Ebx, 10),
        (F0::FAST_SHORT_REP_MOV.0, Leaf7Edx, 4),
        (F0::UMIP.0, Leaf7Ecx, 2),
        (F0::RDPID.0, Leaf7Ecx, 22),
    ],
    &[
        (F1::TSC_INVARIANT.0, Ext7Edx, 8),
        (F1::CLZERO.0, Ext8Ebx, 0),
        (F1::LA57.0, Leaf7Ecx, 16),
        (F1::MOVDIRI.0, Leaf7Ecx, 27),
        (F1::MOVDIR64B.0, Leaf7Ecx, 28),
        (F1::CLDEMOTE.0, Leaf7Ecx, 25),
        (F1::SERIALIZE.0, Leaf7Edx, 14),
        (F1::TSC_DEADLINE_TMR.0, Leaf1Ecx, 24),
        (F1::FZL_REP_MOVSB.0, Leaf7Sub1Eax, 10),
        (F1::FS_REP_STOSB.0, Leaf7Sub1Eax, 11),
        (F1::FS_REP_CMPSB.0, Leaf7Sub1Eax, 12),
    ],
];
