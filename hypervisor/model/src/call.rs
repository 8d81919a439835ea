//! The hypercall control word, and where the parts of a call's parameters lie.
//!
//! A [`CallSpec`] is a row of the hypercall table; [`CallSpec::plan`] holds a control word against it and yields
//! byte ranges relative to the input and output addresses, which are never read here. All sizes a caller can
//! choose are bounded before use. Source: TLFS hypercall-interface.

use core::ops::Range;

use crate::ensure;
use tlfs::{HvStatus, HypercallInput, PAGE_SIZE};

/// Bytes of input that a register-based call carries: RDX and R8. The 112-byte form in XMM registers is not
/// announced (CPUID 0x40000003 EDX bit 4), and a caller that tries it all the same gets a status, although the
/// TLFS would have it take #UD.
pub const FAST_BYTES: usize = 16;

/// The shape of one hypercall's parameters, all sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallSpec {
    /// The fixed part of the input.
    pub header: usize,
    /// Whether the input may have a variable-size part after the fixed one.
    pub variable: bool,
    /// Whether the call repeats. The elements of a rep call may have no size: `HvCallUnmapGpaPages` only counts.
    pub rep: bool,
    /// An element of the input list.
    pub rep_input: usize,
    /// The fixed part of the output.
    pub output: usize,
    /// An element of the output list.
    pub rep_output: usize,
}

impl CallSpec {
    /// A call without repetitions.
    pub const fn simple(header: usize, output: usize) -> Self {
        Self { header, variable: false, rep: false, rep_input: 0, output, rep_output: 0 }
    }

    /// A call with a list of input elements, output elements, both or neither.
    pub const fn rep(header: usize, rep_input: usize, rep_output: usize) -> Self {
        Self { rep: true, rep_input, rep_output, ..Self::simple(header, 0) }
    }

    /// The same call with a variable-size header allowed.
    pub const fn variable(self) -> Self {
        Self { variable: true, ..self }
    }

    /// Holds `control` against the shape.
    ///
    /// # Errors
    /// `INVALID_HYPERCALL_INPUT` for reserved bits, a wrong rep count or start, a variable header where none is
    /// allowed, and register-based calls whose parameters do not fit in registers; `INVALID_ALIGNMENT` for lists
    /// that no page can hold.
    pub fn plan(&self, control: HypercallInput) -> Result<Plan, HvStatus> {
        let (count, start) = (control.rep_count(), control.rep_start());
        let variable = control.variable_header_size() * 8;
        // `nested` asks for the hypervisor below ours; we are at the bottom, so the bit is reserved.
        let reserved = !control.reserved_clear() || control.nested();
        let reps_agree = if self.rep { start < count } else { start == 0 && count == 0 };
        let is_shape_right = reps_agree && (variable == 0 || self.variable);
        ensure(is_shape_right && !reserved, HvStatus::INVALID_HYPERCALL_INPUT)?;
        let plan = Plan { spec: *self, fast: control.fast(), variable, count, start };
        let fits_registers = plan.input_bytes() <= FAST_BYTES && plan.output_bytes() == 0;
        ensure(!plan.fast || fits_registers, HvStatus::INVALID_HYPERCALL_INPUT)?;
        ensure(plan.input_bytes().max(plan.output_bytes()) <= PAGE_SIZE, HvStatus::INVALID_ALIGNMENT)?;
        Ok(plan)
    }
}

/// A well-formed call: which bytes of its input and output hold what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    spec: CallSpec,
    fast: bool,
    variable: usize,
    count: usize,
    start: usize,
}

impl Plan {
    /// Whether the input is in registers, and neither address is one.
    pub const fn is_fast(&self) -> bool {
        self.fast
    }

    /// The repetitions still to be done; empty for a simple call.
    pub const fn reps(&self) -> Range<usize> {
        self.start..self.count
    }

    /// The variable header in the input.
    pub const fn variable(&self) -> Range<usize> {
        let start = padded(self.spec.header);
        start..start + self.variable
    }

    /// Element `rep` in the input.
    pub const fn element(&self, rep: usize) -> Range<usize> {
        element(self.variable().end, self.spec.rep_input, rep)
    }

    /// The fixed part of the output.
    pub const fn output(&self) -> Range<usize> {
        0..self.spec.output
    }

    /// Element `rep` in the output.
    pub const fn output_element(&self, rep: usize) -> Range<usize> {
        element(padded(self.spec.output), self.spec.rep_output, rep)
    }

    /// Size of the whole input, padded; if zero, the input address means nothing.
    pub const fn input_bytes(&self) -> usize {
        padded(self.element(self.count).start)
    }

    /// Size of the whole output, padded; if zero, the output address means nothing.
    pub const fn output_bytes(&self) -> usize {
        padded(self.output_element(self.count).start)
    }

    /// Checks the addresses of a call that is not fast. Whether they are mapped is for the reader to find.
    ///
    /// # Errors
    /// `INVALID_ALIGNMENT` if a list does not start on 8 bytes or crosses a page, or if the two overlap.
    pub fn check_addresses(&self, input: u64, output: u64) -> Result<(), HvStatus> {
        let (input_bytes, output_bytes) = (self.input_bytes(), self.output_bytes());
        let overlap = input < output.saturating_add(output_bytes as u64)
            && output < input.saturating_add(input_bytes as u64)
            && input_bytes != 0
            && output_bytes != 0;
        let fit = fits(input, input_bytes) && fits(output, output_bytes);
        ensure(fit && !overlap, HvStatus::INVALID_ALIGNMENT)
    }
}

