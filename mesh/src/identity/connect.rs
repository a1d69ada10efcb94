//! tonic over the mesh's TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;

/// A connector for `tonic::transport::Endpoint::connect_with_connector` (or
/// `connect_with_connector_lazy`) that always dials `address`, whatever the
/// endpoint's URI says, and speaks TLS by `config` (whose ALPN must be
/// [`ALPN_H2`](super::ALPN_H2)).
///
/// Give the endpoint an `http://` URI: TLS is this connector's work, and tonic
/// must not ask for its own.
#[must_use]
pub fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> TlsConnector {
    TlsConnector { address, tls: config.into() }
}

/// What [`connect_tls`] makes.
#[derive(Clone)]
pub struct TlsConnector {
    address: SocketAddr,
    tls: tokio_rustls::TlsConnector,
}

impl tower_service::Service<Uri> for TlsConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::from(address.ip());
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}
