//! Trace and span ids. Zero means "none" on the wire, so none here is zero.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};
use std::str::FromStr;

/// Why a text is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not an id: {digits} lower-case hexadecimal digits, not all zero")]
pub struct InvalidId {
    digits: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $nonzero:ty, $uint:ident, $bytes:literal, $digits:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(super) $nonzero);

        impl $name {
            /// A new random one. Unique, not secret.
            #[must_use]
            pub fn random() -> Self {
                loop {
                    if let Some(id) = <$nonzero>::new(fastrand::$uint(..)) {
                        return Self(id);
                    }
                }
            }

            /// Big-endian, as OTLP carries it; `None` when all are zero.
            #[must_use]
            pub fn from_bytes(bytes: [u8; $bytes]) -> Option<Self> {
                <$nonzero>::new($uint::from_be_bytes(bytes)).map(Self)
            }

            /// Big-endian, as OTLP carries it.
            #[must_use]
            pub fn to_bytes(self) -> [u8; $bytes] {
                self.0.get().to_be_bytes()
            }

            /// From lower-case hexadecimal digits.
            pub(super) fn from_hex(digits: &[u8]) -> Option<Self> {
                if digits.len() != $digits {
                    return None;
                }
                <$nonzero>::new(hex(digits)? as $uint).map(Self)
            }

            /// Writes lower-case hexadecimal digits to the front of `out`.
            #[inline]
            pub(super) fn write_hex(self, out: &mut [u8]) {
                for (pair, byte) in out.chunks_exact_mut(2).zip(self.to_bytes()) {
                    pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::from_hex(text.as_bytes()).ok_or(InvalidId { digits: $digits })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:0width$x}", self.0, width = $digits)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// The trace that a span is part of: 16 bytes, written as 32 digits.
    TraceId, NonZeroU128, u128, 16, 32
);
id!(
    /// One span of a trace: 8 bytes, written as 16 digits.
    SpanId, NonZeroU64, u64, 8, 16
);

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Up to 32 lower-case hexadecimal digits; W3C allows no other.
pub(super) fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}
