//! The I/O APIC: 24 pins, each with an entry that says which vector to send to which local APIC (82093AA data
//! sheet; the end-of-interrupt register of version 0x20 is from later chip sets).

use std::sync::{Arc, Mutex};

use super::{IrqLine, MmioDevice, get, put};

const PINS: usize = 24;
/// Version 0x20 has the end-of-interrupt register.
const VERSION: u32 = 0x20;

const REGISTER_SELECT: u64 = 0x00;
const WINDOW: u64 = 0x10;
const END_OF_INTERRUPT: u64 = 0x40;

const LOGICAL: u64 = 1 << 11;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
/// Delivery status and remote IRR belong to the I/O APIC.
const READ_ONLY: u64 = 1 << 12 | REMOTE_IRR;

/// An interrupt message to the local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// The vector; for a level-triggered one its end comes back through [`IoApic::end_of_interrupt`].
    pub vector: u8,
    /// Delivery mode: 0 fixed, 1 lowest priority, 4 NMI, and so on as in the redirection entry.
    pub delivery: u8,
    /// APIC id, or logical destination.
    pub destination: u8,
    /// How to read `destination`.
    pub logical: bool,
    /// Trigger mode.
    pub level: bool,
}

impl Interrupt {
    fn of(entry: u64) -> Self {
        let bytes = entry.to_le_bytes();
        Self {
            vector: bytes[0],
            delivery: bytes[1] & 7,
            destination: bytes[7],
            logical: entry & LOGICAL != 0,
            level: entry & LEVEL != 0,
        }
    }
}

/// Who takes the messages.
pub trait InterruptSink: Send + Sync {
    /// Delivers one message. It is called with the I/O APIC locked and must not call back.
    fn assert(&self, interrupt: Interrupt);
}

#[derive(Clone, Copy)]
struct Pin {
    entry: u64,
    high: bool,
}

struct State {
    select: u8,
    id: u8,
    pins: [Pin; PINS],
}

/// The I/O APIC.
pub struct IoApic {
    state: Mutex<State>,
    sink: Box<dyn InterruptSink>,
}

impl IoApic {
    /// Length of its registers in memory space.
    pub const LEN: u64 = 0x1000;

    /// An I/O APIC with every pin masked.
    pub fn new(sink: impl InterruptSink + 'static) -> Self {
        let pins = [Pin { entry: MASKED, high: false }; PINS];
        Self { state: Mutex::new(State { select: 0, id: 0, pins }), sink: Box::new(sink) }
    }

    /// The wire to one pin.
    ///
    /// # Panics
    ///
    /// When there is no such pin.
    pub fn line(self: &Arc<Self>, pin: u8) -> Arc<dyn IrqLine> {
        assert!(usize::from(pin) < PINS, "the I/O APIC has no pin {pin}");
        Arc::new(Line { apic: self.clone(), pin: pin.into() })
    }

    /// A local APIC has ended a level-triggered interrupt with this vector: every pin that sent it may send
    /// again, and does so if it is still high.
    pub fn end_of_interrupt(&self, vector: u8) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        for pin in &mut state.pins {
            if pin.entry & LEVEL != 0 && Interrupt::of(pin.entry).vector == vector {
                pin.entry &= !REMOTE_IRR;
                self.deliver_level(pin);
            }
        }
    }

    fn set(&self, index: usize, high: bool) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let pin = &mut state.pins[index];
        let rises = high && !pin.high;
        pin.high = high;
        if pin.entry & LEVEL != 0 {
            self.deliver_level(pin);
        } else if rises && pin.entry & MASKED == 0 {
            // An edge on a masked pin is lost, as the data sheet says.
            self.sink.assert(Interrupt::of(pin.entry));
        }
    }

    /// Sends the message of a level-triggered pin if it is due.
    fn deliver_level(&self, pin: &mut Pin) {
        if pin.high && pin.entry & (MASKED | REMOTE_IRR) == 0 {
            pin.entry |= REMOTE_IRR;
            self.sink.assert(Interrupt::of(pin.entry));
        }
    }

    fn write_entry(&self, pin: &mut Pin, entry: u64) {
        pin.entry = entry & !READ_ONLY | pin.entry & READ_ONLY;
        if pin.entry & LEVEL == 0 {
            // Kernels without the end-of-interrupt register switch to edge and back to clear a stuck pin.
            pin.entry &= !REMOTE_IRR;
        } else {
            self.deliver_level(pin);
        }
    }

    fn write_register(&self, value: u32) {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        match state.select {
            0 => state.id = value.to_le_bytes()[3] & 0xf,
            0x10.. => {
                let (index, high) = redirection(state.select);
                let Some(pin) = state.pins.get_mut(index) else { return };
                let entry = if high {
                    pin.entry & 0xffff_ffff | u64::from(value) << 32
                } else {
                    pin.entry & !0xffff_ffff | u64::from(value)
                };
                self.write_entry(pin, entry);
            }
            _ => {}
        }
    }
}

