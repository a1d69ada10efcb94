//! The name that a TLS client asks for, read from its ClientHello (RFC 8446
//! §4.1.2) without taking part in the handshake.

/// Bytes of records that a ClientHello may take.
pub const LIMIT: usize = 64 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;
const HOST_NAME: u8 = 0;
/// RFC 8446 §5.1: a plaintext record.
const RECORD: usize = 1 << 14;

/// `unrecognized_name` (RFC 6066 §3), fatal, as a record.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// `access_denied` (RFC 8446 §6.2), fatal, as a record.
pub const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// What the bytes so far say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello<T> {
    /// More must come.
    Part,
    /// A whole ClientHello, and what was asked about it.
    Whole(T),
    /// Something else.
    Other,
}

/// Reads what a client sent first: the server name in lower case, if it has one that
/// could be a host's.
#[must_use]
pub fn parse(bytes: &[u8]) -> Hello<Option<String>> {
    read(bytes, server_name)
}

/// Whether a client offers this protocol (ALPN, RFC 7301).
#[must_use]
pub fn offers(bytes: &[u8], protocol: &[u8]) -> Hello<bool> {
    read(bytes, |body| has_protocol(body, protocol))
}

/// `of` reads the body of the ClientHello; none when that is malformed.
fn read<T>(bytes: &[u8], of: impl Fn(&[u8]) -> Option<T>) -> Hello<T> {
    // A ClientHello may be cut into records anywhere.
    let mut message = Vec::new();
    let mut rest = Reader(bytes);
    loop {
        if let Some(length) = message_length(&message)
            && message.len() >= length
        {
            return match of(&message[4..length]) {
                Some(said) => Hello::Whole(said),
                None => Hello::Other,
            };
        }
        let head = rest.0;
        let wrong = head.first().is_some_and(|kind| *kind != HANDSHAKE)
            || head.get(1).is_some_and(|major| *major != 3)
            || message.first().is_some_and(|kind| *kind != CLIENT_HELLO);
        if wrong {
            return Hello::Other;
        }
        let Some(length) = rest.skip(3).and_then(|()| rest.u16()) else { return Hello::Part };
        let length = usize::from(length);
        if length == 0 || length > RECORD {
            return Hello::Other;
        }
        let there = rest.0.len().min(length);
        message.extend_from_slice(&rest.0[..there]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Hello::Other;
        }
        if there < length {
            // What has come of the record may be all that matters already.
            if message_length(&message).is_some_and(|wanted| message.len() >= wanted) {
                rest = Reader(&[]);
                continue;
            }
            return Hello::Part;
        }
        rest = Reader(&rest.0[there..]);
    }
}

/// Of a handshake message with its head, once that is there.
fn message_length(message: &[u8]) -> Option<usize> {
    match message {
        [_, a, b, c, ..] => {
            Some(4 + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)))
        }
        _ => None,
    }
}

/// The extensions of a ClientHello's body. None when it is malformed.
fn extensions(body: &[u8]) -> Option<Reader<'_>> {
    let mut body = Reader(body);
    body.skip(2 + 32)?;
    let session = body.u8()?;
    body.skip(session.into())?;
    let suites = body.u16()?;
    body.skip(suites.into())?;
    let compressions = body.u8()?;
    body.skip(compressions.into())?;
    if body.0.is_empty() {
        // Before TLS 1.2 extensions could be left out.
        return Some(Reader(&[]));
    }
    let extensions = body.u16()?;
    body.take(extensions.into()).map(Reader)
}

fn has_protocol(body: &[u8], protocol: &[u8]) -> Option<bool> {
    let mut extensions = extensions(body)?;
    let mut found = false;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let mut content = Reader(extensions.take(length.into())?);
        if kind == PROTOCOLS {
            content.skip(2)?;
            while !content.0.is_empty() {
                let length = content.u8()?;
                found |= content.take(length.into())? == protocol;
            }
        }
    }
    Some(found)
}

/// The server name of a ClientHello's body. None when it is malformed. What is not
/// known (GREASE, encrypted ClientHello) is passed over.
fn server_name(body: &[u8]) -> Option<Option<String>> {
    let mut extensions = extensions(body)?;
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let length = extensions.u16()?;
        let content = extensions.take(length.into())?;
        if kind == SERVER_NAME {
            // RFC 8446 §4.2: not twice. Two could mean one thing to us and
            // another to the server.
            if found.is_some() {
                return None;
            }
            found = Some(host_name(content)?);
        }
    }
    Some(found.flatten())
}

