//! One GET by HTTPS, as little as an issuer's documents need.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use weir_mesh::identity::provider;
use weir_mesh::token::KeySet;

/// For connection and answer together.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where Linux distributions keep the roots that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A TLS configuration that trusts the roots of a file, or without one those of the
/// system.
///
/// # Errors
/// What is wrong with the file.
pub fn tls(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let system = || SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists());
    let mut roots = RootCertStore::empty();
    // Without any root a connection says that the issuer is not known.
    if let Some(path) = ca_file.or_else(system) {
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        for der in CertificateDer::pem_file_iter(path).map_err(|e| told(&e))? {
            let added = roots.add(der.map_err(|e| told(&e))?);
            if ca_file.is_some() {
                added.map_err(|e| told(&e))?;
            }
        }
        if ca_file.is_some() && roots.is_empty() {
            return Err(told(&"holds no certificate"));
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// What is at a URL, at most [`KeySet::MAX_BYTES`]. Redirects are not followed.
///
/// # Errors
/// What failed, after the URL.
pub async fn get(url: &str, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    let got = tokio::time::timeout(PATIENCE, open_and_get(url, tls)).await;
    let late = || format!("no answer in {} s", PATIENCE.as_secs());
    got.map_err(|_| late()).flatten().map_err(|why| format!("{url}: {why}"))
}

async fn open_and_get(url: &str, tls: &Arc<ClientConfig>) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|_| "is no URL".to_owned())?;
    let https = uri.scheme_str() == Some("https");
    let authority = uri.authority().ok_or("is no URL")?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if https { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header("host", authority.as_str())
        .header("accept", "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| e.to_string())?;
    if !https {
        return exchange(TokioIo::new(stream), request).await;
    }
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let connector = tokio_rustls::TlsConnector::from(tls.clone());
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    exchange(TokioIo::new(stream), request).await
}

async fn exchange<I>(io: I, request: Request<Empty<Bytes>>) -> Result<Bytes, String>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = handshake(io).await.map_err(|error| error.to_string())?;
    let running = tokio::spawn(async move {
        // What breaks it is told to whoever waits for the answer.
        let _ = connection.await;
    });
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("answered {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), KeySet::MAX_BYTES).collect().await;
    running.abort();
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}
