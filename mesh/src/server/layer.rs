//! What is the same around every method that a service serves.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::Status;
use tower_layer::Layer;
use tower_service::Service;

use super::call::Call;
use super::deadline;
use super::span::Rpc;
use super::watched::{Watch, WatchedBody, WatchedFuture};
use crate::shutdown::Shutdown;
use crate::telemetry::trace::SpanSink;

/// Calls that a process serves at once; more are refused with
/// RESOURCE_EXHAUSTED, which is sooner known than a timeout.
pub const MAX_CONCURRENT_CALLS: usize = 1024;

/// Gives each call its span, its deadline, its place among those served at
/// once, and a status even when its handler panics.
#[derive(Clone)]
pub struct CallLayer {
    sink: SpanSink,
    draining: Shutdown,
    places: Arc<Semaphore>,
}

impl CallLayer {
    pub(super) fn new(sink: SpanSink, draining: Shutdown) -> Self {
        let places = Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS));
        Self { sink, draining, places }
    }
}

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner, layer: self.clone() }
    }
}

/// See [`CallLayer`].
#[derive(Clone)]
pub struct CallService<S> {
    inner: S,
    layer: CallLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for CallService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    ResBody: Body,
{
    type Response = Response<WatchedBody<ResBody>>;
    type Error = Status;
    type Future = WatchedFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx).map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let deadline = deadline::read(request.headers()).map(|timeout| Instant::now() + timeout);
        let rpc = Rpc::server(request.uri().path(), request.headers(), &self.layer.sink);
        let call = Call {
            context: rpc.context().clone(),
            deadline,
            draining: self.layer.draining.clone(),
        };
        let permit = Arc::clone(&self.layer.places).try_acquire_owned().ok();
        let full = permit.is_none();
        let watch = Watch { call: Some(call.clone()), deadline, rpc: Some(rpc), permit };
        if full {
            let status = Status::resource_exhausted("this instance serves as many calls as it can");
            return WatchedFuture::refused(status, watch);
        }
        // A handler may do its first work in `call`, before it is polled.
        let inner = call.enter(|| self.inner.call(request));
        WatchedFuture::new(inner, watch)
    }
}
