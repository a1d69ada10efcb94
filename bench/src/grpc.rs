//! gRPC's frame of a message: one byte for compression, four for the length.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::pattern;

const PREFIX: usize = 5;

/// A message whose payload is the pattern's first `length` bytes.
pub fn message(length: u32) -> Bytes {
    let mut message = BytesMut::with_capacity(PREFIX + length as usize);
    message.put_u8(0);
    message.put_u32(length);
    pattern::prefix(length.into()).for_each(|piece| message.put_slice(piece));
    message.freeze()
}

/// Checks a stream of such messages, in whatever pieces it comes.
pub struct Messages {
    /// Of every payload, if it is known.
    length: Option<u32>,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are here.
    got: usize,
    /// Bytes of the payload that are here.
    offset: u64,
    count: u64,
}

impl Messages {
    /// Each payload must be `length` bytes long, if that is given.
    pub fn new(length: Option<u32>) -> Self {
        Self { length, prefix: [0; PREFIX], got: 0, offset: 0, count: 0 }
    }

    /// Checks the next bytes.
    ///
    /// # Errors
    /// What is wrong, by the name under which it is counted.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while !bytes.is_empty() {
            if self.got < PREFIX {
                let (now, later) = bytes.split_at(bytes.len().min(PREFIX - self.got));
                self.prefix[self.got..self.got + now.len()].copy_from_slice(now);
                self.got += now.len();
                bytes = later;
                if self.got == PREFIX {
                    self.check_prefix()?;
                }
            } else {
                let left = u64::from(self.declared()) - self.offset;
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let (now, later) = bytes.split_at(bytes.len().min(left));
                if !pattern::matches(self.offset, now) {
                    return Err("body differs");
                }
                self.offset += now.len() as u64;
                bytes = later;
            }
            self.finish_message();
        }
        Ok(())
    }

    /// Whole messages so far; nothing if one is cut off.
    pub fn whole(&self) -> Option<u64> {
        (self.got == 0).then_some(self.count)
    }

    fn declared(&self) -> u32 {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length)
    }

    fn check_prefix(&self) -> Result<(), &'static str> {
        if self.prefix[0] != 0 {
            return Err("compressed message");
        }
        match self.length {
            Some(length) if length != self.declared() => Err("message length"),
            _ => Ok(()),
        }
    }

    fn finish_message(&mut self) {
        if self.got == PREFIX && self.offset == u64::from(self.declared()) {
            (self.got, self.offset) = (0, 0);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut(
            length in 0_u32..200,
            count in 0_u64..5,
            piece in 1_usize..64,
        ) {
            let all = message(length).repeat(count as usize);
            let mut messages = Messages::new(Some(length));
            for piece in all.chunks(piece) {
                messages.feed(piece).unwrap();
            }
            prop_assert_eq!(messages.whole(), Some(count));
        }

        #[test]
        fn any_other_byte_is_seen(length in 1_u32..200, at in 0_usize..205) {
            let mut all = message(length).to_vec();
            let at = at % all.len();
            all[at] ^= 1;
            let mut messages = Messages::new(Some(length));
            let fed = messages.feed(&all);
            prop_assert!(fed.is_err());
        }
    }

    #[test]
    fn half_a_message_is_none() {
        let mut messages = Messages::new(None);
        messages.feed(&message(9)[..8]).unwrap();
        assert_eq!(messages.whole(), None);
    }
}
