//! Answers on their way to the client.

use std::cell::Cell;
use std::future::Future as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::Sleep;
use weir_mesh::transcode;
use weir_proto::google::rpc;

use super::adapt::GRPC;
use super::body::BodyError;
use super::call::{Call, Speaks};
use super::extension::Notice;
use super::limit::TooOften;
use crate::error::{RouterError, grpc};
use crate::table::Table;

/// The body of an answer. When it ends, breaks or is dropped, its request is
/// recorded.
pub struct DownBody {
    kind: Kind,
    call: Option<Box<Call>>,
    deadline: Option<Pin<Box<Sleep>>>,
    ended: bool,
    status: Option<StatusSlot>,
    notice: Option<Notice>,
}

/// Where a translation leaves the gRPC status that it took out of the trailers.
pub type StatusSlot = Rc<Cell<Option<u8>>>;

enum Kind {
    Empty,
    Full(Option<Bytes>),
    Stream(Incoming),
    Mapped(Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>),
}

impl DownBody {
    fn new(kind: Kind) -> Self {
        Self { kind, call: None, deadline: None, ended: false, status: None, notice: None }
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    /// One piece.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::new(Kind::Full(Some(bytes.into())))
    }

    /// As it comes.
    #[must_use]
    pub fn stream(body: Incoming) -> Self {
        Self::new(Kind::Stream(body))
    }

    /// Through a translation.
    pub fn mapped(body: impl Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::new(Kind::Mapped(Box::pin(body)))
    }

    /// Through a translation that hides the gRPC status; it leaves it in `status`.
    pub fn translated(
        body: impl Body<Data = Bytes, Error = BodyError> + 'static,
        status: StatusSlot,
    ) -> Self {
        let mut body = Self::mapped(body);
        body.status = Some(status);
        body
    }

    /// Through one more step; what earlier ones have left is still told.
    #[must_use]
    pub fn through<B>(mut self, step: impl FnOnce(Self) -> B) -> Self
    where
        B: Body<Data = Bytes, Error = BodyError> + 'static,
    {
        let (status, notice) = (self.status.take(), self.notice.take());
        let mut body = Self::mapped(step(self));
        (body.status, body.notice) = (status, notice);
        body
    }

    /// A step of it leaves a response flag there.
    #[must_use]
    pub fn noticing(mut self, notice: Notice) -> Self {
        self.notice = Some(notice);
        self
    }

