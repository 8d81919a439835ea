//! CPUID of a child partition.

use tlfs::{cpuid::HYPERVISOR_PRESENT, partition::FeatureWord as Word, vp::CpuidResult};

use super::{Allowed, HYPERVISOR_LEAVES, Mirrored, Overrides, Profile};

const NONE: CpuidResult = CpuidResult::ZEROED;
/// Highest leaves that a child is told of.
const MAX_BASIC_LEAF: u32 = 0xd;
const MAX_EXTENDED_LEAF: u32 = 0x8000_0021;

const LEAF_1_EDX_APIC: u32 = 1 << 9;
const LEAF_1_EDX_HTT: u32 = 1 << 28;
const EXT_1_ECX_CMP_LEGACY: u32 = 1 << 1;
/// Leaf 6 EAX: the APIC timer does not stop in deep sleep.
const ARAT: u32 = 1 << 2;
/// Level types of leaf 0xB, in ECX 15:8.
const LEVEL_SMT: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

/// A virtual processor of a child, as far as CPUID shows it.
///
/// Topology: each VP is a core with one thread, and all are in one package, unless the parent's overrides say
/// otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a, const N: usize> {
    /// What the child is told of the hypervisor; `None` if it is told nothing at all.
    pub profile: Option<&'a Profile>,
    /// The processor features it may see.
    pub allowed: &'a Allowed,
    /// VPs of its package.
    pub processors: u32,
    /// Of this VP.
    pub apic_id: u32,
    /// Other state of this VP.
    pub mirrored: Mirrored,
    /// Results registered by the parent; `None` to leave them aside (`HvCallGetVpCpuidValues`).
    pub overrides: Option<&'a Overrides<N>>,
}

