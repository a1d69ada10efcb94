//! One worker's connections to one address.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};

use super::dial::Connection;
use super::{Dial, Limiter};
use crate::request::body::UpBody;

/// Streams on one connection before another is opened. Peers of this field
/// allow 100 to 250 by default.
const STREAMS: usize = 200;
/// Idle HTTP/1.1 connections that are kept.
const IDLE: usize = 64;

/// Connections to one address.
pub struct Pool {
    address: SocketAddr,
    dial: Dial,
    http2: RefCell<Vec<Rc<Http2>>>,
    http1: RefCell<Vec<http1::SendRequest<UpBody>>>,
    /// Held while connecting, so that a burst of requests opens one connection.
    dialing: tokio::sync::Mutex<()>,
    /// When a dial failed last, and how: for those who waited for it.
    failed: Cell<Option<(Instant, io::ErrorKind)>>,
}

struct Http2 {
    sender: http2::SendRequest<UpBody>,
    streams: Cell<usize>,
}

/// Why a request did not get an answer.
pub enum Failure {
    /// Nothing was sent: no connection. The request comes back.
    Connect(io::Error, Box<Request<UpBody>>),
    /// It was not sent: the connection went away first. The request comes back.
    Unsent(hyper::Error, Box<Request<UpBody>>),
    /// The peer says that it did nothing with it (REFUSED_STREAM, or a GOAWAY
    /// that leaves it out; RFC 9113 §8.7): safe to send again.
    Refused(hyper::Error),
    /// It was sent, and what became of it is not known.
    Broken(hyper::Error),
}

/// An answer, and what must live as long as its body.
pub struct Sent {
    /// The answer.
    pub response: Response<Incoming>,
    /// Frees the connection when dropped.
    pub lease: Lease,
}

/// What a request can be sent on.
enum Ready {
    Stream(StreamLease),
    Connection(http1::SendRequest<UpBody>),
}

/// Holds a connection, or a stream of one.
#[expect(dead_code, reason = "held for what its parts do when they are dropped")]
pub enum Lease {
    /// A stream.
    Stream(StreamLease),
    /// A whole HTTP/1.1 connection.
    Connection(ConnectionLease),
}

/// One stream of an HTTP/2 connection.
pub struct StreamLease(Rc<Http2>);

impl Drop for StreamLease {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

/// An HTTP/1.1 connection; goes back to its pool when it can be used again.
pub struct ConnectionLease(Option<http1::SendRequest<UpBody>>, Rc<Pool>);

impl Drop for ConnectionLease {
    fn drop(&mut self) {
        let (Some(mut sender), pool) = (self.0.take(), self.1.clone()) else { return };
        if sender.is_closed() {
            return;
        }
        if sender.is_ready() {
            return pool.keep(sender);
        }
        tokio::task::spawn_local(async move {
            if sender.ready().await.is_ok() {
                pool.keep(sender);
            }
        });
    }
}

impl Pool {
    /// Nothing is connected yet.
    #[must_use]
    pub fn new(address: SocketAddr, dial: Dial) -> Self {
        Self {
            address,
            dial,
            http2: RefCell::default(),
            http1: RefCell::default(),
            dialing: tokio::sync::Mutex::new(()),
            failed: Cell::new(None),
        }
    }

    /// Whether a request can be sent without opening a connection.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let open = |c: &Rc<Http2>| !c.sender.is_closed() && c.streams.get() < STREAMS;
        self.http2.borrow().iter().any(open) || !self.http1.borrow().is_empty()
    }

    /// Closes connections that wait for a request, but for the newest.
    pub fn close_spare(&self) {
        let mut idle = self.http1.borrow_mut();
        let spare = idle.len().saturating_sub(1);
        idle.drain(..spare);
    }

    fn keep(&self, sender: http1::SendRequest<UpBody>) {
        let mut idle = self.http1.borrow_mut();
        if idle.len() < IDLE {
            idle.push(sender);
        }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`Failure`] says whether it may be sent again.
    pub fn send(
        self: &Rc<Self>,
        request: Request<UpBody>,
    ) -> impl Future<Output = Result<Sent, Failure>> {
        self.send_within(request, None)
    }

