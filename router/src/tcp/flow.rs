//! Bytes both ways: between a local socket and a stream of HTTP/2, or between
//! two sockets. Half-closes and aborts are carried, and nothing is buffered while
//! nothing comes.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::request::body::BodyError;

/// What is read at once; one buffer of this size serves a whole worker.
const PIECE: usize = 64 * 1024;
/// Counters of a connection that goes on are told this often.
const TELL: Duration = Duration::from_secs(10);

thread_local! {
    static PIECES: RefCell<Box<[u8]>> = RefCell::new(Box::default());
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides said that they are done.
    Whole,
    /// The local socket broke.
    Near,
    /// The other side broke.
    Far,
    /// No byte came either way for too long.
    Idle,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
    /// The socket did.
    Broke,
    /// Nobody takes the rest.
    Dropped,
}

/// What is known of a connection while it lives. The local socket is its near
/// side.
pub struct Flow {
    /// Bytes that came from the near side.
    read: Cell<u64>,
    /// Bytes that went to it.
    written: Cell<u64>,
    reading: Cell<Reading>,
    aborted: Cell<bool>,
    /// Of the task that waits for the near side's end.
    waiting: RefCell<Option<Waker>>,
    /// Of the task that reads the near side.
    reader: RefCell<Option<Waker>>,
}

impl Flow {
    /// Nothing has passed.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            read: Cell::new(0),
            written: Cell::new(0),
            reading: Cell::new(Reading::Open),
            aborted: Cell::new(false),
            waiting: RefCell::default(),
            reader: RefCell::default(),
        })
    }

    /// Bytes from the near side, and to it.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.read.get(), self.written.get())
    }

    fn reads(&self, how: Reading) {
        if self.reading.get() == Reading::Open {
            self.reading.set(how);
        }
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Whoever reads the near side gives up, and resets its stream.
    fn abort(&self) {
        self.aborted.set(true);
        if let Some(waker) = self.reader.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn read_ended(&self) -> Reading {
        std::future::poll_fn(|cx| match self.reading.get() {
            Reading::Open => {
                *self.waiting.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            ended => Poll::Ready(ended),
        })
        .await
    }
}

/// The near side as a body. It waits for the socket: bytes that were read before
/// there is an instance to take them would be lost with it.
pub struct NearBody {
    state: State,
    flow: Rc<Flow>,
}

enum State {
    Waiting(oneshot::Receiver<Near>),
    Reading(Near),
    Ended,
}

/// The half of the near socket that is read, and what was read of it already.
pub struct Near {
    prefix: Bytes,
    half: OwnedReadHalf,
}

impl Near {
    /// `prefix` comes before what the socket has.
    #[must_use]
    pub fn new(half: OwnedReadHalf, prefix: Bytes) -> Self {
        Self { prefix, half }
    }
}

impl NearBody {
    /// Of a socket that is there.
    #[must_use]
    pub fn new(near: Near, flow: Rc<Flow>) -> Self {
        Self { state: State::Reading(near), flow }
    }

    /// Of a socket that comes when the other side is there.
    #[must_use]
    pub fn later(flow: Rc<Flow>) -> (oneshot::Sender<Near>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self { state: State::Waiting(receiver), flow })
    }

    fn ends(&mut self, how: Reading) {
        self.state = State::Ended;
        self.flow.reads(how);
    }
}

impl Body for NearBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.flow.aborted.get() {
            this.ends(Reading::Broke);
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        if let State::Waiting(receiver) = &mut this.state {
            match ready!(Pin::new(receiver).poll(cx)) {
                Ok(near) => this.state = State::Reading(near),
                Err(_) => this.state = State::Ended,
            }
        }
        let State::Reading(near) = &mut this.state else { return Poll::Ready(None) };
        if !near.prefix.is_empty() {
            let prefix = std::mem::take(&mut near.prefix);
            this.flow.read.set(this.flow.read.get() + prefix.len() as u64);
            return Poll::Ready(Some(Ok(Frame::data(prefix))));
        }
        let Poll::Ready(read) = poll_read(&near.half, cx) else {
            *this.flow.reader.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match read {
            Ok(bytes) if bytes.is_empty() => {
                this.ends(Reading::Ended);
                Poll::Ready(None)
            }
            Ok(bytes) => {
                this.flow.read.set(this.flow.read.get() + bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(_) => {
                this.ends(Reading::Broke);
                Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())))
            }
        }
    }
}