impl State {
    fn read_register(&self) -> u32 {
        match self.select {
            0 | 2 => u32::from(self.id) << 24,
            1 => VERSION | (PINS as u32 - 1) << 16,
            0x10.. => {
                let (index, high) = redirection(self.select);
                let halves = self.pins.get(index).map_or([0; 8], |pin| pin.entry.to_le_bytes());
                get(if high { &halves[4..] } else { &halves[..4] })
            }
            _ => 0,
        }
    }
}

/// Pin and half of the redirection entry behind a register from 0x10 on.
fn redirection(register: u8) -> (usize, bool) {
    (usize::from(register - 0x10) / 2, register & 1 != 0)
}

impl MmioDevice for IoApic {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let state = self.state.lock().expect("no holder of this lock panics");
        match offset {
            REGISTER_SELECT => put(state.select.into(), data),
            WINDOW => put(state.read_register(), data),
            _ => data.fill(0),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let value = get(data);
        let low = value.to_le_bytes()[0];
        match offset {
            REGISTER_SELECT => self.state.lock().expect("no holder of this lock panics").select = low,
            WINDOW => self.write_register(value),
            END_OF_INTERRUPT => self.end_of_interrupt(low),
            _ => {}
        }
    }
}

struct Line {
    apic: Arc<IoApic>,
    pin: usize,
}

impl IrqLine for Line {
    fn set(&self, high: bool) {
        self.apic.set(self.pin, high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<Interrupt>>>);

    impl InterruptSink for Sink {
        fn assert(&self, interrupt: Interrupt) {
            self.0.lock().unwrap().push(interrupt);
        }
    }

    impl Sink {
        fn vectors(&self) -> Vec<u8> {
            self.0.lock().unwrap().drain(..).map(|interrupt| interrupt.vector).collect()
        }
    }

    fn apic() -> (Arc<IoApic>, Sink) {
        let sink = Sink::default();
        (Arc::new(IoApic::new(sink.clone())), sink)
    }

    fn write(apic: &IoApic, register: u8, value: u32) {
        apic.write(REGISTER_SELECT, &u32::from(register).to_le_bytes());
        apic.write(WINDOW, &value.to_le_bytes());
    }

    fn read(apic: &IoApic, register: u8) -> u32 {
        apic.write(REGISTER_SELECT, &[register]);
        let mut data = [0; 4];
        apic.read(WINDOW, &mut data);
        get(&data)
    }

    #[test]
    fn edge_pin_sends_once_per_rise_with_its_destination() {
        let (apic, sink) = apic();
        write(&apic, 0x10 + 2 * 4 + 1, 0x0300_0000);
        write(&apic, 0x10 + 2 * 4, 0x0000_0831);
        let line = apic.line(4);
        line.set(true);
        line.set(true);
        line.set(false);
        line.pulse();
        let sent = sink.0.lock().unwrap().clone();
        let expected = Interrupt { vector: 0x31, delivery: 0, destination: 3, logical: true, level: false };
        assert_eq!(sent, [expected, expected]);
    }

    #[test]
    fn masked_edge_is_lost() {
        let (apic, sink) = apic();
        apic.line(4).pulse();
        write(&apic, 0x18, 0x31);
        assert!(sink.vectors().is_empty());
    }

    #[test]
    fn level_pin_waits_for_the_end_and_sends_again_while_high() {
        let (apic, sink) = apic();
        write(&apic, 0x10 + 2 * 9, 0x8040);
        let line = apic.line(9);
        line.set(true);
        line.set(false);
        line.set(true);
        assert_eq!(sink.vectors(), [0x40]);
        assert_ne!(u64::from(read(&apic, 0x10 + 2 * 9)) & REMOTE_IRR, 0);
        apic.end_of_interrupt(0x41);
        assert!(sink.vectors().is_empty());
        apic.end_of_interrupt(0x40);
        assert_eq!(sink.vectors(), [0x40]);
        line.set(false);
        apic.write(END_OF_INTERRUPT, &0x40u32.to_le_bytes());
        assert!(sink.vectors().is_empty());
        assert_eq!(u64::from(read(&apic, 0x10 + 2 * 9)) & REMOTE_IRR, 0);
    }

    #[test]
    fn level_that_rose_behind_the_mask_is_sent_when_unmasked() {
        let (apic, sink) = apic();
        write(&apic, 0x10 + 2 * 9, 0x1_8040);
        apic.line(9).set(true);
        assert!(sink.vectors().is_empty());
        write(&apic, 0x10 + 2 * 9, 0x8040);
        assert_eq!(sink.vectors(), [0x40]);
    }

    #[test]
    fn switching_to_edge_and_back_frees_a_stuck_pin() {
        let (apic, sink) = apic();
        write(&apic, 0x10 + 2 * 9, 0x8040);
        apic.line(9).set(true);
        sink.vectors();
        write(&apic, 0x10 + 2 * 9, 0x1_0040);
        write(&apic, 0x10 + 2 * 9, 0x8040);
        assert_eq!(sink.vectors(), [0x40]);
    }

    #[test]
    fn version_says_24_pins_and_registers_beyond_them_are_harmless() {
        let (apic, _) = apic();
        assert_eq!(read(&apic, 1), 0x0017_0020);
        write(&apic, 0xff, u32::MAX);
        assert_eq!(read(&apic, 0xff), 0);
    }
}
