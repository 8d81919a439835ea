//! Addresses that cannot be confused with each other.
//!
//! [`Hpa`] is what the processor puts on the bus, [`Gpa`] what a partition believes it does. Neither converts into the
//! other without the table that says how.

use core::fmt;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in the smallest page.
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Returns the address of the first byte of page number `page`; high bits are lost as in hardware.
            pub const fn from_page(page: u64) -> Self {
                Self(page << PAGE_SHIFT)
            }

            /// Returns the number of the page that holds this byte.
            pub const fn page(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// Returns the byte's offset in its page.
            pub const fn offset(self) -> usize {
                self.0 as usize & (PAGE_SIZE - 1)
            }

            /// Returns the address of the first byte of the page that holds this byte.
            pub const fn align_down(self) -> Self {
                Self::from_page(self.page())
            }

            /// Returns the address `bytes` further on, or nothing where that passes 2^64.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A host-physical address (the TLFS's system physical address).
    Hpa
}
address! {
    /// A guest-physical address of some partition.
    Gpa
}
#[cfg(test)]
mod tests {
    use super::{Gpa, Hpa};

    #[test]
    fn an_address_is_its_page_and_its_offset() {
        let a = Hpa(0x1234_5678);
        assert_eq!((a.page(), a.offset()), (0x12345, 0x678));
        assert_eq!(a.align_down(), Hpa::from_page(0x12345));
        assert_eq!(a.align_down().offset(), 0);
    }

    #[test]
    fn an_address_sum_never_wraps() {
        assert_eq!(Gpa(1).checked_add(u64::MAX), None);
        assert_eq!(Gpa(1).checked_add(2), Some(Gpa(3)));
    }

    #[test]
    fn addresses_print_in_hexadecimal() {
        assert_eq!(std::format!("{:?}", Gpa(0x1000)), "0x1000");
    }
}
