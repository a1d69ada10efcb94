//! Answers over HTTP/2, gRPC's too.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::net::TcpStream;

use super::{Fault, Upstream, Wanted, count, spoil};
use crate::grpc::{Messages, message};
use crate::h2_stream::{self, CONNECTION_WINDOW, STREAM_WINDOW, read};
use crate::pattern;

/// As many as any peer wants to open.
const MAX_STREAMS: u32 = 4096;
/// The health service's answer: field 1, SERVING.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// grpc-status codes.
const OK: HeaderValue = HeaderValue::from_static("0");
const INVALID_ARGUMENT: HeaderValue = HeaderValue::from_static("3");
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

/// What is the same for all connections.
pub struct Answers {
    /// The heads of a gRPC and of a plain answer.
    grpc: Response<()>,
    plain: Response<()>,
    /// The message that nearly every call gets, with its prefix.
    message: Bytes,
}

impl Answers {
    pub fn new(upstream: &Upstream) -> Self {
        let head = |content_type| {
            let mut head = Response::new(());
            let name = HeaderValue::from_str(&upstream.name);
            let name = name.unwrap_or(HeaderValue::from_static("?"));
            head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
            head.headers_mut().insert("x-upstream", name);
            head
        };
        Self {
            grpc: head("application/grpc"),
            plain: head("application/octet-stream"),
            message: message(u32::try_from(upstream.body_bytes).unwrap_or(u32::MAX)),
        }
    }
}

/// What a gRPC method answers.
enum Call {
    /// So many messages.
    Messages(u64, Bytes),
    Unknown,
}

/// One request, and what is needed to answer it.
struct Exchange {
    upstream: Arc<Upstream>,
    answers: Arc<Answers>,
    respond: SendResponse<Bytes>,
}

/// Answers requests until the client has no more.
pub async fn serve(
    stream: TcpStream,
    upstream: Arc<Upstream>,
    answers: Arc<Answers>,
) -> io::Result<()> {
    let mut connection = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(io::Error::other)?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request.map_err(io::Error::other)?;
        let exchange = Exchange { upstream: upstream.clone(), answers: answers.clone(), respond };
        tokio::spawn(async move { exchange.answer(request).await.ok() });
    }
    Ok(())
}

impl Exchange {
    async fn answer(self, request: Request<RecvStream>) -> Result<(), h2::Error> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_grpc =
            content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
        if is_grpc { self.answer_grpc(request).await } else { self.answer_plain(request).await }
    }

    async fn answer_plain(mut self, request: Request<RecvStream>) -> Result<(), h2::Error> {
        let (request, mut body) = request.into_parts();
        let method = if request.method == Method::POST { &b"POST"[..] } else { b"" };
        let wanted = self.upstream.wanted(method, request.uri.path().as_bytes());
        let (mut length, mut right) = (0, true);
        while let Some(piece) = read(&mut body).await? {
            right = right && pattern::matches(length, &piece);
            length += piece.len() as u64;
        }
        let mut head = self.answers.plain.clone();
        let size = match (wanted, self.upstream.fault()) {
            (_, Fault::Status) => {
                *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                (0, false)
            }
            (Wanted::Sink(expected), _) => {
                if !right || expected.is_some_and(|expected| expected != length) {
                    *head.status_mut() = StatusCode::BAD_REQUEST;
                }
                (0, false)
            }
            (Wanted::Bytes(size), fault) => (size, fault == Fault::Corrupt),
        };
        let (size, corrupt) = size;
        head.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        let mut stream = self.respond.send_response(head, size == 0)?;
        if size > 0 { send_pattern(&mut stream, size, corrupt).await } else { Ok(()) }
    }

    async fn answer_grpc(mut self, request: Request<RecvStream>) -> Result<(), h2::Error> {
        let (request, mut body) = request.into_parts();
        let path = request.uri.path();
        let health = path == "/grpc.health.v1.Health/Check";
        let (mut messages, mut right) = (Messages::new(None), true);
        while let Some(piece) = read(&mut body).await? {
            right = right && (health || messages.feed(&piece).is_ok());
        }
        let mut stream = self.respond.send_response(self.answers.grpc.clone(), false)?;
        if health {
            stream.send_data(Bytes::from_static(SERVING), false)?;
            return stream.send_trailers(trailers(OK));
        }
        if !right || messages.whole().is_none() {
            return stream.send_trailers(trailers(INVALID_ARGUMENT));
        }
        let Call::Messages(count, message) = self.call(path) else {
            return stream.send_trailers(trailers(UNIMPLEMENTED));
        };
        let message = match self.upstream.fault() {
            Fault::None => message,
            Fault::Corrupt => spoil(&message).into(),
            Fault::Status => return stream.send_trailers(trailers(UNAVAILABLE)),
        };
        for _ in 0..count {
            h2_stream::send(&mut stream, message.clone(), false).await?;
        }
        stream.send_trailers(trailers(OK))
    }

    fn call(&self, path: &str) -> Call {
        let usual = || self.answers.message.clone();
        let number = |digits: &str| count(digits.as_bytes());
        let Some(method) = path.strip_prefix("/bench.v1.Bench/") else { return Call::Unknown };
        if method == "Unary" {
            return Call::Messages(1, usual());
        }
        if let Some(count) = method.strip_prefix("Stream").and_then(number) {
            return Call::Messages(count, usual());
        }
        match method.strip_prefix("Bytes").and_then(number).map(u32::try_from) {
            Some(Ok(length)) => Call::Messages(1, message(length)),
            _ => Call::Unknown,
        }
    }
}

fn trailers(status: HeaderValue) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", status);
    trailers
}

/// Sends a body of `length` bytes as fast as it is taken.
async fn send_pattern(
    stream: &mut SendStream<Bytes>,
    length: u64,
    corrupt: bool,
) -> Result<(), h2::Error> {
    let mut sent = 0;
    while sent < length {
        // No more at once than one stream's window: the piece is queued whole.
        let piece = pattern::from(sent, (length - sent).min(64 * 1024));
        sent += piece.len() as u64;
        let piece = if corrupt { spoil(piece).into() } else { Bytes::from_static(piece) };
        h2_stream::send(stream, piece, sent == length).await?;
    }
    Ok(())
}
