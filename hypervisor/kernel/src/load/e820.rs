//! The root's memory map: the firmware's, less what is the hypervisor's; and free places in it.

use core::ops::Range;

use hal::{
    addr::{Hpa, PAGE_SIZE},
    boot::{MemoryKind, MemoryMap, MemoryRange},
    list::{Full, List},
    mem::boot::Span,
};

use super::Error;

/// As many ranges as Linux's boot parameters hold.
pub(super) const MAX_RANGES: usize = 128;

/// Ranges in ascending order that do not overlap; neighbours differ in kind.
#[derive(Default)]
pub(super) struct E820 {
    ranges: List<MemoryRange, MAX_RANGES>,
}

/// What a free place is wanted for.
pub(super) struct Wanted<'a> {
    /// Its length in bytes.
    pub(super) len: u64,
    /// A power of two that divides its start.
    pub(super) align: u64,
    /// What it must not overlap.
    pub(super) avoid: &'a [Span],
}

impl E820 {
    /// Makes the root's map. What firmware's ranges call by two names is not usable; the hypervisor's spans, made
    /// whole pages, and its page `spare` are reserved whatever firmware calls them.
    pub(super) fn new(firmware: &MemoryMap, hypervisor: &[Span], spare: Hpa) -> Result<Self, Error> {
        let mut map = Self::default();
        let usable = |range: &&MemoryRange| range.kind == MemoryKind::USABLE;
        let others = firmware.iter().filter(|range| !usable(range));
        let ours = hypervisor.iter().copied().chain([Span { start: spare, len: PAGE_SIZE as u64 }]);
        let ours = ours.map(|span| {
            let start = span.start.align_down();
            let end = span.end().div_ceil(PAGE_SIZE as u64) * PAGE_SIZE as u64;
            MemoryRange { start, len: end - start.0, kind: MemoryKind::RESERVED }
        });
        let mut layers = firmware.iter().filter(usable).chain(others).copied().chain(ours);
        layers.try_for_each(|range| map.paint(range)).map_err(|_| Error::MapTooLong)?;
        Ok(map)
    }

    /// Returns the ranges in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MemoryRange> {
        self.ranges.iter()
    }

    /// Makes all of `range` its kind.
    fn paint(&mut self, range: MemoryRange) -> Result<(), Full> {
        let old = core::mem::take(&mut self.ranges);
        for below in old.iter() {
            self.append(below.start, below.end().min(range.start), below.kind)?;
        }
        self.append(range.start, range.end(), range.kind)?;
        for above in old.iter() {
            self.append(above.start.max(range.end()), above.end(), above.kind)?;
        }
        Ok(())
    }

    fn append(&mut self, start: Hpa, end: Hpa, kind: MemoryKind) -> Result<(), Full> {
        match (end.0.saturating_sub(start.0), self.ranges.last_mut()) {
            (0, _) => Ok(()),
            (len, Some(last)) if last.kind == kind && last.end() == start => {
                last.len += len;
                Ok(())
            }
            (len, _) => self.ranges.push(MemoryRange { start, len, kind }),
        }
    }

    /// Returns the lowest usable place within `window`.
    pub(super) fn lowest(&self, wanted: &Wanted, window: Range<u64>) -> Option<Hpa> {
        let starts = self.usable().map(|range| range.start.0).chain([window.start]);
        let candidates = starts.chain(wanted.avoid.iter().map(Span::end));
        let places = candidates.filter_map(|start| start.checked_next_multiple_of(wanted.align));
        places.filter(|&start| self.is_free(wanted, start, &window)).min().map(Hpa)
    }

    /// Returns the highest usable place within `window`.
    pub(super) fn highest(&self, wanted: &Wanted, window: Range<u64>) -> Option<Hpa> {
        let ends = self.usable().map(|range| range.end().0).chain([window.end]);
        let candidates = ends.chain(wanted.avoid.iter().map(|span| span.start.0));
        let places = candidates.filter_map(|end| Some(end.checked_sub(wanted.len)? & !(wanted.align - 1)));
        places.filter(|&start| self.is_free(wanted, start, &window)).max().map(Hpa)
    }

    fn usable(&self) -> impl Iterator<Item = &MemoryRange> {
        self.iter().filter(|range| range.kind == MemoryKind::USABLE)
    }

    fn is_free(&self, wanted: &Wanted, start: u64, window: &Range<u64>) -> bool {
        let Some(stop) = start.checked_add(wanted.len) else { return false };
        let inside = |from: u64, to: u64| from <= start && stop <= to;
        let place = Span { start: Hpa(start), len: wanted.len };
        inside(window.start, window.end)
            && self.usable().any(|range| inside(range.start.0, range.end().0))
            && !wanted.avoid.iter().any(|span| span.overlaps(&place))
    }
}
