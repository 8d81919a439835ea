//! Which device answers at an address.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use super::{MmioDevice, PortDevice};

/// A device as its ports and whoever else drives it hold it.
pub type SharedPort = Arc<Mutex<dyn PortDevice>>;

/// The I/O ports of the machine. Filled while it is built, then only read, so that processors contend for a
/// device and never for the table.
#[derive(Default)]
pub struct Ports {
    devices: Vec<(Range<u16>, SharedPort)>,
}

impl Ports {
    /// Puts `device` at `count` ports from `first`.
    pub fn add(&mut self, first: u16, count: u16, device: SharedPort) {
        let range = first..first + count;
        debug_assert!(self.devices.iter().all(|(r, _)| r.end <= range.start || range.end <= r.start));
        self.devices.push((range, device));
    }

    /// The guest reads `data.len()` bytes; a port without a device reads as all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(port) {
            device.lock().expect("no device panics").read(offset, data);
        }
    }

    /// The guest writes; a port without a device swallows it.
    pub fn write(&self, port: u16, data: &[u8]) {
        match self.find(port) {
            Some((offset, device)) => device.lock().expect("no device panics").write(offset, data),
            None => tracing::trace!("write of {data:02x?} to port {port:#x} without a device"),
        }
    }

    fn find(&self, port: u16) -> Option<(u16, &Mutex<dyn PortDevice>)> {
        let (range, device) = self.devices.iter().find(|(range, _)| range.contains(&port))?;
        Some((port - range.start, device))
    }
}

/// The devices in memory space.
#[derive(Default)]
pub struct Mmio {
    devices: Vec<(Range<u64>, Arc<dyn MmioDevice>)>,
}

impl Mmio {
    /// Puts `device` at `len` bytes from `base`.
    pub fn add(&mut self, base: u64, len: u64, device: Arc<dyn MmioDevice>) {
        self.devices.push((base..base + len, device));
    }

    /// The guest reads `data.len()` bytes; an address without a device reads as all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(address) {
            device.read(offset, data);
        }
    }

    /// The guest writes; an address without a device swallows it.
    pub fn write(&self, address: u64, data: &[u8]) {
        match self.find(address) {
            Some((offset, device)) => device.write(offset, data),
            None => tracing::trace!("write of {data:02x?} to {address:#x} without a device"),
        }
    }

    fn find(&self, address: u64) -> Option<(u64, &dyn MmioDevice)> {
        let (range, device) = self.devices.iter().find(|(range, _)| range.contains(&address))?;
        Some((address - range.start, device.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo(Vec<(u16, Vec<u8>)>);

    impl PortDevice for Echo {
        fn read(&mut self, offset: u16, data: &mut [u8]) {
            data.fill(offset.to_le_bytes()[0]);
        }

        fn write(&mut self, offset: u16, data: &[u8]) {
            self.0.push((offset, data.to_vec()));
        }
    }

    #[test]
    fn devices_see_their_own_offsets_and_nobody_reads_all_ones() {
        let mut ports = Ports::default();
        let echo = Arc::new(Mutex::new(Echo(Vec::new())));
        ports.add(0x100, 4, echo.clone());
        let mut data = [0; 2];
        ports.read(0x103, &mut data);
        assert_eq!(data, [3, 3]);
        ports.read(0x104, &mut data);
        assert_eq!(data, [0xff, 0xff]);
        ports.write(0x101, &[7]);
        ports.write(0xff, &[8]);
        assert_eq!(echo.lock().unwrap().0, [(1, vec![7])]);
    }

    #[test]
    fn memory_without_a_device_reads_all_ones() {
        let mut data = [0; 4];
        Mmio::default().read(0xd000_0000, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
