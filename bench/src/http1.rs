//! As much of HTTP/1.1 (RFC 9112) as a load generator and its upstream need.
//!
//! Nothing is copied: a head is read out of the buffer that it arrived in, and
//! a body is handed on in the pieces that came.

use memchr::memchr;

/// Heads are refused when they are longer, in bytes.
pub const MAX_HEAD: usize = 64 * 1024;

/// What cannot be HTTP/1.1, by the name under which it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By its length in bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection. Only for answers.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// 200 to 999; 1xx too, after which another head follows.
    pub status: u16,
    /// Of the body that follows.
    pub framing: Framing,
    /// Whether another request may follow on this connection.
    pub keep_alive: bool,
    /// `x-upstream`: who answered.
    pub upstream: Option<&'a [u8]>,
    /// Of the head, in bytes, its empty line included.
    pub length: usize,
}

/// The head of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a [u8],
    /// The path with its query, as it came.
    pub path: &'a [u8],
    /// Of the body that follows.
    pub framing: Framing,
    /// Whether the client wants to keep the connection.
    pub keep_alive: bool,
    /// `expect: 100-continue`.
    pub expects_continue: bool,
    /// Of the head, in bytes, its empty line included.
    pub length: usize,
}

/// What headers of either direction say about the message.
#[derive(Default)]
struct Fields<'a> {
    content_length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    upstream: Option<&'a [u8]>,
}

/// Reads the head at the start of `input`, or nothing while it is not whole.
///
/// # Errors
/// When it is none, or longer than [`MAX_HEAD`].
pub fn response(input: &[u8]) -> Result<Option<Response<'_>>, Malformed> {
    let Some((first, rest)) = line(input) else { return too_long(input) };
    let (version, after) = version(first)?;
    let status = after
        .strip_prefix(b" ")
        .and_then(|after| after.get(..3))
        .and_then(|digits| number(digits, 10))
        .filter(|status| *status >= 100)
        .ok_or(Malformed("bad status line"))? as u16;
    let Some((fields, length)) = fields(input, rest)? else { return too_long(input) };
    let framing = match (fields.chunked, fields.content_length) {
        _ if status < 200 || status == 204 || status == 304 => Framing::Length(0),
        (true, _) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::UntilClose,
    };
    let keep_alive = stays(version, &fields) && framing != Framing::UntilClose;
    Ok(Some(Response { status, framing, keep_alive, upstream: fields.upstream, length }))
}

/// Reads the head at the start of `input`, or nothing while it is not whole.
///
/// # Errors
/// When it is none, or longer than [`MAX_HEAD`].
pub fn request(input: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    let Some((first, rest)) = line(input) else { return too_long(input) };
    let mut words = first.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(path), Some(last)) = (words.next(), words.next(), words.next()) else {
        return Err(Malformed("bad request line"));
    };
    let (version, after) = version(last)?;
    if !after.is_empty() {
        return Err(Malformed("bad request line"));
    }
    let Some((fields, length)) = fields(input, rest)? else { return too_long(input) };
    let framing = match (fields.chunked, fields.content_length) {
        (true, _) => Framing::Chunked,
        (false, length) => Framing::Length(length.unwrap_or(0)),
    };
    let keep_alive = stays(version, &fields);
    let expects_continue = fields.expects_continue;
    Ok(Some(Request { method, path, framing, keep_alive, expects_continue, length }))
}

fn too_long<T>(input: &[u8]) -> Result<Option<T>, Malformed> {
    if input.len() > MAX_HEAD { Err(Malformed("head too long")) } else { Ok(None) }
}

/// The first line without its end, and what follows it.
fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr(b'\n', input)?;
    let line = &input[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &input[end + 1..]))
}

/// The minor version, and what follows it.
fn version(input: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    match input.strip_prefix(b"HTTP/1.") {
        Some([minor @ b'0'..=b'1', rest @ ..]) => Ok((*minor - b'0', rest)),
        _ => Err(Malformed("bad version")),
    }
}

fn stays(version: u8, fields: &Fields<'_>) -> bool {
    if version == 0 { fields.keep_alive } else { !fields.close }
}

