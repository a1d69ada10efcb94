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

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn body(pieces: usize) -> DownBody {
        let piece = || Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"0123456789")));
        let pieces: Vec<_> = (0..pieces).map(|_| piece()).collect();
        DownBody::mapped(StreamBody::new(stream::iter(pieces)))
    }

    fn read(pieces: usize, grpc: bool) -> (Result<(usize, Option<String>), String>, Notice) {
        let notice = Notice::default();
        let cap = Cap::new(20, notice.clone());
        let capped = Capped::new(body(pieces), Some(cap), None, grpc);
        let read = capped.collect().now_or_never().unwrap();
        let read = read.map_err(|error| error.to_string()).map(|all| {
            let status = all.trailers().map(|t| t["grpc-status"].to_str().unwrap().to_owned());
            (all.to_bytes().len(), status)
        });
        (read, notice)
    }

    #[test]
    fn what_fits_goes_through() {
        for grpc in [true, false] {
            let (read, notice) = read(2, grpc);
            assert_eq!((read, notice.get()), (Ok((20, None)), None));
        }
    }

    #[test]
    fn what_does_not_is_cut_off() {
        let (grpc, notice) = read(3, true);
        assert_eq!((grpc, notice.get()), (Ok((20, Some("8".to_owned()))), Some("UPE")));
        let (http, notice) = read(3, false);
        assert_eq!(http.unwrap_err(), "the body is larger than 20 bytes");
        assert_eq!(notice.get(), Some("UPE"));
    }

    #[test]
    fn an_answer_ends_with_the_request_that_was_too_large() {
        let request = Cap::new(1, Notice::default());
        assert!(request.check(2).is_err());
        let capped = Capped::new(body(1), None, Some(request), true);
        let all = capped.collect().now_or_never().unwrap().unwrap();
        assert_eq!(all.trailers().unwrap()["grpc-status"], "8");
    }
}
