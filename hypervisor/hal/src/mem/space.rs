//! Guest-physical address spaces: nested page tables, and the promise that what was revoked is out of reach.
//!
//! A [`Space`] maps guest frames to root frames. Each 4 KiB of a child's mapping holds a share of the frame
//! ([`frame::share`]), given back only after no processor can still reach it through a TLB. The root's own space
//! is the identity and holds no shares: what it maps is what is the root's.
//!
//! Revocation is synchronous: entries are cleared under the lock, processors in guest mode of this space are made
//! to leave it ([`crate::virt::shootdown`]), and only then are shares returned, tables freed and frames claimed.
//!
//! The entry format is APM 2 §15.25.5 (the nested table has the host's long-mode format, walked as a user access).

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    addr::{Gpa, Hpa},
    check::ensure,
    list::List,
    mem::{
        Frame, NoMemory, PoolId,
        frame::{self, Refusal},
        table::{ENTRIES, Entry, Slot},
    },
    sync::SpinLock,
};

pub use crate::mem::table::{Access, PageSize};

/// What a map operation did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A page table is needed and the pool is empty.
    NoMemory,
    /// The frame at the target is not the root's to map.
    Refused(Refusal),
    /// Misaligned, or beyond the space.
    BadAddress,
}

impl From<NoMemory> for MapError {
    fn from(_: NoMemory) -> Self {
        Self::NoMemory
    }
}

/// Where a guest address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub hpa: Hpa,
    /// What the guest may do there.
    pub access: Access,
    /// The size of the mapping that covers it.
    pub size: PageSize,
}

/// The most removed entries that one batch holds: the most that one rep hypercall can name.
const BATCH: usize = 512;

/// Entries that are cleared in the table but may still be in a TLB.
type Removed = List<Entry, BATCH>;

/// Whose frames a space maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    /// Leaves hold shares of root frames.
    Counted,
    /// The root's own space.
    Identity,
}

