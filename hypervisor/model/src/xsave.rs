//! The XSAVE area of HvCallGetVpState and HvCallSetVpState.
//!
//! The hypervisor keeps each VP's extended state in the standard form, which XSAVE and XRSTOR use on every processor.
//! The caller gets the compacted form with the states it names (root-abi §14.12) and gives back either form. The
//! area to restore comes from a VMM: it is checked before anything changes, and what is not checked here
//! (values inside a component) cannot fault in XRSTOR (SDM 1 §13.8, APM 4 "XRSTOR").

mod register;
#[cfg(test)]
mod tests;

use crate::ensure;
use core::ops::Range;
use tlfs::status::HvStatus;

const X87: u64 = 1 << 0;
const SSE: u64 = 1 << 1;
const COMPACTED: u64 = 1 << 63;

/// Where the first component after the legacy region and the header starts in the compacted form.
const EXTENDED: usize = 576;
const X87_CONTROL: Range<usize> = 0..24;
const MXCSR: Range<usize> = 24..28;
const MXCSR_MASK: Range<usize> = 28..32;
const X87_REGISTERS: Range<usize> = 32..160;
const SSE_REGISTERS: Range<usize> = 160..416;
const XSTATE_BV: Range<usize> = 512..520;
const XCOMP_BV: Range<usize> = 520..528;
const RESERVED: Range<usize> = 528..EXTENDED;

/// FCW after FNINIT; all other x87 state is zero then, the tags in their abridged form too.
const FCW_INIT: [u8; 2] = 0x037f_u16.to_le_bytes();
const MXCSR_INIT: u32 = 0x1f80;
/// The mask of processors that report none (SDM 1 §11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// Components are numbered up to here; higher bits of XCR0 name no memory.
const COMPONENTS: u32 = 32;

/// One component beyond x87 and SSE, as CPUID leaf 0xD describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Component {
    offset: u32,
    size: u32,
    /// In the compacted form, it starts at a multiple of 64.
    is_aligned: bool,
}

/// The components a partition may use, and where the processor puts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    states: u64,
    mxcsr_mask: u32,
    components: [Component; COMPONENTS as usize],
}

/// One component in both forms.
struct Place {
    state: u64,
    standard: Range<usize>,
    compacted: Range<usize>,
}

/// The checked header of an area to restore.
struct Header {
    present: u64,
    /// XCOMP_BV without its top bit, if the area is in the compacted form.
    compacted: Option<u64>,
    mxcsr: u32,
}

impl Layout {
    /// Describes those of `states` (a value of XCR0) which the processor has as user states.
    ///
    /// `leaf` returns EAX, EBX, ECX and EDX of CPUID 0xD for a subleaf. `mxcsr_mask` is what FXSAVE stores.
    #[must_use]
    pub fn new(states: u64, mxcsr_mask: u32, mut leaf: impl FnMut(u32) -> [u32; 4]) -> Self {
        let mut this = Self {
            states: X87 | SSE,
            mxcsr_mask: if mxcsr_mask == 0 { MXCSR_MASK_DEFAULT } else { mxcsr_mask },
            components: [Component::default(); COMPONENTS as usize],
        };
        for (number, component) in (0..COMPONENTS).zip(&mut this.components).skip(2) {
            let state = 1 << number;
            if states & state == 0 {
                continue;
            }
            let [size, offset, flags, _] = leaf(number);
            let is_supervisor = flags & 1 != 0;
            if size != 0 && !is_supervisor {
                *component = Component { offset, size, is_aligned: flags & 2 != 0 };
                this.states |= state;
            }
        }
        this
    }

    /// The states that the layout covers; the value of `PropertyCode::XSAVE_STATES`.
    #[must_use]
    pub const fn states(&self) -> u64 {
        self.states
    }

    /// The size in bytes of an area in the standard form.
    #[must_use]
    pub fn standard_size(&self) -> usize {
        self.places(self.states).map(|place| place.standard.end).fold(EXTENDED, usize::max)
    }

    /// The size in bytes of an area in the compacted form with all states; the value of `MAX_XSAVE_DATA_SIZE`.
    #[must_use]
    pub fn compacted_size(&self) -> usize {
        self.size_of(self.states)
    }

    fn size_of(&self, states: u64) -> usize {
        self.places(states).map(|place| place.compacted.end).fold(EXTENDED, usize::max)
    }

