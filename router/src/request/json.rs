//! JSON over HTTP <-> gRPC, by the service's `google.api.http` annotations.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant as Deadline, timeout_at};
use weir_mesh::transcode::{self, Deframer, Found, GrpcStatus, TranscodeError, Transcoder};

use super::adapt::{GRPC, is_grpc};
use super::answer::{DownBody, StatusSlot};
use super::body::BodyError;
use super::call::Call;
use super::forward::{Payload, WasSafe};
use super::size::BodyLimit;
use crate::error::{RouterError, grpc};

/// The largest JSON request, and the largest message that is answered as JSON.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// For a JSON request's body to arrive, when nothing else limits it.
const BODY_TIME: Duration = Duration::from_secs(30);

/// One request's mapping, for its answer.
pub struct Transcoding {
    transcoder: Arc<Transcoder>,
    call: transcode::Call,
}

/// Turns a JSON request into a gRPC one.
///
/// # Errors
/// No such path or method, a body that is too large, or JSON that does not fit;
/// each names the field.
pub async fn request(
    transcoder: Arc<Transcoder>,
    parts: &mut request::Parts,
    body: Incoming,
    given: Option<Deadline>,
) -> Result<(Transcoding, Payload), RouterError> {
    let call = match transcoder.find(&parts.method, parts.uri.path()) {
        Found::Call(call) => call,
        Found::NotFound => return Err(RouterError::NoRoute),
        Found::MethodNotAllowed(allowed) => {
            let names: Vec<_> = allowed.iter().map(Method::as_str).collect();
            return Err(RouterError::MethodNotAllowed(names.join(", ")));
        }
    };
    let until = given.unwrap_or_else(|| Deadline::now() + BODY_TIME);
    let limit = parts.extensions.get::<BodyLimit>().and_then(|limit| limit.0.try_into().ok());
    let limit = limit.unwrap_or(BODY_LIMIT).min(BODY_LIMIT);
    let collected = timeout_at(until, Limited::new(body, limit).collect()).await;
    let body = collected.map_err(|_| RouterError::SlowBody)?.map_err(|error| {
        if error.downcast_ref::<LengthLimitError>().is_some() {
            RouterError::TooLarge(limit)
        } else {
            RouterError::BadRequest(format!("the body ended early: {error}"))
        }
    })?;
    let message = call
        .encode_request(parts.uri.query(), &body.to_bytes())
        .map_err(|error: TranscodeError| RouterError::Fields(error.to_status()))?;

    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = call.grpc_path().parse().ok();
    if let Ok(uri) = Uri::from_parts(uri) {
        parts.uri = uri;
    }
    if parts.method.is_safe() {
        parts.extensions.insert(WasSafe);
    }
    parts.method = Method::POST;
    let headers = &mut parts.headers;
    for name in [header::CONTENT_LENGTH, header::ACCEPT_ENCODING, header::ACCEPT, header::EXPECT] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_TYPE, GRPC);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let payload = Payload::Full(transcode::frame(&message));
    Ok((Transcoding { transcoder, call }, payload))
}

