//! The processor features that a child may see.
//!
//! One mask per CPUID register that lists features. It starts from what the hypervisor can let a child use and
//! loses what the parent disabled when it created the partition; the processor's own bits are taken through it.
//! A feature is let through only if it has no state beyond the XSAVE states named here, no MSR that the hypervisor
//! does not handle, and no way around the intercepts.

use tlfs::{
    partition::{
        CPUID_FEATURES, FeatureWord, ProcessorFeatures0 as F0, ProcessorFeatures1 as F1, XsaveFeatures,
    },
    vp::CpuidResult,
};

use FeatureWord::{Ext1Ecx, Leaf1Ecx, Leaf7Ebx, Leaf7Ecx, Leaf7Edx, Leaf7Sub1Eax, XsaveEax};

const LEAF_1_ECX_X2APIC: u32 = 1 << 21;
const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_ECX_XSAVE: u32 = 1 << 26;
/// x87, SSE, AVX, the three of AVX-512, and protection keys.
const XSAVE_STATES: u64 = 0x2e7;
const XSAVE_LEGACY: u64 = 0x3;

/// What a child may see of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    words: [u32; FeatureWord::COUNT],
    xsave: u64,
    /// Bits of leaf 1 ECX that the virtual local APIC provides, whatever the processor has.
    emulated: u32,
}

impl Allowed {
    /// All that a child can be given: with an x2APIC, and with the APIC timer's TSC deadline mode, both virtual.
    pub const ALL: Self = Self {
        words: [
            bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]),
            bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28]),
            bits(&[0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]),
            bits(&[0, 1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 16, 22, 25, 27, 28]),
            bits(&[2, 3, 4, 8, 10, 14, 23]),
            bits(&[4, 5, 10, 11, 12, 23]),
            bits(&[0, 1, 2, 3]),
            bits(&[0, 1, 4, 5, 6, 7, 8, 11, 16, 21, 22]),
            bits(&[
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 26, 27, 29, 30, 31,
            ]),
            bits(&[8]),
            bits(&[0, 2, 9]),
            bits(&[0, 2, 6]),
        ],
        xsave: XSAVE_STATES,
        emulated: LEAF_1_ECX_X2APIC | LEAF_1_ECX_TSC_DEADLINE,
    };

    /// What is left of [`ALL`](Self::ALL) without the features that a parent disabled, or does not want: `x2apic`
    /// tells whether the partition was created with one.
    #[must_use]
    pub fn without(features0: F0, features1: F1, xsave: XsaveFeatures, x2apic: bool) -> Self {
        let mut left = Self::ALL;
        for (table, disabled) in CPUID_FEATURES.iter().zip([features0.0, features1.0]) {
            for &(_, word, bit) in table.iter().filter(|(feature, ..)| disabled & feature != 0) {
                left.words[word as usize] &= !(1 << bit);
            }
        }
        if features1.contains(F1::TSC_DEADLINE_TMR) {
            left.emulated &= !LEAF_1_ECX_TSC_DEADLINE;
        }
        if !x2apic {
            left.emulated &= !LEAF_1_ECX_X2APIC;
        }
        if xsave.intersects(XsaveFeatures::XSAVEOPT) {
            left.words[XsaveEax as usize] &= !1;
        }
        if xsave.intersects(XsaveFeatures::XSAVE | XsaveFeatures::AVX) {
            left.drop(&[(Leaf1Ecx, &[12, 28, 29]), (Ext1Ecx, &[11, 16]), (Leaf7Sub1Eax, &[4, 5, 23])]);
            left.drop(&[(Leaf7Ebx, &[5, 16, 17, 21, 28, 30, 31]), (Leaf7Ecx, &[1, 6, 9, 10, 11, 12, 14])]);
            left.drop(&[(Leaf7Edx, &[2, 3, 8, 23])]);
            left.xsave &= XSAVE_LEGACY;
        }
        if xsave.intersects(XsaveFeatures::XSAVE) {
            left.drop(&[(Leaf1Ecx, &[26]), (Leaf7Ecx, &[3]), (XsaveEax, &[0, 1, 2, 3])]);
            left.xsave = 0;
        }
        left
    }

    /// The processor's value of a feature register as the child sees it.
    pub(super) const fn filter(&self, word: FeatureWord, host: u32) -> u32 {
        let emulated = if matches!(word, Leaf1Ecx) { self.emulated } else { 0 };
        host & self.words[word as usize] | emulated
    }

    /// The XSAVE states that the child may enable, of those that the processor has
    /// (partition property `XsaveStates`).
    pub fn xsave_states(&self, host: impl Fn(u32, u32) -> CpuidResult) -> u64 {
        let leaf = host(0xd, 0);
        if host(1, 0).ecx & LEAF_1_ECX_XSAVE == 0 {
            0
        } else {
            (u64::from(leaf.edx) << 32 | u64::from(leaf.eax)) & self.xsave
        }
    }

    pub(super) const fn xsave(&self) -> u64 {
        self.xsave
    }

    /// The processor features the child has, as a parent asks for them (partition properties `ProcessorFeatures0`
    /// and `1`, `ProcessorXsaveFeatures`). Features that CPUID does not tell of count as absent.
    pub fn features(&self, host: impl Fn(u32, u32) -> CpuidResult) -> (F0, F1, XsaveFeatures) {
        let has = |word: FeatureWord, bit: u8| self.filter(word, word.read(&host)) & 1 << bit != 0;
        let [features0, features1] = CPUID_FEATURES.map(|table| {
            let seen = table.iter().filter(|&&(_, word, bit)| has(word, bit));
            seen.fold(0, |all, (feature, ..)| all | feature)
        });
        let xsave = XsaveFeatures::XSAVE.when(has(Leaf1Ecx, 26))
            | XsaveFeatures::XSAVEOPT.when(has(XsaveEax, 0))
            | XsaveFeatures::AVX.when(has(Leaf1Ecx, 28));
        (F0(features0), F1(features1), xsave)
    }

    fn drop(&mut self, list: &[(FeatureWord, &[u8])]) {
        for (word, numbers) in list {
            self.words[*word as usize] &= !bits(numbers);
        }
    }
}

