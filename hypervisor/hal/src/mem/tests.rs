//! Ownership of memory, on a host: an arena stands for the machine's memory.
//!
//! The tests share the arena and the frame table, as the LPs of a machine do; each uses its own frames and pools.

use std::{
    collections::BTreeMap,
    sync::{
        LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    vec::Vec,
};

use super::{
    PageArc, PageBox, Pool, PoolId, Space, foreign,
    frame::{self, Refusal},
    space::{Access, MapError, PageSize},
};
use crate::addr::{Gpa, Hpa, PAGE_SIZE};

const MEMORY: u64 = 128 << 20;
const LARGE: u64 = 2 << 20;
/// Frames from here on are handed out to tests, 2 MiB at a time.
const FIRST_FREE: u64 = 16 << 20;

static BASE: LazyLock<u64> = LazyLock::new(|| {
    let layout = std::alloc::Layout::from_size_align(MEMORY as usize, LARGE as usize).unwrap();
    // SAFETY: the layout is not empty; zeroed memory is a value of every type that the tests put there.
    unsafe { std::alloc::alloc_zeroed(layout) }.expose_provenance() as u64
});

static NEXT_SPAN: AtomicU64 = AtomicU64::new(FIRST_FREE);
static NEXT_POOL: AtomicUsize = AtomicUsize::new(2);
static MACHINE: LazyLock<()> = LazyLock::new(|| {
    let words = (0..MEMORY >> 12).map(|_| Default::default()).collect::<Vec<_>>();
    frame::install(words.leak());
    frame::set(Hpa(0), MEMORY >> 12, frame::FREE);
    stock(PoolId::BOOT, Hpa(0), 1024);
});

pub(super) fn base() -> u64 {
    *BASE
}

/// 2 MiB of root memory that no other test uses.
fn span() -> Hpa {
    LazyLock::force(&MACHINE);
    let start = NEXT_SPAN.fetch_add(LARGE, Ordering::Relaxed);
    assert!(start < MEMORY, "the arena is too small for the tests");
    Hpa(start)
}

fn stock(pool: PoolId, start: Hpa, pages: u64) {
    frame::set(start, pages, frame::OWNED);
    for page in start.page()..start.page() + pages {
        pool.get().deposit(super::Frame::from_owned(Hpa::from_page(page)));
    }
}

/// A pool of `pages` frames that no other test uses.
fn pool(pages: u64) -> PoolId {
    let id = PoolId::new(NEXT_POOL.fetch_add(1, Ordering::Relaxed)).unwrap();
    stock(id, span(), pages);
    id
}

fn child(pages: u64) -> (Space, &'static Pool) {
    let id = pool(pages + 1);
    (Space::new(id, id).unwrap(), id.get())
}

fn root() -> Space {
    LazyLock::force(&MACHINE);
    let space = Space::new_root().unwrap();
    for at in (0..MEMORY).step_by(LARGE as usize) {
        space.map(Gpa(at), &[Hpa(at)], PageSize::Large, Access::ALL).1.unwrap();
    }
    space
}

fn page(start: Hpa, index: u64) -> Hpa {
    Hpa(start.0 + index * PAGE_SIZE as u64)
}

fn release(frame: super::Frame) {
    let _ = frame.release();
}

#[test]
fn a_deposited_frame_is_out_of_the_roots_reach_and_comes_back_zeroed() {
    let (root, start) = (root(), span());
    foreign::write(start, b"secret").unwrap();
    let mut taken = Vec::new();
    assert_eq!(root.revoke(&[start], |frame| taken.push(frame)), (1, Ok(())));
    assert_eq!(root.translate(Gpa(start.0)), None);
    assert!(root.translate(Gpa(start.0 + 4096)).is_some(), "the neighbours stay");
    assert_eq!(foreign::write(start, b"attack"), Err(Refusal::Owned));
    root.restore(taken.pop().unwrap()).unwrap();
    let mut bytes = [1; 6];
    foreign::read(start, &mut bytes).unwrap();
    assert_eq!((bytes, root.translate(Gpa(start.0)).map(|t| t.hpa)), ([0; 6], Some(start)));
}

#[test]
fn a_frame_that_a_child_maps_cannot_be_deposited() {
    let (root, start) = (root(), span());
    let (space, _) = child(8);
    space.map(Gpa(0), &[start], PageSize::Small, Access::ALL).1.unwrap();
    let refused = (0, Err(MapError::Refused(Refusal::Shared)));
    assert_eq!(root.revoke(&[start], |_| unreachable!()), refused);
    assert!(root.translate(Gpa(start.0)).is_some());
    space.unmap(Gpa(0), 1, PageSize::Small).1.unwrap();
    assert_eq!(root.revoke(&[start], release), (1, Ok(())));
}

#[test]
fn a_deposited_frame_cannot_be_mapped_or_deposited_again() {
    let (root, start) = (root(), span());
    let mut taken = Vec::new();
    root.revoke(&[start], |frame| taken.push(frame)).1.unwrap();
    let (space, _) = child(8);
    let (done, result) = space.map(Gpa(0), &[start], PageSize::Small, Access::ALL);
    assert_eq!((done, result), (0, Err(MapError::Refused(Refusal::Owned))));
    assert_eq!(root.revoke(&[start], |_| unreachable!()).1, Err(MapError::Refused(Refusal::Owned)));
    assert_eq!(
        root.revoke(&[Hpa(1 << 40)], |_| unreachable!()).1,
        Err(MapError::Refused(Refusal::NotMemory))
    );
}

#[test]
fn a_small_unmap_splits_a_large_mapping_and_keeps_the_rest() {
    let (space, pool) = child(8);
    let start = span();
    space.map(Gpa(LARGE), &[start], PageSize::Large, Access { write: false, execute: true }).1.unwrap();
    let free = pool.free_pages();
    space.unmap(Gpa(LARGE + 0x3000), 1, PageSize::Small).1.unwrap();
    assert_eq!(space.translate(Gpa(LARGE + 0x3000)), None);
    let neighbour = space.translate(Gpa(LARGE + 0x4123)).unwrap();
    assert_eq!((neighbour.hpa, neighbour.size), (Hpa(start.0 + 0x4123), PageSize::Small));
    assert_eq!(neighbour.access, Access { write: false, execute: true });
    assert_eq!(pool.free_pages(), free - 1);
}

#[test]
fn a_large_mapping_over_small_ones_gives_their_shares_and_table_back() {
    let (root, start) = (root(), span());
    let (space, pool) = child(8);
    let targets: Vec<_> = (0..100).map(|n| page(start, n)).collect();
    space.map(Gpa(0), &targets, PageSize::Small, Access::ALL).1.unwrap();
    let free = pool.free_pages();
    space.map(Gpa(0), &[span()], PageSize::Large, Access::ALL).1.unwrap();
    assert_eq!(pool.free_pages(), free + 1);
    assert_eq!(root.revoke(&targets[..64], release), (64, Ok(())));
}

#[test]
fn a_mapping_that_lacks_a_table_says_so_and_keeps_what_was_done() {
    let (space, _) = child(3);
    let start = span();
    assert_eq!(space.map(Gpa(0), &[start], PageSize::Small, Access::ALL), (1, Ok(())));
    let far = Gpa(1 << 40);
    assert_eq!(space.map(far, &[start], PageSize::Small, Access::ALL), (0, Err(MapError::NoMemory)));
    assert!(space.translate(Gpa(0)).is_some());
}

#[test]
fn clearing_a_space_returns_every_frame_and_share() {
    let (root, start) = (root(), span());
    let (space, pool) = child(32);
    let free = pool.free_pages();
    for n in 0..8 {
        space.map(Gpa(n << 30), &[page(start, n)], PageSize::Small, Access::ALL).1.unwrap();
    }
    assert!(pool.free_pages() < free);
    space.clear();
    assert_eq!(pool.free_pages(), free);
    let pages: Vec<_> = (0..8).map(|n| page(start, n)).collect();
    assert_eq!(root.revoke(&pages, release), (8, Ok(())));
    drop(space);
    assert_eq!(pool.free_pages(), free + 1);
}

#[test]
fn misaligned_and_distant_addresses_are_refused() {
    let (space, _) = child(8);
    let start = span();
    let bad = (0, Err(MapError::BadAddress));
    assert_eq!(space.map(Gpa(0x1000), &[start], PageSize::Large, Access::ALL), bad);
    assert_eq!(space.map(Gpa(0), &[page(start, 1)], PageSize::Large, Access::ALL), bad);
    assert_eq!(space.map(Gpa(1 << 48), &[start], PageSize::Small, Access::ALL), bad);
    assert_eq!(space.unmap(Gpa(u64::MAX - 4095), 2, PageSize::Small).1, bad.1);
    assert_eq!(space.translate(Gpa(u64::MAX)), None);
}

#[test]
fn random_changes_agree_with_a_map_of_pages() {
    let (space, _) = child(64);
    let start = span();
    let mut model = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let gpn = seed % 1536;
        match seed >> 40 & 7 {
            0 => {
                let base = gpn & !511;
                space.map(Gpa::from_page(base), &[start], PageSize::Large, Access::ALL).1.unwrap();
                (0..512).for_each(|n| {
                    model.insert(base + n, page(start, n));
                });
            }
            1 => {
                let base = gpn & !511;
                space.unmap(Gpa::from_page(base), 1, PageSize::Large).1.unwrap();
                (0..512).for_each(|n| {
                    model.remove(&(base + n));
                });
            }
            2..=4 => {
                space.unmap(Gpa::from_page(gpn), 1, PageSize::Small).1.unwrap();
                model.remove(&gpn);
            }
            _ => {
                let target = page(start, seed >> 20 & 511);
                space.map(Gpa::from_page(gpn), &[target], PageSize::Small, Access::ALL).1.unwrap();
                model.insert(gpn, target);
            }
        }
        let probe = seed >> 30 & 2047;
        let found = space.translate(Gpa::from_page(probe)).map(|t| t.hpa);
        assert_eq!(found, model.get(&probe).copied());
    }
}

