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
use weir_mesh::model::{Protocol, Transport};

use super::Permit;
use crate::identity::Identity;
use crate::request::body::UpBody;
use crate::request::headers;
use crate::socket::Socket;

/// To reach an address, TLS included.
const CONNECT: Duration = Duration::from_secs(2);
/// HTTP/2 windows: a stream's, and a connection's. Large enough that one
/// stream fills a 10 Gbit/s link at 1 ms.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 4 << 20;
/// Largest frame to take: with its head of 9 bytes exactly four TLS records. One
/// of HTTP/2's usual 16 KiB needs a second record for its last 9 bytes.
pub const FRAME: u32 = (64 << 10) - 9;
/// A peer that went without a word is found out in `PING + PING_TIMEOUT`.
const PING: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How an address is connected to.
#[derive(Clone)]
pub enum Dial {
    /// Mutual TLS to another router, which must prove to be this.
    Mesh(Arc<Identity>, Arc<SpiffeId>),
    /// An application in plaintext, HTTP/1.1.
    Http1,
    /// An application in plaintext, HTTP/2.
    Http2,
    /// An application that speaks neither.
    Tcp,
}

/// What [`Dial`] speaks, without who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Another router.
    Mesh,
    /// An application, HTTP/1.1.
    Http1,
    /// An application, HTTP/2.
    Http2,
    /// An application, opaque TCP.
    Tcp,
}

impl Reach {
    /// Of an instance of a service with this protocol.
    #[must_use]
    pub fn new(transport: Transport, protocol: Protocol) -> Self {
        match (transport, protocol) {
            (Transport::Mesh, _) => Self::Mesh,
            (Transport::Plain, Protocol::Http1) => Self::Http1,
            (Transport::Plain, Protocol::Http2 | Protocol::Grpc) => Self::Http2,
            (Transport::Plain, Protocol::Tcp) => Self::Tcp,
        }
    }
}

/// What came of it.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<UpBody>),
    /// HTTP/2.
    Http2(http2::SendRequest<UpBody>),
}

impl Dial {
    /// What it speaks.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Mesh(..) => Reach::Mesh,
            Self::Http1 => Reach::Http1,
            Self::Http2 => Reach::Http2,
            Self::Tcp => Reach::Tcp,
        }
    }

    /// Who must prove to be there.
    #[must_use]
    pub fn peer(&self) -> Option<&Arc<SpiffeId>> {
        match self {
            Self::Mesh(_, peer) => Some(peer),
            Self::Http1 | Self::Http2 | Self::Tcp => None,
        }
    }

    /// Whether each connection takes one request at a time.
    #[must_use]
    pub fn is_http1(&self) -> bool {
        matches!(self, Self::Http1)
    }

    /// Connects, and drives the connection in a task of its own, which keeps
    /// `permit` to its end.
    ///
    /// # Errors
    /// Of the socket, the TLS or the HTTP/2 handshake; `TimedOut` after 2 s.
    pub async fn connect(
        &self,
        address: SocketAddr,
        permit: Option<Permit>,
    ) -> io::Result<Connection> {
        // Rare and large: in a box it costs the requests that need it nothing.
        Box::pin(timeout(CONNECT, self.connect_in_time(address, permit))).await.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"))
        })?
    }

    async fn connect_in_time(
        &self,
        address: SocketAddr,
        permit: Option<Permit>,
    ) -> io::Result<Connection> {
        let stream = Socket::new(TcpStream::connect(address).await?);
        match self {
            Self::Mesh(identity, peer) => {
                let connector = identity.connector(peer)?;
                let name = rustls::pki_types::ServerName::IpAddress(address.ip().into());
                http2(connector.connect(name, stream).await?, permit).await
            }
            Self::Http2 => http2(stream, permit).await,
            Self::Tcp => Err(io::Error::other("opaque TCP takes no requests")),
            Self::Http1 => {
                let (sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
                tokio::task::spawn_local(async move {
                    // Its requests learn of an error by themselves.
                    let _ = connection.await;
                    drop(permit);
                });
                Ok(Connection::Http1(sender))
            }
        }
    }
}

async fn http2<S>(stream: S, permit: Option<Permit>) -> io::Result<Connection>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExecutor)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(2 * headers::LIMIT as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
        drop(permit);
    });
    Ok(Connection::Http2(sender))
}

/// Bytes of a task that cost less to move than an allocation does.
const IN_PLACE: usize = 512;

/// Runs hyper's tasks on the worker that made them.
#[derive(Debug, Clone, Copy)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        // As it is: a block around it would hold it twice, and a stream's task
        // would be twice as large. A large one in a box, for tokio moves it several
        // times until it runs, and once more when it ends.
        if size_of::<F>() > IN_PLACE {
            tokio::task::spawn_local(Box::pin(future));
        } else {
            tokio::task::spawn_local(future);
        }
    }
}
