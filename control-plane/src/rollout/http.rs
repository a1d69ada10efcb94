//! Asks somebody else over HTTP/1.1, with or without TLS: one question, one
//! connection, all of it within one time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use weir_mesh::rollout::{Headers, Webhook};

/// Bytes of an answer.
const MAX_ANSWER: usize = 1 << 20;
/// Where systems keep the roots that they trust, unless SSL_CERT_FILE says where.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It took too long.
    #[error("no answer in {} ms", .0.as_millis())]
    Slow(Duration),
    /// No connection, or one that broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The system trusts nobody.
    #[error("cannot be verified: no root certificates; set SSL_CERT_FILE to a PEM file")]
    NoRoots,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// At most 1 MiB.
    pub body: Bytes,
}

/// Sends JSON to a webhook.
pub async fn post(hook: &Webhook, json: &str) -> Result<Answer, HttpError> {
    let body = Bytes::copy_from_slice(json.as_bytes());
    ask(Method::POST, hook.url.uri(), &hook.headers, body, hook.timeout).await
}

/// Reads a URL.
pub async fn get(uri: &Uri, headers: &Headers, limit: Duration) -> Result<Answer, HttpError> {
    ask(Method::GET, uri, headers, Bytes::new(), limit).await
}

async fn ask(
    method: Method,
    uri: &Uri,
    headers: &Headers,
    body: Bytes,
    limit: Duration,
) -> Result<Answer, HttpError> {
    let asked = tokio::time::timeout(limit, connect(method, uri, headers, body)).await;
    asked.unwrap_or(Err(HttpError::Slow(limit)))
}

fn unreachable(why: impl ToString) -> HttpError {
    HttpError::Unreachable(why.to_string())
}

async fn connect(
    method: Method,
    uri: &Uri,
    headers: &Headers,
    body: Bytes,
) -> Result<Answer, HttpError> {
    let host = uri.host().ok_or_else(|| unreachable("its URL has no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header("host", uri.authority().map_or(host, |authority| authority.as_str()))
        .header("user-agent", concat!("weir/", env!("CARGO_PKG_VERSION")));
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let mut request = request.body(Full::new(body)).map_err(unreachable)?;
    for (name, value) in &headers.0 {
        request.headers_mut().insert(name, value.clone());
    }
    let stream = TcpStream::connect((bare.as_str(), port)).await.map_err(unreachable)?;
    if !tls {
        return send(stream, request).await;
    }
    let config = trusted().ok_or(HttpError::NoRoots)?;
    let name = ServerName::try_from(bare).map_err(unreachable)?;
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector.connect(name, stream).await.map_err(unreachable)?;
    send(stream, request).await
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    // Driven here, so that it ends with this question.
    let answer = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|_| unreachable("its answer breaks off, or is too long"))?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut answer => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

/// What the system trusts; none when that is nothing.
fn trusted() -> Option<Arc<ClientConfig>> {
    static CONFIG: OnceLock<Option<Arc<ClientConfig>>> = OnceLock::new();
    CONFIG
        .get_or_init(|| {
            let given = std::env::var("SSL_CERT_FILE").ok();
            let mut files = given.iter().map(String::as_str).chain(ROOTS);
            let roots = files.find_map(roots)?;
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            let builder = builder.with_safe_default_protocol_versions().ok()?;
            Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        })
        .clone()
}

fn roots(file: &str) -> Option<RootCertStore> {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).ok()?.flatten();
    store.add_parsable_certificates(certificates);
    (!store.is_empty()).then_some(store)
}
