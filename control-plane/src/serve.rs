//! Accepts connections and serves HTTP/1.1 and HTTP/2 on them, until told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use weir_mesh::identity::peer_id;
use weir_mesh::shutdown::Shutdown;

use crate::api::Peer;
use crate::ca::OwnCertificate;
use crate::pace::Limit;

/// Connections of one listener at once.
const MAX_CONNECTIONS: usize = 10_000;
/// Streams of one connection at once.
const MAX_STREAMS: u32 = 1_000;
/// Bytes of one request's headers.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// For the first byte of a TLS handshake, and for a request's headers to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// For the rest of a TLS handshake, from its turn on.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A peer that does not answer a ping for this long after the last byte is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// For what is in flight when the process stops.
const DRAIN: Duration = Duration::from_secs(5);

/// Answers requests. A clone is made for each connection and request.
pub trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request; every failure is an answer too.
    fn handle(
        self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static;
}

/// What a listener's connections are accepted with.
pub trait Tls: Send + Sync + 'static {
    /// For the next connection.
    fn current(&self) -> Arc<rustls::ServerConfig>;

    /// Notes who a client is, by the certificates that it showed, leaf first, for each
    /// of its requests.
    ///
    /// # Errors
    /// When they cannot be read: the connection ends.
    fn shown(
        &self,
        certificates: &[CertificateDer<'_>],
        extensions: &mut Extensions,
    ) -> Result<(), ConnectionError> {
        extensions.insert(Peer(peer_id(certificates)?));
        Ok(())
    }

    /// How many handshakes there may be at once; none: as many as connections.
    fn handshakes(&self) -> Option<Arc<Limit>> {
        None
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAddress(pub SocketAddr);

impl Tls for OwnCertificate {
    fn current(&self) -> Arc<rustls::ServerConfig> {
        self.current()
    }
}

/// Serves a listener until `shutdown`, then lets what is in flight finish.
///
/// With `certificate`, connections are TLS, and a request of a client that showed
/// its certificate carries a [`Peer`].
pub async fn serve<H: Handler>(
    listener: TcpListener,
    certificate: Option<Arc<dyn Tls>>,
    handler: H,
    shutdown: Shutdown,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    let mut stop = std::pin::pin!(shutdown.requested());
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = permits.clone().acquire_owned().await.ok();
            listener.accept().await.map(|(stream, remote)| (stream, remote, permit))
        };
        let (stream, remote, permit) = tokio::select! {
            () = &mut stop => break,
            accepted = accept => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: one may be free soon.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let tls = certificate.clone();
        let (handler, builder, watcher) = (handler.clone(), builder.clone(), graceful.watcher());
        tokio::spawn(async move {
            let from = (stream, RemoteAddress(remote));
            let served = connection(from, tls, handler, &builder, watcher).await;
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in flight were cut off");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(MAX_HEADER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .adaptive_window(true);
    builder
}

/// Why a connection ended before its time.
pub type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn connection<H: Handler>(
    (stream, remote): (TcpStream, RemoteAddress),
    tls: Option<Arc<dyn Tls>>,
    handler: H,
    builder: &Builder<TokioExecutor>,
    watcher: Watcher,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    let mut extensions = Extensions::new();
    extensions.insert(remote);
    let Some(tls) = tls else {
        return http(stream, extensions, handler, builder, watcher).await;
    };
    let stream = handshake(stream, &*tls).await?;
    if let Some(certificates) = stream.get_ref().1.peer_certificates() {
        tls.shown(certificates, &mut extensions)?;
    }
    http(stream, extensions, handler, builder, watcher).await
}

/// TLS, in turn. Who has said nothing yet is not waited for in the line, and how long
/// the line is does not count.
async fn handshake(stream: TcpStream, tls: &dyn Tls) -> io::Result<TlsStream<TcpStream>> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake");
    tokio::time::timeout(PATIENCE, stream.readable()).await.map_err(late)??;
    let _permit = match tls.handshakes() {
        Some(limit) => Some(limit.enter().await),
        None => None,
    };
    let accepted = TlsAcceptor::from(tls.current()).accept(stream);
    tokio::time::timeout(HANDSHAKE, accepted).await.map_err(late)?
}

async fn http<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    extensions: Extensions,
    handler: H,
    builder: &Builder<TokioExecutor>,
    watcher: Watcher,
) -> Result<(), ConnectionError> {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().extend(extensions.clone());
        let answer = handler.clone().handle(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned()).await
}

/// gRPC services as they are, without anything around them.
#[derive(Clone)]
pub struct Grpc(pub tonic::service::Routes);

impl Handler for Grpc {
    async fn handle(self, request: Request<Incoming>) -> Response<Body> {
        call(self.0, request.map(Body::new)).await
    }
}

/// Calls gRPC services in this process.
pub async fn call(mut routes: tonic::service::Routes, request: Request<Body>) -> Response<Body> {
    use tower_service::Service as _;
    // Routes are always ready, and their error type has no values.
    match routes.call(request).await {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}
