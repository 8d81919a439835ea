//! Guest-physical ranges: what a GPADL describes, and what a GPA-direct packet carries.
//!
//! On the wire a range is one 64-bit value (length in the low half, offset into the first page in the high half)
//! and then a page frame number for each page that it touches (Linux `include/linux/hyperv.h: gpa_range`).

use std::fmt;

use crate::{
    PAGE_BYTES,
    memory::{Memory, NotRam},
};

/// Page frame numbers have at most this many bits: physical addresses have 52, pages 12.
const PAGE_NUMBER_BITS: u32 = 40;

/// Why a description is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRange {
    /// It ends before all that it announced.
    Short,
    /// There is more than it announced.
    Long,
    /// A range has no bytes.
    Empty,
    /// The offset is not within the first page.
    Offset(u32),
    /// A page frame number is beyond any physical address.
    Page(u64),
    /// There are no ranges.
    NoRange,
}

impl fmt::Display for BadRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the ranges end too early"),
            Self::Long => f.write_str("the ranges end too late"),
            Self::Empty => f.write_str("a range is empty"),
            Self::Offset(offset) => write!(f, "a range begins {offset} bytes into its first page"),
            Self::Page(page) => write!(f, "page number {page:#x} is impossible"),
            Self::NoRange => f.write_str("there are no ranges"),
        }
    }
}

/// A piece of guest memory that is contiguous in guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte.
    pub gpa: u64,
    /// Length in bytes; never 0.
    pub bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    /// Index of its first page in [`Ranges::pages`].
    first: usize,
    offset: u32,
    bytes: u32,
}

/// One or more ranges, which together look like one run of bytes. Its size is that of the description that was
/// read, so whoever bounds the description bounds this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: Vec<Range>,
    pages: Vec<u64>,
}

impl Ranges {
    /// Replaces the content by `count` ranges read from `values`, all of which must be used. The allocations are
    /// kept for the next time.
    ///
    /// # Errors
    /// The description is not exactly that long, or describes nothing possible; the content is then empty.
    pub fn read(&mut self, count: u32, values: impl Iterator<Item = u64>) -> Result<(), BadRange> {
        self.clear();
        let result = self.fill(count, values);
        if result.is_err() {
            self.clear();
        }
        result
    }

    fn fill(&mut self, count: u32, mut values: impl Iterator<Item = u64>) -> Result<(), BadRange> {
        if count == 0 {
            return Err(BadRange::NoRange);
        }
        // Each pass consumes a value or ends, so the loop is bounded by the description.
        for _ in 0..count {
            let header = values.next().ok_or(BadRange::Short)?;
            let [b0, b1, b2, b3, o0, o1, o2, o3] = header.to_le_bytes();
            let bytes = u32::from_le_bytes([b0, b1, b2, b3]);
            let offset = u32::from_le_bytes([o0, o1, o2, o3]);
            if bytes == 0 {
                return Err(BadRange::Empty);
            }
            if offset >= PAGE_BYTES {
                return Err(BadRange::Offset(offset));
            }
            self.ranges.push(Range { first: self.pages.len(), offset, bytes });
            let pages = (u64::from(offset) + u64::from(bytes)).div_ceil(PAGE_BYTES.into());
            for _ in 0..pages {
                let page = values.next().ok_or(BadRange::Short)?;
                if page >> PAGE_NUMBER_BITS != 0 {
                    return Err(BadRange::Page(page));
                }
                self.pages.push(page);
            }
        }
        values.next().map_or(Ok(()), |_| Err(BadRange::Long))
    }