impl Drop for NearBody {
    fn drop(&mut self) {
        // Whoever dropped it early does not want the rest.
        self.flow.reads(Reading::Dropped);
    }
}

/// What has come, at most [`PIECE`]; empty at the end.
fn poll_read(half: &OwnedReadHalf, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let stream: &TcpStream = half.as_ref();
    PIECES.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            *buffer = vec![0; PIECE].into();
        }
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read(buffer) {
                Ok(count) => return Poll::Ready(Ok(Bytes::copy_from_slice(&buffer[..count]))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    })
}

/// Ends a connection such that the other side sees a reset, not an end.
pub fn reset(write: OwnedWriteHalf) {
    let stream: &TcpStream = write.as_ref();
    // Failing it makes an end of it, which is all that can be done then.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    // Not dropped: that would send an end first.
    write.forget();
}

/// Carries `far` to the near socket, whose [`NearBody`] somebody else carries the
/// other way, until both have ended. `tell` is called now and then, and at the end.
pub async fn relay(
    flow: &Rc<Flow>,
    mut write: OwnedWriteHalf,
    far: Incoming,
    idle: Duration,
    tell: impl Fn(),
) -> End {
    let end = {
        let download = pin!(download(flow, far, &mut write));
        let upload = pin!(async {
            match flow.read_ended().await {
                Reading::Broke => Err(End::Near),
                Reading::Dropped => Err(End::Far),
                Reading::Open | Reading::Ended => Ok(()),
            }
        });
        both(flow, upload, download, idle, &tell).await
    };
    if end != End::Whole {
        flow.abort();
        reset(write);
    }
    tell();
    end
}

async fn download(flow: &Flow, mut far: Incoming, write: &mut OwnedWriteHalf) -> Result<(), End> {
    while let Some(frame) = far.frame().await {
        let Ok(frame) = frame else { return Err(End::Far) };
        if let Ok(data) = frame.into_data() {
            write.write_all(&data).await.map_err(|_| End::Near)?;
            flow.written.set(flow.written.get() + data.len() as u64);
        }
    }
    write.shutdown().await.map_err(|_| End::Near)
}

/// Waits for both directions, for one that breaks, or for too long a silence.
async fn both(
    flow: &Flow,
    mut upload: Pin<&mut impl Future<Output = Result<(), End>>>,
    mut download: Pin<&mut impl Future<Output = Result<(), End>>>,
    idle: Duration,
    tell: &impl Fn(),
) -> End {
    let (mut up, mut down) = (false, false);
    let tick = (idle / 8).clamp(Duration::from_millis(1), TELL);
    let (mut seen, mut since) = (flow.counts(), Instant::now());
    while !(up && down) {
        tokio::select! {
            biased;
            ended = &mut download, if !down => match ended {
                Ok(()) => down = true,
                Err(end) => return end,
            },
            ended = &mut upload, if !up => match ended {
                Ok(()) => up = true,
                Err(end) => return end,
            },
            () = sleep(tick) => {
                let now = flow.counts();
                if now != seen {
                    (seen, since) = (now, Instant::now());
                    tell();
                } else if since.elapsed() >= idle {
                    return End::Idle;
                }
            }
        }
    }
    End::Whole
}

/// The same between two sockets.
pub async fn relay_sockets(
    flow: &Rc<Flow>,
    near: (Near, OwnedWriteHalf),
    far: TcpStream,
    idle: Duration,
    tell: impl Fn(),
) -> End {
    let (far_read, mut far_write) = far.into_split();
    let (near, mut near_write) = near;
    let end = {
        let upload = pin!(pump(near, &mut far_write, &flow.read, End::Near, End::Far));
        let far = Near::new(far_read, Bytes::new());
        let download = pin!(pump(far, &mut near_write, &flow.written, End::Far, End::Near));
        both(flow, upload, download, idle, &tell).await
    };
    if end != End::Whole {
        reset(near_write);
        reset(far_write);
    }
    tell();
    end
}

async fn pump(
    from: Near,
    to: &mut OwnedWriteHalf,
    count: &Cell<u64>,
    on_read: End,
    on_write: End,
) -> Result<(), End> {
    let mut next = from.prefix;
    loop {
        if !next.is_empty() {
            to.write_all(&next).await.map_err(|_| on_write)?;
            count.set(count.get() + next.len() as u64);
        }
        let reading = std::future::poll_fn(|cx| poll_read(&from.half, cx));
        next = reading.await.map_err(|_| on_read)?;
        if next.is_empty() {
            return to.shutdown().await.map_err(|_| on_write);
        }
    }
}