/// A guest-physical address space.
pub struct Space {
    top: SpinLock<Hpa>,
    top_hpa: Hpa,
    top_pool: PoolId,
    pool: PoolId,
    shares: Shares,
    id: u64,
    generation: AtomicU64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Space {
    /// An empty space whose tables come from `pool`, but for the top one, which is from `top` and lives as long as
    /// the space.
    ///
    /// # Errors
    /// `top` is empty.
    pub fn new(top: PoolId, pool: PoolId) -> Result<Self, NoMemory> {
        Self::make(top, pool, Shares::Counted)
    }

    /// The root's space, empty. Its tables come from the boot pool.
    ///
    /// # Errors
    /// The boot pool is empty.
    pub fn new_root() -> Result<Self, NoMemory> {
        Self::make(PoolId::BOOT, PoolId::BOOT, Shares::Identity)
    }

    fn make(top_pool: PoolId, pool: PoolId, shares: Shares) -> Result<Self, NoMemory> {
        let top = top_pool.get().take_zeroed()?.hpa();
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            top: SpinLock::new(top),
            top_hpa: top,
            top_pool,
            pool,
            shares,
            id,
            generation: AtomicU64::new(0),
        })
    }

    /// The address of the top table, for the nested CR3.
    pub fn table(&self) -> Hpa {
        self.top_hpa
    }

    /// A number that no other space ever had; never 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Counts flushes: a TLB filled at an earlier generation holds stale entries.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Maps consecutive pages of `size` from `gpa`, in the order of `targets`, replacing what was there.
    /// Returns how many were mapped, and why not all.
    pub fn map(
        &self,
        gpa: Gpa,
        targets: &[Hpa],
        size: PageSize,
        access: Access,
    ) -> (usize, Result<(), MapError>) {
        self.batch(targets.len(), |top, removed, index| {
            let gpa = page_at(gpa, size, index).ok_or(MapError::BadAddress)?;
            let hpa = *targets.get(index).ok_or(MapError::BadAddress)?;
            ensure(hpa.0 & (size.bytes() - 1) == 0, MapError::BadAddress)?;
            let slot = self.slot(top, gpa, size.level())?;
            self.share_range(hpa, size)?;
            replace(slot, Entry::leaf(hpa, size, access).nested(), removed);
            Ok(())
        })
    }

    /// Revokes consecutive pages of `size` from `gpa`. Returns how many, and why not all.
    pub fn unmap(&self, gpa: Gpa, pages: usize, size: PageSize) -> (usize, Result<(), MapError>) {
        self.batch(pages, |top, removed, index| {
            let gpa = page_at(gpa, size, index).ok_or(MapError::BadAddress)?;
            self.unmap_one(top, removed, gpa, size)
        })
    }

    /// Runs `step` for number after number until the batch is full, then makes every removal final. Each step removes
    /// one entry at most.
    fn batch(
        &self,
        count: usize,
        mut step: impl FnMut(Hpa, &mut Removed, usize) -> Result<(), MapError>,
    ) -> (usize, Result<(), MapError>) {
        let mut removed = Removed::default();
        let mut done = 0;
        let top = self.top.lock();
        let mut result = Ok(());
        while done < count && removed.len() < BATCH {
            result = step(*top, &mut removed, done);
            if result.is_err() {
                break;
            }
            done += 1;
        }
        self.finish(&removed);
        (done, result)
    }

    fn unmap_one(&self, top: Hpa, removed: &mut Removed, gpa: Gpa, size: PageSize) -> Result<(), MapError> {
        let (_, entry) = Slot::descend(top, gpa.0, size.level());
        if entry.is_present() {
            // A larger mapping that covers the page is split.
            replace(self.slot(top, gpa, size.level())?, Entry::EMPTY, removed);
        }
        Ok(())
    }

    fn share_range(&self, hpa: Hpa, size: PageSize) -> Result<(), MapError> {
        if self.shares == Shares::Identity {
            return Ok(());
        }
        let first = hpa.page();
        for page in first..first + size.pages() {
            if let Err(refusal) = frame::share(Hpa::from_page(page)) {
                (first..page).for_each(|p| frame::unshare(Hpa::from_page(p)));
                return Err(MapError::Refused(refusal));
            }
        }
        Ok(())
    }

    /// Finds the slot of `gpa` at `level`, making tables and splitting larger mappings on the way.
    fn slot(&self, top: Hpa, gpa: Gpa, level: u8) -> Result<Slot, MapError> {
        loop {
            let (slot, entry) = Slot::descend(top, gpa.0, level);
            if slot.level == level {
                return Ok(slot);
            }
            if entry.is_present() {
                self.split(slot, entry)?;
            } else {
                slot.swap(Entry::table(self.pool.get().take_zeroed()?.hpa()).nested());
            }
        }
    }

    /// Replaces a large leaf by a table of the next smaller size with the same meaning. No flush is needed:
    /// both translations agree, and every later change of the small entries flushes for itself.
    fn split(&self, slot: Slot, leaf: Entry) -> Result<(), NoMemory> {
        let table = self.pool.get().take()?.hpa();
        for index in 0..ENTRIES {
            Slot { table, index, level: slot.level - 1 }.swap(leaf.part(slot.level, index));
        }
        slot.swap(Entry::table(table).nested());
        Ok(())
    }

    /// Makes removals final: no processor reaches them any more, then shares and tables are given back.
    fn finish(&self, removed: &Removed) {
        if !removed.is_empty() {
            self.flush();
            removed.iter().for_each(|entry| self.discard(*entry, entry.level()));
        }
    }

    /// Makes every processor forget what it knows of this space, and waits until those in it have left.
    pub fn flush(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        #[cfg(target_os = "none")]
        crate::virt::shootdown(self.id);
    }

    /// Gives back the shares and the tables below an entry that nobody can reach.
    fn discard(&self, entry: Entry, level: u8) {
        if !entry.is_present() {
            return;
        }
        if !entry.is_leaf(level) {
            for index in 0..ENTRIES {
                self.discard(Slot { table: entry.hpa(), index, level: level - 1 }.load(), level - 1);
            }
            self.pool.get().put(Frame::from_owned(entry.hpa()));
        } else if self.shares == Shares::Counted {
            let first = entry.hpa().page();
            (first..first + PageSize::at(level).pages()).for_each(|p| frame::unshare(Hpa::from_page(p)));
        }
    }

    /// Where `gpa` leads, if anywhere. It may lead elsewhere as soon as this returns: to use the answer, see
    /// [`Self::with`].
    pub fn translate(&self, gpa: Gpa) -> Option<Translation> {
        self.with(gpa, |translation| translation)
    }

    /// Calls `each` with where `gpa` leads, if anywhere. The mapping stays while it runs, so what it does there
    /// reaches the page that the guest sees: a page whose unmapping has returned is not touched any more.
    pub fn with<R>(&self, gpa: Gpa, each: impl FnOnce(Translation) -> R) -> Option<R> {
        let top = self.top.lock();
        let (slot, entry) = walk(*top, gpa)?;
        let size = PageSize::at(slot.level);
        let offset = gpa.0 & (size.bytes() - 1);
        Some(each(Translation { hpa: Hpa(entry.hpa().0 | offset), access: entry.access(), size }))
    }

    /// The accessed and dirty bits of the page at `gpa` as they were (accessed, dirty), changed by `update`
    /// (`None` leaves a bit as it is). The caller flushes when it cleared bits.
    pub fn access_state(&self, gpa: Gpa, update: [Option<bool>; 2]) -> Option<(bool, bool)> {
        let top = self.top.lock();
        let (slot, _) = walk(*top, gpa)?;
        Some(slot.update_state(update))
    }

    /// Splits the mapping of `gpa` down to 4 KiB, so that its accessed and dirty bits speak for it alone.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn split_to_4k(&self, gpa: Gpa) -> Result<(), MapError> {
        let top = self.top.lock();
        if walk(*top, gpa).is_some() {
            self.slot(*top, gpa, 0)?;
        }
        Ok(())
    }

    /// Takes root frames out of the root's reach and hands each to `take`, in order. Stops at the first that
    /// cannot be had. Returns how many were taken, and why not all.
    ///
    /// Only the root's own space can revoke; called on a child's it refuses.
    pub fn revoke(&self, pages: &[Hpa], mut take: impl FnMut(Frame)) -> (usize, Result<(), MapError>) {
        if self.shares != Shares::Identity {
            return (0, Err(MapError::BadAddress));
        }
        let (claimed, result) = self.batch(pages.len().min(BATCH), |top, removed, index| {
            let hpa = *pages.get(index).ok_or(MapError::BadAddress)?;
            self.revoke_one(top, removed, hpa)
        });
        pages.iter().take(claimed).for_each(|&hpa| take(Frame::from_owned(hpa.align_down())));
        (claimed, result)
    }

    fn revoke_one(&self, top: Hpa, removed: &mut Removed, hpa: Hpa) -> Result<(), MapError> {
        frame::claim(hpa).map_err(MapError::Refused)?;
        // The boot pool holds a table for every 2 MiB of memory, so a split cannot fail once memory was counted.
        self.unmap_one(top, removed, Gpa(hpa.0), PageSize::Small).inspect_err(|_| {
            let _ = Frame::from_owned(hpa).release();
        })
    }

    /// Gives a frame back to the root: zeroed, mapped again, and the root's.
    ///
    /// # Errors
    /// The boot pool is empty (the frame stays the hypervisor's and is lost).
    pub fn restore(&self, frame: Frame) -> Result<Hpa, MapError> {
        let hpa = frame.release();
        let (_, result) = self.map(Gpa(hpa.0), &[hpa], PageSize::Small, Access::ALL);
        result.map(|()| hpa)
    }

    /// Removes every mapping and gives back all tables but the top one.
    pub fn clear(&self) {
        let top = self.top.lock();
        // Two passes, so that one flush serves: cut the tree at the top, flush, then free what hung there.
        let mut cut = [Entry::EMPTY; ENTRIES];
        for (slot, place) in Slot::of_top(*top).zip(cut.iter_mut()) {
            *place = slot.swap(Entry::EMPTY).at_level(slot.level);
        }
        self.flush();
        cut.iter().for_each(|entry| self.discard(*entry, entry.level()));
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.clear();
        self.top_pool.get().put(Frame::from_owned(self.top_hpa));
    }
}

fn page_at(gpa: Gpa, size: PageSize, index: usize) -> Option<Gpa> {
    if gpa.0 & (size.bytes() - 1) != 0 {
        return None;
    }
    let page = gpa.checked_add(size.bytes().checked_mul(index as u64)?)?;
    (page.0 < 1 << 48).then_some(page)
}

/// Changes an entry, and keeps what was there until nobody can reach it.
fn replace(slot: Slot, new: Entry, removed: &mut Removed) {
    let old = slot.swap(new);
    if old.is_present() {
        let kept = removed.push(old.at_level(slot.level));
        debug_assert!(kept.is_ok(), "a batch ends before its list is full");
    }
}

/// The leaf that covers `gpa`.
fn walk(top: Hpa, gpa: Gpa) -> Option<(Slot, Entry)> {
    let (slot, entry) = Slot::descend(top, gpa.0, 0);
    (gpa.0 < 1 << 48 && entry.is_present()).then_some((slot, entry))
}
