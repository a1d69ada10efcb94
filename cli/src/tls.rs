//! The control API by TLS.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::Uri;
use weir_mesh::identity::provider;

use crate::Error;

/// Where Linux distributions keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to trust, and what to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM roots; none: those of the system.
    pub ca: Option<PathBuf>,
    /// PEM chain of a client certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// Connects to the host that a URL names, by TLS 1.3. The URL that tonic sees is
/// `http://`: TLS is this connector's work.
#[derive(Clone)]
pub struct Connector(tokio_rustls::TlsConnector);

impl Connector {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with one of them, after its option.
    pub fn new(files: &TlsFiles) -> Result<Self, Error> {
        let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
        let mut roots = RootCertStore::empty();
        if let Some(path) = files.ca.as_deref().or_else(system) {
            for root in certificates("--ca", path)? {
                // A system has roots that rustls does not take.
                if roots.add(root).is_err() && files.ca.is_some() {
                    return Err(wrong("--ca", path, "holds a certificate that is no root"));
                }
            }
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| Error::new(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match (&files.cert, &files.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let chain = certificates("--cert", cert)?;
                let read = PrivateKeyDer::from_pem_file(key);
                let read = read.map_err(|_| wrong("--key", key, "holds no private key as PEM"))?;
                let config = builder.with_client_auth_cert(chain, read);
                config.map_err(|error| wrong("--cert", cert, &error.to_string()))?
            }
            _ => return Err(Error::new("--cert and --key belong together; give both")),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config).into()))
    }
}

fn wrong(option: &str, path: &Path, why: &str) -> Error {
    Error::new(format!("{option} {}: {why}", path.display()))
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error| wrong(option, path, &error.to_string()))?;
    if read.is_empty() {
        return Err(wrong(option, path, "holds no certificate as PEM"));
    }
    Ok(read)
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.0.clone();
        Box::pin(async move {
            let host = url.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = url.port_u16().unwrap_or(443);
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            Ok(TokioIo::new(connector.connect(name, stream).await?))
        })
    }
}
