//! MSRs of a VP that only hold what is written to them, or never change.
//!
//! What is here is what Linux and firmware read on an AMD processor without expecting a fault. Memory types follow
//! from the guest's PAT and the nested page tables, so the MTRRs have no effect beyond being readable.

use hal::cpu::msr::{MTRR_CAP, MTRR_DEF_TYPE, TSC_ADJUST, XSS};
use tlfs::msr::VP_ASSIST_PAGE;

const PLATFORM_ID: u32 = 0x17;
const MICROCODE_REVISION: u32 = 0x8b;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MISC_ENABLE: u32 = 0x1a0;
const MTRR_BASE_0: u32 = 0x200;
const MTRR_MASK_7: u32 = 0x20f;
const MTRR_FIX_64K: u32 = 0x250;
const MTRR_FIX_16K_0: u32 = 0x258;
const MTRR_FIX_16K_1: u32 = 0x259;
const MTRR_FIX_4K_0: u32 = 0x268;
const MTRR_FIX_4K_7: u32 = 0x26f;
const SYSCFG: u32 = 0xc001_0010;
const HWCR: u32 = 0xc001_0015;
const TOP_MEM: u32 = 0xc001_001a;
const TOP_MEM2: u32 = 0xc001_001d;
const NB_CFG: u32 = 0xc001_001f;
const DE_CFG: u32 = 0xc001_1029;

/// Eight variable ranges, fixed ranges, write combining.
const MTRR_CAP_VALUE: u64 = 0x508;
const MTRR_DEF_TYPE_BITS: u64 = 0xcff;
/// Where the processor's own microcode does not show, no update looks newer.
const MICROCODE_VALUE: u64 = 0xffff_ffff;
/// HWCR: the TSC counts at the frequency of P-state 0.
const TSC_AT_P0: u64 = 1 << 24;
/// DE_CFG: LFENCE waits for all before it.
const LFENCE_SERIALIZES: u64 = 1 << 1;
const FAST_STRINGS: u64 = 1;

const FIXED: usize = 16;
const DEF_TYPE: usize = 27;
const SLOTS: usize = 34;

/// The values.
pub struct Msrs([u64; SLOTS]);

impl Msrs {
    /// After RESET.
    pub const fn reset() -> Self {
        let mut slots = [0; SLOTS];
        slots[28] = FAST_STRINGS;
        slots[30] = TSC_AT_P0;
        slots[32] = LFENCE_SERIALIZES;
        Self(slots)
    }

    /// Reads an MSR. `None`: it is not one of these.
    pub fn get(&self, msr: u32) -> Option<u64> {
        slot(msr).map_or_else(|| constant(msr), |slot| self.0.get(slot).copied())
    }

    /// Writes an MSR. `false`: it is not one of these, or cannot have this value.
    pub fn set(&mut self, msr: u32, value: u64) -> bool {
        let valid = match msr {
            MTRR_BASE_0..=MTRR_MASK_7 if msr.is_multiple_of(2) => {
                is_memory_type(value as u8) && value & 0xf00 == 0
            }
            MTRR_BASE_0..=MTRR_MASK_7 => value & 0x7ff == 0,
            MTRR_FIX_64K..=MTRR_FIX_4K_7 => value.to_le_bytes().into_iter().all(is_memory_type),
            MTRR_DEF_TYPE => is_memory_type(value as u8) && value & !MTRR_DEF_TYPE_BITS == 0,
            _ => true,
        };
        match slot(msr).and_then(|slot| self.0.get_mut(slot)).filter(|_| valid) {
            Some(place) => *place = value,
            None => return constant(msr) == Some(value),
        }
        true
    }
}

fn slot(msr: u32) -> Option<usize> {
    Some(match msr {
        MTRR_BASE_0..=MTRR_MASK_7 => (msr - MTRR_BASE_0) as usize,
        MTRR_FIX_64K => FIXED,
        MTRR_FIX_16K_0 | MTRR_FIX_16K_1 => FIXED + 1 + (msr - MTRR_FIX_16K_0) as usize,
        MTRR_FIX_4K_0..=MTRR_FIX_4K_7 => FIXED + 3 + (msr - MTRR_FIX_4K_0) as usize,
        MTRR_DEF_TYPE => DEF_TYPE,
        MISC_ENABLE => 28,
        SYSCFG => 29,
        HWCR => 30,
        NB_CFG => 31,
        DE_CFG => 32,
        VP_ASSIST_PAGE => 33,
        _ => return None,
    })
}

/// What never changes: no machine checks are reported, no state is saved for supervisors alone, no memory is
/// special, and all VPs share one TSC.
const fn constant(msr: u32) -> Option<u64> {
    match msr {
        MTRR_CAP => Some(MTRR_CAP_VALUE),
        MICROCODE_REVISION => Some(MICROCODE_VALUE),
        PLATFORM_ID | TSC_ADJUST | MCG_CAP | MCG_STATUS | XSS | TOP_MEM | TOP_MEM2 => Some(0),
        _ => None,
    }
}

/// Uncached, write-combining, write-through, write-protected, write-back (APM 2 §7.7.1).
const fn is_memory_type(value: u8) -> bool {
    matches!(value, 0 | 1 | 4..=6)
}
