//! ACPI fixed hardware: PM1 event and control registers and the PM timer (ACPI 6.5 §4.8).

use std::sync::{Arc, Mutex};

use super::{Clock, IrqLine, PortDevice, get};
use crate::{
    layout::SLEEP_TYPE_S5,
    signal::{Outcome, Signal},
};

/// Status and enable bit of the power button.
const POWER_BUTTON: u16 = 1 << 8;
/// Control bit: ACPI mode is on. There is no other mode here.
const SCI_ENABLED: u16 = 1 << 0;
/// Control bit: go to the sleep state of bits 10 to 12.
const SLEEP_ENABLE: u16 = 1 << 13;

/// Frequency of the PM timer.
const PM_TIMER_HZ: u128 = 3_579_545;

struct Registers {
    status: u16,
    enable: u16,
    control: u16,
}

/// The registers from [`PM_EVENT`](crate::layout::PM_EVENT): status, enable, control; the timer at offset 8.
/// The registers are shared with whoever presses the power button.
#[derive(Clone)]
pub struct PowerManagement {
    registers: Arc<Mutex<Registers>>,
    sci: Arc<dyn IrqLine>,
    signal: Arc<Signal>,
}

impl PowerManagement {
    /// Number of ports from the event block on, the timer included.
    pub const PORTS: u16 = 12;

    /// Registers that raise `sci` and switch the machine off through `signal`.
    pub fn new(sci: Arc<dyn IrqLine>, signal: Arc<Signal>) -> Self {
        let registers = Registers { status: 0, enable: 0, control: SCI_ENABLED };
        Self { registers: Arc::new(Mutex::new(registers)), sci, signal }
    }

    /// Presses and releases the power button.
    pub fn press_power_button(&self) {
        self.update(|registers| registers.status |= POWER_BUTTON);
    }

    /// The registers as ports.
    pub fn ports(&self, clock: impl Clock + 'static) -> PmPorts {
        PmPorts { pm: self.clone(), clock: Box::new(clock) }
    }

    /// Changes registers, then drives the SCI to what they say. The line is driven under the lock, or two
    /// processors could leave it at the level of the one that came first.
    fn update(&self, change: impl FnOnce(&mut Registers)) {
        let mut registers = self.registers.lock().expect("no holder of this lock panics");
        change(&mut registers);
        self.sci.set(registers.status & registers.enable != 0);
    }

    fn set_control(&self, value: u16) {
        let sleep_type = value >> 10 & 7;
        if value & SLEEP_ENABLE != 0 && sleep_type == u16::from(SLEEP_TYPE_S5) {
            self.signal.raise(Outcome::PowerOff);
        }
        self.update(|registers| registers.control = value & !SLEEP_ENABLE | SCI_ENABLED);
    }
}

/// [`PowerManagement`] as the guest sees it.
pub struct PmPorts {
    pm: PowerManagement,
    clock: Box<dyn Clock>,
}

impl PmPorts {
    fn timer(&self) -> u32 {
        let ticks = u128::from(self.clock.now()) * PM_TIMER_HZ / 1_000_000_000;
        // The timer wraps; the low half is what it counts.
        (ticks & u128::from(u32::MAX)).try_into().unwrap_or_default()
    }
}

impl PortDevice for PmPorts {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        let timer = if offset >= 8 { self.timer() } else { 0 };
        let registers = self.pm.registers.lock().expect("no holder of this lock panics");
        let block = [
            u32::from(registers.status) | u32::from(registers.enable) << 16,
            u32::from(registers.control),
            timer,
        ];
        let bytes = block.map(u32::to_le_bytes);
        for (byte, from) in data.iter_mut().zip(bytes.as_flattened().iter().skip(offset.into())) {
            *byte = *from;
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let value = get(data).to_le_bytes();
        let [low, high] = [[value[0], value[1]], [value[2], value[3]]].map(u16::from_le_bytes);
        match (offset, data.len()) {
            (0, 2) => self.pm.update(|registers| registers.status &= !low),
            (0, 4) => self.pm.update(|registers| {
                registers.status &= !low;
                registers.enable = high;
            }),
            (2, 2) => self.pm.update(|registers| registers.enable = low),
            (4, 2..) => self.pm.set_control(low),
            // ACPI defines these registers as words.
            _ => tracing::debug!("write of {data:02x?} to PM register {offset:#x} ignored"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{TestClock, TestLine};

    struct Machine {
        pm: PowerManagement,
        ports: PmPorts,
        sci: TestLine,
        signal: Arc<Signal>,
        clock: TestClock,
    }

    fn machine() -> Machine {
        let (sci, signal, clock) =
            (TestLine::default(), Arc::new(Signal::new().unwrap()), TestClock::default());
        let pm = PowerManagement::new(Arc::new(sci.clone()), signal.clone());
        Machine { ports: pm.ports(clock.clone()), pm, sci, signal, clock }
    }

    fn read(ports: &mut PmPorts, offset: u16, size: usize) -> u32 {
        let mut data = [0; 4];
        ports.read(offset, &mut data[..size]);
        get(&data)
    }

    #[test]
    fn power_button_holds_the_sci_until_its_status_is_cleared() {
        let mut m = machine();
        m.ports.write(2, &POWER_BUTTON.to_le_bytes());
        m.sci.take();
        m.pm.press_power_button();
        assert_eq!(m.sci.take(), [true]);
        assert_eq!(read(&mut m.ports, 0, 2), u32::from(POWER_BUTTON));
        m.ports.write(0, &POWER_BUTTON.to_le_bytes());
        assert_eq!((m.sci.take(), read(&mut m.ports, 0, 2)), (vec![false], 0));
    }

    #[test]
    fn only_s5_with_sleep_enable_switches_off() {
        let mut m = machine();
        for harmless in [u16::from(SLEEP_TYPE_S5) << 10, SLEEP_ENABLE, SLEEP_ENABLE | 1 << 10] {
            m.ports.write(4, &harmless.to_le_bytes());
            assert_eq!(m.signal.outcome(), None);
        }
        m.ports.write(4, &(SLEEP_ENABLE | u16::from(SLEEP_TYPE_S5) << 10).to_le_bytes());
        assert_eq!(m.signal.outcome(), Some(Outcome::PowerOff));
    }

    #[test]
    fn acpi_mode_cannot_be_left() {
        let mut m = machine();
        m.ports.write(4, &[0, 0]);
        assert_eq!(read(&mut m.ports, 4, 2), u32::from(SCI_ENABLED));
    }

    #[test]
    fn timer_counts_3579545_per_second_and_wraps() {
        let mut m = machine();
        m.clock.set(1_000_000_000);
        assert_eq!(read(&mut m.ports, 8, 4), 3_579_545);
        m.clock.set(1200 * 1_000_000_000);
        assert_eq!(u64::from(read(&mut m.ports, 8, 4)), 1200 * 3_579_545 - (1 << 32));
    }
}
