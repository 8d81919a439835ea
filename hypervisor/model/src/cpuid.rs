//! CPUID: what the processors of a partition see.
//!
//! The root sees the machine, less what the hypervisor keeps to itself; a [`Child`] sees only what is known to be
//! safe to show, so that a processor feature with state of its own stays hidden until the hypervisor can switch
//! that state. Both see the hypervisor through a [`Profile`]. A parent may then change single bits of what a child
//! sees ([`Overrides`]).
//!
//! The host's leaves come from a closure, called at most a few times per leaf. For leaf 0xD it must run with the
//! guest's XCR0 and XSS in force, since the sizes there depend on them.
//!
//! Source: TLFS feature-discovery; for the root, what Linux reads (`Linux mshyperv.c:ms_hyperv_init_platform`);
//! APM 3 appendix E, SDM 2A CPUID.

use tlfs::{
    cpuid::{self as leaf, Extensions, FeaturesEdx, HardwareFeatures, Hints, StackProperties, Version},
    partition::{Privileges, SyntheticFeatures},
    port::EVENT_DOORBELLS,
    vp::CpuidResult,
};

mod allowed;
mod child;
mod overrides;

pub use allowed::Allowed;
pub use child::Child;
pub use overrides::Overrides;

const NONE: CpuidResult = CpuidResult::ZEROED;

const HYPERVISOR_LEAVES: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;
const MAX_HYPERVISOR_LEAF: u32 = leaf::HARDWARE_FEATURES;
/// Linux's root driver knows the builds 27744 to 27751 and complains of others.
const BUILD: u32 = 27744;

const LEAF_1_ECX_VMX: u32 = 1 << 5;
const LEAF_1_ECX_SMX: u32 = 1 << 6;
const LEAF_1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF_1_ECX_OSXSAVE: u32 = 1 << 27;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;
const LEAF_7_ECX_OSPKE: u32 = 1 << 4;
const EXT_1_ECX_SVM: u32 = 1 << 2;
const EXT_1_ECX_SKINIT: u32 = 1 << 12;

/// State of a virtual processor that CPUID mirrors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirrored {
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// CR4.PKE.
    pub pke: bool,
    /// The global enable of `IA32_APIC_BASE`.
    pub apic: bool,
}

impl Mirrored {
    /// The state of a VP with this CR4.
    #[must_use]
    pub const fn new(cr4: u64, apic: bool) -> Self {
        Self { osxsave: cr4 & CR4_OSXSAVE != 0, pke: cr4 & CR4_PKE != 0, apic }
    }

    const fn leaf_1_ecx(self, ecx: u32) -> u32 {
        ecx & !LEAF_1_ECX_OSXSAVE | if self.osxsave { LEAF_1_ECX_OSXSAVE } else { 0 }
    }

    const fn leaf_7_ecx(self, ecx: u32) -> u32 {
        ecx & !LEAF_7_ECX_OSPKE | if self.pke { LEAF_7_ECX_OSPKE } else { 0 }
    }
}

/// What a partition is told of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Leaf 0x40000003 EAX and EBX.
    pub privileges: Privileges,
    /// Leaf 0x40000003 EDX.
    pub features: FeaturesEdx,
    /// Leaf 0x40000004 EAX.
    pub hints: Hints,
    /// Leaf 0x40000004 EBX: spins before a lock's waiter calls `HvCallNotifyLongSpinWait`.
    pub spins: u32,
    /// Leaf 0x40000082 EAX.
    pub stack: StackProperties,
    /// Most virtual processors of a partition.
    pub max_vps: u32,
    /// Most logical processors; zero to say nothing of them.
    pub max_lps: u32,
}

