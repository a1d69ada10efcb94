//! What is spoken to Redis: RESP2 (the Redis serialization protocol), as much of
//! it as our few commands need. Anything else ends the connection.

use bytes::{Buf as _, BytesMut};

/// Of a line: errors are the longest.
const LINE: usize = 4096;
/// Of a piece of text; we ask for none that is long.
const BULK: usize = 4096;
/// Of a list.
const ITEMS: usize = 16;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-NOSCRIPT ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3`, or nothing.
    Bulk(Option<Vec<u8>>),
    /// `*4` of integers.
    Integers(Vec<i64>),
}

/// What came is not of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not what a Redis server says: {0}")]
pub struct Malformed(&'static str);

/// Writes a command: a list of texts.
pub fn command(out: &mut BytesMut, parts: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        out.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Takes one answer off `input`. None when more has to come.
///
/// # Errors
/// [`Malformed`]: nothing that follows can be understood.
pub fn parse(input: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
    let Some((reply, length)) = read(input)? else { return Ok(None) };
    input.advance(length);
    Ok(Some(reply))
}

/// An answer and its length.
fn read(input: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let Some((line, length)) = line(input)? else { return Ok(None) };
    let text = || String::from_utf8_lossy(&line[1..]).into_owned();
    let reply = match line[0] {
        b'+' => Reply::Simple(text()),
        b'-' => Reply::Error(text()),
        b':' => Reply::Integer(number(&line[1..])?),
        b'$' => return bulk(number(&line[1..])?, input, length),
        b'*' => return integers(number(&line[1..])?, input, length),
        _ => return Err(Malformed("no type is known by its first byte")),
    };
    Ok(Some((reply, length)))
}

/// The line without its end, never empty, and its length with it.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let Some(end) = memchr(input) else {
        return if input.len() > LINE { Err(Malformed("a line is too long")) } else { Ok(None) };
    };
    match &input[..end] {
        [line @ .., b'\r'] if !line.is_empty() && line.len() <= LINE => Ok(Some((line, end + 1))),
        _ => Err(Malformed("a line is empty, too long or does not end in CR LF")),
    }
}

fn memchr(input: &[u8]) -> Option<usize> {
    input.iter().take(LINE + 2).position(|byte| *byte == b'\n')
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    let plain = digits.strip_prefix(b"-").unwrap_or(digits);
    let strict = !plain.is_empty() && plain.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok().filter(|_| strict);
    text.and_then(|text| text.parse().ok()).ok_or(Malformed("a number is none"))
}

fn bulk(size: i64, input: &[u8], at: usize) -> Result<Option<(Reply, usize)>, Malformed> {
    if size == -1 {
        return Ok(Some((Reply::Bulk(None), at)));
    }
    let size = usize::try_from(size).ok().filter(|size| *size <= BULK);
    let size = size.ok_or(Malformed("a text is too long"))?;
    match input.get(at..at + size + 2) {
        None => Ok(None),
        Some([text @ .., b'\r', b'\n']) => {
            Ok(Some((Reply::Bulk(Some(text.to_vec())), at + size + 2)))
        }
        Some(_) => Err(Malformed("a text is longer than it says")),
    }
}

fn integers(count: i64, input: &[u8], mut at: usize) -> Result<Option<(Reply, usize)>, Malformed> {
    let count = usize::try_from(count).ok().filter(|count| *count <= ITEMS);
    let count = count.ok_or(Malformed("a list is too long"))?;
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((line, length)) = line(&input[at..])? else { return Ok(None) };
        let [b':', digits @ ..] = line else {
            return Err(Malformed("a list has something else than numbers"));
        };
        all.push(number(digits)?);
        at += length;
    }
    Ok(Some((Reply::Integers(all), at)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(reply: &Reply) -> Vec<u8> {
        match reply {
            Reply::Simple(text) => format!("+{text}\r\n").into_bytes(),
            Reply::Error(text) => format!("-{text}\r\n").into_bytes(),
            Reply::Integer(number) => format!(":{number}\r\n").into_bytes(),
            Reply::Bulk(None) => b"$-1\r\n".to_vec(),
            Reply::Bulk(Some(text)) => {
                [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
            }
            Reply::Integers(all) => {
                let items: String = all.iter().map(|number| format!(":{number}\r\n")).collect();
                format!("*{}\r\n{items}", all.len()).into_bytes()
            }
        }
    }

    fn replies() -> impl Strategy<Value = Reply> {
        prop_oneof![
            "[ -~]{0,30}".prop_map(Reply::Simple),
            "[A-Z]{1,8} [ -~]{0,30}".prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Integer),
            Just(Reply::Bulk(None)),
            prop::collection::vec(any::<u8>(), 0..50).prop_map(|text| Reply::Bulk(Some(text))),
            prop::collection::vec(any::<i64>(), 0..ITEMS).prop_map(Reply::Integers),
        ]
    }

    proptest! {
        /// However the bytes are cut.
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec(replies(), 0..8), cut in 1usize..9) {
            let bytes: Vec<u8> = all.iter().flat_map(printed).collect();
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                input.extend_from_slice(piece);
                while let Some(reply) = parse(&mut input).unwrap() {
                    found.push(reply);
                }
            }
            prop_assert_eq!(found, all);
            prop_assert!(input.is_empty());
        }

        /// Never a panic, and never an endless wait on what is already too long.
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = parse(&mut input) {}
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for wrong in [
            "?\r\n",
            "\r\n",
            "+OK\n",
            ":1a\r\n",
            ":\r\n",
            ":+1\r\n",
            "$-2\r\n",
            "$9999999\r\n",
            "$2\r\nabcd",
            "*17\r\n",
            "*-1\r\n",
            "*1\r\n$1\r\n",
            ":99999999999999999999\r\n",
        ] {
            assert!(parse(&mut BytesMut::from(wrong)).is_err(), "{wrong:?}");
        }
        let long = "+".repeat(LINE + 3);
        assert!(parse(&mut BytesMut::from(&*long)).is_err());
        for part in ["", "+OK", "+OK\r", "$3\r\nab", "*2\r\n:1\r\n"] {
            assert_eq!(parse(&mut BytesMut::from(part)), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn commands_are_lists_of_texts() {
        let mut out = BytesMut::new();
        command(&mut out, &[b"AUTH", b"a\r\nb"]);
        assert_eq!(&out[..], b"*2\r\n$4\r\nAUTH\r\n$4\r\na\r\nb\r\n");
    }
}
