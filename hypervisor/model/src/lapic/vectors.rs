//! A set of interrupt vectors: the shape of IRR, ISR and TMR.

/// One bit per vector, vector 0 in bit 0 of the first word: the registers as the guest reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vectors(pub(super) [u32; 8]);

impl Vectors {
    pub(super) const NONE: Self = Self([0; 8]);

    /// From registers; vectors below 16 do not exist and are dropped.
    pub(super) fn from_registers(mut registers: [u32; 8]) -> Self {
        registers[0] &= !0xffff;
        Self(registers)
    }

    /// The 32 bits of register `index` (modulo 8).
    pub(super) fn register(&self, index: usize) -> u32 {
        self.0[index % 8]
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 32)] & bit(vector) != 0
    }

    pub(super) fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector / 32)] |= bit(vector);
    }

    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 32)] &= !bit(vector);
    }

    /// The highest vector, or 0 if there is none.
    pub(super) fn highest(&self) -> u8 {
        let highest = self.0.iter().enumerate().rfind(|(_, word)| **word != 0);
        highest.map_or(0, |(index, word)| index as u8 * 32 + word.ilog2() as u8)
    }
}

fn bit(vector: u8) -> u32 {
    1 << (vector % 32)
}