fn host_name(content: &[u8]) -> Option<Option<String>> {
    let mut content = Reader(content);
    let length = content.u16()?;
    let mut list = Reader(content.take(length.into())?);
    let mut found = None;
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let length = list.u16()?;
        let name = list.take(length.into())?;
        if kind == HOST_NAME {
            if found.is_some() {
                return None;
            }
            found = Some(name);
        }
    }
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    Some(found.and_then(|name| {
        let name = name.strip_suffix(b".").unwrap_or(name);
        let good = !name.is_empty() && name.len() <= 253 && name.iter().all(allowed);
        good.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
    }))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(|_| ())
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend((content.len() as u16).to_be_bytes());
        out.extend(content);
        out
    }

    fn sni(name: &str) -> Vec<u8> {
        let mut entry = vec![HOST_NAME];
        entry.extend((name.len() as u16).to_be_bytes());
        entry.extend(name.as_bytes());
        let mut list = (entry.len() as u16).to_be_bytes().to_vec();
        list.extend(entry);
        extension(SERVER_NAME, &list)
    }

    /// A handshake message with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let extensions = extensions.concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(32);
        body.extend([9; 32]);
        body.extend([0, 4, 0x0a, 0x0a, 0x13, 0x01]);
        body.extend([1, 0]);
        body.extend((extensions.len() as u16).to_be_bytes());
        body.extend(extensions);
        let mut message = vec![CLIENT_HELLO];
        message.extend(&(body.len() as u32).to_be_bytes()[1..]);
        message.extend(body);
        message
    }

    /// As records of at most `size` bytes each.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let mut out = vec![HANDSHAKE, 3, 1];
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
            out
        };
        message.chunks(size).flat_map(record).collect()
    }

    fn grease() -> Vec<Vec<u8>> {
        // GREASE, encrypted_client_hello, padding.
        vec![extension(0x2a2a, &[]), extension(0xfe0d, &[0; 200]), extension(21, &[0; 300])]
    }

    #[test]
    fn the_name_is_found_among_what_is_not_known() {
        let mut extensions = grease();
        extensions.insert(1, sni("API.Example.com"));
        let bytes = records(&hello(&extensions), RECORD);
        assert_eq!(parse(&bytes), Hello::Whole(Some("api.example.com".into())));
        assert_eq!(parse(&records(&hello(&grease()), RECORD)), Hello::Whole(None));
    }

    #[test]
    fn a_protocol_is_found_among_others() {
        let protocols = extension(PROTOCOLS, b"\0\x0a\x02h2\x06weir/1");
        let bytes = records(&hello(&[grease(), vec![protocols]].concat()), 50);
        assert_eq!(offers(&bytes, b"weir/1"), Hello::Whole(true));
        assert_eq!(offers(&bytes, b"weir"), Hello::Whole(false));
        assert_eq!(offers(&bytes[..90], b"weir/1"), Hello::Part);
        assert_eq!(offers(&records(&hello(&grease()), RECORD), b"weir/1"), Hello::Whole(false));
    }

    #[test]
    fn two_names_are_none() {
        let twice = hello(&[sni("a.example.com"), sni("b.example.com")]);
        assert_eq!(parse(&records(&twice, RECORD)), Hello::Other);
    }

    #[test]
    fn what_is_no_hello_is_told_at_once() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-", &[22, 2], &[22, 3, 1, 0, 4, 2]] {
            assert_eq!(parse(other), Hello::Other, "{other:?}");
        }
        for part in [&[][..], &[22], &[22, 3, 1, 0], &[22, 3, 1, 0, 4, 1]] {
            assert_eq!(parse(part), Hello::Part, "{part:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_it_is_cut(size in 1..700_usize) {
            let mut extensions = grease();
            extensions.push(sni("a.example.com"));
            let bytes = records(&hello(&extensions), size);
            for end in 0..bytes.len() {
                prop_assert_eq!(parse(&bytes[..end]), Hello::Part);
            }
            prop_assert_eq!(parse(&bytes), Hello::Whole(Some("a.example.com".into())));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = parse(&bytes);
            let _ = parse(&records(&bytes, 50));
            let _ = offers(&records(&bytes, 50), b"h2");
            let mut message = vec![CLIENT_HELLO, 0, 0, bytes.len() as u8];
            message.extend(bytes);
            let _ = parse(&records(&message, 90));
        }
    }
}
