//! The two 8259s, put out of the way.
//!
//! Firmware leaves them enabled, at vectors that are exceptions' in protected mode. The root sets them up anew
//! if it wants them.

use crate::port::outb;

const COMMAND: [u16; 2] = [0x20, 0xa0];
const DATA: [u16; 2] = [0x21, 0xa1];
/// Where a spurious interrupt, which cannot be masked, does no harm.
const FIRST_VECTOR: [u8; 2] = [0x20, 0x28];
/// The input of the first that the second is connected to, as each wants to know it.
const CASCADE: [u8; 2] = [1 << 2, 2];
const BEGIN_WITH_FOUR_WORDS: u8 = 0x11;
const MODE_8086: u8 = 1;

/// Masks every input, and moves the vectors away from the exceptions'.
pub(crate) fn silence() {
    for pic in 0..2 {
        outb(COMMAND[pic], BEGIN_WITH_FOUR_WORDS);
        for word in [FIRST_VECTOR[pic], CASCADE[pic], MODE_8086] {
            outb(DATA[pic], word);
        }
        outb(DATA[pic], 0xff);
    }
}
