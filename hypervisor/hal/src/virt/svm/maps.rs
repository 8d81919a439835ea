//! Permission maps: which MSRs and ports leave the guest (APM 2 §15.10, §15.11).

use core::sync::atomic::{AtomicU8, Ordering};

use crate::{
    addr::Hpa,
    mem::{boot, direct},
};

const MSR_MAP_PAGES: usize = 2;
const IO_MAP_PAGES: usize = 3;

/// Which accesses of an MSR exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrAccess {
    /// None.
    Pass,
    /// Writes only.
    ExitOnWrite,
    /// All.
    Exit,
}

/// An MSR permission map, shared by the processors that run with it and changed in place.
#[derive(Clone, Copy)]
pub struct MsrMap(Hpa);

impl MsrMap {
    /// A map in which every MSR exits, or none does. `None` after boot.
    pub fn new(all: MsrAccess) -> Option<Self> {
        let map = Self(boot::frames(MSR_MAP_PAGES)?);
        if all == MsrAccess::Exit {
            map.bytes().iter().for_each(|b| b.store(0xff, Ordering::Relaxed));
        }
        Some(map)
    }

    /// Sets what happens at `msr`. An MSR outside the three ranges always exits and cannot be set.
    pub fn set(&self, msr: u32, access: MsrAccess) {
        let (range, index) = match msr {
            0..=0x1fff => (0, msr),
            0xc000_0000..=0xc000_1fff => (0x800, msr - 0xc000_0000),
            0xc001_0000..=0xc001_1fff => (0x1000, msr - 0xc001_0000),
            _ => return,
        };
        let bits = match access {
            MsrAccess::Pass => 0,
            MsrAccess::ExitOnWrite => 2,
            MsrAccess::Exit => 3,
        };
        let shift = index % 4 * 2;
        if let Some(byte) = self.bytes().get((range + index / 4) as usize) {
            let _ = byte.fetch_update(Ordering::Release, Ordering::Relaxed, |b| {
                Some(b & !(3 << shift) | bits << shift)
            });
        }
    }

    pub(super) fn hpa(&self) -> Hpa {
        self.0
    }

    fn bytes(&self) -> &'static [AtomicU8; MSR_MAP_PAGES * 4096] {
        // SAFETY: two owned frames that live for ever; the processor reads them concurrently, hence atomics.
        unsafe { &*direct::<[AtomicU8; MSR_MAP_PAGES * 4096]>(self.0) }
    }
}

/// An I/O permission map.
#[derive(Clone, Copy)]
pub struct IoMap(Hpa);

impl IoMap {
    /// A map in which every port exits (`true`) or none. `None` after boot.
    pub fn new(all_exit: bool) -> Option<Self> {
        let start = boot::frames(IO_MAP_PAGES)?;
        if all_exit {
            // SAFETY: three owned frames, not yet given to any processor.
            unsafe { core::ptr::write_bytes(direct::<u8>(start), 0xff, IO_MAP_PAGES * 4096) };
        }
        Some(Self(start))
    }

    pub(super) fn hpa(&self) -> Hpa {
        self.0
    }
}
