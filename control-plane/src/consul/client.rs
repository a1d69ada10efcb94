//! HTTP to Consul: as much as six endpoints need.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use weir_mesh::identity::Secret;

use super::config::Endpoint;

/// For a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// For an answer, beyond the time that Consul was asked to wait.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of one answer: some ten thousand instances.
const MAX_ANSWER: usize = 32 << 20;
/// Characters of Consul's own words that errors show.
const MAX_WORDS: usize = 200;

/// Why Consul did not answer a request.
#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    /// No connection, or one that broke.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// Consul's.
        url: String,
        /// What failed.
        why: String,
    },
    /// It took too long.
    #[error("{url} gave no answer in {seconds} s")]
    Slow {
        /// Consul's.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// 403.
    #[error(
        "{url} refuses the token ({told}): --consul-token-file must hold one whose policy has \
         {needed}"
    )]
    Denied {
        /// Consul's.
        url: String,
        /// Its words.
        told: String,
        /// The rules of the policy.
        needed: &'static str,
    },
    /// Any other status than 200.
    #[error("{url} answered {status}: {told}")]
    Status {
        /// Consul's.
        url: String,
        /// What it answered.
        status: StatusCode,
        /// Its words.
        told: String,
    },
    /// It has no leader, so what it knows may be old.
    #[error("{url} has no leader")]
    NoLeader {
        /// Consul's.
        url: String,
    },
    /// Not what the API promises.
    #[error("{url} answered what is not understood: {why}")]
    Answer {
        /// Consul's.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// `--consul-token-file`.
    #[error("--consul-token-file: {0}")]
    Token(String),
}

/// Rules that reading needs.
pub const READ_RULES: &str =
    "`service_prefix \"\" { policy = \"read\" }` and `node_prefix \"\" { policy = \"read\" }`";
/// Rules that registering needs.
pub const WRITE_RULES: &str = "`service_prefix \"\" { policy = \"write\" }`";

/// A good answer.
#[derive(Debug)]
pub struct Reply {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether a token was shown.
    pub with_token: bool,
}

impl Reply {
    /// `X-Consul-Index`; 0: none that can be waited for.
    #[must_use]
    pub fn index(&self) -> u64 {
        let value = self.headers.get("x-consul-index").and_then(|v| v.to_str().ok());
        value.and_then(|v| v.parse().ok()).unwrap_or(0)
    }

    /// Whether ACLs hide some of what there is. Only answers that were not held back
    /// tell it reliably: those that were may come from Consul's streaming backend.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        let hidden = self.says("x-consul-results-filtered-by-acls", "true");
        // Who shows no token is not told that something is hidden.
        hidden || (!self.with_token && self.says("x-consul-default-acl-policy", "deny"))
    }

    /// The streaming backend says of itself that it knows none.
    fn has_leader(&self) -> bool {
        !self.says("x-consul-knownleader", "false")
            || self.says("x-consul-query-backend", "streaming")
    }

    fn says(&self, header: &str, value: &str) -> bool {
        self.headers.get(header).is_some_and(|found| found == value)
    }
}

type Connection = SendRequest<Full<Bytes>>;

