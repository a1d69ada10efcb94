//! Requests over HTTP/2, many at a time on each connection; gRPC's too.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::record::{Answer, Kind};
use super::{CONNECT, Run, io_kind};
use crate::grpc::Messages;
use crate::h2_stream::{self, CONNECTION_WINDOW, STREAM_WINDOW, read};
use crate::net;

/// A request that the server says it has not begun is sent again so often.
const RETRIES: u32 = 3;

/// One connection, shared by the workers that fill it.
#[derive(Default)]
pub struct Link(Mutex<Current>);

#[derive(Default)]
struct Current {
    /// How many connections there were before this one.
    number: u64,
    sender: Option<SendRequest<Bytes>>,
}

/// Why there is no good answer.
enum Trouble {
    /// The server did nothing with the request, and the connection takes no
    /// more of them.
    NotBegun(Kind),
    /// The connection is of no more use.
    Broken(Kind),
    /// Only this request failed.
    Failed(Kind),
}

/// Sends requests on one stream at a time, until there are no more to send.
pub async fn work(run: &Run, link: &Link) {
    let mut held = None;
    let mut now = Instant::now();
    while let Some(intended) = run.pace.next(now).await {
        now = match exchange(run, link, &mut held).await {
            Ok(answer) => run.record.ok(intended, &answer),
            Err(kind) => run.record.failed(kind),
        };
    }
}

/// A way to send on a connection, with the connection's number.
pub type Held = Option<(u64, SendRequest<Bytes>)>;

/// Sends one request and reads its answer.
pub async fn exchange(run: &Run, link: &Link, held: &mut Held) -> Result<Answer, Kind> {
    let mut retries = 0;
    loop {
        let (number, sender) = match held {
            Some(held) => held,
            None => held.insert(link.sender(run, None).await?),
        };
        let number = *number;
        let result = one(run, sender).await;
        if run.plan.churn {
            *held = None;
            link.retire(number).await;
        }
        match result {
            Ok(answer) => return Ok(answer),
            Err(Trouble::Failed(kind)) => return Err(kind),
            Err(Trouble::NotBegun(_)) if retries < RETRIES => {
                retries += 1;
                run.record.retried();
                *held = Some(link.sender(run, Some(number)).await?);
            }
            Err(Trouble::NotBegun(kind) | Trouble::Broken(kind)) => {
                *held = None;
                link.retire(number).await;
                return Err(kind);
            }
        }
    }
}

impl Link {
    /// The connection, which is not the one numbered `stale`: that one is
    /// replaced.
    async fn sender(
        &self,
        run: &Run,
        stale: Option<u64>,
    ) -> Result<(u64, SendRequest<Bytes>), Kind> {
        let mut current = self.0.lock().await;
        if let Some(sender) = &current.sender
            && stale != Some(current.number)
        {
            return Ok((current.number, sender.clone()));
        }
        current.sender = None;
        let sender = connect(run).await?;
        current.number += 1;
        current.sender = Some(sender.clone());
        Ok((current.number, sender))
    }

    /// Whoever asks next gets a new connection, if this is the last one.
    async fn retire(&self, number: u64) {
        let mut current = self.0.lock().await;
        if current.number == number {
            current.sender = None;
        }
    }

    /// Whether a connection is there that has not ended.
    pub async fn is_alive(&self) -> bool {
        let mut current = self.0.lock().await;
        let Some(sender) = &mut current.sender else { return false };
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }
}

async fn connect(run: &Run) -> Result<SendRequest<Bytes>, Kind> {
    let target = run.plan.target;
    let opening = async {
        match &run.plan.tls {
            None => start(net::connect(target).await.map_err(|e| io_kind("connect", &e))?).await,
            Some(tls) => start(tls.connect(target).await.map_err(|e| io_kind("TLS", &e))?).await,
        }
    };
    let opened = timeout(CONNECT, opening).await.unwrap_or(Err("connect: no answer".into()));
    run.connected(opened.is_ok()).await;
    opened
}

async fn start<S>(stream: S) -> Result<SendRequest<Bytes>, Kind>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Many small messages are what some loads are made of.
        .data_frame_budget(usize::MAX)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|e| Kind::from(format!("http2 handshake: {e}")))?;
    // Each request hears of the connection's end.
    tokio::spawn(async move { connection.await.ok() });
    Ok(sender)
}

