//! Answers become smaller on the way to the client (RFC 9110 §12.5.3, gzip of
//! RFC 1952).
//!
//! What has come from the backend goes out when nothing more is there to be
//! read: a stream of events is not held back, and a large answer is still
//! compressed in large pieces.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body, Frame};
use weir_mesh::policy::filter::Compression;

use super::answer::DownBody;
use super::body::BodyError;

/// How an answer may be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
}

/// Of 1 (fast) to 9 (small).
const LEVEL: u32 = 5;
/// What is collected before it is sent on, if more is there to be read.
const PIECE: usize = 8 * 1024;
/// What is read before others have their turn.
const TURN: usize = 64 * 1024;

/// True of the bytes as they were, not as they will be.
const OF_BYTES: [&str; 5] =
    ["accept-ranges", "content-digest", "content-md5", "digest", "repr-digest"];

/// What the client prefers, of what we can do; none: as it is.
#[must_use]
pub fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    for item in lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
        let Some(weight) = weight.map_or(Some(1000), thousandths) else { continue };
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(weight);
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if coding == "*" {
            any = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    (gzip > 0 && gzip >= identity.unwrap_or(0)).then_some(Coding::Gzip)
}

/// A weight (RFC 9110 §12.4.2): 0 to 1 with up to three digits after the point.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(1000),
        _ => None,
    }
}

/// Compresses an answer, when that is wanted and allowed.
pub fn response(
    wanted: &Compression,
    coding: Option<Coding>,
    method: &Method,
    response: Response<DownBody>,
) -> Response<DownBody> {
    if !may_be(wanted, method, &response) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // Also when it stays as it is: to another client it would not.
    vary(&mut parts.headers);
    let Some(Coding::Gzip) = coding else { return Response::from_parts(parts, body) };
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    for name in OF_BYTES {
        headers.remove(name);
    }
    if let Some(tag) = headers.get(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
    Response::from_parts(parts, body.through(Gzip::new))
}

/// Whether the answer may be compressed for anyone.
fn may_be(wanted: &Compression, method: &Method, response: &Response<DownBody>) -> bool {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let status = response.status();
    let has_body = *method != Method::HEAD
        && !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        );
    let as_it_is = headers.contains_key(header::CONTENT_RANGE)
        || headers.contains_key(header::CONTENT_ENCODING)
        || headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
            let mut said = value.to_str().unwrap_or_default().split(',');
            said.any(|one| one.trim().eq_ignore_ascii_case("no-transform"))
        });
    let large = response.body().size_hint().exact().is_none_or(|size| size >= wanted.min_bytes);
    has_body && !as_it_is && large && text(header::CONTENT_TYPE).is_some_and(|t| wanted.is_for(t))
}

fn vary(headers: &mut HeaderMap) {
    let named = |value: &HeaderValue| {
        let mut names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        names.any(|name| name == "*" || name.eq_ignore_ascii_case("accept-encoding"))
    };
    if !headers.get_all(header::VARY).iter().any(named) {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

struct Gzip {
    inner: DownBody,
    encoder: GzEncoder<Vec<u8>>,
    /// Something was written that has not been flushed.
    dirty: bool,
    last: Last,
}

enum Last {
    NotYet,
    /// The encoder is done; these go out behind what it has left.
    Trailers(Option<Frame<Bytes>>),
}

impl Gzip {
    fn new(inner: DownBody) -> Self {
        let encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(LEVEL));
        Self { inner, encoder, dirty: false, last: Last::NotYet }
    }

    fn piece(&mut self) -> Option<Frame<Bytes>> {
        let out = std::mem::take(self.encoder.get_mut());
        (!out.is_empty()).then(|| Frame::data(out.into()))
    }
}

impl Body for Gzip {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut read = 0;
        loop {
            if let Last::Trailers(trailers) = &mut this.last {
                let trailers = trailers.take();
                return Poll::Ready(this.piece().or(trailers).map(Ok));
            }
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => {
                    if this.dirty {
                        this.dirty = false;
                        this.encoder.flush()?;
                    }
                    return match this.piece() {
                        Some(piece) => Poll::Ready(Some(Ok(piece))),
                        None => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    this.encoder.try_finish()?;
                    this.last = Last::Trailers(None);
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Err(trailers) => {
                        this.encoder.try_finish()?;
                        this.last = Last::Trailers(Some(trailers));
                        if let Some(piece) = this.piece() {
                            return Poll::Ready(Some(Ok(piece)));
                        }
                    }
                    Ok(data) => {
                        this.encoder.write_all(&data)?;
                        this.dirty = true;
                        read += data.len();
                        if this.encoder.get_ref().len() >= PIECE
                            && let Some(piece) = this.piece()
                        {
                            return Poll::Ready(Some(Ok(piece)));
                        }
                        if read >= TURN {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
