//! CPUID results that a parent registered for a child (`TLFS hypercalls/HvCallRegisterInterceptResult`).
//!
//! A result replaces the bits in its masks. The TLFS does not describe `always_override`; here, as in the user-space
//! library for Linux's root driver, a result without it changes only registers that are not zero of themselves.

use tlfs::{
    HvStatus,
    vp::{CpuidResult, CpuidResultParameters},
};

/// The registered results of one VP, at most `N`. Where two cover a leaf, the later registration goes over the
/// earlier.
#[derive(Clone, Copy, Debug)]
pub struct Overrides<const N: usize> {
    list: [CpuidResultParameters; N],
    count: usize,
}

impl<const N: usize> Overrides<N> {
    /// No results.
    pub const fn new() -> Self {
        Self { list: [CpuidResultParameters::ZEROED; N], count: 0 }
    }

    /// Adds a result, or replaces the one for the same leaf and subleaf.
    ///
    /// # Errors
    /// `INSUFFICIENT_BUFFERS` if the table is full.
    pub fn register(&mut self, new: CpuidResultParameters) -> Result<(), HvStatus> {
        if let Some(old) = self.list.iter_mut().take(self.count).find(|old| scope(old) == scope(&new)) {
            *old = new;
            return Ok(());
        }
        *self.list.get_mut(self.count).ok_or(HvStatus::INSUFFICIENT_BUFFERS)? = new;
        self.count += 1;
        Ok(())
    }

    /// What the VP sees of a leaf that by itself reads `own`.
    pub fn apply(&self, leaf: u32, subleaf: u32, own: CpuidResult) -> CpuidResult {
        let covers = |result: &&CpuidResultParameters| {
            result.leaf == leaf && scope(result).1.is_none_or(|specific| specific == subleaf)
        };
        self.iter().filter(covers).fold(own, |seen, result| merge(result, seen))
    }

    fn iter(&self) -> impl Iterator<Item = &CpuidResultParameters> {
        self.list.iter().take(self.count)
    }
}

fn scope(result: &CpuidResultParameters) -> (u32, Option<u32>) {
    (result.leaf, (result.subleaf_specific != 0).then_some(result.subleaf))
}

fn merge(result: &CpuidResultParameters, own: CpuidResult) -> CpuidResult {
    let merge = |own: u32, value: u32, mask: u32| {
        if own == 0 && result.always_override == 0 { 0 } else { own & !mask | value & mask }
    };
    CpuidResult {
        eax: merge(own.eax, result.eax, result.eax_mask),
        ebx: merge(own.ebx, result.ebx, result.ebx_mask),
        ecx: merge(own.ecx, result.ecx, result.ecx_mask),
        edx: merge(own.edx, result.edx, result.edx_mask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(value: u32) -> CpuidResult {
        CpuidResult { eax: value, ebx: value, ecx: value, edx: value }
    }

    fn result(leaf: u32, subleaf: Option<u32>, eax: u32, eax_mask: u32) -> CpuidResultParameters {
        let (subleaf, subleaf_specific) = (subleaf.unwrap_or(0), u8::from(subleaf.is_some()));
        CpuidResultParameters {
            leaf,
            subleaf,
            subleaf_specific,
            eax,
            eax_mask,
            ..CpuidResultParameters::ZEROED
        }
    }

    fn eax<const N: usize>(table: &Overrides<N>, leaf: u32, subleaf: u32, own: u32) -> u32 {
        table.apply(leaf, subleaf, all(own)).eax
    }

    #[test]
    fn only_masked_bits_are_replaced() {
        let mut table = Overrides::<2>::new();
        table.register(result(1, None, 0x0f, 0xff)).unwrap();
        assert_eq!(table.apply(1, 9, all(0x1234)), CpuidResult { eax: 0x120f, ..all(0x1234) });
        assert_eq!(eax(&table, 2, 0, 0x1234), 0x1234);
    }

    #[test]
    fn a_register_that_reads_zero_takes_only_results_that_always_apply() {
        let mut table = Overrides::<2>::new();
        table.register(result(1, None, 1, 1)).unwrap();
        assert_eq!(eax(&table, 1, 0, 0), 0);
        table.register(CpuidResultParameters { always_override: 1, ..result(1, None, 1, 1) }).unwrap();
        assert_eq!(eax(&table, 1, 0, 0), 1);
    }

    #[test]
    fn a_subleaf_specific_result_leaves_other_subleaves_alone() {
        let mut table = Overrides::<2>::new();
        table.register(result(4, Some(1), 2, !0)).unwrap();
        assert_eq!((eax(&table, 4, 0, 1), eax(&table, 4, 1, 1)), (1, 2));
    }

    #[test]
    fn registering_again_replaces_and_a_full_table_refuses() {
        let mut table = Overrides::<1>::new();
        table.register(result(1, None, 1, !0)).unwrap();
        table.register(result(1, None, 2, !0)).unwrap();
        assert_eq!(eax(&table, 1, 0, 7), 2);
        assert_eq!(table.register(result(2, None, 1, !0)), Err(HvStatus::INSUFFICIENT_BUFFERS));
    }
}
