//! Sending: an instance, a deadline, and another try where that is safe.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::timeout_at;

use super::body::{Source, UpBody};
use super::call::{Call, Speaks};
use super::choose::Choice;
use super::mirror::{Copied, Copying};
use super::size::{Cap, Counted};
use super::{headers, resilient};
use crate::clock;
use crate::error::RouterError;
use crate::table::{ServiceEntry, VersionEntry};
use crate::upstream::{Failure, Pending, Pick, Reach, Upstream, pick};
use crate::worker::Worker;
use weir_mesh::model::Protocol;

/// Tries of one request, the first included.
pub(super) const ATTEMPTS: usize = 4;
/// Its status is in trailers, and calls stream both ways: HTTP/1.1 has no such
/// thing that a server of it could be trusted to do.
pub(super) const GRPC_OVER_HTTP1: &str = "gRPC needs HTTP/2, and this service's addresses are spoken to in \
                               HTTP/1.1; set its protocol to grpc or http2";

const HTTP_TO_TCP: &str = "this service's protocol is tcp, so it takes no requests; connect to it \
                           by a TCP listener of the router";

/// A request's body, for as many tries as it allows.
pub enum Payload {
    /// Read as it comes, held for a retry while it is small.
    Stream(Source),
    /// All of it.
    Full(Bytes),
    /// A translation of what comes: one try once it was begun.
    Once(Option<UpBody>),
}

impl Payload {
    /// Of a body that is not changed.
    #[must_use]
    pub fn stream(body: Incoming) -> Self {
        match body.is_end_stream() {
            true => Self::Full(Bytes::new()),
            false => Self::Stream(Source::new(body)),
        }
    }

    /// The same, cut off where it grows too large.
    #[must_use]
    pub fn capped(self, cap: &Cap) -> Self {
        match self {
            Self::Stream(source) => {
                source.cap(cap.clone());
                Self::Stream(source)
            }
            Self::Full(bytes) => Self::Full(bytes),
            Self::Once(body) => Self::Once(
                body.map(|body| UpBody::Mapped(Box::pin(Counted::new(body, cap.clone())))),
            ),
        }
    }

    /// The body for one more try; none when it cannot be sent again.
    pub fn attempt(&mut self) -> Option<UpBody> {
        match self {
            Self::Stream(source) => source.attempt(),
            Self::Full(bytes) if bytes.is_empty() => Some(UpBody::Empty),
            Self::Full(bytes) => Some(UpBody::Full(Some(bytes.clone()))),
            Self::Once(body) => body.take(),
        }
    }

    /// Gives a copy of the body to `copy`, once all of it is there.
    pub fn copy_to(&mut self, copy: Copying) {
        match self {
            Self::Stream(source) => source.copy_to(copy),
            Self::Full(bytes) => copy.whole(bytes.clone()),
            Self::Once(body) => {
                if let Some(inner) = body.take() {
                    *body = Some(UpBody::Mapped(Box::pin(Copied::new(inner, copy))));
                }
            }
        }
    }

    /// Puts a body back that was never read.
    pub(super) fn unread(&mut self, body: UpBody) {
        if let Self::Once(slot) = self {
            *slot = Some(body);
        }
    }

    pub(super) fn broke(&self) -> bool {
        matches!(self, Self::Stream(source) if source.broke())
    }

    /// No try will follow.
    pub fn settle(&self) {
        if let Self::Stream(source) = self {
            source.settle();
        }
    }

    /// Whether two tries could send it at the same time.
    pub(super) fn is_held(&self) -> bool {
        match self {
            Self::Stream(source) => source.is_held(),
            Self::Full(_) => true,
            Self::Once(_) => false,
        }
    }
}