impl Profile {
    /// The synthetic features that a child can be given.
    pub const OFFERED: SyntheticFeatures = {
        type F = SyntheticFeatures;
        F::HYPERVISOR_PRESENT
            .with(F::HV1)
            .with(F::ACCESS_VP_RUN_TIME_REG)
            .with(F::ACCESS_PARTITION_REFERENCE_COUNTER)
            .with(F::ACCESS_SYNIC_REGS)
            .with(F::ACCESS_SYNTHETIC_TIMER_REGS)
            .with(F::ACCESS_INTR_CTRL_REGS)
            .with(F::ACCESS_HYPERCALL_REGS)
            .with(F::ACCESS_VP_INDEX)
            .with(F::ACCESS_PARTITION_REFERENCE_TSC)
            .with(F::ACCESS_GUEST_IDLE_REG)
            .with(F::ACCESS_FREQUENCY_REGS)
            .with(F::DIRECT_SYNTHETIC_TIMERS)
            .with(F::EXTENDED_PROCESSOR_MASKS)
            .with(F::TB_FLUSH_HYPERCALLS)
            .with(F::SYNTHETIC_CLUSTER_IPI)
            .with(F::NOTIFY_LONG_SPIN_WAIT)
            .with(F::SIGNAL_EVENTS)
    };

    /// Spins of a child's lock waiter before it asks for the hypervisor's help: what Hyper-V recommends.
    pub const SPINS: u32 = 0xfff;

    /// The root's. Linux becomes the root by `CREATE_PARTITIONS` with `CPU_MANAGEMENT`; without AutoEOI a SINT is
    /// an ordinary interrupt of the physical APIC; with the extended I/O APIC entry Linux programs the I/O APIC
    /// itself. No flush or IPI hypercalls: on a machine of its own, the root's native ones cost no exit.
    pub const ROOT: Self = {
        type P = Privileges;
        Self {
            privileges: P::ACCESS_PARTITION_REFERENCE_COUNTER
                .with(P::ACCESS_SYNIC_REGS)
                .with(P::ACCESS_INTR_CTRL_REGS)
                .with(P::ACCESS_HYPERCALL_MSRS)
                .with(P::ACCESS_VP_INDEX)
                .with(P::ACCESS_RESET_REG)
                .with(P::CREATE_PARTITIONS)
                .with(P::ACCESS_PARTITION_ID)
                .with(P::ACCESS_MEMORY_POOL)
                .with(P::CREATE_PORT)
                .with(P::CONNECT_PORT)
                .with(P::POST_MESSAGES)
                .with(P::SIGNAL_EVENTS)
                .with(P::ACCESS_STATS)
                .with(P::CPU_MANAGEMENT),
            features: FeaturesEdx::NONE,
            hints: Hints::DEPRECATE_AUTO_EOI,
            spins: leaf::NEVER_NOTIFY_LONG_SPIN,
            stack: StackProperties::EXTENDED_IOAPIC_RTE,
            max_vps: 1024,
            max_lps: 1024,
        }
    };

    /// A child's with the given synthetic features, of which the parent may have asked for more than is offered.
    ///
    /// The hint towards the APIC MSRs also makes guests in x2APIC mode look into their assist page before they write
    /// an EOI (Linux arch/x86/hyperv/hv_apic.c:hv_apic_eoi_write).
    pub fn child(synthetic: SyntheticFeatures) -> Self {
        type F = SyntheticFeatures;
        let synthetic = synthetic & Self::OFFERED;
        let has = |feature: F| synthetic.contains(feature);
        Self {
            privileges: synthetic.privileges(),
            features: FeaturesEdx::FREQUENCY_MSRS.when(has(F::ACCESS_FREQUENCY_REGS))
                | FeaturesEdx::GUEST_IDLE_STATE.when(has(F::ACCESS_GUEST_IDLE_REG))
                | FeaturesEdx::DIRECT_SYNTHETIC_TIMERS.when(has(F::DIRECT_SYNTHETIC_TIMERS))
                | FeaturesEdx::GUEST_CRASH_MSRS,
            hints: Hints::REMOTE_FLUSH_HYPERCALL.when(has(F::TB_FLUSH_HYPERCALLS))
                | Hints::CLUSTER_IPI_HYPERCALL.when(has(F::SYNTHETIC_CLUSTER_IPI))
                | Hints::EX_PROCESSOR_MASKS.when(has(F::EXTENDED_PROCESSOR_MASKS))
                | Hints::RELAXED_TIMING
                | Hints::DEPRECATE_AUTO_EOI
                | Hints::APIC_MSRS.when(has(F::ACCESS_INTR_CTRL_REGS)),
            spins: if has(F::NOTIFY_LONG_SPIN_WAIT) { Self::SPINS } else { leaf::NEVER_NOTIFY_LONG_SPIN },
            stack: StackProperties::NONE,
            max_lps: 0,
            ..Self::ROOT
        }
    }

