//! Opening connections.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weir_mesh::identity::SpiffeId;

use crate::identity::Identity;
use crate::request::body::UpBody;
use crate::request::headers;

/// To reach an address, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// HTTP/2 windows: a stream's, and a connection's. Large enough that one
/// stream fills a 10 Gbit/s link at 1 ms.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 4 << 20;
/// A peer that went without a word is found out in `PING + PING_TIMEOUT`.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How an address is connected to.
#[derive(Clone)]
pub enum Dial {
    /// Mutual TLS to another router, which must prove to be this.
    Mesh(Arc<Identity>, Arc<SpiffeId>),
    /// The application beside us, HTTP/1.1.
    Http1,
    /// The application beside us, HTTP/2.
    Http2,
}

/// What came of it.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<UpBody>),
    /// HTTP/2.
    Http2(http2::SendRequest<UpBody>),
}

impl Dial {
    /// Whether each connection takes one request at a time.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        matches!(self, Self::Http1)
    }

    /// Connects, and drives the connection in a task of its own.
    ///
    /// # Errors
    /// Of the socket, the TLS or the HTTP/2 handshake; `TimedOut` after 2 s.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        timeout(CONNECT, self.connect_in_time(address)).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"))
        })?
    }

    async fn connect_in_time(&self, address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        match self {
            Self::Mesh(identity, peer) => {
                let connector = identity.connector(peer)?;
                let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
                http2(connector.connect(name, stream).await?).await
            }
            Self::Http2 => http2(stream).await,
            Self::Http1 => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
                tokio::task::spawn_local(async move {
                    // Its requests learn of an error by themselves.
                    let _ = connection.await;
                });
                Ok(Connection::Http1(sender))
            }
        }
    }
}

async fn http2<S>(stream: S) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(2 * headers::LIMIT as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    Ok(Connection::Http2(sender))
}

/// Runs hyper's tasks on the worker that made them.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
