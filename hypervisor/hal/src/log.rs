//! The hypervisor's log: lines in a ring that the root can read, and on the serial port while it is ours.
//!
//! The ring is written without a lock: a writer claims its bytes by moving `written`, then fills them. A reader
//! that comes between sees old bytes, never a torn claim. Lock order: the serial lock is innermost.

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use crate::{addr::PAGE_SIZE, lp, serial, sync::SpinLock, time};

/// Bytes in the ring.
const RING_BYTES: usize = 16 * PAGE_SIZE;
/// A line is cut here.
const LINE_BYTES: usize = 400;

#[repr(align(4096))]
struct Ring([AtomicU8; RING_BYTES]);

static RING: Ring = Ring([const { AtomicU8::new(0) }; RING_BYTES]);
/// Bytes ever written to the ring; where it wraps follows from its size.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static TO_SERIAL: AtomicBool = AtomicBool::new(false);
static SERIAL: SpinLock<()> = SpinLock::new(());

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The course of things.
    Info,
    /// Something is not as it should be, and was coped with.
    Warn,
    /// Something failed.
    Error,
}

/// Logs a line about the course of things.
#[macro_export]
macro_rules! info {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($arg)*)) };
}

/// Logs a line about something that was coped with.
#[macro_export]
macro_rules! warn {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($arg)*)) };
}

/// Logs a line about a failure.
#[macro_export]
macro_rules! error {
    ($($arg:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($arg)*)) };
}

/// A line being built; what does not fit is dropped.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn new(level: Level, text: fmt::Arguments) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES], len: 0 };
        let us = time::since_boot_us();
        let mark = match level {
            Level::Info => "",
            Level::Warn => "warning: ",
            Level::Error => "error: ",
        };
        // Writing to a `Line` never fails; a formatting trait that does has cut its own text short.
        let _ = write!(line, "[bulkhead {:3}.{:06} lp{}] ", us / 1_000_000, us % 1_000_000, lp::this().0);
        let _ = line.write_str(mark);
        let _ = line.write_fmt(text);
        line.len = line.len.min(LINE_BYTES - 1);
        line.bytes[line.len] = b'\n';
        line.len += 1;
        line
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..];
        let len = text.len().min(room.len());
        room[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}

/// Logs a line; the macros [`info`](crate::info), [`warn`](crate::warn) and [`error`](crate::error) call this.
pub fn write(level: Level, text: fmt::Arguments) {
    let line = Line::new(level, text);
    append(line.text());
    if TO_SERIAL.load(Ordering::Relaxed) {
        let _order = SERIAL.lock();
        serial::write(line.text());
    }
}

/// Logs a line of a crash: on the serial port whoever owns it, and without waiting for a lock that a stopped LP
/// may hold.
pub(crate) fn emergency(text: fmt::Arguments) {
    let line = Line::new(Level::Error, text);
    append(line.text());
    serial::write(line.text());
}

fn append(text: &[u8]) {
    let start = WRITTEN.fetch_add(text.len() as u64, Ordering::Relaxed);
    for (offset, &byte) in (start..).zip(text) {
        RING.0[offset as usize % RING_BYTES].store(byte, Ordering::Relaxed);
    }
}

/// Sends lines to the serial port too, beginning with those that are in the ring.
pub fn attach_serial() {
    let _order = SERIAL.lock();
    TO_SERIAL.store(true, Ordering::Relaxed);
    let mut offset = 0;
    let mut text = [0; 128];
    while let (len @ 1.., next) = read(offset, &mut text) {
        serial::write(&text[..len]);
        offset = next;
    }
}

/// Leaves the serial port to the root. A crash still writes to it.
pub fn detach_serial() {
    TO_SERIAL.store(false, Ordering::Relaxed);
}

/// Copies log bytes from byte `offset`, or from the oldest that is still there; returns how many, and the offset of the
/// byte behind them.
pub fn read(offset: u64, into: &mut [u8]) -> (usize, u64) {
    let written = WRITTEN.load(Ordering::Relaxed);
    let start = offset.max(written.saturating_sub(RING_BYTES as u64));
    let len = written.saturating_sub(start).min(into.len() as u64) as usize;
    for (offset, byte) in (start..).zip(&mut into[..len]) {
        *byte = RING.0[offset as usize % RING_BYTES].load(Ordering::Relaxed);
    }
    (len, start + len as u64)
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES, Ordering, RING_BYTES, WRITTEN, append, read};

    fn written() -> u64 {
        WRITTEN.load(Ordering::Relaxed)
    }

    /// One test, since the ring is one.
    #[test]
    fn the_ring_keeps_the_newest_bytes_and_a_line_its_head() {
        super::write(super::Level::Warn, format_args!("{:1000}", "wide"));
        let mut line = [0; LINE_BYTES];
        assert_eq!(read(0, &mut line), (LINE_BYTES, LINE_BYTES as u64));
        assert!(line.starts_with(b"[bulkhead   0.000000 lp0] warning: wide"));
        assert_eq!((line[LINE_BYTES - 1], written()), (b'\n', LINE_BYTES as u64));
        append(&[b'x'; RING_BYTES]);
        append(b"end");
        let mut tail = [0; 4];
        assert_eq!((read(written() - 4, &mut tail), &tail), ((4, written()), b"xend"));
        assert_eq!(read(0, &mut [0; 16]), (16, written() - RING_BYTES as u64 + 16));
        assert_eq!(read(written(), &mut tail), (0, written()));
    }
}
