//! One connection from its acceptance to its end.

mod front;
mod plain;
mod pod;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weir_mesh::identity::peer_id;

use crate::request::answer::DownBody;
use crate::request::{handler, headers, inbound};
use crate::socket::Socket;
use crate::tcp;
use crate::upstream::LocalExecutor;
use crate::upstream::{CONNECTION_WINDOW, FRAME, STREAM_WINDOW};
use crate::worker::Worker;
use front::Front;

/// For the TLS handshake, and for the first bytes of a request's head.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// What HTTP/2 clients are told of the limit; a little above it, so that the
/// answer to a request over it is ours (431) and not the end of the connection.
const HEADER_BYTES: u32 = 2 * headers::LIMIT as u32;
/// Streams of one HTTP/2 connection.
const STREAMS: u32 = 1024;

/// Which listener a connection came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// From outside, at the gateway.
    Gateway,
    /// From our own application.
    Outbound,
    /// From another router.
    Inbound,
}

impl Side {
    /// `gateway`, `outbound` or `inbound`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What is known of a connection.
pub struct Connected {
    /// Which listener.
    pub side: Side,
    /// At a gateway: the port of the listener that it came by; 0: the one that the
    /// command line names.
    pub port: u16,
    /// It came by TLS that ended here.
    pub tls: bool,
    /// The other end.
    pub peer_address: SocketAddr,
    /// Who sends requests by it: the SPIFFE id of the certificate that it showed,
    /// our own for our application, empty for the outside.
    pub peer: Arc<str>,
    /// The same for the application, in the form of Envoy's
    /// `x-forwarded-client-cert`.
    pub client_cert: Option<HeaderValue>,
    /// In a pod: where it was meant to go, if that decides what becomes of its
    /// requests.
    pub original: Option<SocketAddr>,
    /// Requests that are not done yet.
    busy: Cell<usize>,
    /// Requests so far.
    requests: Cell<u64>,
    /// HTTP/1.1: bytes of a request have come, and its head has not ended.
    head_begun: Cell<bool>,
    /// HTTP/1.1: all of the last answer is with the kernel.
    flushed: Cell<bool>,
    /// HTTP/1.1: the last request had a body. What of it an early answer leaves
    /// unread must never be taken for another request.
    has_body: Cell<bool>,
}

impl Connected {
    pub(crate) fn new(
        side: Side,
        peer_address: SocketAddr,
        peer: Arc<str>,
        client_cert: Option<HeaderValue>,
        original: Option<SocketAddr>,
    ) -> Rc<Self> {
        Rc::new(Self { client_cert, original, ..Self::imagined(side, peer_address, peer) })
    }

    /// One that nobody made: to ask what would happen to a request by it.
    pub(crate) fn imagined(side: Side, peer_address: SocketAddr, peer: Arc<str>) -> Self {
        Self {
            side,
            port: 0,
            tls: false,
            peer_address,
            peer,
            client_cert: None,
            original: None,
            busy: Cell::new(0),
            requests: Cell::new(0),
            head_begun: Cell::new(false),
            flushed: Cell::new(true),
            has_body: Cell::new(false),
        }
    }

    /// The head of a request is there.
    pub fn begins(&self) {
        self.requests.set(self.requests.get() + 1);
        self.busy.set(self.busy.get() + 1);
        self.head_begun.set(false);
        self.flushed.set(false);
    }

    /// Whether nothing is under way in either direction.
    fn may_park(&self) -> bool {
        !self.head_begun.get() && self.flushed.get() && !self.has_body.get()
    }

    /// A request is done.
    pub fn ends(&self) {
        self.busy.set(self.busy.get().saturating_sub(1));
    }