/// One connection at a time, made anew when it breaks.
pub struct Client {
    endpoint: Arc<Endpoint>,
    connection: Option<Connection>,
    /// Of the last question.
    token: Option<Secret>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self { endpoint, connection: None, token: None }
    }

    /// Reads a path. With an `index`, Consul answers when it has something newer, or
    /// after `wait`; at once when the token is another one than last time, as what it
    /// may see is another thing.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn get(
        &mut self,
        path: &str,
        index: u64,
        wait: Duration,
    ) -> Result<Reply, ConsulError> {
        let mut query = Vec::new();
        if let Some(datacenter) = &self.endpoint.datacenter {
            query.push(format!("dc={datacenter}"));
        }
        let mut limit = ANSWER;
        if self.read_token()? && index > 0 {
            query.push(format!("index={index}&wait={}ms", wait.as_millis()));
            // Consul adds up to a sixteenth of its own.
            limit += wait + wait / 16;
        }
        let target = match query.is_empty() {
            true => path.to_owned(),
            false => format!("{path}?{}", query.join("&")),
        };
        let reply = self.call(Method::GET, &target, Bytes::new(), limit, READ_RULES).await?;
        match reply.has_leader() {
            true => Ok(reply),
            false => Err(ConsulError::NoLeader { url: self.url() }),
        }
    }

    /// Writes to the agent.
    ///
    /// # Errors
    /// [`ConsulError`].
    pub async fn put(&mut self, path: &str, body: Bytes) -> Result<(), ConsulError> {
        self.read_token()?;
        self.call(Method::PUT, path, body, ANSWER, WRITE_RULES).await.map(drop)
    }

    /// Asks anything, and gives whatever is answered: a status too may be an answer.
    ///
    /// # Errors
    /// [`ConsulError`], when there is none.
    pub async fn ask(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Reply), ConsulError> {
        self.read_token()?;
        self.exchange(method, target, body, limit).await
    }

    /// True: it is the one of the last question.
    fn read_token(&mut self) -> Result<bool, ConsulError> {
        let read = |file| Secret::read(file).map_err(|e| ConsulError::Token(e.to_string()));
        let token = self.endpoint.token_file.as_ref().map(read).transpose()?;
        let same = token == self.token;
        self.token = token;
        Ok(same)
    }

    fn url(&self) -> String {
        self.endpoint.url.clone()
    }

    fn unreachable(&self, why: impl ToString) -> ConsulError {
        ConsulError::Unreachable { url: self.url(), why: why.to_string() }
    }

    async fn call(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        limit: Duration,
        needed: &'static str,
    ) -> Result<Reply, ConsulError> {
        let (status, reply) = self.exchange(method, target, body, limit).await?;
        match status {
            StatusCode::OK => Ok(reply),
            _ => Err(self.refusal(status, &reply, needed)),
        }
    }

    /// What an answer with another status than 200 says.
    pub(super) fn refusal(
        &self,
        status: StatusCode,
        reply: &Reply,
        needed: &'static str,
    ) -> ConsulError {
        let url = self.url();
        let told = String::from_utf8_lossy(&reply.body);
        let told: String = told.trim().chars().take(MAX_WORDS).collect();
        match status {
            StatusCode::FORBIDDEN => ConsulError::Denied { url, told, needed },
            _ => ConsulError::Status { url, status, told },
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(StatusCode, Reply), ConsulError> {
        let request = self.request(method, target, body)?;
        let called = tokio::time::timeout(limit, self.send(request)).await;
        let slow =
            || ConsulError::Slow { url: self.endpoint.url.clone(), seconds: limit.as_secs() };
        let called = called.map_err(|_| slow()).flatten();
        if called.is_err() {
            // An answer may still be under way in it.
            self.connection = None;
        }
        called
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, ConsulError> {
        let Endpoint { host, port, .. } = &*self.endpoint;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header("host", format!("{host}:{port}"))
            .body(Full::new(body))
            .map_err(|error| self.unreachable(error))?;
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| {
                ConsulError::Token("the file holds characters that no token has".to_owned())
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert("x-consul-token", value);
        }
        Ok(request)
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Reply), ConsulError> {
        let mut connection = match self.kept().await {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let answer = connection.send_request(request).await;
        let (head, body) = answer.map_err(|error| self.unreachable(told(&error)))?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|error| self.unreachable(error))?.to_bytes();
        self.connection = Some(connection);
        let with_token = self.endpoint.token_file.is_some();
        Ok((head.status, Reply { headers: head.headers, body, with_token }))
    }

    /// The connection of the last request. One that was closed since is no error.
    async fn kept(&mut self) -> Option<Connection> {
        let mut kept = self.connection.take()?;
        kept.ready().await.is_ok().then_some(kept)
    }

    async fn connect(&self) -> Result<Connection, ConsulError> {
        let connected = tokio::time::timeout(CONNECT, self.open()).await;
        let slow = || io::Error::new(io::ErrorKind::TimedOut, "no connection in 5 s");
        connected.map_err(|_| slow()).flatten().map_err(|error| self.unreachable(error))
    }

    async fn open(&self) -> io::Result<Connection> {
        let Endpoint { host, port, tls, .. } = &*self.endpoint;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = tls else { return http(TokioIo::new(stream)).await };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        http(TokioIo::new(connector.connect(name, stream).await?)).await
    }
}

async fn http<I>(io: I) -> io::Result<Connection>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await.map_err(io::Error::other)?;
    tokio::spawn(async move {
        // What breaks it is told to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(sender)
}

/// An error with its cause: hyper tells them apart.
fn told(error: &hyper::Error) -> String {
    use std::error::Error as _;
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Escapes a path's segment (RFC 3986 §2.3).
#[must_use]
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_one() {
        assert_eq!(segment("weir-a/b?c d"), "weir-a%2Fb%3Fc%20d");
        assert_eq!(segment("ü"), "%C3%BC");
    }
}