/// Reads headers up to the empty line; `all` is where the head begins.
fn fields<'a>(all: &'a [u8], mut rest: &'a [u8]) -> Result<Option<(Fields<'a>, usize)>, Malformed> {
    let mut fields = Fields::default();
    loop {
        let Some((header, after)) = line(rest) else { return Ok(None) };
        rest = after;
        if header.is_empty() {
            return Ok(Some((fields, all.len() - rest.len())));
        }
        let colon = memchr(b':', header).ok_or(Malformed("bad header"))?;
        field(&mut fields, &header[..colon], header[colon + 1..].trim_ascii())?;
    }
}

fn field<'a>(fields: &mut Fields<'a>, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
    match name.len() {
        6 if name.eq_ignore_ascii_case(b"expect") => {
            fields.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
        10 if name.eq_ignore_ascii_case(b"x-upstream") => fields.upstream = Some(value),
        10 if name.eq_ignore_ascii_case(b"connection") => {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                fields.close |= option.eq_ignore_ascii_case(b"close");
                fields.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let length = number(value, 10).ok_or(Malformed("bad content-length"))?;
            if fields.content_length.is_some_and(|before| before != length) {
                return Err(Malformed("two content-lengths"));
            }
            fields.content_length = Some(length);
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("unknown transfer-encoding"));
            }
            fields.chunked = true;
        }
        _ => {}
    }
    Ok(())
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))
    })
}

/// Reads one body.
#[derive(Debug)]
pub struct Body(State);

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes of data, then the end.
    Length(u64),
    /// Data until the connection ends.
    UntilClose,
    /// The line that begins a chunk.
    Size,
    /// So many bytes of this chunk.
    Chunk(u64),
    /// The end of line after a chunk's data.
    ChunkEnd,
    /// Lines after the last chunk, up to the empty one.
    Trailers,
    Done,
}

/// What a step of [`Body::next`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Data, never empty.
    Data(&'a [u8]),
    /// Nothing more can be read from this input.
    More,
    /// The body is whole.
    End,
}

impl Body {
    /// A body that follows a head with this framing.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Whether the end of the connection here is the end of the body.
    pub fn may_end_here(&self) -> bool {
        matches!(self.0, State::UntilClose | State::Done | State::Length(0))
    }

    /// The next piece of `input`, and how many bytes of `input` are done with.
    /// After [`Piece::More`], what was not done with must come again, with
    /// more behind it.
    ///
    /// # Errors
    /// When chunks are not as they must be.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<(Piece<'a>, usize), Malformed> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let data =
                |left: u64| &rest[..usize::try_from(left).unwrap_or(usize::MAX).min(rest.len())];
            match self.0 {
                State::Done | State::Length(0) => return Ok((Piece::End, used)),
                State::Chunk(0) => self.0 = State::ChunkEnd,
                _ if rest.is_empty() => return Ok((Piece::More, used)),
                State::Length(left) => {
                    let data = data(left);
                    self.0 = State::Length(left - data.len() as u64);
                    return Ok((Piece::Data(data), used + data.len()));
                }
                State::UntilClose => return Ok((Piece::Data(rest), input.len())),
                State::Chunk(left) => {
                    let data = data(left);
                    self.0 = State::Chunk(left - data.len() as u64);
                    return Ok((Piece::Data(data), used + data.len()));
                }
                State::Size | State::ChunkEnd | State::Trailers => {
                    let Some((line, after)) = line(rest) else {
                        let whole: Result<Option<()>, _> = too_long(rest);
                        return whole.map(|_| (Piece::More, used));
                    };
                    used = input.len() - after.len();
                    self.0 = self.0.after(line)?;
                }
            }
        }
    }
}

impl State {
    /// What follows a whole line.
    fn after(self, line: &[u8]) -> Result<Self, Malformed> {
        match self {
            Self::Size => {
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                match number(size.trim_ascii_end(), 16) {
                    Some(0) => Ok(Self::Trailers),
                    Some(size) => Ok(Self::Chunk(size)),
                    None => Err(Malformed("bad chunk size")),
                }
            }
            Self::ChunkEnd if line.is_empty() => Ok(Self::Size),
            Self::ChunkEnd => Err(Malformed("chunk longer than its size")),
            Self::Trailers if line.is_empty() => Ok(Self::Done),
            other => Ok(other),
        }
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
