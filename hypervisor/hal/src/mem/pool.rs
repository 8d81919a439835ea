//! Deposit pools: the frames that a partition's parent gave for it, and nothing else.
//!
//! A pool is a linked list through the free frames themselves, so it needs no memory of its own and has no
//! capacity. Pools live in a table fixed at boot; an object remembers its pool's index, so that the frame of a
//! dropped object returns to the partition that paid for it.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{
    addr::Hpa,
    mem::{Frame, direct},
    sync::SpinLock,
};

/// How many pools there are: one a partition, and the root's page tables' own.
pub const POOLS: usize = 1024;

static TABLE: [Pool; POOLS] = [const { Pool::new() }; POOLS];

/// [`Pool::total_pages`] of all pools.
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// The pool has no free frame: the caller's parent has to deposit more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoMemory;

/// The index of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId(u16);

impl PoolId {
    /// The pool of the hypervisor's own page tables for the root, filled once at boot.
    pub const BOOT: Self = Self(0);

    /// The pool with this index, if there is one.
    pub fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok().filter(|_| index < POOLS).map(Self)
    }

    /// The pool itself.
    pub fn get(self) -> &'static Pool {
        &TABLE[usize::from(self.0)]
    }
}

/// How many frames all pools were given and have not given back.
pub fn total_pages() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Free frames of one owner, with their count.
pub struct Pool {
    head: SpinLock<Option<Hpa>>,
    free: AtomicU64,
    total: AtomicU64,
}

impl Pool {
    const fn new() -> Self {
        Self { head: SpinLock::new(None), free: AtomicU64::new(0), total: AtomicU64::new(0) }
    }

    /// Takes a frame; its content is unspecified.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn take(&self) -> Result<Frame, NoMemory> {
        let mut head = self.head.lock();
        let first = head.ok_or(NoMemory)?;
        // SAFETY: frames in the list are owned by the hypervisor and only this list uses their first word.
        let next = unsafe { direct::<u64>(first).read() };
        *head = (next != 0).then_some(Hpa(next));
        self.free.fetch_sub(1, Ordering::Relaxed);
        Ok(Frame::from_owned(first))
    }

    /// Takes a frame filled with zeros.
    ///
    /// # Errors
    /// The pool is empty.
    pub fn take_zeroed(&self) -> Result<Frame, NoMemory> {
        let mut frame = self.take()?;
        frame.clear();
        Ok(frame)
    }

    /// Puts a frame in.
    pub fn put(&self, frame: Frame) {
        let mut head = self.head.lock();
        // SAFETY: the frame was handed over by value, so it is owned and nothing else uses it.
        unsafe { direct::<u64>(frame.hpa()).write(head.map_or(0, |h| h.0)) };
        *head = Some(frame.hpa());
        self.free.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes over a frame that was deposited.
    pub fn deposit(&self, frame: Frame) {
        self.total.fetch_add(1, Ordering::Relaxed);
        TOTAL.fetch_add(1, Ordering::Relaxed);
        self.put(frame);
    }

    /// Gives up a free frame.
    ///
    /// # Errors
    /// No frame is free.
    pub fn withdraw(&self) -> Result<Frame, NoMemory> {
        let frame = self.take()?;
        self.total.fetch_sub(1, Ordering::Relaxed);
        TOTAL.fetch_sub(1, Ordering::Relaxed);
        Ok(frame)
    }

    /// How many frames the pool was given and has not given back.
    pub fn total_pages(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// How many frames are in use.
    pub fn used_pages(&self) -> u64 {
        self.total_pages().saturating_sub(self.free_pages())
    }

    /// How many frames are free.
    pub fn free_pages(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }
}
