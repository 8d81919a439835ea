//! The devices of a virtual machine: the few of a PC that a kernel expects before it has drivers.
//!
//! A device is a plain structure behind [`PortDevice`] or [`MmioDevice`]. It is told its own offsets, drives
//! its interrupt by an [`IrqLine`], asks for power-off or reset through [`Signal`](crate::signal::Signal),
//! and takes the time from a [`Clock`], so that every one of them runs under `cargo test`.

pub mod bus;
pub mod i8042;
pub mod ioapic;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod reset;
pub mod rtc;
pub mod serial;

/// Registers in I/O space. Offsets count from the first port of the device; `data` is 1, 2 or 4 bytes,
/// little-endian.
pub trait PortDevice: Send {
    /// The guest reads; what the device leaves alone stays all ones.
    fn read(&mut self, offset: u16, data: &mut [u8]);
    /// The guest writes.
    fn write(&mut self, offset: u16, data: &[u8]);
}

/// Registers in memory space. Offsets count from the first byte of the device; `data` is 1 to 8 bytes,
/// little-endian.
pub trait MmioDevice: Send + Sync {
    /// The guest reads; what the device leaves alone stays all ones.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes.
    fn write(&self, offset: u64, data: &[u8]);
}

/// An input of an interrupt controller.
pub trait IrqLine: Send + Sync {
    /// Drives the line high or low.
    fn set(&self, high: bool);

    /// One edge.
    fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

/// Nanoseconds that only go forward.
pub trait Clock: Send {
    /// Since some fixed point.
    fn now(&self) -> u64;
}

/// The host's monotonic clock.
pub struct Monotonic;

impl Clock for Monotonic {
    fn now(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        nanoseconds(time.tv_sec, time.tv_nsec)
    }
}

/// Seconds and nanoseconds as nanoseconds; the host's clocks are never negative.
pub(crate) fn nanoseconds(seconds: i64, rest: i64) -> u64 {
    seconds.unsigned_abs() * 1_000_000_000 + rest.unsigned_abs()
}

/// Copies the low bytes of `value` into `data`.
pub(crate) fn put(value: u32, data: &mut [u8]) {
    for (byte, from) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = from;
    }
}

/// The value of up to four bytes.
pub(crate) fn get(data: &[u8]) -> u32 {
    data.iter().take(4).rev().fold(0, |value, byte| (value << 8) | u32::from(*byte))
}

#[cfg(test)]
pub(crate) mod testing {
    //! Stand-ins for the outside of a device.

    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    };

    use super::{Clock, IrqLine};

    /// Remembers every level the line was driven to.
    #[derive(Clone, Default)]
    pub(crate) struct TestLine(Arc<Mutex<Vec<bool>>>);

    impl TestLine {
        pub(crate) fn take(&self) -> Vec<bool> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    impl IrqLine for TestLine {
        fn set(&self, high: bool) {
            self.0.lock().unwrap().push(high);
        }
    }

    /// A clock that stands until it is told otherwise.
    #[derive(Clone, Default)]
    pub(crate) struct TestClock(Arc<AtomicU64>);

    impl TestClock {
        pub(crate) fn set(&self, nanoseconds: u64) {
            self.0.store(nanoseconds, Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }
}