/// The control word with which a call that stopped early goes on at element `rep` when it is executed again.
pub const fn resume(control: HypercallInput, rep: usize) -> HypercallInput {
    control.with_rep_start(rep)
}

const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

const fn element(base: usize, size: usize, rep: usize) -> Range<usize> {
    let start = base + size * rep;
    start..start + size
}

const fn fits(address: u64, bytes: usize) -> bool {
    bytes == 0 || (address.is_multiple_of(8) && address as usize % PAGE_SIZE + bytes <= PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INVALID: Result<Plan, HvStatus> = Err(HvStatus::INVALID_HYPERCALL_INPUT);

    fn control(bits: u64) -> HypercallInput {
        HypercallInput::from_bits(bits)
    }

    fn reps(start: u64, count: u64) -> HypercallInput {
        control(count << 32 | start << 48)
    }

    #[test]
    fn a_simple_call_takes_no_reps() {
        let spec = CallSpec::simple(16, 8);
        assert_eq!(spec.plan(reps(0, 1)), INVALID);
        assert_eq!(spec.plan(reps(1, 0)), INVALID);
        let plan = spec.plan(reps(0, 0)).unwrap();
        assert_eq!((plan.spec.header, plan.output(), plan.reps()), (16, 0..8, 0..0));
    }

    #[test]
    fn a_rep_call_resumes_at_rep_start() {
        let plan = CallSpec::rep(16, 4, 16).plan(reps(20, 25)).unwrap();
        assert_eq!(plan.reps(), 20..25);
        assert_eq!(plan.element(20), 96..100);
        assert_eq!(plan.output_element(20), 320..336);
        assert_eq!((plan.input_bytes(), plan.output_bytes()), (120, 400));
    }

    #[test]
    fn rep_start_must_be_less_than_rep_count() {
        let spec = CallSpec::rep(8, 8, 0);
        assert_eq!(spec.plan(reps(0, 0)), INVALID);
        assert_eq!(spec.plan(reps(7, 7)), INVALID);
        assert!(spec.plan(reps(6, 7)).is_ok());
    }

    #[test]
    fn reserved_bits_and_the_nested_bit_are_refused() {
        for bit in [27, 28, 29, 30, 31, 44, 47, 60, 63] {
            assert_eq!(CallSpec::simple(8, 0).plan(control(1 << bit)), INVALID, "bit {bit}");
        }
    }

    #[test]
    fn a_variable_header_lies_between_the_header_and_the_elements() {
        let two_qwords = control(2 << 17 | 3 << 32);
        let spec = CallSpec::rep(36, 8, 0);
        assert_eq!(spec.plan(two_qwords), INVALID);
        let plan = spec.variable().plan(two_qwords).unwrap();
        assert_eq!((plan.spec.header, plan.variable(), plan.element(0)), (36, 40..56, 56..64));
    }

    #[test]
    fn a_fast_call_carries_16_bytes_and_returns_none() {
        let fast = control(1 << 16);
        assert!(CallSpec::simple(16, 0).plan(fast).unwrap().is_fast());
        assert_eq!(CallSpec::simple(24, 0).plan(fast), INVALID);
        assert_eq!(CallSpec::simple(8, 8).plan(fast), INVALID);
    }

    #[test]
    fn lists_longer_than_a_page_are_refused() {
        assert!(CallSpec::rep(8, 8, 0).plan(reps(0, 511)).is_ok());
        assert_eq!(CallSpec::rep(8, 8, 0).plan(reps(0, 512)), Err(HvStatus::INVALID_ALIGNMENT));
        assert!(CallSpec::rep(24, 0, 1).plan(reps(0, 4095)).is_ok());
    }

    #[test]
    fn lists_must_be_aligned_and_stay_in_their_page() {
        let plan = CallSpec::simple(16, 8).plan(control(0)).unwrap();
        assert_eq!(plan.check_addresses(0x1ff0, 0x2ff8), Ok(()));
        for (input, output) in [(0x1ff8, 0x2000), (0x1004, 0x2000), (0x1000, 0x2ffc), (0x1000, 0x1008)] {
            assert_eq!(plan.check_addresses(input, output), Err(HvStatus::INVALID_ALIGNMENT));
        }
    }

    #[test]
    fn an_address_without_a_list_is_ignored() {
        let plan = CallSpec::simple(0, 8).plan(control(0)).unwrap();
        assert_eq!(plan.check_addresses(3, 0x1000), Ok(()));
    }

    #[test]
    fn an_interrupted_call_goes_on_where_it_stopped() {
        assert_eq!(resume(reps(0, 25), 20), reps(20, 25));
    }

    proptest! {
        #[test]
        fn every_range_of_an_accepted_call_is_inside_one_page(
            bits: u64, input: u64, output: u64, header in 0usize..64, rep: bool, variable: bool,
            rep_input in 0usize..64, fixed in 0usize..64, rep_output in 0usize..64,
        ) {
            let spec = CallSpec { header, variable, rep, rep_input, output: fixed, rep_output };
            let accepted = spec.plan(control(bits)).ok().filter(|plan| plan.check_addresses(input, output).is_ok());
            if let Some(plan) = accepted {
                let room = |address: u64| PAGE_SIZE - address as usize % PAGE_SIZE;
                for rep in plan.reps() {
                    prop_assert!(plan.element(rep).is_empty() || plan.element(rep).end <= room(input));
                    prop_assert!(plan.output_element(rep).is_empty() || plan.output_element(rep).end <= room(output));
                }
                prop_assert!(plan.variable().is_empty() || plan.variable().end <= room(input));
            }
        }
    }
}
