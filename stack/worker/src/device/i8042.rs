//! Just enough of a keyboard controller to reset the machine: no keyboard, no mouse, never any data.

use std::sync::Arc;

use super::PortDevice;
use crate::signal::{Outcome, Signal};

/// Pulses the processor's reset line.
const PULSE_RESET: u8 = 0xfe;

/// Port 0x64: status when read, command when written. Port 0x60 has nothing to say and is left to nobody.
pub struct KeyboardController {
    signal: Arc<Signal>,
}

impl KeyboardController {
    /// Its command and status port.
    pub const PORT: u16 = 0x64;

    /// A controller that resets the machine through `signal`.
    pub fn new(signal: Arc<Signal>) -> Self {
        Self { signal }
    }
}

impl PortDevice for KeyboardController {
    /// Both buffers are empty, so that a kernel that waits for the input buffer before it writes the reset
    /// does not wait for ever.
    fn read(&mut self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _: u16, data: &[u8]) {
        if data.first() == Some(&PULSE_RESET) {
            self.signal.raise(Outcome::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_resets() {
        let signal = Arc::new(Signal::new().unwrap());
        let mut controller = KeyboardController::new(signal.clone());
        controller.write(0, &[0x20]);
        assert_eq!(signal.outcome(), None);
        controller.write(0, &[PULSE_RESET]);
        assert_eq!(signal.outcome(), Some(Outcome::Reset));
    }
}
