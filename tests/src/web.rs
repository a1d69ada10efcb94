//! gRPC frames by hand, as gRPC-Web clients make them.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;

/// One message in a frame.
#[must_use]
pub fn frame(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).expect("a small message");
    [&[0], length.to_be_bytes().as_slice(), &body].concat()
}

/// The messages of a gRPC-Web body, and its trailers.
///
/// # Panics
/// When it is cut off or has no trailers.
#[must_use]
pub fn read<M: Message + Default>(body: &[u8]) -> (Vec<M>, HashMap<String, String>) {
    let mut rest = Bytes::copy_from_slice(body);
    let mut messages = Vec::new();
    while rest.len() >= 5 {
        let head = rest.split_to(5);
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        assert!(rest.len() >= length, "cut off: {} of {length} bytes", rest.len());
        let part = rest.split_to(length);
        if head[0] & 0x80 == 0 {
            messages.push(M::decode(part).unwrap());
            continue;
        }
        assert!(rest.is_empty(), "something comes after the trailers");
        let text = String::from_utf8(part.to_vec()).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        let trailers = pairs.map(|(name, value)| (name.trim().into(), value.trim().into()));
        return (messages, trailers.collect());
    }
    panic!("no trailers in {body:?}");
}
