//! The machine's serial console: every byte goes to a log, every line to whoever waits for one.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::Result;

/// What a wait on the console can end with.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// A line, without its end and without control sequences.
    Line(String),
    /// Nothing within the time given.
    Silence,
    /// The machine is gone.
    End,
}

/// The reading end of a console.
pub(crate) struct Console {
    lines: Receiver<String>,
}

impl Console {
    /// Reads `source` to its end in a thread of its own and copies it to the file `log`.
    ///
    /// # Errors
    /// The log cannot be made.
    pub(crate) fn new(mut source: impl Read + Send + 'static, log: &Path) -> Result<Self> {
        let mut log = File::create(log)?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let (mut buffer, mut line) = ([0; 4096], Vec::new());
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                let bytes = buffer.get(..count).unwrap_or_default();
                // A full disk loses the log; the lines still reach the reader, which decides the outcome.
                let _ = log.write_all(bytes);
                for &byte in bytes {
                    if byte == b'\n' {
                        let _ = sender.send(plain(&line));
                        line.clear();
                    } else {
                        line.push(byte);
                    }
                }
            }
            if !line.is_empty() {
                let _ = sender.send(plain(&line));
            }
        });
        Ok(Self { lines })
    }

    /// The next line, if it comes within `patience`.
    pub(crate) fn next(&self, patience: Duration) -> Heard {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Heard::Line(line),
            Err(RecvTimeoutError::Timeout) => Heard::Silence,
            Err(RecvTimeoutError::Disconnected) => Heard::End,
        }
    }
}

/// The text of a line: no carriage returns, no escape sequences of the `ESC [ … letter` and `ESC letter` forms.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    chars.by_ref().find(|char| ('@'..='~').contains(char));
                }
            }
            '\t' => clean.push('\t'),
            char if char.is_control() => {}
            char => clean.push(char),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn control_sequences_are_dropped() {
        assert_eq!(plain(b"\x1bc\x1b[?7l\x1b[2Jready\r"), "ready");
        assert_eq!(plain(b"a\tb"), "a\tb");
    }
}