const fn bits(numbers: &[u8]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < numbers.len() {
        mask |= 1 << numbers[i];
        i += 1;
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(_: u32, _: u32) -> CpuidResult {
        CpuidResult { eax: !0, ebx: !0, ecx: !0, edx: !0 }
    }

    fn without(features0: F0, features1: F1, xsave: XsaveFeatures) -> Allowed {
        Allowed::without(features0, features1, xsave, true)
    }

    #[test]
    fn every_feature_that_can_be_disabled_is_one_that_is_offered() {
        let (all0, all1, xsave) = Allowed::ALL.features(full);
        let told = CPUID_FEATURES.map(|table| table.iter().fold(0, |all, row| all | row.0));
        assert_eq!([all0.0, all1.0], told);
        assert_eq!(xsave, XsaveFeatures::NAMED);
    }

    #[test]
    fn a_disabled_feature_is_gone_and_no_other() {
        for &(feature, word, bit) in CPUID_FEATURES[0] {
            let allowed = without(F0(feature), F1::NONE, XsaveFeatures::NONE);
            assert_eq!(
                allowed.filter(word, !0) ^ Allowed::ALL.filter(word, !0),
                1 << bit,
                "{:?}",
                F0(feature)
            );
        }
        let none = without(F0(!0), F1(!0), XsaveFeatures(!0)).features(full);
        assert_eq!(none, (F0::NONE, F1::NONE, XsaveFeatures::NONE));
    }

    #[test]
    fn nothing_is_disabled_by_default() {
        assert_eq!(without(F0::NONE, F1::NONE, XsaveFeatures::NONE), Allowed::ALL);
    }

    #[test]
    fn without_avx_the_states_and_extensions_of_avx_are_gone() {
        let allowed = without(F0::NONE, F1::NONE, XsaveFeatures::AVX);
        assert_eq!(allowed.xsave_states(full), 3);
        assert_eq!(allowed.filter(Leaf7Ebx, !0) & (1 << 5 | 1 << 16), 0);
        assert_ne!(allowed.filter(Leaf1Ecx, !0) & 1 << 26, 0);
        assert_eq!(without(F0::NONE, F1::NONE, XsaveFeatures::XSAVE).xsave_states(full), 0);
    }

    #[test]
    fn the_virtual_apics_features_need_no_processor_support() {
        assert_eq!(Allowed::ALL.filter(Leaf1Ecx, 0), 1 << 21 | 1 << 24);
        assert_eq!(Allowed::without(F0::NONE, F1(!0), XsaveFeatures::NONE, false).filter(Leaf1Ecx, 0), 0);
    }
}
