//! gRPC-Web (the protocol of grpc-web's PROTOCOL-WEB.md) <-> gRPC.

use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response, header, request};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use weir_mesh::transcode::GrpcStatus;

use super::adapt::GRPC;
use super::answer::{DownBody, StatusSlot};
use super::body::{BodyError, UpBody};

/// How its bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/grpc-web`: as they are.
    Binary,
    /// `application/grpc-web-text`: in base64.
    Text,
}

impl Encoding {
    /// By the content type; none when it is not gRPC-Web.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
        let rest = value.strip_prefix(b"application/grpc-web")?;
        Some(if rest.starts_with(b"-text") { Self::Text } else { Self::Binary })
    }
}

/// Turns a request into gRPC.
pub fn request(encoding: Encoding, parts: &mut request::Parts, body: Incoming) -> UpBody {
    become_grpc(&mut parts.headers);
    match encoding {
        Encoding::Binary => UpBody::Stream(body),
        Encoding::Text => UpBody::Mapped(Box::pin(FromText { body, rest: BytesMut::new() })),
    }
}

/// Gives a request the headers of gRPC.
pub fn become_grpc(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ACCEPT);
}

/// Turns an answer into gRPC-Web: trailers become the last frame of the body.
pub fn response(encoding: Encoding, response: Response<Incoming>) -> Response<DownBody> {
    let (mut parts, body) = response.into_parts();
    let content_type = match encoding {
        Encoding::Binary => "application/grpc-web+proto",
        Encoding::Text => "application/grpc-web-text+proto",
    };
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    parts.headers.remove(header::CONTENT_LENGTH);
    // A trailers-only answer has its status in the head, where clients look too.
    let status = StatusSlot::default();
    let body = ToWeb { body, encoding, status: status.clone() };
    Response::from_parts(parts, DownBody::translated(body, status))
}

struct ToWeb {
    body: Incoming,
    encoding: Encoding,
    status: StatusSlot,
}

impl Body for ToWeb {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let bytes = match frame?.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                let status = GrpcStatus::from_headers(&trailers);
                this.status.set(status.and_then(|status| u8::try_from(status.code).ok()));
                trailer_frame(&trailers)
            }
        };
        let bytes = match this.encoding {
            Encoding::Binary => bytes,
            Encoding::Text => STANDARD.encode(&bytes).into(),
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = String::new();
    for (name, value) in trailers {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Writing to a String does not fail.
        let _ = write!(text, "{name}: {value}\r\n");
    }
    let mut frame = BytesMut::with_capacity(text.len() + 5);
    frame.put_u8(0x80);
    frame.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    frame.put_slice(text.as_bytes());
    frame.freeze()
}

struct FromText {
    body: Incoming,
    rest: BytesMut,
}

impl Body for FromText {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            let whole = this.rest.len() / 4 * 4;
            if whole > 0 {
                let text = this.rest.split_to(whole);
                return Poll::Ready(Some(Ok(Frame::data(decode(&text)?))));
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None if this.rest.is_empty() => return Poll::Ready(None),
                None => {
                    this.rest.clear();
                    return Poll::Ready(Some(Err("the base64 of grpc-web-text is cut off".into())));
                }
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        this.rest.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Decodes base64 whose padding may stand in the middle, where a client has
/// joined pieces that it encoded one by one.
fn decode(text: &[u8]) -> Result<Bytes, BodyError> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut start = 0;
    for (i, quad) in text.chunks(4).enumerate() {
        let end = (i + 1) * 4;
        if quad.ends_with(b"=") || end >= text.len() {
            STANDARD.decode_vec(&text[start..end.min(text.len())], &mut out)?;
            start = end;
        }
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_may_stand_in_the_middle() {
        let text = [STANDARD.encode("a"), STANDARD.encode("bcd"), STANDARD.encode("ef")].concat();
        assert_eq!(decode(text.as_bytes()).unwrap(), "abcdef");
    }

    #[test]
    fn trailers_become_a_frame_with_the_high_bit() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        assert_eq!(trailer_frame(&trailers), b"\x80\0\0\0\x10grpc-status: 0\r\n".as_slice());
    }
}
