//! Bodies that must not grow too large: requests and answers.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::answer::{self, DownBody};
use super::body::{BodyError, UpBody};
use super::extension::Notice;
use crate::error::RouterError;

/// The most that a request's body may have; an extension of the request, for
/// what reads it whole.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit(pub u64);

/// Why a body was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the body is larger than {0} bytes")]
pub struct CutOff(u64);

/// Counts one body, by whichever attempt it is read.
#[derive(Clone)]
pub struct Cap(Rc<State>);

struct State {
    limit: u64,
    over: Cell<bool>,
    notice: Notice,
}

impl Cap {
    /// So many bytes and no more.
    #[must_use]
    pub fn new(limit: u64, notice: Notice) -> Self {
        Self(Rc::new(State { limit, over: Cell::new(false), notice }))
    }

    /// For an error text.
    #[must_use]
    pub fn limit(&self) -> usize {
        usize::try_from(self.0.limit).unwrap_or(usize::MAX)
    }

    /// Whether it was more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.over.get()
    }

    /// Checks how many bytes there have been.
    ///
    /// # Errors
    /// [`CutOff`] when that is too many.
    pub fn check(&self, bytes: u64) -> Result<(), CutOff> {
        if bytes <= self.0.limit {
            return Ok(());
        }
        self.0.over.set(true);
        Err(CutOff(self.0.limit))
    }
}

/// A request's body that is read once.
pub struct Counted {
    inner: UpBody,
    cap: Cap,
    seen: u64,
}

impl Counted {
    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: UpBody, cap: Cap) -> Self {
        Self { inner, cap, seen: 0 }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.seen += frame.data_ref().map_or(0, Bytes::len) as u64;
            let seen = self.seen;
            if let Err(error) = self.cap.check(seen) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// An answer that is cut off when it, or the request that it answers, grows too
/// large: for gRPC with RESOURCE_EXHAUSTED in its trailers, else by a reset, for
/// its head is long gone.
pub struct Capped {
    inner: DownBody,
    cap: Option<Cap>,
    request: Option<Cap>,
    grpc: bool,
    seen: u64,
    ended: bool,
}

impl Capped {
    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: DownBody, cap: Option<Cap>, request: Option<Cap>, grpc: bool) -> Self {
        Self { inner, cap, request, grpc, seen: 0, ended: false }
    }

    fn cut(
        &mut self,
        cap: &Cap,
        flag: &'static str,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.ended = true;
        // The backend hears of it at once.
        self.inner = DownBody::empty();
        cap.0.notice.set(Some(flag));
        if !self.grpc {
            return Poll::Ready(Some(Err(CutOff(cap.0.limit).into())));
        }
        let trailers = answer::trailers(&RouterError::TooLarge(cap.limit()));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

impl Body for Capped {
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
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        if let Some(cap) = this.request.clone()
            && cap.is_over()
        {
            return this.cut(&cap, "DPE");
        }
        if let Some(Ok(frame)) = &frame
            && let Some(cap) = this.cap.clone()
        {
            this.seen += frame.data_ref().map_or(0, Bytes::len) as u64;
            if cap.check(this.seen).is_err() {
                return this.cut(&cap, "UPE");
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