    /// A leaf of the hypervisor range. Those not described here are zero throughout the range, whatever the
    /// highest leaf: Linux reads 0x40000082 without asking, and would take a signature found higher up for a
    /// hypervisor better than this one.
    pub const fn leaf(&self, leaf: u32) -> CpuidResult {
        let [ebx, ecx, edx] = leaf::VENDOR_SIGNATURE;
        match leaf {
            leaf::VENDOR_AND_MAX_FUNCTION => CpuidResult { eax: MAX_HYPERVISOR_LEAF, ebx, ecx, edx },
            leaf::INTERFACE => CpuidResult { eax: leaf::INTERFACE_SIGNATURE, ..NONE },
            leaf::VERSION => {
                CpuidResult { eax: BUILD, ebx: Version::new().with_major(10).into_bits(), ..NONE }
            }
            leaf::FEATURES => CpuidResult {
                eax: self.privileges.0 as u32,
                ebx: (self.privileges.0 >> 32) as u32,
                ecx: 0,
                edx: self.features.0,
            },
            leaf::ENLIGHTENMENT_INFO => CpuidResult { eax: self.hints.0, ebx: self.spins, ..NONE },
            leaf::IMPLEMENTATION_LIMITS => CpuidResult { eax: self.max_vps, ebx: self.max_lps, ..NONE },
            leaf::HARDWARE_FEATURES => CpuidResult {
                eax: HardwareFeatures::MSR_BITMAPS.with(HardwareFeatures::SECOND_LEVEL_ADDRESS_TRANSLATION).0,
                ..NONE
            },
            leaf::EXTENSIONS => self.extensions(),
            leaf::STACK_PROPERTIES => CpuidResult { eax: self.stack.0, ..NONE },
            _ => NONE,
        }
    }

    /// For whoever makes virtual machines (docs/adr/0010).
    const fn extensions(&self) -> CpuidResult {
        if !self.privileges.contains(Privileges::CREATE_PARTITIONS) {
            return NONE;
        }
        CpuidResult {
            eax: leaf::EXTENSIONS_SIGNATURE,
            ebx: Extensions::NAMED.0,
            ecx: EVENT_DOORBELLS as u32,
            edx: (EVENT_DOORBELLS >> 32) as u32,
        }
    }
}

