//! What is remembered of a request until its answer has ended: then it becomes
//! spans, metrics and a line of the access log.

mod lost;
mod record;
mod timeout;

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request,
};
use tokio::time::Instant as Deadline;
use weir_mesh::model::VersionName;
use weir_mesh::telemetry::trace::{Span, SpanContext};

use super::adapt::is_grpc;
use super::target;
use crate::connection::{Connected, Side};
use crate::error::{RouterError, grpc};
use crate::table::{Action, ServiceEntry, VersionEntry};
use crate::upstream::{Lease, Pending, Upstream};
use crate::worker::Worker;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What is left of the time of an HTTP request, in milliseconds; Envoy's name.
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What the client speaks, and errors must be told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP: errors are JSON.
    Http,
    /// gRPC: errors are trailers.
    Grpc,
    /// gRPC-Web.
    GrpcWeb,
}

/// One request.
pub struct Call {
    worker: Rc<Worker>,
    side: Side,
    connected: Rc<Connected>,
    speaks: Speaks,
    method: Method,
    /// Kept for the access log alone.
    authority: Option<Box<str>>,
    path: Box<str>,
    began: Instant,
    deadline: Option<Deadline>,
    budget: Duration,
    revision: u32,
    action: Option<Arc<Action>>,
    service: Option<Arc<ServiceEntry>>,
    version: Option<(VersionName, u32)>,
    instance: Option<Arc<str>>,
    server: Option<Span>,
    client: Option<Span>,
    status: StatusCode,
    grpc: Option<u8>,
    bytes: u64,
    retries: u32,
    flags: Vec<&'static str>,
    error: Option<String>,
    audit: Option<String>,
    held: Option<(Lease, Option<Pending>)>,
    lost: Vec<lost::Lost>,
    recorded: bool,
}

impl Call {
    /// Begins to remember.
    #[must_use]
    pub fn begin<B>(
        worker: &Rc<Worker>,
        connected: &Rc<Connected>,
        request: &Request<B>,
    ) -> Box<Self> {
        let speaks = speaks(request.headers());
        let context = SpanContext::accept(request.headers(), || sample(worker));
        let name = match context.is_sampled() {
            true => Cow::Owned(span_name(speaks, request)),
            false => Cow::Borrowed(""),
        };
        let (server, client) = match connected.side {
            Side::Outbound => (None, Some(Span::client(name, context))),
            Side::Inbound | Side::Gateway => (Some(Span::server(name, context)), None),
        };
        worker.activity.note();
        worker.requests.set(worker.requests.get() + 1);
        connected.begins();
        // Boxed from the start: it is large, and goes from hand to hand.
        let mut call = Box::new(Self {
            worker: worker.clone(),
            side: connected.side,
            connected: connected.clone(),
            speaks,
            method: request.method().clone(),
            authority: if worker.shared.access_log.is_on() { authority(request) } else { None },
            path: request.uri().path().into(),
            began: Instant::now(),
            deadline: None,
            budget: Duration::ZERO,
            revision: 0,
            action: None,
            service: None,
            version: None,
            instance: None,
            server,
            client,
            status: StatusCode::OK,
            grpc: None,
            bytes: 0,
            retries: 0,
            flags: Vec::new(),
            error: None,
            audit: None,
            held: None,
            lost: Vec::new(),
            recorded: false,
        });
        call.describe();
        call
    }

    fn describe(&mut self) {
        if !self.is_recording() {
            return;
        }
        let (method, path, peer) =
            (self.method.clone(), self.path.clone(), self.connected.peer.clone());
        let rpc = (self.speaks != Speaks::Http).then(|| path.trim_start_matches('/').to_owned());
        let inbound = self.side == Side::Inbound;
        let own = self.worker.shared.config.version.to_string();
        for span in self.spans() {
            span.set("http.request.method", method.to_string());
            span.set("url.path", path.to_string());
            if let Some((service, method)) = rpc.as_deref().and_then(|p| p.rsplit_once('/')) {
                span.set("rpc.system", "grpc");
                span.set("rpc.service", service.to_owned());
                span.set("rpc.method", method.to_owned());
            }
            if inbound {
                span.set("weir.peer", peer.to_string());
                span.set("weir.version", own.clone());
            }
        }
    }

    fn spans(&mut self) -> impl Iterator<Item = &mut Span> {
        self.server.as_mut().into_iter().chain(self.client.as_mut())
    }

    /// Both spans of a request are of one trace, so they are recorded alike.
    fn is_recording(&self) -> bool {
        self.server.as_ref().or(self.client.as_ref()).is_some_and(Span::is_recording)
    }

    /// What the client speaks.
    #[must_use]
    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    /// The path in its canonical form.
    pub fn path(&mut self, path: &str) {
        self.path = path.into();
        if self.is_recording() {
            let path = path.to_owned();
            self.explain("url.path", path);
        }
    }

    /// An attribute of its spans.
    pub fn explain(&mut self, name: &'static str, value: String) {
        if self.is_recording() {
            for span in self.spans() {
                span.set(name, value.clone());
            }
        }
    }

