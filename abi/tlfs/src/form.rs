//! The macros that give every item of the interface its form and its checks.

/// Defines a wire structure: `struct Name: size { offset => field: Type, ... }`.
///
/// Size and offsets are asserted when compiled; zerocopy's `IntoBytes` refuses implicit padding.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident: $size:literal {
            $( $(#[$field_meta:meta])* $offset:literal => $field:ident: $type:ty, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(C)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $name {
            /// All bytes zero.
            pub const ZEROED: Self = zerocopy::transmute!([0u8; $size]);
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ZEROED
            }
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            $( assert!(core::mem::offset_of!($name, $field) == $offset); )*
        };
    )* };
}

/// Defines an open enumeration: a number with named values, which `Debug` prints by name.
macro_rules! open_enum {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident($raw:ident) {
            $( $(#[$value_meta:meta])* $value:ident = $number:literal, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            $( $(#[$value_meta])* pub const $value: Self = Self($number); )*

            /// Every named value, in the order of definition.
            pub const NAMED: &'static [Self] = &[$( Self($number), )*];

            /// The name of the value, if it has one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $number => Some(stringify!($value)), )*
                    _ => None,
                }
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                }
            }
        }
    )* };
}

/// Defines a set of independent bits: `struct Name(word) { BIT = mask, ... }`.
macro_rules! flag_set {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident($raw:ident) {
            $( $(#[$bit_meta:meta])* $bit:ident = $mask:expr, )*
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        #[repr(transparent)]
        pub struct $name(pub $raw);

        impl $name {
            $( $(#[$bit_meta])* pub const $bit: Self = Self($mask); )*

            /// No bit set.
            pub const NONE: Self = Self(0);
            /// Every bit that has a name.
            pub const NAMED: Self = Self(0 $( | $mask )*);

            /// Whether every bit of `other` is set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether at least one bit of `other` is set.
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The bits of either; `|` in constant expressions.
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// These bits if `condition` holds, and none otherwise.
            #[must_use]
            pub const fn when(self, condition: bool) -> Self {
                if condition { self } else { Self::NONE }
            }

            /// The bits that are not in `other`.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }

        impl core::ops::BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x}"), self.0)?;
                $( if self.contains(Self::$bit) {
                    f.write_str(concat!(" ", stringify!($bit)))?;
                } )*
                f.write_str(")")
            }
        }
    )* };
}

/// Defines a word of bit fields on top of `bitfield-struct`, with the traits a wire field needs.
macro_rules! bit_word {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident($raw:ident) { $($body:tt)* }
    )*) => { $(
        $(#[$meta])*
        #[bitfield_struct::bitfield($raw)]
        #[derive(PartialEq, Eq)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        pub struct $name { $($body)* }
    )* };
}
