//! The bytes of every body: byte `i` is `b'a' + i % 26`.
//!
//! Both ends know them, so that a body can be checked whole, at the price of
//! one `memcmp`, and sent without being built.

use std::sync::LazyLock;

/// After so many bytes the pattern repeats.
const PERIOD: usize = 26;
/// The most that [`from`] gives at once. A multiple of the period.
const CHUNK: usize = PERIOD * 10_000;

/// One period longer than a chunk: a chunk may begin anywhere in a period.
static BUFFER: LazyLock<&'static [u8]> = LazyLock::new(|| {
    let bytes: Vec<u8> = (b'a'..=b'z').cycle().take(CHUNK + PERIOD).collect();
    bytes.leak()
});

/// The pattern from byte `offset` of a body on: `want` bytes, or as many as
/// there are at hand (at least 260,000).
pub fn from(offset: u64, want: u64) -> &'static [u8] {
    // Less than the period, so it fits.
    let start = (offset % PERIOD as u64) as usize;
    let length = usize::try_from(want).unwrap_or(usize::MAX).min(CHUNK);
    &BUFFER[start..start + length]
}

/// Whether `bytes`, found at byte `offset` of a body, are what belongs there.
pub fn matches(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let expected = from(offset, bytes.len() as u64);
        let (now, later) = bytes.split_at(expected.len());
        if now != expected {
            return false;
        }
        offset += now.len() as u64;
        bytes = later;
    }
    true
}

/// The first `length` bytes.
pub fn prefix(length: u64) -> impl Iterator<Item = &'static [u8]> {
    let mut sent = 0;
    std::iter::from_fn(move || {
        let chunk = from(sent, length - sent);
        sent += chunk.len() as u64;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_a_body_is_known() {
        let length = 2 * CHUNK as u64 + 77;
        let body: Vec<u8> = prefix(length).flatten().copied().collect();
        assert_eq!(body.len() as u64, length);
        assert!(body.iter().enumerate().all(|(i, byte)| *byte == b'a' + (i % 26) as u8));
        for (start, end) in [(0, 0), (0, body.len()), (25, 27), (13, CHUNK + 40)] {
            assert!(matches(start as u64, &body[start..end]), "{start}..{end}");
        }
    }

    #[test]
    fn one_wrong_byte_is_seen() {
        let mut body: Vec<u8> = prefix(2 * CHUNK as u64).flatten().copied().collect();
        *body.last_mut().unwrap() ^= 1;
        assert!(!matches(0, &body));
        assert!(!matches(1, b"a"));
    }
}
