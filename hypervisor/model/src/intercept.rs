//! What intercept messages say of a VP beyond its registers (root-abi §7.3, TLFS 2.0A chapter 14).

#[cfg(test)]
mod tests;

use tlfs::intercept::ExecutionState;
use tlfs::register::SegmentAttributes;

use crate::insn::Mode;

const CR0_PE: u64 = 1 << 0;
const CR0_AM: u64 = 1 << 18;
const EFER_LMA: u64 = 1 << 10;
/// The enable bits of the four breakpoints.
const DR7_ENABLES: u64 = 0xff;

/// What the processor was doing, as far as its registers tell.
#[must_use]
pub const fn execution_state(cpl: u8, cr0: u64, efer: u64, dr7: u64) -> ExecutionState {
    ExecutionState::new()
        .with_cpl(cpl & 3)
        .with_cr0_pe(cr0 & CR0_PE != 0)
        .with_cr0_am(cr0 & CR0_AM != 0)
        .with_efer_lma(efer & EFER_LMA != 0)
        .with_debug_active(dr7 & DR7_ENABLES != 0)
}

/// The size of the code segment with these attributes, for the decoder.
#[must_use]
pub const fn mode(efer: u64, code: SegmentAttributes) -> Mode {
    if efer & EFER_LMA != 0 && code.long() {
        Mode::Bits64
    } else if code.default() {
        Mode::Bits32
    } else {
        Mode::Bits16
    }
}

/// The first bytes of the intercepting instruction, as far as they could be fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstructionBytes {
    /// The bytes, and zeros.
    pub bytes: [u8; 16],
    /// How many there are.
    pub count: u8,
}

impl InstructionBytes {
    /// Takes at most 16 bytes.
    #[must_use]
    pub fn new(fetched: &[u8]) -> Self {
        let mut this = Self::default();
        for (to, from) in this.bytes.iter_mut().zip(fetched) {
            *to = *from;
            this.count += 1;
        }
        this
    }

    /// The bytes that there are.
    pub fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// Converts the packed attributes of a VMCB segment (APM 2 §15.5.1, table B-2: descriptor bits 55:52 and 47:40).
#[must_use]
pub const fn attributes_from_svm(packed: u16) -> SegmentAttributes {
    SegmentAttributes::from_bits(packed & 0xff | (packed & 0xf00) << 4)
}

/// Converts to the packed attributes of a VMCB segment; reserved bits are lost.
#[must_use]
pub const fn attributes_to_svm(attributes: SegmentAttributes) -> u16 {
    let bits = attributes.into_bits();
    bits & 0xff | bits >> 4 & 0xf00
}