    /// The same, with a limit of connections: without room for one more, those
    /// that are there are shared.
    ///
    /// # Errors
    /// [`Failure::Connect`] with [`io::ErrorKind::QuotaExceeded`] when there is
    /// none to share.
    pub async fn send_within(
        self: &Rc<Self>,
        request: Request<UpBody>,
        limit: Option<&Arc<Limiter>>,
    ) -> Result<Sent, Failure> {
        let ready = match self.ready() {
            Some(ready) => ready,
            // Rare, so in a box.
            None => match Box::pin(self.connect(limit)).await {
                Ok(ready) => ready,
                Err(error) => return Err(Failure::Connect(error, Box::new(request))),
            },
        };
        // Both here: each function on the way would move request and answer once more.
        let (sent, lease) = match ready {
            Ready::Stream(lease) => {
                let mut sender = lease.0.sender.clone();
                (sender.try_send_request(request).await, Lease::Stream(lease))
            }
            Ready::Connection(mut sender) => {
                let sent = sender.try_send_request(request).await;
                let sender = sent.is_ok().then_some(sender);
                (sent, Lease::Connection(ConnectionLease(sender, self.clone())))
            }
        };
        match sent {
            Ok(response) => Ok(Sent { response, lease }),
            Err(error) => Err(failure(error)),
        }
    }

    /// What can be sent on at once.
    fn ready(&self) -> Option<Ready> {
        if !self.dial.is_http1() {
            return self.stream().map(Ready::Stream);
        }
        loop {
            let sender = self.http1.borrow_mut().pop()?;
            if !sender.is_closed() {
                return Some(Ready::Connection(sender));
            }
        }
    }

    async fn connect(&self, limit: Option<&Arc<Limiter>>) -> io::Result<Ready> {
        if !self.dial.is_http1() {
            return self.connect_stream(limit).await.map(Ready::Stream);
        }
        match self.dial_http1(limit).await? {
            Connection::Http1(sender) => Ok(Ready::Connection(sender)),
            Connection::Http2(_) => Err(io::Error::other("dialled HTTP/2 for HTTP/1.1")),
        }
    }

    fn stream(&self) -> Option<StreamLease> {
        self.stream_below(STREAMS)
    }

    fn stream_below(&self, most: usize) -> Option<StreamLease> {
        let mut connections = self.http2.borrow_mut();
        connections.retain(|c| !c.sender.is_closed());
        let least = connections.iter().min_by_key(|c| c.streams.get())?;
        if least.streams.get() >= most {
            return None;
        }
        least.streams.set(least.streams.get() + 1);
        Some(StreamLease(least.clone()))
    }

    async fn connect_stream(&self, limit: Option<&Arc<Limiter>>) -> io::Result<StreamLease> {
        let asked = Instant::now();
        let _dialing = self.dialing.lock().await;
        if let Some(lease) = self.stream() {
            return Ok(lease);
        }
        if let Some((at, kind)) = self.failed.get()
            && at >= asked
        {
            return Err(kind.into());
        }
        let permit = match limit.map(|limit| limit.try_enter().ok_or(io::ErrorKind::QuotaExceeded))
        {
            Some(Err(full)) => {
                return self.stream_below(usize::MAX).ok_or_else(|| full.into());
            }
            Some(Ok(permit)) => Some(permit),
            None => None,
        };
        let dialled = self.dial.connect(self.address, permit).await;
        match dialled.inspect_err(|e| self.failed.set(Some((Instant::now(), e.kind()))))? {
            Connection::Http2(sender) => {
                let connection = Rc::new(Http2 { sender, streams: Cell::new(1) });
                self.http2.borrow_mut().push(connection.clone());
                Ok(StreamLease(connection))
            }
            Connection::Http1(_) => Err(io::Error::other("dialled HTTP/1.1 for HTTP/2")),
        }
    }

    /// Connects, and hangs up.
    ///
    /// # Errors
    /// As [`Dial::connect`].
    pub async fn dial_once(&self) -> io::Result<()> {
        self.dial.connect(self.address, None).await.map(drop)
    }

    async fn dial_http1(&self, limit: Option<&Arc<Limiter>>) -> io::Result<Connection> {
        let permit = match limit {
            None => None,
            Some(limit) => Some(limit.try_enter().ok_or(io::ErrorKind::QuotaExceeded)?),
        };
        self.dial.connect(self.address, permit).await
    }
}

/// By the request that comes back, if it does, and what the peer says.
fn failure(mut error: TrySendError<Request<UpBody>>) -> Failure {
    match error.take_message() {
        Some(request) => Failure::Unsent(error.into_error(), Box::new(request)),
        None => {
            let error = error.into_error();
            if was_refused(&error) { Failure::Refused(error) } else { Failure::Broken(error) }
        }
    }
}

fn was_refused(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            let reason = h2.reason();
            let nothing_done = reason == Some(h2::Reason::REFUSED_STREAM)
                || (h2.is_go_away() && reason == Some(h2::Reason::NO_ERROR));
            return h2.is_remote() && nothing_done;
        }
        source = inner.source();
    }
    false
}