    /// What would have been done to it, if a policy did more than report.
    pub fn audited(&mut self, finding: String) {
        self.flag("RBAC_SHADOW_DENIED");
        self.explain("weir.authorization.audit", finding.clone());
        self.audit = Some(finding);
    }

    /// The desired state that decides about it.
    pub fn decided_by(&mut self, revision: u32) {
        self.revision = revision;
    }

    /// The same.
    #[must_use]
    pub fn revision(&self) -> u32 {
        self.revision
    }

    /// The rule that takes it.
    pub fn matched(&mut self, action: &Arc<Action>) {
        self.action = Some(action.clone());
        if let Some(server) = &mut self.server
            && server.is_recording()
        {
            let label = action.label.to_string();
            server.set("http.route", label.clone());
            if self.speaks == Speaks::Http {
                server.rename(format!("{} {label}", self.method));
            }
        }
    }

    /// The rule that takes it, once it is known.
    #[must_use]
    pub fn action(&self) -> Option<&Action> {
        self.action.as_deref()
    }

    /// By which listener it came.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The service that it goes to.
    pub fn to(&mut self, service: &Arc<ServiceEntry>) {
        self.service = Some(service.clone());
    }

    /// Takes `grpc-timeout` (gRPC over HTTP/2) and the route's own into account.
    pub fn set_deadline(&mut self, parts: &request::Parts, timeout: Option<Duration>) {
        let asked = grpc_timeout(&parts.headers);
        let Some(budget) = asked.into_iter().chain(timeout).min() else { return };
        self.budget = budget;
        self.deadline = Some(Deadline::from_std(self.began) + budget);
    }

    /// Whether the client gave it less time than its route does: being late says
    /// nothing of an instance then, or clients could have good ones left out.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        let route = self.action.as_deref().and_then(|action| action.timeout);
        self.deadline.is_some() && route != Some(self.budget)
    }

    /// When it must be answered.
    #[must_use]
    pub fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// When the try that begins now must be answered, and the time that it has
    /// or the whole request had.
    #[must_use]
    pub fn try_deadline(&self) -> Option<(Deadline, Duration)> {
        let whole = self.deadline.map(|deadline| (deadline, self.budget));
        let Some(limit) = self.action.as_ref().and_then(|action| action.backend_timeout) else {
            return whole;
        };
        let own = (Deadline::now() + limit, limit);
        Some(whole.filter(|whole| whole.0 <= own.0).unwrap_or(own))
    }

    /// When it came.
    #[must_use]
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The IP address that its connection comes from.
    #[must_use]
    pub fn peer_ip(&self) -> std::net::IpAddr {
        self.connected.peer_address.ip()
    }

    /// The time that it had from its arrival.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Waits, but not past the deadline.
    ///
    /// # Errors
    /// [`RouterError::Timeout`].
    pub async fn in_time<T>(&self, future: impl Future<Output = T>) -> Result<T, RouterError> {
        match self.deadline {
            None => Ok(future.await),
            Some(deadline) => tokio::time::timeout_at(deadline, future)
                .await
                .map_err(|_| RouterError::Timeout(self.budget)),
        }
    }

    /// An instance is about to be asked.
    pub fn tries(&mut self, version: &VersionEntry, upstream: &Upstream) {
        self.version = Some((version.name.clone(), version.id));
        self.instance = Some(upstream.id.clone());
        if self.client.is_none()
            && let Some(server) = &self.server
        {
            let name = match &self.service {
                _ if !server.is_recording() => String::new(),
                Some(service) => format!("{} {}", self.method, service.name),
                None => self.method.to_string(),
            };
            self.client = Some(Span::client(name, server.context().child()));
        }
        if let Some(client) = &mut self.client
            && client.is_recording()
        {
            if let Some(service) = &self.service {
                client.set("weir.service", service.name.to_string());
            }
            client.set("weir.version", version.name.to_string());
            client.set("weir.instance", upstream.id.to_string());
            client.set("server.address", upstream.address.to_string());
        }
    }

    /// Puts the trace into headers that are sent on, and what is left of the
    /// deadline.
    pub fn inject(&self, headers: &mut HeaderMap) {
        if let Some(span) = self.client.as_ref().or(self.server.as_ref()) {
            span.context().inject(headers);
        }
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Deadline::now());
            if is_grpc(headers) {
                if let Ok(value) = timeout::format(left).parse() {
                    headers.insert(GRPC_TIMEOUT, value);
                }
            } else {
                let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
                headers.insert(EXPECTED, HeaderValue::from(millis));
            }
        }
    }

    /// One more try.
    pub fn retried(&mut self) {
        self.retries += 1;
        let retries = i64::from(self.retries);
        if let Some(span) = self.client.as_mut().or(self.server.as_mut()) {
            span.event("retry", [("http.request.resend_count", retries.into())]);
        }
    }

    /// Something that traces tell of.
    pub fn event(&mut self, name: &'static str) {
        if let Some(span) = self.client.as_mut().or(self.server.as_mut()) {
            span.event(name, []);
        }
    }

    /// A response flag of the access log.
    pub fn flag(&mut self, flag: &'static str) {
        if !self.flags.contains(&flag) {
            self.flags.push(flag);
        }
    }

    /// Keeps connection and load count until the answer has ended.
    pub fn hold(&mut self, lease: Lease, pending: Pending) {
        self.held = Some((lease, Some(pending)));
    }

    /// The same for a connection to the application.
    pub fn hold_app(&mut self, lease: Lease) {
        self.held = Some((lease, None));
    }

    /// `products-v1`, or what is known of it.
    #[must_use]
    pub fn backend_name(&self) -> String {
        match (&self.service, &self.version) {
            (Some(service), Some((version, _))) => format!("{}-{version}", service.name),
            (Some(service), None) => service.name.to_string(),
            _ => "the backend".to_owned(),
        }
    }

    /// The version that was asked last.
    #[must_use]
    pub fn version(&self) -> Option<&VersionName> {
        self.version.as_ref().map(|(name, _)| name)
    }

    /// The status that the client gets.
    pub fn status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// The gRPC status of the answer.
    pub fn grpc_status(&mut self, code: u8) {
        self.grpc = Some(code);
    }

    /// The head of an answer that is passed on.
    pub fn answered<B>(&mut self, response: &Response<B>) {
        self.status = response.status();
        self.read_grpc_status(response.headers());
    }

    /// The trailers of an answer that is passed on.
    pub fn trailers(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(trailers) = trailers {
            self.read_grpc_status(trailers);
        }
    }

    fn read_grpc_status(&mut self, headers: &HeaderMap) {
        self.grpc = grpc_status(headers).or(self.grpc);
    }

    /// Bytes of the answer's body went out.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The router itself answers, with an error.
    pub fn failed(&mut self, error: &RouterError) {
        self.status = error.status();
        if self.speaks != Speaks::Http {
            self.grpc = Some(error.grpc_code());
        }
        self.flag(error.flag());
        self.error = Some(error.full());
    }

    /// The answer's body broke off.
    pub fn broke(&mut self, error: &(dyn std::error::Error + 'static)) {
        // We cut it off ourselves: its flag says why.
        if !error.is::<super::size::CutOff>() {
            self.flag("UC");
        }
        self.error = Some(error.to_string());
        if self.speaks != Speaks::Http && self.grpc.is_none() {
            self.grpc = Some(grpc::UNAVAILABLE);
        }
    }

    /// Ends it. `whole` is false when the client went before it had everything.
    pub fn end(mut self: Box<Self>, whole: bool) {
        self.record(whole);
    }
}