    /// Forgets the ranges and keeps the allocations.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.pages.clear();
    }

    /// Number of bytes of all ranges.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| u64::from(range.bytes)).sum()
    }

    /// The page frame numbers, if this is a single range of whole pages, as that of a ring must be.
    pub fn whole_pages(&self) -> Option<&[u64]> {
        match self.ranges[..] {
            [Range { offset: 0, bytes, .. }] if bytes % PAGE_BYTES == 0 => Some(&self.pages),
            _ => None,
        }
    }

    /// The contiguous pieces of the bytes from `start` on, at most `bytes` of them, in order. Pages that follow
    /// each other are one piece.
    pub fn segments(&self, start: u64, bytes: u64) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let (mut skip, mut left) = (start, bytes);
        for range in &self.ranges {
            let here = u64::from(range.bytes);
            if skip >= here {
                skip -= here;
                continue;
            }
            let take = left.min(here - skip);
            self.push_segments(range, skip, take, &mut segments);
            left -= take;
            skip = 0;
            if left == 0 {
                break;
            }
        }
        segments
    }

    fn push_segments(&self, range: &Range, skip: u64, bytes: u64, segments: &mut Vec<Segment>) {
        let page_bytes = u64::from(PAGE_BYTES);
        let mut at = u64::from(range.offset) + skip;
        let end = at + bytes;
        let pages = self.pages.iter().skip(range.first);
        for (index, page) in (0u64..).zip(pages) {
            if at >= end {
                break;
            }
            let page_end = (index + 1) * page_bytes;
            if at >= page_end {
                continue;
            }
            let until = end.min(page_end);
            let gpa = page * page_bytes + at % page_bytes;
            // Within one page, so it fits.
            let piece = u32::try_from(until - at).unwrap_or(PAGE_BYTES);
            match segments.last_mut() {
                Some(last)
                    if last.gpa + u64::from(last.bytes) == gpa && last.bytes.checked_add(piece).is_some() =>
                {
                    last.bytes += piece;
                }
                _ => segments.push(Segment { gpa, bytes: piece }),
            }
            at = until;
        }
    }

    /// Copies from the guest as much as there is from `start` on, up to the length of `into`; returns the
    /// number of bytes.
    ///
    /// # Errors
    /// A page is not RAM.
    pub fn read_at(&self, memory: &dyn Memory, start: u64, into: &mut [u8]) -> Result<usize, NotRam> {
        let mut done = 0;
        for segment in self.segments(start, into.len() as u64) {
            let bytes = segment.bytes as usize;
            memory.read(segment.gpa, &mut into[done..done + bytes])?;
            done += bytes;
        }
        Ok(done)
    }

    /// Copies to the guest as much as there is room from `start` on; returns the number of bytes.
    ///
    /// # Errors
    /// A page is not RAM.
    pub fn write_at(&self, memory: &dyn Memory, start: u64, from: &[u8]) -> Result<usize, NotRam> {
        let mut done = 0;
        for segment in self.segments(start, from.len() as u64) {
            let bytes = segment.bytes as usize;
            memory.write(segment.gpa, &from[done..done + bytes])?;
            done += bytes;
        }
        Ok(done)
    }

    /// Whether every page is RAM.
    pub fn is_ram(&self, memory: &dyn Memory) -> bool {
        self.pages.iter().all(|page| memory.is_ram(page * u64::from(PAGE_BYTES), PAGE_BYTES.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn header(bytes: u32, offset: u32) -> u64 {
        u64::from(bytes) | u64::from(offset) << 32
    }

    fn read(count: u32, values: &[u64]) -> Result<Ranges, BadRange> {
        let mut ranges = Ranges::default();
        ranges.read(count, values.iter().copied()).map(|()| ranges)
    }

    #[test]
    fn descriptions_must_be_exactly_as_long_as_they_say() {
        let cases: [(u32, &[u64], Result<u64, BadRange>); 9] = [
            (1, &[header(4096, 0), 7], Ok(4096)),
            (1, &[header(4096, 1), 7, 8], Ok(4096)),
            (2, &[header(1, 4095), 7, header(2, 0), 9], Ok(3)),
            (0, &[], Err(BadRange::NoRange)),
            (1, &[header(4096, 1), 7], Err(BadRange::Short)),
            (1, &[header(4096, 0), 7, 8], Err(BadRange::Long)),
            (1, &[header(0, 0)], Err(BadRange::Empty)),
            (1, &[header(1, 4096), 7], Err(BadRange::Offset(4096))),
            (1, &[header(1, 0), 1 << 40], Err(BadRange::Page(1 << 40))),
        ];
        for (count, values, expected) in cases {
            assert_eq!(read(count, values).map(|ranges| ranges.bytes()), expected, "{count} {values:?}");
        }
    }

    #[test]
    fn neighbouring_pages_are_one_segment() {
        let ranges = read(2, &[header(0x2000, 0x800), 4, 5, 9, header(16, 0), 20]).unwrap();
        assert_eq!(
            ranges.segments(0, u64::MAX),
            [
                Segment { gpa: 0x4800, bytes: 0x1800 },
                Segment { gpa: 0x9000, bytes: 0x800 },
                Segment { gpa: 0x14000, bytes: 16 },
            ]
        );
        assert_eq!(
            ranges.segments(0x17ff, 3),
            [Segment { gpa: 0x5fff, bytes: 1 }, Segment { gpa: 0x9000, bytes: 2 }]
        );
        assert_eq!(ranges.segments(0x2010, 1), []);
    }

    #[test]
    fn only_a_single_range_of_whole_pages_can_hold_a_ring() {
        assert_eq!(read(1, &[header(0x2000, 0), 4, 9]).unwrap().whole_pages(), Some(&[4, 9][..]));
        assert_eq!(read(1, &[header(0x1000, 4), 4, 9]).unwrap().whole_pages(), None);
        assert_eq!(read(1, &[header(0xfff, 0), 4]).unwrap().whole_pages(), None);
        assert_eq!(read(2, &[header(0x1000, 0), 4, header(0x1000, 0), 9]).unwrap().whole_pages(), None);
    }

    proptest! {
        #[test]
        fn any_description_is_read_or_refused(count: u32, values in vec(any::<u64>(), 0..40)) {
            let mut ranges = Ranges::default();
            if ranges.read(count, values.iter().copied()).is_err() {
                prop_assert_eq!(ranges, Ranges::default());
            }
        }

        #[test]
        fn segments_cover_exactly_what_was_asked(
            lens in vec((1u32..20_000, 0u32..4096), 1..6), start in 0u64..50_000, bytes in 0u64..50_000
        ) {
            let mut values = Vec::new();
            let mut page = 100;
            for (len, offset) in &lens {
                values.push(header(*len, *offset));
                for _ in 0..(len + offset).div_ceil(PAGE_BYTES) {
                    page += 1 + u64::from(page % 3 == 0);
                    values.push(page);
                }
            }
            let ranges = read(u32::try_from(lens.len()).unwrap(), &values).unwrap();
            let total: u64 = ranges.segments(start, bytes).iter().map(|s| u64::from(s.bytes)).sum();
            prop_assert_eq!(total, bytes.min(ranges.bytes().saturating_sub(start)));
        }
    }
}
