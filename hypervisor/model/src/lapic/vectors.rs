//! A set of interrupt vectors: the shape of IRR, ISR and TMR.

/// One bit per vector, vector 0 in bit 0 of the first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vectors([u64; 4]);

impl Vectors {
    pub(super) const NONE: Self = Self([0; 4]);

    /// From the registers as the guest reads them; vectors below 16 do not exist and are dropped.
    pub(super) fn from_registers(registers: [u32; 8]) -> Self {
        let mut words = [0; 4];
        for (word, pair) in words.iter_mut().zip(registers.as_chunks::<2>().0) {
            *word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        }
        words[0] &= !0xffff;
        Self(words)
    }

    pub(super) fn registers(&self) -> [u32; 8] {
        core::array::from_fn(|index| self.register(index))
    }

    /// The 32 bits of register `index` (modulo 8).
    pub(super) fn register(&self, index: usize) -> u32 {
        (self.0[index / 2 % 4] >> (index % 2 * 32)) as u32
    }

    pub(super) fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)] & bit(vector) != 0
    }

    pub(super) fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] |= bit(vector);
    }

    pub(super) fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] &= !bit(vector);
    }

    /// The highest vector, or 0 if there is none.
    pub(super) fn highest(&self) -> u8 {
        for (base, word) in [(192, self.0[3]), (128, self.0[2]), (64, self.0[1]), (0, self.0[0])] {
            if word != 0 {
                return base + word.ilog2() as u8;
            }
        }
        0
    }
}

fn bit(vector: u8) -> u64 {
    1 << (vector % 64)
}
