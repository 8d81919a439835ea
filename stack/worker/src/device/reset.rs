//! The reset control register of a PC chip set, which is also the ACPI reset register.

use std::sync::Arc;

use super::PortDevice;
use crate::signal::{Outcome, Signal};

/// The bit whose setting starts the reset; the others choose its kind, of which there is one here.
const RESET_CPU: u8 = 1 << 2;

/// One byte. A wider access that starts at the PCI configuration address port beside it never gets here.
pub struct ResetControl {
    value: u8,
    signal: Arc<Signal>,
}

impl ResetControl {
    /// A register that resets the machine through `signal`.
    pub fn new(signal: Arc<Signal>) -> Self {
        Self { value: 0, signal }
    }
}

impl PortDevice for ResetControl {
    fn read(&mut self, _: u16, data: &mut [u8]) {
        super::put(self.value.into(), data);
    }

    fn write(&mut self, _: u16, data: &[u8]) {
        let Some(value) = data.first() else { return };
        if value & RESET_CPU != 0 {
            self.signal.raise(Outcome::Reset);
        }
        self.value = value & !RESET_CPU;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::RESET_VALUE;

    #[test]
    fn choosing_the_kind_of_reset_does_not_reset_yet() {
        let signal = Arc::new(Signal::new().unwrap());
        let mut register = ResetControl::new(signal.clone());
        register.write(0, &[0x02]);
        assert_eq!(signal.outcome(), None);
        register.write(0, &[RESET_VALUE]);
        assert_eq!(signal.outcome(), Some(Outcome::Reset));
    }
}
