//! One call under watch: it ends by its deadline, it ends with a status even
//! when the code behind it panics, and its span says how it ended.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};

use super::call::Call;
use super::span::Rpc;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What lives exactly as long as the call.
pub(super) struct Watch {
    /// The call that the handler runs as; `None` on the client's side.
    pub(super) call: Option<Call>,
    pub(super) deadline: Option<Instant>,
    pub(super) rpc: Option<Rpc>,
    /// A place among those that may be served at once.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

impl Watch {
    fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
        // What panicked is dropped with the call and never seen again.
        catch_unwind(AssertUnwindSafe(|| match &self.call {
            Some(call) => call.enter(work),
            None => work(),
        }))
    }

    fn overdue(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }

    /// The first end counts.
    fn finish(&mut self, code: Code) {
        if let Some(rpc) = self.rpc.take() {
            rpc.finish(code);
        }
        self.permit = None;
    }

    fn finish_by(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.finish(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The other side went away before the end.
        let code = if self.overdue() { Code::DeadlineExceeded } else { Code::Cancelled };
        self.finish(code);
    }
}

fn panicked() -> Status {
    Status::internal("the service failed; its log says where")
}

fn overdue() -> Status {
    Status::deadline_exceeded("the caller's deadline has passed")
}

pin_project! {
    /// The future of a watched call's response. It has no error: whatever goes
    /// wrong becomes a gRPC status.
    pub struct WatchedFuture<F> {
        // Dropped first when the deadline passes, so that its work ends.
        #[pin]
        inner: Option<F>,
        #[pin]
        sleep: Option<Sleep>,
        watch: Option<Watch>,
        refused: Option<Status>,
    }
}

impl<F> WatchedFuture<F> {
    pub(super) fn new(inner: F, watch: Watch) -> Self {
        let sleep = watch.deadline.map(tokio::time::sleep_until);
        Self { inner: Some(inner), sleep, watch: Some(watch), refused: None }
    }

    /// A call that ends before it begins.
    pub(super) fn refused(status: Status, mut watch: Watch) -> Self {
        watch.finish(status.code());
        Self { inner: None, sleep: None, watch: None, refused: Some(status) }
    }
}

impl<F, B, E> Future for WatchedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    E: Into<BoxError>,
{
    type Output = Result<Response<WatchedBody<B>>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(status) = this.refused.take() {
            return Poll::Ready(Ok(WatchedBody::ended(&status)));
        }
        let (Some(inner), Some(watch)) = (this.inner.as_mut().as_pin_mut(), this.watch.as_mut())
        else {
            return Poll::Pending;
        };
        let end = match watch.run(|| inner.poll(cx)) {
            Ok(Poll::Ready(Ok(response))) => Ok(response),
            Ok(Poll::Ready(Err(_))) if watch.overdue() => Err(overdue()),
            Ok(Poll::Ready(Err(error))) => Err(Status::from_error(error.into())),
            Ok(Poll::Pending) => {
                let Some(sleep) = this.sleep.as_pin_mut() else { return Poll::Pending };
                ready!(sleep.poll(cx));
                Err(overdue())
            }
            Err(_panic) => Err(panicked()),
        };
        this.inner.set(None);
        let Some(mut watch) = this.watch.take() else { return Poll::Pending };
        Poll::Ready(Ok(match end {
            Ok(response) => {
                watch.finish_by(response.headers());
                response.map(|inner| WatchedBody::new(inner, watch))
            }
            Err(status) => {
                watch.finish(status.code());
                WatchedBody::ended(&status)
            }
        }))
    }
}

pin_project! {
    /// The body of a watched call's response.
    pub struct WatchedBody<B> {
        #[pin]
        inner: Option<B>,
        #[pin]
        sleep: Option<Sleep>,
        watch: Option<Watch>,
    }
}

impl<B: Body> WatchedBody<B> {
    fn new(inner: B, mut watch: Watch) -> Self {
        // A response that has its status in its headers is never polled.
        if inner.is_end_stream() {
            watch.finish(Code::Unknown);
        }
        let sleep = watch.deadline.map(tokio::time::sleep_until);
        Self { inner: Some(inner), sleep, watch: Some(watch) }
    }

    fn ended(status: &Status) -> Response<Self> {
        status.clone().into_http::<()>().map(|()| Self { inner: None, sleep: None, watch: None })
    }
}

impl<B> Body for WatchedBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let (Some(inner), Some(watch)) = (this.inner.as_mut().as_pin_mut(), this.watch.as_mut())
        else {
            return Poll::Ready(None);
        };
        let status = match watch.run(|| inner.poll_frame(cx)) {
            Ok(Poll::Ready(frame)) => {
                match &frame {
                    Some(Ok(frame)) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            watch.finish_by(trailers);
                        }
                    }
                    Some(Err(_)) => watch.finish(Code::Unavailable),
                    None => watch.finish(Code::Unknown),
                }
                return Poll::Ready(frame);
            }
            Ok(Poll::Pending) => {
                let Some(sleep) = this.sleep.as_pin_mut() else { return Poll::Pending };
                ready!(sleep.poll(cx));
                overdue()
            }
            Err(_panic) => panicked(),
        };
        watch.finish(status.code());
        this.inner.set(None);
        let mut trailers = HeaderMap::new();
        // Both texts are plain ASCII, so this always fits into headers.
        let _ = status.add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