impl Transcoding {
    /// Turns the gRPC answer into JSON: one object, or a line for each message
    /// of a stream (newline-delimited JSON).
    ///
    /// # Errors
    /// When the answer is no gRPC.
    pub async fn response(
        self,
        response: Response<Incoming>,
        call: &mut Call,
    ) -> Result<Response<DownBody>, RouterError> {
        let (mut parts, mut body) = response.into_parts();
        if parts.status != StatusCode::OK || !is_grpc(&parts.headers) {
            let what = format!("HTTP {} that is no gRPC", parts.status.as_u16());
            return Err(RouterError::BadAnswer(call.backend_name(), what));
        }
        let trailers_only = GrpcStatus::from_headers(&parts.headers);
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding"] {
            parts.headers.remove(name);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        if let Some(status) = trailers_only {
            return Ok(self.failed(parts, &status, call));
        }
        if self.call.server_streaming() {
            parts.headers.insert(header::CONTENT_TYPE, NDJSON);
            call.status(StatusCode::OK);
            let status = StatusSlot::default();
            let deframer = Deframer::new(BODY_LIMIT);
            let stream = Lines { body, deframer, call: self, done: false, status: status.clone() };
            return Ok(Response::from_parts(parts, DownBody::translated(stream, status)));
        }
        let mut deframer = Deframer::new(BODY_LIMIT);
        let mut trailers = HeaderMap::new();
        let name = call.backend_name();
        let bad = |why: String| RouterError::BadAnswer(name.clone(), why);
        let mut message = None;
        while let Some(frame) = call.in_time(body.frame()).await? {
            let frame = frame.map_err(|error| bad(error.to_string()))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(_) if message.is_some() => return Err(bad("more than one message".to_owned())),
                Ok(data) => {
                    deframer.push(data);
                    message = deframer.next_message().map_err(|error| bad(error.to_string()))?;
                }
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        let status = status_of(&trailers);
        if status.code != i32::from(grpc::OK) {
            return Ok(self.failed(parts, &status, call));
        }
        let message = message.ok_or_else(|| bad("no message came".to_owned()))?;
        let json = self.call.decode_response(&message).map_err(|error| bad(error.to_string()))?;
        call.status(StatusCode::OK);
        call.grpc_status(grpc::OK);
        parts.headers.insert(header::CONTENT_TYPE, JSON);
        Ok(Response::from_parts(parts, DownBody::full(json)))
    }

    fn failed(
        &self,
        mut parts: http::response::Parts,
        status: &GrpcStatus,
        call: &mut Call,
    ) -> Response<DownBody> {
        parts.status = transcode::http_status(status.code);
        parts.headers.insert(header::CONTENT_TYPE, JSON);
        call.status(parts.status);
        call.grpc_status(u8::try_from(status.code).unwrap_or(grpc::UNKNOWN));
        Response::from_parts(parts, DownBody::full(self.error(status)))
    }

    fn error(&self, status: &GrpcStatus) -> Vec<u8> {
        self.transcoder.error_json(status.code, &status.message, status.details.as_deref())
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// What trailers say; an answer that ends without them was cut off.
fn status_of(headers: &HeaderMap) -> GrpcStatus {
    GrpcStatus::from_headers(headers).unwrap_or_else(|| GrpcStatus {
        code: grpc::UNKNOWN.into(),
        message: "the answer ended without a status".to_owned(),
        details: None,
    })
}

/// A stream of messages as lines of JSON. An error ends it with a line of its
/// own, `{"error": ...}`, because the status line is long gone.
struct Lines {
    body: Incoming,
    deframer: Deframer,
    call: Transcoding,
    done: bool,
    status: StatusSlot,
}

impl Lines {
    fn failed(&self, status: &GrpcStatus) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.status.set(u8::try_from(status.code).ok());
        let mut line = b"{\"error\":".to_vec();
        line.extend(self.call.error(status));
        line.extend(b"}\n");
        Poll::Ready(Some(Ok(Frame::data(line.into()))))
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if let Some(message) = this.deframer.next_message()? {
                let mut line = this.call.call.decode_response(&message)?;
                line.push(b'\n');
                return Poll::Ready(Some(Ok(Frame::data(line.into()))));
            }
            if this.done {
                return Poll::Ready(None);
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
                this.done = true;
                return this.failed(&status_of(&HeaderMap::new()));
            };
            match frame?.into_data() {
                Ok(data) => this.deframer.push(data),
                Err(frame) => {
                    this.done = true;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = status_of(&trailers);
                    if status.code != i32::from(grpc::OK) {
                        return this.failed(&status);
                    }
                    this.status.set(Some(grpc::OK));
                    this.deframer.finish()?;
                }
            }
        }
    }
}
