//! Sets of virtual processors, as hypercalls name them.
//!
//! A set is walked straight from where its banks are read, each bank read exactly once, so that a caller which
//! rewrites its input page meanwhile changes which VPs are named but nothing else. An index in a set says nothing
//! about whether such a VP exists. Source: TLFS datatypes/HV_VP_SET.

use tlfs::{
    HvStatus, VpIndex,
    vpset::{VPS_PER_BANK, VpSetFormat, VpSetHeader},
};

/// A set of VP indices.
#[derive(Clone, Debug)]
pub enum VpSet<F> {
    /// Every VP of the partition.
    All,
    /// The VPs whose bits are set in the banks.
    Sparse(Banks<F>),
}

impl<F: FnMut(usize) -> u64> VpSet<F> {
    /// Takes a set with the given head, whose bank contents are `count` qwords that `read` returns by position.
    ///
    /// Surplus qwords are ignored, as is all but the format if that says "all".
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an unknown format, `INVALID_HYPERCALL_INPUT` if banks are missing.
    pub fn parse(head: VpSetHeader, count: usize, read: F) -> Result<Self, HvStatus> {
        let valid = head.valid_bank_mask;
        match head.format {
            VpSetFormat::ALL => Ok(Self::All),
            VpSetFormat::SPARSE_4K if valid.count_ones() as usize <= count => {
                Ok(Self::Sparse(Banks { valid, position: 0, base: 0, bits: 0, read }))
            }
            VpSetFormat::SPARSE_4K => Err(HvStatus::INVALID_HYPERCALL_INPUT),
            _ => Err(HvStatus::INVALID_PARAMETER),
        }
    }
}

/// The members of a sparse set, in ascending order.
#[derive(Clone, Debug)]
pub struct Banks<F> {
    valid: u64,
    position: usize,
    base: u32,
    bits: u64,
    read: F,
}

impl<F: FnMut(usize) -> u64> Iterator for Banks<F> {
    type Item = VpIndex;

    fn next(&mut self) -> Option<VpIndex> {
        while self.bits == 0 {
            if self.valid == 0 {
                return None;
            }
            self.base = self.valid.trailing_zeros() * VPS_PER_BANK;
            self.valid &= self.valid - 1;
            self.bits = (self.read)(self.position);
            self.position += 1;
        }
        let index = self.base + self.bits.trailing_zeros();
        self.bits &= self.bits - 1;
        Some(VpIndex(index))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn head(format: u64, valid_bank_mask: u64) -> VpSetHeader {
        VpSetHeader { format: VpSetFormat(format), valid_bank_mask }
    }

    fn members(format: u64, valid: u64, banks: &[u64]) -> Result<Option<Vec<u32>>, HvStatus> {
        Ok(match VpSet::parse(head(format, valid), banks.len(), |i| banks[i])? {
            VpSet::All => None,
            VpSet::Sparse(set) => Some(set.map(|vp| vp.0).collect()),
        })
    }

    #[test]
    fn the_example_of_the_specification_names_0_5_and_130() {
        assert_eq!(members(0, 0b101, &[0x21, 0x04]), Ok(Some([0, 5, 130].into())));
    }

    #[test]
    fn the_all_format_needs_no_banks() {
        assert_eq!(members(1, 0xffff, &[]), Ok(None));
    }

    #[test]
    fn a_present_bank_may_be_empty_and_surplus_qwords_are_ignored() {
        assert_eq!(members(0, 0b11, &[0, 1, !0]), Ok(Some([64].into())));
    }

    #[test]
    fn missing_banks_and_unknown_formats_are_refused() {
        assert_eq!(members(0, 0b11, &[1]), Err(HvStatus::INVALID_HYPERCALL_INPUT));
        assert_eq!(members(2, 0, &[]), Err(HvStatus::INVALID_PARAMETER));
    }

    proptest! {
        #[test]
        fn a_set_names_exactly_what_was_put_in(indices in prop::collection::btree_set(0u32..4096, 0..200)) {
            let mut banks = BTreeMap::<u32, u64>::new();
            for index in &indices {
                *banks.entry(index / 64).or_default() |= 1 << (index % 64);
            }
            let valid = banks.keys().fold(0, |mask, bank| mask | 1u64 << bank);
            let contents: Vec<_> = banks.into_values().collect();
            prop_assert_eq!(members(0, valid, &contents), Ok(Some(indices.into_iter().collect())));
        }

        #[test]
        fn each_bank_is_read_once_and_in_order(valid: u64, contents: u64) {
            let mut reads = Vec::new();
            let VpSet::Sparse(set) = VpSet::parse(head(0, valid), 64, |i| { reads.push(i); contents }).unwrap() else {
                panic!("a sparse set");
            };
            prop_assert_eq!(set.count() as u32, valid.count_ones() * contents.count_ones());
            prop_assert_eq!(reads, (0..valid.count_ones() as usize).collect::<Vec<_>>());
        }
    }
}
