//! Calling other services through this service's own router.

use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Uri};
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tower_service::Service;

use super::call::Call;
use super::deadline;
use super::span::Rpc;
use super::watched::{Watch, WatchedBody, WatchedFuture};
use crate::telemetry::trace::SpanSink;

/// How long a call waits for its answer when nothing else limits it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands for a service's name in the URL of [`Outbound`].
const PLACE: &str = "{service}";

/// The way to other services: the outbound listener of this service's router, or,
/// where connections are redirected to it, their own addresses.
#[derive(Clone)]
pub struct Outbound {
    url: String,
    timeout: Duration,
    sink: SpanSink,
}

/// The outbound listener's URL cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "outbound `{url}` is not a URL such as http://127.0.0.1:15001 or \
     http://{PLACE}.shop.svc.cluster.local:8080"
)]
pub struct InvalidOutbound {
    url: String,
}

/// A service's name cannot be the authority of a URL.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` cannot be a service's name: give a DNS label such as `users`")]
pub struct InvalidService(String);

impl Outbound {
    /// `url` is `http://IP:PORT` of the router's listener, which is told by the
    /// authority of a request which service is meant; or it has `{service}` in the
    /// host, and each service is asked at its own address. Nothing is connected yet.
    ///
    /// # Errors
    /// When `url` is not a plain `http://` URL.
    pub fn new(url: &str) -> Result<Self, InvalidOutbound> {
        let invalid = || InvalidOutbound { url: url.to_owned() };
        let uri: Uri = url.replace(PLACE, "service").parse().map_err(|_| invalid())?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(invalid());
        }
        let url = url.to_owned();
        Ok(Self { url, timeout: DEFAULT_TIMEOUT, sink: SpanSink::disabled() })
    }

    /// Where client spans go.
    #[must_use]
    pub fn with_spans(mut self, sink: SpanSink) -> Self {
        self.sink = sink;
        self
    }

    /// The longest that a call takes for which the request sets no timeout
    /// itself (default: 10 s). The deadline of the call being served counts too.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A connection to a service by its name, made at the first call and made
    /// anew whenever it breaks. Clone it rather than asking again.
    ///
    /// # Errors
    /// When `service` cannot be the authority of a URL.
    pub fn channel(&self, service: &str) -> Result<OutboundChannel, InvalidService> {
        let invalid = |_| InvalidService(service.to_owned());
        let origin = Uri::builder().scheme("http").authority(service).path_and_query("/").build();
        let origin = origin.map_err(|_| InvalidService(service.to_owned()))?;
        let address: Uri = self.url.replace(PLACE, service).parse().map_err(invalid)?;
        let direct = self.url.contains(PLACE);
        let endpoint = Endpoint::from(address.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(5))
            .origin(if direct { address } else { origin });
        let inner = endpoint.connect_lazy();
        Ok(OutboundChannel { inner, timeout: self.timeout, sink: self.sink.clone() })
    }
}

/// A channel for tonic's generated clients. Each call is a client span below
/// the call being served, carries its trace on, and is given up with it.
#[derive(Clone)]
pub struct OutboundChannel {
    inner: Channel,
    timeout: Duration,
    sink: SpanSink,
}

impl Service<Request<tonic::body::Body>> for OutboundChannel {
    type Response = Response<WatchedBody<tonic::body::Body>>;
    type Error = Status;
    type Future = WatchedFuture<<Channel as Service<Request<tonic::body::Body>>>::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx).map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> Self::Future {
        let serving = Call::current();
        let own = deadline::read(request.headers()).unwrap_or(self.timeout);
        let left = serving.as_ref().and_then(Call::remaining).map_or(own, |left| left.min(own));
        deadline::write(request.headers_mut(), left);

        let path = request.uri().path().to_owned();
        let parent = serving.as_ref().map(|call| &call.context);
        let rpc = Rpc::client(&path, parent, request.headers_mut(), &self.sink);
        let deadline = Some(Instant::now() + left);
        let watch = Watch { call: None, deadline, rpc: Some(rpc), permit: None };
        if left.is_zero() {
            let status = Status::deadline_exceeded("no time was left for this call");
            return WatchedFuture::refused(status, watch);
        }
        WatchedFuture::new(self.inner.call(request), watch)
    }
}