fn trouble(error: &h2::Error) -> Trouble {
    let reason = error.reason();
    if error.is_go_away() && error.is_remote() && reason == Some(Reason::NO_ERROR) {
        return Trouble::NotBegun("goaway".into());
    }
    if error.is_reset()
        && let Some(reason) = reason
    {
        return Trouble::Failed(format!("reset: {}", reason.description()).into());
    }
    match error.get_io() {
        Some(error) => Trouble::Broken(io_kind("http2", error)),
        None => Trouble::Broken(format!("http2: {error}").into()),
    }
}

async fn one(run: &Run, sender: &mut SendRequest<Bytes>) -> Result<Answer, Trouble> {
    let plan = &run.plan;
    // Nothing was sent yet.
    let not_begun = |e: h2::Error| Trouble::NotBegun(format!("http2: {e}").into());
    poll_fn(|cx| sender.poll_ready(cx)).await.map_err(not_begun)?;
    let length = plan.body.len();
    let (response, mut stream) =
        sender.send_request(plan.head.clone(), length == 0).map_err(not_begun)?;
    let mut sent = 0;
    while sent < length {
        let piece = plan.body.piece(sent, 64 * 1024);
        sent += piece.len() as u64;
        let last = sent == length;
        let sending = h2_stream::send(&mut stream, piece, last).await;
        if sending.is_err() {
            // The answer says why.
            break;
        }
    }
    let (head, body) = response.await.map_err(|e| trouble(&e))?.into_parts();
    let upstream = head.headers.get("x-upstream").map(|name| run.record.name(name.as_bytes()));
    if head.status != 200 {
        drain(body).await?;
        return Err(Trouble::Failed(format!("status {}", head.status.as_u16()).into()));
    }
    let bytes = if plan.protocol.is_grpc() {
        read_messages(run, &head.headers, body).await?
    } else {
        read_body(run, body).await?
    };
    Ok(Answer { bytes, upstream })
}

async fn drain(mut body: RecvStream) -> Result<(), Trouble> {
    while read(&mut body).await.map_err(|e| trouble(&e))?.is_some() {}
    Ok(())
}

async fn read_body(run: &Run, mut body: RecvStream) -> Result<u64, Trouble> {
    let (mut length, mut right) = (0, true);
    while let Some(piece) = read(&mut body).await.map_err(|e| trouble(&e))? {
        right = right && run.plan.expected.matches(length, &piece);
        length += piece.len() as u64;
    }
    if length != run.plan.expected.len() {
        return Err(Trouble::Failed("body length".into()));
    }
    if right { Ok(length) } else { Err(Trouble::Failed("body differs".into())) }
}

async fn read_messages(
    run: &Run,
    headers: &HeaderMap,
    mut body: RecvStream,
) -> Result<u64, Trouble> {
    let failed = |kind: &'static str| Err(Trouble::Failed(kind.into()));
    let status = |headers: &HeaderMap| {
        let status = headers.get("grpc-status")?;
        Some(Kind::from(format!("grpc-status {}", String::from_utf8_lossy(status.as_bytes()))))
    };
    if let Some(status) = status(headers) {
        // Without messages it may come with the headers (and is no answer).
        drain(body).await?;
        return Err(Trouble::Failed(status));
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.as_bytes());
    if !content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return failed("content-type");
    }
    let length = run.plan.expected.len();
    let mut messages = Messages::new(u32::try_from(length).ok());
    let mut right = Ok(());
    while let Some(piece) = read(&mut body).await.map_err(|e| trouble(&e))? {
        right = right.and_then(|()| messages.feed(&piece));
    }
    let trailers = body.trailers().await.map_err(|e| trouble(&e))?;
    let Some(trailers) = trailers else { return failed("no trailers") };
    match trailers.get("grpc-status").map(|value| value.as_bytes()) {
        Some(b"0") => {}
        Some(_) => {
            let other = status(&trailers).unwrap_or("grpc-status".into());
            return Err(Trouble::Failed(other));
        }
        None => return failed("no grpc-status"),
    }
    match (right, messages.whole()) {
        (Err(kind), _) => failed(kind),
        (Ok(()), Some(count)) if count == run.plan.messages => Ok(count * length),
        _ => failed("number of messages"),
    }
}

/// One link for each connection; for each worker if connections are not
/// shared.
pub fn links(connections: usize) -> Vec<Arc<Link>> {
    (0..connections).map(|_| Arc::default()).collect()
}
