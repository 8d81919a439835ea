//! Building the root partition at boot: its memory, its pages, its processors, its Linux.

use hal::{
    addr::{Gpa, Hpa, PAGE_SIZE},
    boot::BootInfo,
    cpu,
    lp::{self, LpIndex},
    mem::{
        PoolId, SharedPage, Space,
        boot::{self, Span},
        foreign, frame,
        space::{Access, MapError, PageSize},
    },
    sync::SpinLock,
    time,
};
use model::{
    reftime::{ReferenceClock, TscScale},
    synic::Synic,
};
use tlfs::ids::{PartitionId, VpIndex};
use zerocopy::IntoBytes;

use super::{
    ROOT, Root, RootVp, make_maps,
    synic::{RootSynic, Signal},
};
use crate::{
    load::{self, Machine},
    options::Options,
    port,
    vp::MAX_VPS,
};

/// VMMCALL; RET.
const HYPERCALL_CODE: [u8; 4] = [0x0f, 0x01, 0xd9, 0xc3];
/// The root's deposits go to the first pool after the boot pool.
const ROOT_POOL: usize = 1;

/// Where Linux begins.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its entry point.
    pub rip: u64,
    /// Its boot parameters.
    pub boot_params: u64,
}

/// Builds the root and loads its Linux. Boot only, on LP 0.
///
/// # Errors
/// The root cannot be started.
pub fn build(boot: &BootInfo, options: Options) -> Result<Entry, load::Error> {
    let space = Space::new_root().map_err(MapError::from)?;
    map_machine(&space, boot)?;
    // Zero when the hypervisor started to count.
    let clock = ReferenceClock::new(TscScale::from_hz(time::tsc_hz()), 0);
    let hypercall_page = SharedPage::permanent(&space)?;
    hypercall_page.write(0, &HYPERCALL_CODE);
    let tsc_page = SharedPage::permanent(&space)?;
    tsc_page.write(0, clock.page().as_bytes());
    let spare = SharedPage::permanent(&space)?;
    let vps = boot::try_slice(lp::count() as usize, |index| make_vp(&space, LpIndex(index as u32)))?;
    let pool = PoolId::new(ROOT_POOL).ok_or(MapError::NoMemory)?;
    let root = Root {
        space,
        vps,
        pool,
        endpoints: SpinLock::new(port::none(pool)),
        clock,
        hypercall_page,
        tsc_page,
        options,
        maps: make_maps().ok_or(MapError::NoMemory)?,
        guest_os_id: 0.into(),
        hypercall_enabled: false.into(),
        sleep_types: 0.into(),
    };
    let _ = ROOT.set(root);
    load_linux(boot, &spare)
}

fn make_vp(space: &Space, lp: LpIndex) -> Result<RootVp, MapError> {
    let none = Signal { partition: PartitionId::INVALID, vp: VpIndex(0) };
    let signals = boot::slice(MAX_VPS, |_| none).ok_or(MapError::NoMemory)?;
    let synic = boot::slice(1, |_| Synic::new()).and_then(<[_]>::first_mut).ok_or(MapError::NoMemory)?;
    let page = || SharedPage::permanent(space);
    let pages = [page()?, page()?, page()?];
    Ok(RootVp {
        lp,
        startup: 0.into(),
        online: false.into(),
        synic: SpinLock::new(RootSynic::new(lp, synic, pages, signals)),
        assist_page: page()?,
        assist_enabled: false.into(),
    })
}

/// Maps all address space up to the end of memory to itself, except what the hypervisor owns. What lies beyond is
/// mapped when the root uses it.
fn map_machine(space: &Space, boot: &BootInfo) -> Result<(), MapError> {
    let top = boot.memory.iter().map(|range| range.end().0).filter(|&end| end <= 1 << 40).max().unwrap_or(0);
    let is_free = |start: u64, size: PageSize| {
        let span = Span { start: Hpa(start), len: size.bytes() };
        !boot.hypervisor.iter().any(|own| own.overlaps(&span))
    };
    let mut at = 0;
    while at < top {
        let fits = |size: PageSize| at % size.bytes() == 0 && is_free(at, size);
        let size = match () {
            () if cpu::has_gigabyte_pages() && fits(PageSize::Huge) => PageSize::Huge,
            () if fits(PageSize::Large) => PageSize::Large,
            () => PageSize::Small,
        };
        if !frame::is_owned(Hpa(at)) {
            space.map(Gpa(at), &[Hpa(at)], size, Access::ALL).1?;
        }
        at += size.bytes();
    }
    Ok(())
}

fn load_linux(boot: &BootInfo, spare: &SharedPage) -> Result<Entry, load::Error> {
    let rsdp = boot.rsdp.ok_or(load::Error::BadAcpi)?;
    let machine = Machine {
        modules: &boot.modules,
        memory: &boot.memory,
        hypervisor: &boot.hypervisor,
        rsdp,
        spare: spare.hpa(),
    };
    let image = load::load(&mut Physical { spare }, &machine)?;
    hal::info!("root: {image}");
    Ok(Entry { rip: image.entry, boot_params: image.boot_params })
}

/// The machine's memory while the root is loaded, and the one page of ours that the root will read.
struct Physical<'a> {
    spare: &'a SharedPage,
}

impl load::Memory for Physical<'_> {
    fn read(&self, at: Hpa, into: &mut [u8]) -> bool {
        hal::boot::read_physical(at, into)
    }

    fn write(&mut self, at: Hpa, from: &[u8]) -> bool {
        if at.align_down() == self.spare.hpa() && at.offset() + from.len() <= PAGE_SIZE {
            self.spare.write(at.offset(), from);
            return true;
        }
        let mut at = at;
        let mut from = from;
        while !from.is_empty() {
            let (now, rest) = from.split_at(from.len().min(PAGE_SIZE - at.offset()));
            if foreign::write(at, now).is_err() {
                return false;
            }
            (at, from) = (Hpa(at.0 + now.len() as u64), rest);
        }
        true
    }

    fn copy(&mut self, from: Hpa, to: Hpa, len: u64) -> bool {
        foreign::copy(from, to, len).is_ok()
    }

    fn zero(&mut self, at: Hpa, len: u64) -> bool {
        foreign::zero(at, len).is_ok()
    }
}
