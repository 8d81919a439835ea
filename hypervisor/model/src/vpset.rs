//! Sets of virtual processors, as hypercalls name them.
//!
//! An index in a set says nothing about whether such a VP exists. Source: TLFS datatypes/HV_VP_SET.

use tlfs::{
    HvStatus, VpIndex,
    vpset::{VPS_PER_BANK, VpSetFormat, VpSetHeader},
};

/// The members of the set with the given head, in ascending order; `None` if it has every VP of the partition. `banks`
/// are the bytes behind the head: surplus ones are ignored, as is all but the format if that says "all".
///
/// # Errors
/// `INVALID_PARAMETER` for an unknown format, `INVALID_HYPERCALL_INPUT` if banks are missing.
pub fn members(head: VpSetHeader, banks: &[u8]) -> Result<Option<impl Iterator<Item = VpIndex>>, HvStatus> {
    let (banks, _) = banks.as_chunks::<8>();
    let valid = head.valid_bank_mask;
    match head.format {
        VpSetFormat::ALL => Ok(None),
        VpSetFormat::SPARSE_4K if valid.count_ones() as usize <= banks.len() => {
            Ok(Some(sparse(valid, banks)))
        }
        VpSetFormat::SPARSE_4K => Err(HvStatus::INVALID_HYPERCALL_INPUT),
        _ => Err(HvStatus::INVALID_PARAMETER),
    }
}

fn sparse(valid: u64, banks: &[[u8; 8]]) -> impl Iterator<Item = VpIndex> {
    ones(valid).zip(banks).flat_map(|(number, bank)| {
        ones(u64::from_le_bytes(*bank)).map(move |bit| VpIndex(number * VPS_PER_BANK + bit))
    })
}

/// The numbers of the bits that are set, in ascending order.
fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(lowest)
    })
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
        let banks: Vec<u8> = banks.iter().flat_map(|bank| bank.to_le_bytes()).collect();
        Ok(super::members(head(format, valid), &banks)?.map(|set| set.map(|vp| vp.0).collect()))
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
        fn each_bank_that_is_valid_counts_once(valid: u64, contents: u64) {
            let set = members(0, valid, &[contents; 64]).unwrap().expect("a sparse set");
            prop_assert_eq!(set.len() as u32, valid.count_ones() * contents.count_ones());
        }
    }
}
