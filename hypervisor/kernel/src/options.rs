//! The hypervisor's command line.
//!
//! | option | meaning |
//! |---|---|
//! | `panic=exit` | a panic leaves the emulator with code 85 instead of halting |
//! | `log=serial` | the log goes on to the serial port after the root has taken that over |
//! | `halt_window_us=N` | how long an LP waits for a halted child VP before the root may use it; default 200 |

use hal::crash;

/// What was chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The log stays on the serial port.
    pub serial_log: bool,
    /// How long to wait for a halted VP, in microseconds.
    pub halt_window_us: u64,
}

impl Options {
    /// Reads the command line. A word that is none of the options is named in the log and otherwise ignored: the
    /// machine boots all the same.
    pub fn parse(line: &str) -> Self {
        let mut options = Self { serial_log: false, halt_window_us: 200 };
        for word in line.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match (name, value) {
                ("panic", "exit") => crash::exit_instead_of_halting(),
                ("log", "serial") => options.serial_log = true,
                ("halt_window_us", number) => match number.parse() {
                    Ok(us) => options.halt_window_us = us,
                    Err(_) => hal::warn!("option {word}: {number} is no number of microseconds"),
                },
                _ => hal::warn!("option {word} is unknown; see hypervisor/kernel/src/options.rs"),
            }
        }
        options
    }
}