/// Sends a request to an instance of the chosen version and waits for the head
/// of the answer.
///
/// # Errors
/// When no try succeeded, or the deadline passed.
pub async fn send(
    worker: &Rc<Worker>,
    service: &Arc<ServiceEntry>,
    choice: &Choice,
    parts: &request::Parts,
    payload: &mut Payload,
    call: &mut Call,
) -> Result<Response<Incoming>, RouterError> {
    if service.protocol == Protocol::Tcp {
        return Err(RouterError::Unsupported(HTTP_TO_TCP));
    }
    let traffic = &service.traffic;
    traffic.budget.request(clock::millis(call.began()));
    if !traffic.plain || call.action().is_some_and(|action| action.retry.is_some()) {
        // In a box: who has no rules does not carry what they need.
        let sending = resilient::send(worker, service, choice, parts, payload, call);
        return Box::pin(sending).await;
    }
    let mut tried: Vec<u32> = Vec::new();
    let mut last = None;
    for attempt in 0..ATTEMPTS {
        let Some((version, upstream)) = next_instance(worker, service, choice, &tried, call) else {
            break;
        };
        if upstream.reach == Reach::Http1 && call.speaks() == Speaks::Grpc {
            return Err(RouterError::Unsupported(GRPC_OVER_HTTP1));
        }
        let Some(body) = payload.attempt() else { break };
        if attempt > 0 {
            call.retried();
        }
        call.tries(version, &upstream);
        let request = outgoing(parts, body, upstream.reach, call);
        let pending = Pending::new(upstream.clone());
        let began = std::time::Instant::now();
        let result = match call.try_deadline() {
            None => upstream.pool.send(request).await,
            Some((deadline, limit)) => {
                match timeout_at(deadline, upstream.pool.send(request)).await {
                    Ok(result) => result,
                    Err(_) => {
                        upstream.load.slow(began.elapsed());
                        return Err(RouterError::Timeout(limit));
                    }
                }
            }
        };
        let failed = match result {
            Ok(mut sent) => {
                upstream.load.answers(began);
                payload.settle();
                call.hold(sent.lease, pending);
                // What an HTTP/1.0 server said of itself is not true of us.
                *sent.response.version_mut() = Version::HTTP_11;
                return Ok(sent.response);
            }
            Err(failure) => failure,
        };
        let name = || format!("{}-{}", service.name, version.name);
        let index = version.endpoints.iter().find(|e| e.id == upstream.id).map(|e| e.index);
        match failed {
            Failure::Connect(error, request) => {
                upstream.load.failed();
                call.lost(service, version);
                tried.extend(index);
                payload.unread(request.into_body());
                last = Some(RouterError::Connect(name(), error));
            }
            // Its connection was closing: another one to the same instance will do.
            Failure::Unsent(error, request) => {
                payload.unread(request.into_body());
                last = Some(RouterError::Upstream(name(), error));
            }
            Failure::Refused(error) => {
                upstream.load.failed();
                call.lost(service, version);
                tried.extend(index);
                last = Some(RouterError::Upstream(name(), error));
            }
            Failure::Broken(_) if payload.broke() => {
                return Err(RouterError::BadRequest("the request's body broke off".to_owned()));
            }
            Failure::Broken(error) => {
                upstream.load.failed();
                call.lost(service, version);
                tried.extend(index);
                let error = RouterError::Upstream(name(), error);
                if !is_idempotent(parts) {
                    return Err(error);
                }
                if !traffic.budget.spend(clock::now()) {
                    call.flag("URX");
                    return Err(error);
                }
                last = Some(error);
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        let version = &service.versions[choice.version].name;
        RouterError::NoInstance(format!("{}-{version}", service.name))
    }))
}

/// The instance for the next try. When the chosen version has none that is
/// healthy, another version that gets traffic stands in, if the route allows.
fn next_instance<'a>(
    worker: &Rc<Worker>,
    service: &'a ServiceEntry,
    choice: &Choice,
    tried: &[u32],
    call: &mut Call,
) -> Option<(&'a VersionEntry, Rc<Upstream>)> {
    let chosen = &service.versions[choice.version];
    let of = |version: &VersionEntry| pick(version, tried, |e| worker.upstream(e));
    let fallback = match of(chosen) {
        Pick::Good(upstream) => return Some((chosen, upstream)),
        Pick::Panic(upstream) => Some((chosen, upstream)),
        Pick::None => None,
    };
    if choice.may_fall_over {
        let others = service.versions.iter().enumerate();
        for (_, version) in others.filter(|(i, v)| *i != choice.version && v.weight > 0) {
            if let Pick::Good(upstream) = of(version) {
                call.flag("FO");
                return Some((version, upstream));
            }
        }
    }
    if fallback.is_some() {
        call.flag("PR");
    }
    fallback
}

/// The request as an upstream gets it.
pub fn outgoing(
    parts: &request::Parts,
    body: UpBody,
    reach: Reach,
    call: &mut Call,
) -> Request<UpBody> {
    let mut request = formed(parts, body, reach);
    call.inject(request.headers_mut());
    request
}

/// The request in the form that its receiver reads.
pub(super) fn formed(parts: &request::Parts, body: UpBody, reach: Reach) -> Request<UpBody> {
    let mut sent = parts.headers.clone();
    let (version, uri) = if reach == Reach::Http1 {
        let mut uri = parts.uri.clone();
        headers::to_http1(&mut uri, &mut sent, &body);
        (Version::HTTP_11, uri)
    } else {
        sent.remove(http::header::HOST);
        if parts.version < Version::HTTP_2 {
            headers::own_values(&mut sent);
        }
        (Version::HTTP_2, absolute(parts))
    };
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = version;
    *request.uri_mut() = uri;
    *request.headers_mut() = sent;
    request
}

/// HTTP/2 needs scheme and authority (RFC 9113 §8.3.1).
fn absolute(parts: &request::Parts) -> Uri {
    if parts.uri.scheme().is_some() && parts.uri.authority().is_some() {
        return parts.uri.clone();
    }
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme = Some(http::uri::Scheme::HTTP);
    if uri.authority.is_none() {
        let host = parts.headers.get(http::header::HOST);
        uri.authority = host.and_then(|host| host.as_bytes().try_into().ok());
    }
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    Uri::from_parts(uri).unwrap_or_else(|_| parts.uri.clone())
}

/// Marks a request that was safe (RFC 9110 §9.2.1) before it became gRPC's POST.
#[derive(Debug, Clone, Copy)]
pub struct WasSafe;

/// RFC 9110 §9.2.2.
pub(super) fn is_idempotent(parts: &request::Parts) -> bool {
    parts.extensions.get::<WasSafe>().is_some()
        || parts.method.is_safe()
        || matches!(parts.method, Method::PUT | Method::DELETE)
}
