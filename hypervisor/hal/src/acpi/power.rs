//! Leaving: power off and reset by the fixed hardware (ACPI 6.5 §4.8.3.2, §4.8.3.6).

use super::{Fadt, GenericAddress};
use crate::{crash, port, time};

const SLEEP_TYPE_SHIFT: u32 = 10;
const SLEEP_TYPE_MASK: u16 = 7 << SLEEP_TYPE_SHIFT;
const SLEEP_ENABLE: u16 = 1 << 13;
const RESET_CONTROL: u16 = 0xcf9;
const KEYBOARD_COMMAND: u16 = 0x64;

/// Powers the machine off. The sleep types of S5 come from AML, so from the root.
pub fn power_off(fadt: &Fadt, type_a: u8, type_b: u8) -> ! {
    for (register, sleep_type) in [(fadt.pm1a_control, type_a), (fadt.pm1b_control, type_b)] {
        let Some(register) = register else { continue };
        let kept = port::inw(register) & !SLEEP_TYPE_MASK;
        let wanted = u16::from(sleep_type & 7) << SLEEP_TYPE_SHIFT;
        port::outw(register, kept | wanted | SLEEP_ENABLE);
    }
    time::delay_us(1_000_000);
    crate::error!("the machine does not power off");
    crash::halt()
}

/// Resets the machine: by the FADT's register, else by the chip set's, else by the keyboard controller's.
pub fn reset(fadt: Option<&Fadt>) -> ! {
    let register = fadt.and_then(|fadt| fadt.reset);
    if let Some((port, value)) =
        register.and_then(|(register, value)| Some((GenericAddress::port(&register)?, value)))
    {
        port::outb(port, value);
        time::delay_us(100_000);
    }
    for value in [2, 6] {
        port::outb(RESET_CONTROL, value);
        time::delay_us(50_000);
    }
    port::outb(KEYBOARD_COMMAND, 0xfe);
    time::delay_us(100_000);
    crate::error!("the machine does not reset");
    crash::halt()
}