/// The gRPC status of an answer's headers or trailers; 2 (UNKNOWN) when it is no
/// number.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    // In the few headers of an answer, or where there is none, a look at each name
    // costs less than a hash.
    let (_, value) = headers.iter().find(|(name, _)| **name == GRPC_STATUS)?;
    let code = value.to_str().ok().and_then(|value| value.parse().ok());
    Some(code.unwrap_or(grpc::UNKNOWN))
}

/// HTTP 5xx, or a gRPC status that is not the client's doing.
#[must_use]
pub fn is_server_fault(status: StatusCode, grpc: Option<u8>) -> bool {
    match grpc {
        Some(code) => matches!(
            code,
            grpc::UNKNOWN
                | grpc::DEADLINE_EXCEEDED
                | grpc::UNIMPLEMENTED
                | grpc::INTERNAL
                | grpc::UNAVAILABLE
                | grpc::DATA_LOSS
        ),
        None => status.is_server_error(),
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connected.ends();
        self.worker.requests.set(self.worker.requests.get().saturating_sub(1));
        // The client went before there was an answer.
        if !self.recorded {
            self.status = StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT);
            self.record(false);
        }
    }
}

/// The host that a request names, as far as a host name can be long (RFC 1035
/// §2.3.4).
fn authority<B>(request: &Request<B>) -> Option<Box<str>> {
    let host = target::host(request)?;
    Some(host.get(..255).unwrap_or(host).into())
}

/// The time that a gRPC client gives a call.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let (_, value) = headers.iter().find(|(name, _)| **name == GRPC_TIMEOUT)?;
    timeout::parse(value.as_bytes())
}

fn sample(worker: &Rc<Worker>) -> bool {
    if !worker.shared.spans.is_enabled() {
        return false;
    }
    let share = worker.table().map_or(1.0, |table| table.options.trace_sampling);
    share >= 1.0 || fastrand::f64() < share
}

fn span_name<B>(speaks: Speaks, request: &Request<B>) -> String {
    match speaks {
        Speaks::Http => request.method().to_string(),
        Speaks::Grpc | Speaks::GrpcWeb => request.uri().path().trim_start_matches('/').to_owned(),
    }
}

fn speaks(headers: &HeaderMap) -> Speaks {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    match value.and_then(|value| value.strip_prefix(b"application/grpc")) {
        None => Speaks::Http,
        Some(rest) if rest.starts_with(b"-web") => Speaks::GrpcWeb,
        Some(_) => Speaks::Grpc,
    }
}
