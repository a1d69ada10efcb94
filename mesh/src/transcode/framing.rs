//! gRPC's length-prefixed messages (gRPC over HTTP/2, "Length-Prefixed-Message").

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// What gRPC implementations accept unless told otherwise: 4 MiB.
pub const DEFAULT_MAX_MESSAGE: usize = 4 * 1024 * 1024;

const PREFIX: usize = 5;

/// Why bytes are no sequence of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than allowed: RESOURCE_EXHAUSTED.
    #[error("a message of {length} bytes is above the limit of {max}")]
    TooLong {
        /// As its prefix says.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// Compressed, though no encoding was agreed on: INTERNAL.
    #[error("a message is compressed, which was not asked for")]
    Compressed,
    /// A flag that gRPC does not define: INTERNAL.
    #[error("a message begins with {0:#04x}, which is no gRPC flag")]
    Flag(u8),
    /// The stream ended within a message: INTERNAL.
    #[error("the stream ended within a message")]
    Truncated,
}

impl FrameError {
    /// The gRPC status code for it.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::TooLong { .. } => 8,
            Self::Compressed | Self::Flag(_) | Self::Truncated => 13,
        }
    }
}

/// Puts gRPC's five-byte prefix before an uncompressed message.
///
/// A message of 4 GiB or more cannot be framed; no limit here lets one come up.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + message.len());
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// Takes messages out of a stream of chunks, however they were cut.
#[derive(Debug)]
pub struct Deframer {
    buffer: BytesMut,
    max: usize,
}

impl Default for Deframer {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_MESSAGE)
    }
}

impl Deframer {
    /// Refuses messages of more than `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), max }
    }

    /// Adds what came. A chunk that nobody else holds is not copied when nothing
    /// waits.
    pub fn push(&mut self, chunk: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = chunk.try_into_mut().unwrap_or_else(|chunk| chunk.as_ref().into());
        } else {
            self.buffer.extend_from_slice(&chunk);
        }
    }

    /// The next message, or none until more is pushed.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no more use then.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(&[flag, a, b, c, d]) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        match flag {
            0 => {}
            1 => return Err(FrameError::Compressed),
            other => return Err(FrameError::Flag(other)),
        }
        let length = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.max {
            return Err(FrameError::TooLong { length, max: self.max });
        }
        if self.buffer.len() < PREFIX + length {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when a message has only come in part.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_and_flags() {
        let mut frames = Deframer::new(3);
        frames.push(frame(b"four"));
        assert_eq!(frames.next_message(), Err(FrameError::TooLong { length: 4, max: 3 }));
        let mut frames = Deframer::default();
        frames.push(Bytes::from_static(&[1, 0, 0, 0, 0]));
        assert_eq!(frames.next_message(), Err(FrameError::Compressed));
        let mut frames = Deframer::default();
        frames.push(Bytes::from_static(&[0, 0, 0, 0, 2, 7]));
        assert_eq!(frames.next_message(), Ok(None));
        assert_eq!(frames.finish(), Err(FrameError::Truncated));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
            size in 1usize..20,
        ) {
            let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m)).collect();
            let mut frames = Deframer::default();
            let mut seen = Vec::new();
            for chunk in wire.chunks(size) {
                frames.push(Bytes::copy_from_slice(chunk));
                while let Some(message) = frames.next_message().unwrap() {
                    seen.push(message.to_vec());
                }
            }
            prop_assert_eq!(frames.finish(), Ok(()));
            prop_assert_eq!(seen, messages);
        }
    }
}
