//! COM1: a 16550 between the guest and the console.

use std::{
    convert::Infallible,
    io::{self, Write},
    sync::Arc,
};

use vm_superio::{
    Trigger,
    serial::{Serial, SerialEvents},
};

use super::{IrqLine, PortDevice};

/// Where the port's bytes go, and who wants to know that it can take more.
pub trait Terminal: Send + Sync {
    /// The guest sent these bytes.
    fn output(&self, bytes: &[u8]);
    /// The guest has read all that [`SerialPort::receive`] gave it.
    fn input_wanted(&self);
}

/// The registers of COM1.
pub struct SerialPort {
    uart: Serial<Edge, Events, Output>,
}

impl SerialPort {
    /// Number of ports.
    pub const PORTS: u16 = 8;

    /// A port that raises `line`.
    pub fn new(line: Arc<dyn IrqLine>, terminal: Arc<dyn Terminal>) -> Self {
        let output = Output(terminal.clone());
        Self { uart: Serial::with_events(Edge(line), Events(terminal), output) }
    }

    /// Bytes for the guest; returns how many fitted. After fewer than all, [`Terminal::input_wanted`]
    /// follows.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        // Full, or in loop-back mode: both say 0.
        self.uart.enqueue_raw_bytes(bytes).unwrap_or(0)
    }
}

impl PortDevice for SerialPort {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        for (register, byte) in (offset..Self::PORTS).zip(data) {
            *byte = self.uart.read(register.to_le_bytes()[0]);
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        for (register, byte) in (offset..Self::PORTS).zip(data) {
            // Neither the line nor the terminal can fail.
            if let Err(error) = self.uart.write(register.to_le_bytes()[0], *byte) {
                tracing::warn!(?error, "COM1 lost a byte");
            }
        }
    }
}

/// The model asks for one edge for each cause, and asks again when a cause appears after the guest has
/// looked.
struct Edge(Arc<dyn IrqLine>);

impl Trigger for Edge {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.pulse();
        Ok(())
    }
}

struct Events(Arc<dyn Terminal>);

impl SerialEvents for Events {
    fn buffer_read(&self) {}

    fn out_byte(&self) {}

    fn tx_lost_byte(&self) {}

    fn in_buffer_empty(&self) {
        self.0.input_wanted();
    }
}

struct Output(Arc<dyn Terminal>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.output(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::device::testing::TestLine;

    #[derive(Default)]
    struct Paper(Mutex<(Vec<u8>, usize)>);

    impl Terminal for Paper {
        fn output(&self, bytes: &[u8]) {
            self.0.lock().unwrap().0.extend(bytes);
        }

        fn input_wanted(&self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn bytes_pass_both_ways_and_the_end_of_input_is_told() {
        let (line, paper) = (TestLine::default(), Arc::new(Paper::default()));
        let mut port = SerialPort::new(Arc::new(line.clone()), paper.clone());
        port.write(0, b"A");
        assert_eq!(paper.0.lock().unwrap().0, b"A");
        port.write(1, &[1]);
        assert_eq!(port.receive(&[b'x'; 100]), 64);
        assert_eq!(line.take(), [true, false]);
        let mut data = [0];
        for _ in 0..64 {
            port.read(0, &mut data);
            assert_eq!(data, [b'x']);
        }
        assert_eq!(paper.0.lock().unwrap().1, 1);
    }
}