    /// Without a request that is not done, what comes is the next one's head.
    fn note_read(&self) {
        if self.busy.get() == 0 {
            self.head_begun.set(true);
        }
    }
}

/// Told to every connection: finish and close.
pub type Closing = watch::Receiver<bool>;

/// Serves a connection until it ends, or until `closing` and its requests are
/// done.
pub async fn serve(
    worker: Rc<Worker>,
    side: Side,
    stream: TcpStream,
    peer_address: SocketAddr,
    closing: Closing,
) {
    let stream = Socket::new(stream);
    let result = match side {
        Side::Inbound if worker.shared.config.pod.is_some() => {
            Box::pin(pod::serve(worker, stream, peer_address, closing)).await
        }
        Side::Inbound => serve_inbound(worker, stream, peer_address, None, closing).await,
        Side::Outbound | Side::Gateway => {
            serve_plain(worker, side, stream, peer_address, closing).await
        }
    };
    ended(side, peer_address, result);
}

/// Serves a connection that came by a listener of a Gateway.
pub async fn serve_listener(
    worker: Rc<Worker>,
    port: u16,
    tls: Option<TlsAcceptor>,
    stream: TcpStream,
    peer_address: SocketAddr,
    closing: Closing,
) {
    let mut connected = Connected::imagined(Side::Gateway, peer_address, "".into());
    (connected.port, connected.tls) = (port, tls.is_some());
    let stream = Socket::new(stream);
    let serving = async {
        let (stream, http2) = match tls {
            None => (Front::Plain(stream), None),
            Some(acceptor) => {
                match Box::pin(accept_tls(acceptor, stream, closing.clone())).await? {
                    None => return Ok(()),
                    Some(stream) => {
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        (Front::Tls(Box::new(stream)), Some(http2))
                    }
                }
            }
        };
        serve_http(worker, Rc::new(connected), stream, http2, closing).await
    };
    ended(Side::Gateway, peer_address, serving.await);
}

fn ended(side: Side, peer_address: SocketAddr, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%peer_address, ?side, %error, "connection ended");
    }
}

async fn serve_inbound(
    worker: Rc<Worker>,
    stream: Socket,
    peer_address: SocketAddr,
    original: Option<SocketAddr>,
    closing: Closing,
) -> io::Result<()> {
    // Both in boxes: what only a handshake needs goes when it is done.
    let shaking = Box::pin(handshake(&worker, stream, peer_address, original, closing.clone()));
    let driving = match shaking.await? {
        None => return Ok(()),
        Some((stream, connected)) => {
            let service = service_fn(move |request: Request<Incoming>| -> Answering<h2::Error> {
                let (worker, connected) = (worker.clone(), connected.clone());
                match tcp::is_for_bytes(&worker, &connected, &request) {
                    true => Box::pin(tcp::handle_inbound(worker, connected, request)),
                    false => Box::pin(inbound::handle(worker, connected, request)),
                }
            });
            Box::pin(drive_http2(TokioIo::new(stream), service, closing))
        }
    };
    driving.await
}

/// A request that is being answered, whoever does it: hyper's code is there once for
/// each kind of connection, not for each way of answering.
type Answering<E> = Pin<Box<dyn Future<Output = Result<Response<DownBody>, E>>>>;

/// Answers a request that came in plaintext.
fn answer(
    worker: &Rc<Worker>,
    connected: &Rc<Connected>,
    request: Request<Incoming>,
) -> Answering<Infallible> {
    let (worker, connected) = (worker.clone(), connected.clone());
    match connected.side {
        Side::Inbound => Box::pin(inbound::handle_plain(worker, connected, request)),
        Side::Outbound | Side::Gateway => Box::pin(handler::handle(worker, connected, request)),
    }
}

