//! Which registers are model specific registers.

use super::RegisterName as N;
use crate::msr;

impl N {
    /// The number of the MSR that the register is. Left out are those that a processor enters its guest with.
    #[must_use]
    pub const fn msr(self) -> Option<u32> {
        let number = self.0 & 0xf;
        Some(match self {
            N::MSR_MTRR_CAP => 0xfe,
            N::MSR_MTRR_DEF_TYPE => 0x2ff,
            N(0x8_0010..=0x8_001f) => 0x200 + 2 * number,
            N(0x8_0040..=0x8_004f) => 0x201 + 2 * number,
            N::MSR_MTRR_FIX64K00000 => 0x250,
            N::MSR_MTRR_FIX16K80000 => 0x258,
            N::MSR_MTRR_FIX16KA0000 => 0x259,
            N(0x8_0073..=0x8_007a) => 0x268 + number - 3,
            N::IA32_FEATURE_CONTROL => 0x3a,
            N::TSC_ADJUST => 0x3b,
            N::SPEC_CTRL => 0x48,
            N::MSR_IA32_MISC_ENABLE => 0x1a0,
            N::BNDCFGS => 0xd90,
            N::U_XSS => 0xda0,
            N::VP_ASSIST_PAGE => msr::VP_ASSIST_PAGE,
            // Interrupt sources, then the registers from SCONTROL to EOM.
            N(0xa_0000..=0xa_000f) => msr::SINT0 + number,
            N(0xa_0010..=0xa_0014) => msr::SCONTROL + number,
            N(0xb_0000..=0xb_0007) => msr::STIMER0_CONFIG + number,
            _ => return None,
        })
    }
}
