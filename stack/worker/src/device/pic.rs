//! A pair of 8259 interrupt controllers that exist but are never asked for a vector.
//!
//! Interrupts go through the I/O APIC. Kernels up to 6.6 probe for an 8259 all the same, by writing its mask
//! and reading it back, and without one do not set up the ISA interrupts 0 to 15 that COM1 and the PIT use.

use super::PortDevice;

/// Bit of the first initialization word, written to the command port.
const ICW1: u8 = 1 << 4;
/// Bit of the first word: a fourth follows.
const ICW1_NEEDS_ICW4: u8 = 1 << 0;

/// One 8259: the command port, then the mask port.
#[derive(Default)]
pub struct Pic {
    mask: u8,
    /// Initialization words still to come at the mask port.
    initializing: u8,
}

impl Pic {
    /// Command port and mask port.
    pub const PORTS: u16 = 2;
    /// Command port of the one that takes interrupts 0 to 7.
    pub const PRIMARY: u16 = 0x20;
    /// Command port of the one that takes interrupts 8 to 15.
    pub const SECONDARY: u16 = 0xa0;
}

impl PortDevice for Pic {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        // Nothing is requested or in service.
        super::put(if offset == 0 { 0 } else { self.mask.into() }, data);
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let Some(&value) = data.first() else { return };
        match (offset, self.initializing) {
            (0, _) if value & ICW1 != 0 => {
                self.mask = 0;
                self.initializing = 2 + (value & ICW1_NEEDS_ICW4);
            }
            (0, _) => {}
            (_, 0) => self.mask = value,
            (_, left) => self.initializing = left - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(pic: &mut Pic) -> u8 {
        let mut data = [0];
        pic.read(1, &mut data);
        data[0]
    }

    #[test]
    fn mask_reads_back_and_initialization_words_are_not_masks() {
        let mut pic = Pic::default();
        pic.write(1, &[0xfb]);
        assert_eq!(mask(&mut pic), 0xfb);
        for (offset, word) in [(0, 0x11), (1, 0x30), (1, 0x04), (1, 0x01)] {
            pic.write(offset, &[word]);
        }
        assert_eq!(mask(&mut pic), 0);
        pic.write(1, &[0xff]);
        assert_eq!(mask(&mut pic), 0xff);
    }
}