/// Mutual TLS. None when the router stops meanwhile.
async fn handshake(
    worker: &Worker,
    stream: Socket,
    peer_address: SocketAddr,
    original: Option<SocketAddr>,
    closing: Closing,
) -> io::Result<Option<(TlsStream<Socket>, Rc<Connected>)>> {
    let acceptor = worker.shared.identity.acceptor().ok_or(io::ErrorKind::NotConnected)?;
    let stream = match accept_tls(acceptor, stream, closing).await {
        Ok(Some(stream)) => stream,
        Ok(None) => return Ok(None),
        Err(error) => {
            if error.kind() != io::ErrorKind::TimedOut {
                worker.shared.metrics.tls_failed();
            }
            return Err(error);
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_id(chain).map_err(io::Error::other)?;
    let own = own_id(worker);
    let client_cert = HeaderValue::from_str(&format!("By={own};URI={peer}")).ok();
    let peer = peer.as_str().into();
    let connected = Connected::new(Side::Inbound, peer_address, peer, client_cert, original);
    Ok(Some((stream, connected)))
}

/// The server's side of TLS. None when the router stops meanwhile.
async fn accept_tls(
    acceptor: TlsAcceptor,
    stream: Socket,
    closing: Closing,
) -> io::Result<Option<TlsStream<Socket>>> {
    tokio::select! {
        accepted = timeout(HANDSHAKE, acceptor.accept(stream)) => match accepted {
            Ok(accepted) => accepted.map(Some),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        },
        () = requested(closing) => Ok(None),
    }
}

async fn serve_plain(
    worker: Rc<Worker>,
    side: Side,
    mut stream: Socket,
    peer_address: SocketAddr,
    closing: Closing,
) -> io::Result<()> {
    let mut to = None;
    if worker.shared.config.args.transparent
        && side == Side::Outbound
        && let Some(original) = tcp::original(stream.get_ref())
    {
        let redirected = stream.into_inner();
        let serving = tcp::serve_redirected(&worker, redirected, original, closing.clone());
        match Box::pin(serving).await {
            Some((http, original)) => (stream, to) = (Socket::new(http), original),
            None => return Ok(()),
        }
    }
    let peer = if side == Side::Outbound { own_id(&worker) } else { Arc::from("") };
    let connected = Connected::new(side, peer_address, peer, None, to);
    serve_http(worker, connected, Front::Plain(stream), None, closing).await
}

/// `http2`: what TLS agreed on; none: the client's first bytes tell.
async fn serve_http(
    worker: Rc<Worker>,
    connected: Rc<Connected>,
    stream: Front,
    http2: Option<bool>,
    closing: Closing,
) -> io::Result<()> {
    let http2 = match http2 {
        Some(agreed) => agreed,
        None => {
            let preface = tokio::select! {
                preface = timeout(HANDSHAKE, is_http2(stream.get_ref())) => preface,
                () = requested(closing.clone()) => return Ok(()),
            };
            match preface {
                Ok(result) => result?,
                // Not a word: an idle connection that some client keeps at hand.
                Err(_) => false,
            }
        }
    };
    if http2 {
        let service =
            service_fn(move |request: Request<Incoming>| answer(&worker, &connected, request));
        return Box::pin(drive_http2(TokioIo::new(stream), service, closing)).await;
    }
    plain::serve(worker, connected, stream, closing).await
}

/// Our SPIFFE id; empty before the first certificate.
pub fn own_id(worker: &Worker) -> Arc<str> {
    let own = worker.shared.identity.current();
    own.map(|(svid, _)| svid.id().as_str().into()).unwrap_or_default()
}

async fn drive_http2<S, H, B>(io: TokioIo<S>, service: H, closing: Closing) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: hyper::service::HttpService<Incoming, ResBody = B> + 'static,
    H::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    H::Future: 'static,
    B: http_body::Body + 'static,
    B::Data: Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connection = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result.map_err(io::Error::other),
        () = requested(closing) => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// Waits until connections are told to finish.
pub async fn requested(mut closing: Closing) {
    // Gone means that the router stops: the same to a connection.
    let _ = closing.wait_for(|closing| *closing).await;
}

/// Whether a client speaks HTTP/2 by prior knowledge: by its preface
/// (RFC 9113 §3.4), of which one byte that differs is enough.
async fn is_http2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut buffer = [0; PREFACE.len()];
    let mut seen = 0;
    loop {
        let peeked = stream.peek(&mut buffer).await?;
        if peeked == 0 || buffer[..peeked] != PREFACE[..peeked] {
            return Ok(false);
        }
        if peeked == PREFACE.len() {
            return Ok(true);
        }
        if peeked == seen {
            // More is to come, and readiness alone would not wait for it.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        seen = peeked;
    }
}
