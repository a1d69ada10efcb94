//! HTTP/1.1 from applications and from outside.
//!
//! A connection that is idle is *parked*: HTTP's buffers go, the socket stays,
//! and its next byte brings them back. Clients of this field keep many
//! connections at hand and use few.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::front::Front;
use super::{Closing, Connected, answer, requested};
use crate::worker::Worker;

/// For the whole head of a request, in ticks of [`TICK`]. hyper's own timer would
/// be set anew for each request.
const HEAD: u32 = 30;
/// Number of headers of one request.
const HEADERS: usize = 128;
/// Buffer of a connection at most.
const BUFFER: usize = 128 * 1024;
/// A connection without a request for this long, or up to twice, is parked.
const TICK: Duration = Duration::from_secs(1);
/// A parked connection is closed then.
const IDLE: Duration = Duration::from_secs(300);
/// And so is one that is idle and cannot be parked.
const IDLE_TICKS: u32 = 300;

/// Serves a connection until it ends, or until `closing` and its request is done.
pub async fn serve(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    stream: Front,
    closing: Closing,
) -> io::Result<()> {
    let (prefix, connection) = (Bytes::new(), connected.clone());
    let mut stream = Prefixed { prefix, stream, connected: connection };
    loop {
        let active = Box::pin(active(&worker, &connected, stream, closing.clone()));
        stream = match active.await? {
            Some(stream) => stream,
            None => return Ok(()),
        };
        // Its buffers are free, and may go to the system.
        worker.activity.note();
        // What has begun to come is no idle connection, whoever sends slowly:
        // its head's time runs from now.
        if stream.prefix.is_empty() && !wake(stream.stream.get_ref(), closing.clone()).await? {
            return Ok(());
        }
    }
}

/// Serves requests until the connection ends (`None`) or is idle.
async fn active(
    worker: &Rc<Worker>,
    connected: &Rc<Connected>,
    stream: Prefixed,
    closing: Closing,
) -> io::Result<Option<Prefixed>> {
    // In a box, for the connection keeps room for one: an idle one would pay.
    let service = service_fn(|request: Request<Incoming>| {
        connected.has_body.set(!request.body().is_end_stream());
        answer(worker, connected, request)
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut closed = pin!(requested(closing));
    let (mut seen, mut ticks) = (connected.requests.get(), 0);
    loop {
        tokio::select! {
            biased;
            result = &mut connection => {
                return result.map(|()| None).map_err(io::Error::other);
            }
            () = &mut closed => break,
            () = sleep(TICK) => {
                let now = connected.requests.get();
                let idle = now == seen && connected.busy.get() == 0;
                ticks = if idle { ticks + 1 } else { 0 };
                if ticks >= if connected.head_begun.get() { HEAD } else { IDLE_TICKS } {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                if idle && connected.may_park() {
                    Pin::new(&mut connection).graceful_shutdown();
                    let once = |cx: &mut Context<'_>| {
                        Poll::Ready(connection.poll_without_shutdown(cx))
                    };
                    // It is idle, so it ends at once; one that does not is no
                    // connection to go on with.
                    match poll_fn(once).await {
                        Poll::Ready(ended) => ended.map_err(io::Error::other)?,
                        Poll::Pending => {
                            return connection.await.map(|()| None).map_err(io::Error::other);
                        }
                    }
                    let parts = connection.into_parts();
                    let mut stream = parts.io.into_inner();
                    if !parts.read_buf.is_empty() {
                        // Not else: an empty slice would still hold the buffer.
                        stream.prefix = parts.read_buf;
                    }
                    return Ok(Some(stream));
                }
                seen = now;
            }
        }
    }
    Pin::new(&mut connection).graceful_shutdown();
    connection.await.map(|()| None).map_err(io::Error::other)
}

/// Waits for the next byte of a parked connection. False when there is none:
/// the client closed it, nothing came in [`IDLE`], or the router stops.
async fn wake(stream: &TcpStream, closing: Closing) -> io::Result<bool> {
    let mut byte = [0];
    tokio::select! {
        peeked = timeout(IDLE, stream.peek(&mut byte)) => match peeked {
            Ok(peeked) => Ok(peeked? > 0),
            Err(_) => Ok(false),
        },
        () = requested(closing) => Ok(false),
    }
}

/// A socket, and what was read of it already. Notes when a head begins.
struct Prefixed {
    prefix: Bytes,
    stream: Front,
    connected: Rc<Connected>,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
            if buffer.filled().len() > before {
                self.connected.note_read();
            }
            return polled;
        }
        self.connected.note_read();
        let count = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.connected.flushed.set(false);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.connected.flushed.set(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper asks for it when its own buffer is empty, and not before.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.connected.flushed.set(matches!(flushed, Poll::Ready(Ok(()))));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}