    /// The components of `states` from number 2 on (SDM 1 §13.4.3).
    fn places(&self, states: u64) -> impl Iterator<Item = Place> + '_ {
        let states = states & self.states;
        let numbered = (0..COMPONENTS).zip(&self.components).skip(2);
        let wanted = numbered.filter(move |(number, _)| states & 1 << number != 0);
        wanted.scan(EXTENDED, |end, (number, component)| {
            let start = if component.is_aligned { end.next_multiple_of(64) } else { *end };
            let (size, offset) = (component.size as usize, component.offset as usize);
            *end = start + size;
            Some(Place { state: 1 << number, standard: offset..offset + size, compacted: start..*end })
        })
    }

    /// Writes the given states of `current` (standard form) to `out` in the compacted form and returns the number of
    /// bytes used; the rest of `out` becomes zero. States that are in their initial configuration are left out of
    /// XSTATE_BV, and their place holds initial values, because a VMM may read registers without looking.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for states outside of the layout, `INSUFFICIENT_BUFFER` if `out` is too small.
    pub fn save(&self, current: &[u8], states: u64, out: &mut [u8]) -> Result<usize, HvStatus> {
        ensure(states & !self.states == 0, HvStatus::INVALID_PARAMETER)?;
        let size = self.size_of(states);
        ensure(out.len() >= size && current.len() >= self.standard_size(), HvStatus::INSUFFICIENT_BUFFER)?;
        out.fill(0);
        let mut present = number::<8>(current, XSTATE_BV) & states;
        let mxcsr = number::<4>(current, MXCSR) as u32;
        self.copy_legacy(current, present, mxcsr, states, out);
        // MXCSR belongs to the SSE state here, but not in the standard form (SDM 1 §13.6 and §13.11).
        if states & SSE != 0 && mxcsr != MXCSR_INIT {
            present |= SSE;
        }
        for place in self.places(states).filter(|place| present & place.state != 0) {
            copy(current, place.standard, out, place.compacted);
        }
        put(out, XSTATE_BV, &present.to_le_bytes());
        put(out, XCOMP_BV, &(states | COMPACTED).to_le_bytes());
        Ok(size)
    }

    /// Replaces the given states of `current` (standard form) by those of `area`, in either form. States that
    /// `area` does not hold get their initial configuration; on an error nothing changes.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for states outside of the layout, a malformed header, a reserved bit of MXCSR, or an area that
    /// ends before a component does; `INSUFFICIENT_BUFFER` if `current` is too small.
    pub fn restore(&self, area: &[u8], states: u64, current: &mut [u8]) -> Result<(), HvStatus> {
        ensure(states & !self.states == 0, HvStatus::INVALID_PARAMETER)?;
        ensure(current.len() >= self.standard_size(), HvStatus::INSUFFICIENT_BUFFER)?;
        let header = self.check(area)?;
        self.copy_legacy(area, header.present, header.mxcsr, states, current);
        // In the compacted form, a place depends on which states the area has, not on which are wanted.
        for place in self.places(header.compacted.unwrap_or(self.states)) {
            let from = if header.compacted.is_some() { place.compacted } else { place.standard.clone() };
            if states & header.present & place.state != 0 {
                copy(area, from, current, place.standard);
            }
        }
        let present = number::<8>(current, XSTATE_BV) & !states | header.present & states;
        put(current, XSTATE_BV, &present.to_le_bytes());
        put(current, XCOMP_BV, &[0; 8]);
        Ok(())
    }

    /// Checks all that makes XRSTOR fault, and that the components present lie within the area.
    fn check(&self, area: &[u8]) -> Result<Header, HvStatus> {
        let reserved = area.get(RESERVED).ok_or(HvStatus::INVALID_PARAMETER)?;
        let present = number::<8>(area, XSTATE_BV);
        let form = number::<8>(area, XCOMP_BV);
        let compacted = (form & COMPACTED != 0).then_some(form & !COMPACTED);
        let is_form_valid = match compacted {
            Some(states) => states & !self.states == 0 && present & !states == 0,
            None => form == 0 && present & !self.states == 0,
        };
        let has_mxcsr = compacted.is_none() || present & SSE != 0;
        let mxcsr = if has_mxcsr { number::<4>(area, MXCSR) as u32 } else { MXCSR_INIT };
        let mut used =
            self.places(compacted.unwrap_or(self.states)).filter(|place| present & place.state != 0);
        let is_complete = used.all(|place| {
            area.len() >= if compacted.is_some() { place.compacted.end } else { place.standard.end }
        });
        let is_valid = is_form_valid
            && is_complete
            && reserved.iter().all(|byte| *byte == 0)
            && mxcsr & !self.mxcsr_mask == 0;
        if is_valid { Ok(Header { present, compacted, mxcsr }) } else { Err(HvStatus::INVALID_PARAMETER) }
    }

    /// Copies x87, MXCSR and the XMM registers, which both forms have at the same place.
    fn copy_legacy(&self, from: &[u8], present: u64, mxcsr: u32, states: u64, to: &mut [u8]) {
        if states & X87 != 0 {
            for range in [X87_CONTROL, X87_REGISTERS] {
                move_or_clear(from, present & X87 != 0, range, to);
            }
            if present & X87 == 0 {
                put(to, 0..2, &FCW_INIT);
            }
        }
        if states & SSE != 0 {
            move_or_clear(from, present & SSE != 0, SSE_REGISTERS, to);
            put(to, MXCSR, &mxcsr.to_le_bytes());
            put(to, MXCSR_MASK, &self.mxcsr_mask.to_le_bytes());
        }
    }
}

/// Reads a little-endian number; bytes that are not there count as zero.
fn number<const N: usize>(area: &[u8], range: Range<usize>) -> u64 {
    let bytes = area.get(range).unwrap_or_default();
    bytes.iter().take(N).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn put(area: &mut [u8], range: Range<usize>, bytes: &[u8]) {
    for (to, from) in area.get_mut(range).unwrap_or_default().iter_mut().zip(bytes) {
        *to = *from;
    }
}

fn copy(from: &[u8], source: Range<usize>, to: &mut [u8], target: Range<usize>) {
    put(to, target, from.get(source).unwrap_or_default());
}

fn move_or_clear(from: &[u8], is_present: bool, range: Range<usize>, to: &mut [u8]) {
    if is_present {
        copy(from, range.clone(), to, range);
    } else {
        to.get_mut(range).unwrap_or_default().fill(0);
    }
}
