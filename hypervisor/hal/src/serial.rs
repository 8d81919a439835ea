//! The first serial port, a 16550, for output only and by polling.

use core::sync::atomic::{AtomicBool, Ordering};

use crate::port::{inb, outb};

const BASE: u16 = 0x3f8;
const DATA: u16 = BASE;
const INTERRUPT_ENABLE: u16 = BASE + 1;
const FIFO_CONTROL: u16 = BASE + 2;
const LINE_CONTROL: u16 = BASE + 3;
const MODEM_CONTROL: u16 = BASE + 4;
const LINE_STATUS: u16 = BASE + 5;
const SCRATCH: u16 = BASE + 7;

const DIVISOR_ACCESS: u8 = 0x80;
const EIGHT_BITS: u8 = 3;
const CAN_TAKE_A_BYTE: u8 = 1 << 5;
/// More polls than any byte takes at 115200 baud: a port that stops answering must not stop the hypervisor.
const PATIENCE: u32 = 100_000;

static PRESENT: AtomicBool = AtomicBool::new(false);

/// Sets the port to 115200 baud, 8 data bits, no parity, if it is there.
pub(crate) fn init() {
    outb(SCRATCH, 0x5a);
    if inb(SCRATCH) != 0x5a || inb(LINE_STATUS) == 0xff {
        return;
    }
    for (register, value) in [
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, DIVISOR_ACCESS),
        (DATA, 1),
        (INTERRUPT_ENABLE, 0),
        (LINE_CONTROL, EIGHT_BITS),
        (FIFO_CONTROL, 7),
        (MODEM_CONTROL, 3),
    ] {
        outb(register, value);
    }
    PRESENT.store(true, Ordering::Relaxed);
}

/// Writes `text`, with a carriage return before every line feed; nowhere if there is no port.
pub(crate) fn write(text: &[u8]) {
    if !PRESENT.load(Ordering::Relaxed) {
        return;
    }
    for &byte in text {
        if byte == b'\n' {
            put(b'\r');
        }
        put(byte);
    }
}

fn put(byte: u8) {
    for _ in 0..PATIENCE {
        if inb(LINE_STATUS) & CAN_TAKE_A_BYTE != 0 {
            break;
        }
    }
    outb(DATA, byte);
}