impl<const N: usize> Child<'_, N> {
    /// The result of CPUID. Leaves that are not known here are zero.
    pub fn cpuid(&self, leaf: u32, subleaf: u32, host: impl Fn(u32, u32) -> CpuidResult) -> CpuidResult {
        let own = match leaf {
            _ if HYPERVISOR_LEAVES.contains(&leaf) => self.profile.map_or(NONE, |profile| profile.leaf(leaf)),
            0..=MAX_BASIC_LEAF => self.basic(leaf, subleaf, host),
            0x8000_0000..=MAX_EXTENDED_LEAF => self.extended(leaf, subleaf, host),
            _ => NONE,
        };
        let seen = self.overrides.map_or(own, |overrides| overrides.apply(leaf, subleaf, own));
        self.mirror(leaf, subleaf, own, seen)
    }

    fn basic(&self, leaf: u32, subleaf: u32, host: impl Fn(u32, u32) -> CpuidResult) -> CpuidResult {
        let raw = host(leaf, subleaf);
        let filter = |word, value| self.allowed.filter(word, value);
        match (leaf, subleaf) {
            (0, _) => CpuidResult { eax: raw.eax.min(MAX_BASIC_LEAF), ..raw },
            (1, _) => CpuidResult {
                eax: raw.eax,
                ebx: raw.ebx & 0xffff | (self.processors.min(0xff) << 16) | (self.apic_id << 24),
                ecx: filter(Word::Leaf1Ecx, raw.ecx) | self.profile.map_or(0, |_| HYPERVISOR_PRESENT),
                edx: filter(Word::Leaf1Edx, raw.edx) & !LEAF_1_EDX_HTT | self.when_many(LEAF_1_EDX_HTT),
            },
            (2, _) => raw,
            (4, _) => {
                let cores = (self.processors.clamp(1, 64) - 1) << 26;
                CpuidResult {
                    eax: self.cache_sharing(raw.eax) & 0x03ff_ffff
                        | if raw.eax & 0x1f == 0 { 0 } else { cores },
                    ..raw
                }
            }
            (6, _) => CpuidResult { eax: ARAT, ..NONE },
            (7, 0) => CpuidResult {
                eax: raw.eax.min(1),
                ebx: filter(Word::Leaf7Ebx, raw.ebx),
                ecx: filter(Word::Leaf7Ecx, raw.ecx),
                edx: filter(Word::Leaf7Edx, raw.edx),
            },
            (7, 1) => CpuidResult { eax: filter(Word::Leaf7Sub1Eax, raw.eax), ..NONE },
            (0xb, _) => self.topology(subleaf),
            (0xd, _) => self.xsave(subleaf, raw),
            _ => NONE,
        }
    }

    fn extended(&self, leaf: u32, subleaf: u32, host: impl Fn(u32, u32) -> CpuidResult) -> CpuidResult {
        let raw = host(leaf, subleaf);
        let filter = |word, value| self.allowed.filter(word, value);
        match leaf {
            0x8000_0000 => CpuidResult { eax: raw.eax.min(MAX_EXTENDED_LEAF), ..raw },
            0x8000_0001 => {
                let ecx = filter(Word::Ext1Ecx, raw.ecx);
                CpuidResult {
                    ecx: if self.processors > 1 { ecx } else { ecx & !EXT_1_ECX_CMP_LEGACY },
                    edx: filter(Word::Ext1Edx, raw.edx),
                    ..raw
                }
            }
            0x8000_0002..=0x8000_0006 | 0x8000_0019 | 0x8000_001a => raw,
            0x8000_0007 => CpuidResult { edx: filter(Word::Ext7Edx, raw.edx), ..NONE },
            0x8000_0008 => CpuidResult {
                eax: raw.eax,
                ebx: filter(Word::Ext8Ebx, raw.ebx),
                ecx: (self.processors.clamp(1, 256) - 1) | (self.apic_id_bits() << 12),
                edx: 0,
            },
            0x8000_001d => CpuidResult { eax: self.cache_sharing(raw.eax), ..raw },
            0x8000_001e => CpuidResult { eax: self.apic_id, ebx: self.apic_id & 0xff, ..NONE },
            0x8000_0021 => CpuidResult { eax: filter(Word::Ext21Eax, raw.eax), ..NONE },
            _ => NONE,
        }
    }

    /// Leaf 0xB: one thread per core, `processors` cores per package.
    const fn topology(&self, subleaf: u32) -> CpuidResult {
        let (eax, ebx, level) = match subleaf {
            0 => (0, 1, LEVEL_SMT),
            1 => (self.apic_id_bits(), self.processors, LEVEL_CORE),
            _ => (0, 0, 0),
        };
        CpuidResult { eax, ebx, ecx: subleaf & 0xff | level, edx: self.apic_id }
    }

    /// Leaf 0xD: the states allowed, with the processor's sizes and places.
    fn xsave(&self, subleaf: u32, raw: CpuidResult) -> CpuidResult {
        let states = self.allowed.xsave();
        match subleaf {
            _ if states == 0 => NONE,
            0 => CpuidResult { eax: raw.eax & states as u32, edx: raw.edx & (states >> 32) as u32, ..raw },
            1 => CpuidResult { eax: self.allowed.filter(Word::XsaveEax, raw.eax), ebx: raw.ebx, ..NONE },
            2..=63 if states & 1 << subleaf != 0 => raw,
            _ => NONE,
        }
    }

    /// EAX of the cache leaves, with the number of sharers in 25:14: caches of level 3 are the package's, the others
    /// a core's own.
    const fn cache_sharing(&self, eax: u32) -> u32 {
        let sharers = if eax >> 5 & 7 >= 3 { self.processors.saturating_sub(1) } else { 0 };
        if eax & 0x1f == 0 { eax } else { eax & !(0xfff << 14) | (sharers & 0xfff) << 14 }
    }

    /// Low bits of an APIC id that tell the processors of a package apart.
    const fn apic_id_bits(&self) -> u32 {
        u32::BITS - self.processors.saturating_sub(1).leading_zeros()
    }

    const fn when_many(&self, bit: u32) -> u32 {
        if self.processors > 1 { bit } else { 0 }
    }

    /// Puts the bits that mirror the VP's state into a result. They stay the hypervisor's whatever is registered:
    /// a library that registers the host's leaf 1 would freeze them as they were in the parent.
    const fn mirror(&self, leaf: u32, subleaf: u32, own: CpuidResult, seen: CpuidResult) -> CpuidResult {
        match (leaf, subleaf) {
            (1, _) => {
                let edx = if self.mirrored.apic { seen.edx } else { seen.edx & !LEAF_1_EDX_APIC };
                CpuidResult { ecx: self.mirrored.leaf_1_ecx(seen.ecx), edx, ..seen }
            }
            (7, 0) => CpuidResult { ecx: self.mirrored.leaf_7_ecx(seen.ecx), ..seen },
            (0xd, 0 | 1) => CpuidResult { ebx: own.ebx, ..seen },
            _ => seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use tlfs::{partition::SyntheticFeatures, vp::CpuidResultParameters};

    fn full(_: u32, _: u32) -> CpuidResult {
        CpuidResult { eax: !0, ebx: !0, ecx: !0, edx: !0 }
    }

    fn child<'a>(profile: Option<&'a Profile>, processors: u32, apic_id: u32) -> Child<'a, 4> {
        let mirrored = Mirrored { osxsave: false, pke: false, apic: true };
        Child { profile, allowed: &Allowed::ALL, processors, apic_id, mirrored, overrides: None }
    }

    #[test]
    fn a_child_finds_the_hypervisor_unless_it_is_hidden() {
        let profile = Profile::child(SyntheticFeatures(!0));
        let seen = child(Some(&profile), 4, 0);
        assert_ne!(seen.cpuid(1, 0, full).ecx & 1 << 31, 0);
        assert_eq!(seen.cpuid(0x4000_0001, 0, full).eax.to_le_bytes(), *b"Hv#1");
        assert_eq!(seen.cpuid(0x4000_0003, 0, full).ebx, 0x30);
        let hidden = child(None, 4, 0);
        assert_eq!(hidden.cpuid(1, 0, full).ecx & 1 << 31, 0);
        assert_eq!(hidden.cpuid(0x4000_0000, 0, full), NONE);
    }

    #[test]
    fn virtualization_monitoring_and_counters_are_not_for_children() {
        let seen = child(None, 1, 0);
        assert_eq!(seen.cpuid(1, 0, full).ecx & (1 << 3 | 1 << 5 | 1 << 6), 0);
        assert_eq!(seen.cpuid(0x8000_0001, 0, full).ecx & (1 << 2 | 1 << 10 | 1 << 12), 0);
        for leaf in [3, 5, 0xa, 0xf, 0x10, 0x14, 0x1f, 0x8000_000a, 0x8000_001f, 0x8000_0026, 0xc000_0000] {
            assert_eq!(seen.cpuid(leaf, 0, full), NONE, "{leaf:#x}");
        }
    }

    #[test]
    fn four_processors_are_four_cores_of_one_package() {
        let seen = child(None, 4, 2);
        let leaf1 = seen.cpuid(1, 0, full);
        assert_eq!((leaf1.ebx >> 16, leaf1.edx >> 28 & 1), (0x0204, 1));
        assert_eq!(seen.cpuid(0xb, 0, full), CpuidResult { eax: 0, ebx: 1, ecx: 0x100, edx: 2 });
        assert_eq!(seen.cpuid(0xb, 1, full), CpuidResult { eax: 2, ebx: 4, ecx: 0x201, edx: 2 });
        assert_eq!(seen.cpuid(0xb, 2, full), CpuidResult { eax: 0, ebx: 0, ecx: 2, edx: 2 });
        assert_eq!(seen.cpuid(0x8000_0008, 0, full).ecx, 3 | 2 << 12);
        assert_eq!(seen.cpuid(0x8000_001e, 0, full), CpuidResult { eax: 2, ebx: 2, ecx: 0, edx: 0 });
    }

    #[test]
    fn the_package_shares_the_last_cache_only() {
        let level = |level: u32| move |_, _| CpuidResult { eax: 1 | level << 5, ..NONE };
        let seen = child(None, 4, 0);
        assert_eq!(seen.cpuid(0x8000_001d, 3, level(3)).eax >> 14 & 0xfff, 3);
        assert_eq!(seen.cpuid(0x8000_001d, 0, level(1)).eax >> 14, 0);
        assert_eq!(seen.cpuid(4, 3, level(3)).eax >> 26, 3);
        assert_eq!(seen.cpuid(4, 9, |_, _| NONE), NONE);
    }

    #[test]
    fn a_single_processor_has_no_siblings() {
        let seen = child(None, 1, 0);
        assert_eq!(seen.cpuid(1, 0, full).edx & 1 << 28, 0);
        assert_eq!(seen.cpuid(0xb, 1, full).eax, 0);
        assert_eq!(seen.cpuid(0x8000_0001, 0, full).ecx & 1 << 1, 0);
    }

    #[test]
    fn only_known_xsave_states_are_enumerated() {
        let seen = child(None, 1, 0);
        let states = seen.cpuid(0xd, 0, full);
        assert_eq!((states.eax, states.edx), (0x2e7, 0));
        assert_ne!(seen.cpuid(0xd, 2, full), NONE);
        assert_eq!(seen.cpuid(0xd, 17, full), NONE);
        assert_eq!(seen.cpuid(0xd, 1, full).ecx, 0, "no supervisor states");
    }

    #[test]
    fn registered_results_go_over_all_but_mirrored_state() {
        let mut overrides = Overrides::<4>::new();
        let ones = CpuidResultParameters {
            leaf: 1,
            always_override: 1,
            ecx: !0,
            ecx_mask: !0,
            ..CpuidResultParameters::ZEROED
        };
        overrides.register(ones).unwrap();
        let seen = Child { overrides: Some(&overrides), ..child(None, 1, 0) };
        assert_eq!(seen.cpuid(1, 0, full).ecx, !(1 << 27));
    }

    #[test]
    fn a_disabled_apic_is_not_reported() {
        let seen = Child { mirrored: Mirrored::default(), ..child(None, 1, 0) };
        assert_eq!(seen.cpuid(1, 0, full).edx & 1 << 9, 0);
    }

    proptest! {
        #[test]
        fn no_leaf_panics_or_shows_the_hosts_apic_id(leaf: u32, subleaf: u32, processors: u32, apic_id: u32) {
            let seen = child(None, processors, apic_id);
            for leaf in [leaf, leaf % 0x20, 0x8000_0000 + leaf % 0x30] {
                seen.cpuid(leaf, subleaf, full);
            }
            prop_assert_eq!(seen.cpuid(1, 0, full).ebx >> 24, apic_id & 0xff);
        }
    }
}