/// CPUID of the root: the host's, less virtualization, memory encryption (both are the hypervisor's own tools) and
/// the TSC deadline timer (which the hypervisor programs).
pub fn root(
    profile: &Profile,
    mirrored: Mirrored,
    leaf: u32,
    subleaf: u32,
    host: impl FnOnce(u32, u32) -> CpuidResult,
) -> CpuidResult {
    if HYPERVISOR_LEAVES.contains(&leaf) {
        return profile.leaf(leaf);
    }
    let mut seen = host(leaf, subleaf);
    match (leaf, subleaf) {
        (1, _) => {
            let hidden = LEAF_1_ECX_VMX | LEAF_1_ECX_SMX | LEAF_1_ECX_TSC_DEADLINE;
            seen.ecx = mirrored.leaf_1_ecx(seen.ecx & !hidden | leaf::HYPERVISOR_PRESENT);
        }
        (7, 0) => seen.ecx = mirrored.leaf_7_ecx(seen.ecx),
        (0x8000_0001, _) => seen.ecx &= !(EXT_1_ECX_SVM | EXT_1_ECX_SKINIT),
        (0x8000_000a | 0x8000_001f, _) => seen = NONE,
        _ => {}
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(_: u32, _: u32) -> CpuidResult {
        CpuidResult { eax: !0, ebx: !0, ecx: !0, edx: !0 }
    }

    fn of_root(leaf: u32) -> CpuidResult {
        root(&Profile::ROOT, Mirrored::default(), leaf, 0, full)
    }

    #[test]
    fn the_root_finds_the_hypervisor_that_linux_expects() {
        assert_ne!(of_root(1).ecx & 1 << 31, 0);
        let base = of_root(0x4000_0000);
        assert!((0x4000_0005..=0x4000_ffff).contains(&base.eax));
        let name = [base.ebx, base.ecx, base.edx].map(u32::to_le_bytes).concat();
        assert_eq!(name, b"Microsoft Hv");
        assert_eq!(of_root(0x4000_0001).eax.to_le_bytes(), *b"Hv#1");
        assert!((27744..=27751).contains(&of_root(0x4000_0002).eax));
    }

    #[test]
    fn the_root_gets_the_privileges_that_make_it_root() {
        assert_eq!(of_root(0x4000_0003), CpuidResult { eax: 0xf6, ebx: 0x11f7, ecx: 0, edx: 0 });
        assert_eq!(of_root(0x4000_0004).eax, 0x200);
        assert_eq!(of_root(0x4000_0082).eax, 4);
    }

    #[test]
    fn no_other_leaf_of_the_hypervisor_range_shows_through() {
        for leaf in
            [0x4000_0007, 0x4000_000a, 0x4000_000c, 0x4000_0081, 0x4000_0100, 0x4001_0000, 0x4fff_ffff]
        {
            assert_eq!(of_root(leaf), NONE, "{leaf:#x}");
        }
    }

    #[test]
    fn the_root_alone_finds_the_extensions() {
        let seen = of_root(0x4000_00f0);
        assert_eq!(seen.eax.to_le_bytes(), *b"BkHd");
        assert_eq!((seen.ebx, seen.ecx, seen.edx), (3, 0, 0x1_0000));
        assert_eq!(Profile::child(SyntheticFeatures(u64::MAX)).leaf(0x4000_00f0), NONE);
    }

    #[test]
    fn the_root_does_not_see_what_the_hypervisor_uses() {
        assert_eq!(of_root(1).ecx & (1 << 24 | 1 << 5), 0);
        assert_ne!(of_root(1).ecx & 1 << 3, 0, "monitor and mwait stay");
        assert_eq!(of_root(0x8000_0001).ecx & 1 << 2, 0);
        assert_eq!(of_root(0x8000_000a), NONE);
        assert_eq!(of_root(0x8000_001f), NONE);
        assert_eq!(of_root(0x8000_0008), full(0, 0));
    }

    #[test]
    fn osxsave_and_ospke_mirror_the_guests_cr4() {
        let on = Mirrored { osxsave: true, pke: true, apic: true };
        let seen = |mirrored, leaf| root(&Profile::ROOT, mirrored, leaf, 0, |_, _| NONE).ecx;
        assert_ne!(seen(on, 1) & 1 << 27, 0);
        assert_ne!(seen(on, 7) & 1 << 4, 0);
        assert_eq!(of_root(1).ecx & 1 << 27, 0);
        assert_eq!(of_root(7).ecx & 1 << 4, 0);
    }

    #[test]
    fn a_child_gets_only_offered_features() {
        let profile = Profile::child(SyntheticFeatures(u64::MAX));
        assert_eq!(profile.privileges.0 as u32, 0xe7f & !0x180);
        assert_eq!((profile.privileges.0 >> 32) as u32, 0x30);
        assert_eq!(profile.features.0, 1 << 5 | 1 << 8 | 1 << 10 | 1 << 19);
        assert_eq!(profile.hints.0, 1 << 2 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 10 | 1 << 11);
        let bare = Profile::child(SyntheticFeatures::NONE);
        assert_eq!((bare.privileges, bare.spins), (Privileges::NONE, u32::MAX));
    }
}