    fn over(&mut self) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        self.kind = Kind::Empty;
        let Some(call) = self.call.as_mut() else { return Poll::Ready(None) };
        call.flag("UT");
        call.grpc_status(grpc::DEADLINE_EXCEEDED);
        if call.speaks() == Speaks::Grpc {
            let trailers = trailers(&RouterError::Timeout(call.budget()));
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
    }
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let polled = match &mut this.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Mapped(body) => body.as_mut().poll_frame(cx),
        };
        match &polled {
            Poll::Pending => {
                if let Some(deadline) = this.deadline.as_mut()
                    && deadline.as_mut().poll(cx).is_ready()
                {
                    return this.over();
                }
            }
            Poll::Ready(None) => this.ended = true,
            Poll::Ready(Some(Err(error))) => {
                this.ended = true;
                if let Some(call) = this.call.as_mut() {
                    call.broke(&**error);
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(call) = this.call.as_mut() {
                    match frame.data_ref() {
                        Some(data) => call.sent(data.len()),
                        None => call.trailers(frame.trailers_ref()),
                    }
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.ended
            || match &self.kind {
                Kind::Empty | Kind::Full(None) => true,
                Kind::Full(Some(_)) => false,
                Kind::Stream(body) => body.is_end_stream(),
                Kind::Mapped(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty | Kind::Full(None) => SizeHint::with_exact(0),
            Kind::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.size_hint(),
            Kind::Mapped(body) => body.size_hint(),
        }
    }
}

impl Drop for DownBody {
    fn drop(&mut self) {
        if let Some(mut call) = self.call.take() {
            let whole = self.is_end_stream();
            if let Some(code) = self.status.as_ref().and_then(|status| status.get()) {
                call.grpc_status(code);
            }
            if let Some(flag) = self.notice.as_ref().and_then(|notice| notice.get()) {
                call.flag(flag);
            }
            call.end(whole);
        }
    }
}

/// Binds an answer to what is remembered of its request.
pub fn finish(mut response: Response<DownBody>, mut call: Box<Call>) -> Response<DownBody> {
    call.status(response.status());
    let body = response.body_mut();
    body.deadline = call.deadline().map(|at| Box::pin(tokio::time::sleep_until(at)));
    body.call = Some(call);
    response
}

/// Tells a client why there is no answer, in what it speaks.
pub fn of_error(error: &RouterError, call: &mut Call) -> Response<DownBody> {
    call.failed(error);
    let details = match error {
        RouterError::Fields(status) => Some(status.encode_to_vec()),
        RouterError::TooOften(too_often) => Some(retry_info(error, too_often).encode_to_vec()),
        _ => None,
    };
    let mut response = describe(error, call, details);
    if let RouterError::TooOften(too_often) = error {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(too_often.seconds()));
        too_often.quota.tell(headers);
    }
    response
}

/// google.rpc.RetryInfo, for clients that know it.
fn retry_info(error: &RouterError, too_often: &TooOften) -> rpc::Status {
    let delay = Duration::from_secs(too_often.seconds());
    let detail = rpc::RetryInfo { retry_delay: delay.try_into().ok() };
    rpc::Status {
        code: error.grpc_code().into(),
        message: error.to_string(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: detail.encode_to_vec(),
        }],
    }
}

fn describe(error: &RouterError, call: &Call, details: Option<Vec<u8>>) -> Response<DownBody> {
    let message = error.to_string();
    if call.speaks() != Speaks::Http {
        let mut response = of_grpc_status(call.speaks(), error.grpc_code(), &message);
        if let Some(details) = details
            && let Ok(value) = STANDARD_NO_PAD.encode(details).parse()
        {
            response.headers_mut().insert("grpc-status-details-bin", value);
        }
        return response;
    }
    let code = i32::from(error.json_code());
    let mut json = transcode::error_json(code, &message, details.as_deref());
    json.push(b'\n');
    let mut response = Response::new(DownBody::full(json));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let RouterError::MethodNotAllowed(allowed) = error
        && let Ok(value) = allowed.parse()
    {
        headers.insert(header::ALLOW, value);
    }
    if let RouterError::Unauthenticated(refused) = error {
        headers.insert(header::WWW_AUTHENTICATE, refused.challenge());
    }
    if let RouterError::Denied(denial) = error
        && let Some((own, body)) = &denial.answer
    {
        headers.remove(header::CONTENT_TYPE);
        headers.extend(own.clone());
        *response.body_mut() = DownBody::full(body.clone());
        return response;
    }
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What the gateway says of the services behind it.
///
/// # Errors
/// [`RouterError::NoRoute`] when it has no descriptors.
pub async fn of_reflection(
    table: &Table,
    request: Request<Incoming>,
) -> Result<Response<DownBody>, RouterError> {
    let answering = table.reflection.as_ref().and_then(|reflection| reflection.answer(request));
    let response = answering.ok_or(RouterError::NoRoute)?.await;
    Ok(response.map(|body| DownBody::mapped(body.map_err(BodyError::from))))
}

/// An answer that is a gRPC status alone.
pub fn of_grpc_status(speaks: Speaks, code: u8, message: &str) -> Response<DownBody> {
    let mut response = Response::new(DownBody::empty());
    let content_type = match speaks {
        Speaks::GrpcWeb => HeaderValue::from_static("application/grpc-web+proto"),
        _ => GRPC,
    };
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    grpc_status(response.headers_mut(), code, message);
    response
}

/// The same at the end of an answer that has begun.
pub fn trailers(error: &RouterError) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    grpc_status(&mut trailers, error.grpc_code(), &error.to_string());
    trailers
}

/// Sets `grpc-status` and `grpc-message` (percent-encoded, as gRPC over HTTP/2
/// says).
fn grpc_status(headers: &mut HeaderMap, code: u8, message: &str) {
    headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
    let mut escaped = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    if let Ok(value) = escaped.parse() {
        headers.insert("grpc-message", value);
    }
}