#[test]
fn an_object_returns_its_frame_to_its_own_pool_with_its_last_user() {
    let id = pool(2);
    let first = PageArc::new(id, 7_u64).unwrap();
    let second = first.clone();
    assert_eq!((*second, second.users(), id.get().free_pages()), (7, 2, 1));
    drop(first);
    assert_eq!(id.get().free_pages(), 1);
    drop(second);
    let boxed = PageBox::new(id, [1_u8; 100]).unwrap();
    let other = PageBox::new(id, 2_u8).unwrap();
    assert!(PageBox::new(id, 3_u8).is_err(), "the pool is empty");
    assert_eq!((boxed[99], *other), (1, 2));
    drop((boxed, other));
    assert_eq!((id.get().free_pages(), id.get().used_pages()), (2, 0));
}

#[test]
fn copies_stay_in_their_frame_and_need_root_memory() {
    let start = span();
    let mut bytes = [0; 8];
    assert_eq!(foreign::read(Hpa(start.0 + 4092), &mut bytes), Err(Refusal::NotMemory));
    assert_eq!(foreign::read(Hpa(1 << 45), &mut bytes), Err(Refusal::NotMemory));
    foreign::write(start, &0x1122_u64.to_le_bytes()).unwrap();
    assert_eq!(foreign::set_bits(start, 0x1122, 1), Ok(true));
    assert_eq!(foreign::set_bits(start, 0x1122, 4), Ok(false));
    assert_eq!(foreign::read_value::<u64>(start), Ok(0x1123));
    foreign::copy(start, Hpa(start.0 + 4), 8).unwrap();
    assert_eq!(foreign::read_value::<u64>(Hpa(start.0 + 8)), Ok(0));
    assert_eq!(foreign::copy(start, Hpa(0), 8), Err(Refusal::Owned));
}
