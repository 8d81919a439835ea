//! How cases fail: with the place and a sentence of bounded length.

use core::{
    fmt::{self, Write},
    panic::Location,
    sync::atomic::{AtomicU8, Ordering::SeqCst},
};

use crate::rt::percpu::{Cpu, MAX_VPS};

/// Bytes of a failure's sentence; what is longer is cut.
const MAX_TEXT: usize = 200;

/// The last sentence of each processor: there is no heap, and results are to be small.
static TEXTS: [[AtomicU8; MAX_TEXT]; MAX_VPS] = [const { [const { AtomicU8::new(0) }; MAX_TEXT] }; MAX_VPS];

/// A sentence of one processor's, until its next one.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    by: usize,
    len: usize,
}

impl Text {
    fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self { by: Cpu::current().index(), len: 0 };
        // Cut text is no error.
        let _ = text.write_fmt(arguments);
        text
    }
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for (to, from) in TEXTS[self.by].iter().skip(self.len).zip(s.bytes()) {
            to.store(from, SeqCst);
        }
        self.len = (self.len + s.len()).min(MAX_TEXT);
        Ok(())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = TEXTS[self.by].iter().take(self.len);
        bytes.into_iter().try_for_each(|byte| f.write_char(char::from(byte.load(SeqCst))))
    }
}

/// Why a case does not succeed.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// It does not apply to this machine.
    Skipped(&'static str),
    /// Something is not as it has to be.
    Wrong {
        /// Where that was found.
        place: &'static Location<'static>,
        /// What was expected, and what was seen.
        text: Text,
    },
}

/// What a case comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failure at the caller's place.
#[track_caller]
pub(crate) fn wrong(arguments: fmt::Arguments<'_>) -> Failure {
    Failure::Wrong { place: Location::caller(), text: Text::new(arguments) }
}

/// Fails unless the condition holds.
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::report::wrong(format_args!($($text)+)));
        }
    };
}

/// Fails unless both values are equal; the second is what was expected.
macro_rules! equal {
    ($seen:expr, $expected:expr, $($text:tt)+) => {
        let (seen, expected) = ($seen, $expected);
        if seen != expected {
            let text = format_args!($($text)+);
            let text = format_args!("{text}: {seen:x?} instead of {expected:x?} (hexadecimal)");
            return Err($crate::report::wrong(text));
        }
    };
}

/// Ends the case without a verdict unless the condition holds.
macro_rules! needs {
    ($condition:expr, $reason:literal) => {
        if !$condition {
            return Err($crate::report::Failure::Skipped($reason));
        }
    };
}

pub(crate) use {check, equal, needs};
