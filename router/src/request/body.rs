//! Bodies on their way through: never copied, at most held for a retry.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::mirror::Copying;
use super::size::Cap;

/// Whatever broke a body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a request that are held so that it can be sent again. A larger
/// body is sent once.
const REPLAY_LIMIT: usize = 64 * 1024;

/// What is sent to an upstream.
pub enum UpBody {
    /// Nothing.
    Empty,
    /// One piece.
    Full(Option<Bytes>),
    /// As it comes.
    Stream(Incoming),
    /// As it comes, for as long as it may have to be sent again.
    Replay(Replay),
    /// Through a translation.
    Mapped(Pin<Box<dyn Body<Data = Bytes, Error = BodyError>>>),
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Replay(replay) => replay.poll_frame(cx),
            Self::Mapped(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Full(None) => true,
            Self::Full(Some(_)) => false,
            Self::Stream(body) => body.is_end_stream(),
            Self::Replay(replay) => replay.is_end_stream(),
            Self::Mapped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Full(None) => SizeHint::with_exact(0),
            Self::Full(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(body) => body.size_hint(),
            Self::Replay(replay) => replay.size_hint(),
            Self::Mapped(body) => body.size_hint(),
        }
    }
}

/// A request body that several attempts may read, one after another.
pub struct Source(Rc<RefCell<State>>);

/// One attempt's reading of a [`Source`].
pub struct Replay {
    state: Rc<RefCell<State>>,
    /// The next held frame to send; those before it this attempt has sent.
    at: usize,
}

struct State {
    body: Incoming,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// False once something was passed on that is not held.
    whole: bool,
    ended: bool,
    /// The client's side broke off.
    broke: bool,
    /// Mirrors wait for a copy.
    copying: Option<Copying>,
    /// Set where a rule limits bodies; the bytes that have come.
    cap: Option<Box<(Cap, u64)>>,
}

enum Held {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

impl Source {
    /// Holds what is read of `body` while it is small enough.
    #[must_use]
    pub fn new(body: Incoming) -> Self {
        Self(Rc::new(RefCell::new(State {
            body,
            held: VecDeque::new(),
            held_bytes: 0,
            whole: true,
            ended: false,
            broke: false,
            copying: None,
            cap: None,
        })))
    }

    /// A reading from the start. None when parts of the body are gone.
    #[must_use]
    pub fn attempt(&self) -> Option<UpBody> {
        let state = self.0.borrow();
        if !state.whole {
            return None;
        }
        if state.held.is_empty() && (state.ended || state.body.is_end_stream()) {
            return Some(UpBody::Empty);
        }
        drop(state);
        Some(UpBody::Replay(Replay { state: self.0.clone(), at: 0 }))
    }

    /// Gives a copy to `copy`, once all of it is there.
    pub fn copy_to(&self, copy: Copying) {
        self.0.borrow_mut().copying = Some(copy);
    }

    /// Cuts it off where it grows too large.
    pub fn cap(&self, cap: Cap) {
        self.0.borrow_mut().cap = Some(Box::new((cap, 0)));
    }

    /// Whether all of it is here and held: then several may read it at once.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let state = self.0.borrow();
        state.whole && (state.ended || state.body.is_end_stream())
    }

    /// Whether the client broke off in the middle of it.
    #[must_use]
    pub fn broke(&self) -> bool {
        self.0.borrow().broke
    }

    /// No attempt will follow: stop holding.
    pub fn settle(&self) {
        self.0.borrow_mut().whole = false;
    }
}

impl Replay {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut *self.state.borrow_mut();
        if let Some(held) = state.held.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(match held {
                Held::Data(bytes) => Frame::data(bytes.clone()),
                Held::Trailers(trailers) => Frame::trailers(trailers.clone()),
            })));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        if !state.whole && !state.held.is_empty() {
            // This attempt has sent them all, and it is the last.
            state.held = VecDeque::new();
            self.at = 0;
        }
        let frame = match ready!(Pin::new(&mut state.body).poll_frame(cx)) {
            None => {
                state.ended = true;
                if let Some(copying) = state.copying.take() {
                    copying.end();
                }
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                state.whole = false;
                state.broke = true;
                return Poll::Ready(Some(Err(error.into())));
            }
            Some(Ok(frame)) => frame,
        };
        if let Some(capped) = &mut state.cap {
            let (cap, seen) = &mut **capped;
            *seen += frame.data_ref().map_or(0, Bytes::len) as u64;
            if let Err(error) = cap.check(*seen) {
                state.whole = false;
                state.broke = true;
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        if state.copying.is_some() {
            Copying::frame(&mut state.copying, &frame, state.body.is_end_stream());
        }
        if state.whole {
            let size = frame.data_ref().map_or(0, Bytes::len);
            if state.held_bytes + size > REPLAY_LIMIT {
                state.whole = false;
                state.held = VecDeque::new();
                self.at = 0;
            } else {
                state.held_bytes += size;
                self.at += 1;
                state.held.push_back(match frame.data_ref() {
                    Some(bytes) => Held::Data(bytes.clone()),
                    None => Held::Trailers(frame.trailers_ref().cloned().unwrap_or_default()),
                });
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.state.borrow();
        self.at >= state.held.len() && (state.ended || state.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.state.borrow();
        let held: usize = state
            .held
            .iter()
            .skip(self.at)
            .map(|held| match held {
                Held::Data(bytes) => bytes.len(),
                Held::Trailers(_) => 0,
            })
            .sum();
        let rest = state.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held as u64);
        }
        hint.set_lower(rest.lower() + held as u64);
        hint
    }
}
