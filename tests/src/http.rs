//! A small HTTP client: JSON, HTTP/1.1 and HTTP/2 by prior knowledge.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(30);

/// A client of one origin. It keeps its connections: requests one after the
/// other use one.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    headers: HeaderMap,
    client: Client<HttpConnector, Full<Bytes>>,
    via: Option<SocketAddr>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// What came after the body.
    pub trailers: HeaderMap,
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use]
pub struct Call {
    http: Http,
    request: Request<Full<Bytes>>,
}

impl Http {
    /// Speaks HTTP/1.1.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::build(base, false)
    }

    /// Speaks HTTP/2.
    #[must_use]
    pub fn http2(base: &str) -> Self {
        Self::build(base, true)
    }

    /// Speaks HTTP/2 to a router at `via`, by which it asks for another's URL.
    /// Each request has a connection of its own.
    #[must_use]
    pub fn http2_via(base: &str, via: SocketAddr) -> Self {
        Self { via: Some(via), ..Self::build(base, true) }
    }

    fn build(base: &str, http2: bool) -> Self {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http();
        Self { base: base.to_owned(), headers: HeaderMap::new(), client, via: None }
    }

    /// Sends a header with each request.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// Shows an access token with each request.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        self.with_header("authorization", &format!("Bearer {token}"))
    }

    /// A request.
    ///
    /// # Panics
    /// When the path cannot be one.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let mut request = Request::new(Full::default());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base).parse().unwrap();
        *request.headers_mut() = self.headers.clone();
        Call { http: self.clone(), request }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    /// POST of JSON.
    pub fn post(&self, path: &str, body: &Value) -> Call {
        self.call(Method::POST, path).json(body)
    }
}

impl Call {
    /// Adds a header.
    ///
    /// # Panics
    /// When it is none.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().unwrap();
        self.request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// Sends this.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.request.body_mut() = Full::new(body.into());
        self
    }

    /// Sends JSON.
    pub fn json(self, body: &Value) -> Self {
        self.header(header::CONTENT_TYPE.as_str(), "application/json").body(body.to_string())
    }

    /// The answer, or why there is none.
    ///
    /// # Errors
    /// No connection, or it broke.
    pub async fn try_send(self) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let answer = async {
            let answer = match self.http.via {
                None => self.http.client.request(self.request).await?,
                Some(via) => send_via(via, self.request).await?,
            };
            let (parts, body) = answer.into_parts();
            let body = body.collect().await?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            let (status, headers, body) = (parts.status, parts.headers, body.to_bytes());
            Ok(Reply { status, headers, body, trailers })
        };
        tokio::time::timeout(DEADLINE, answer).await?
    }

    /// The answer.
    ///
    /// # Panics
    /// When there is none.
    pub async fn send(self) -> Reply {
        let what = format!("{} {}", self.request.method(), self.request.uri());
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error}: {error:?}"))
    }

    /// The JSON of an answer 200.
    ///
    /// # Panics
    /// When it is another.
    pub async fn ok(self) -> Value {
        let what = format!("{} {}", self.request.method(), self.request.uri());
        let reply = self.send().await;
        assert_eq!(reply.status, 200, "{what}: {}", reply.text());
        reply.json()
    }
}

async fn send_via(
    via: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TokioIo::new(TcpStream::connect(via).await?);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    // It ends when the answer has been read.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

impl Reply {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("HTTP {}: {error}: {}", self.status, self.text()))
    }

    /// A header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The fields that a google.rpc.BadRequest names, as (field, description).
    ///
    /// # Panics
    /// When the answer is no error 400 with such a detail.
    #[track_caller]
    #[must_use]
    pub fn violations(&self) -> Vec<(String, String)> {
        assert_eq!(self.status, 400, "{}", self.text());
        let json = self.json();
        let details = json["details"].as_array().unwrap_or_else(|| panic!("no details: {json}"));
        let bad = details
            .iter()
            .find(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest")
            .unwrap_or_else(|| panic!("no BadRequest: {json}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let fields = bad["fieldViolations"].as_array().unwrap().iter();
        fields.map(|v| (text(&v["field"]), text(&v["description"]))).collect()
    }
}

/// A user who is registered.
#[derive(Debug, Clone)]
pub struct Account {
    /// As registered.
    pub email: String,
    /// As registered.
    pub password: String,
    /// The subject of the tokens.
    pub user_id: String,
    /// A JWT.
    pub access_token: String,
    /// Good for one refresh.
    pub refresh_token: String,
}

impl Account {
    /// Registers a new one at the gateway.
    ///
    /// # Panics
    /// When that fails.
    pub async fn register(http: &Http) -> Self {
        let email = format!("user-{:016x}@example.com", fastrand::u64(..));
        let password = "correct horse battery staple".to_owned();
        let body = json!({"email": email, "password": password, "displayName": "Ada"});
        let tokens = http.post("/v1/auth/register", &body).ok().await;
        let text =
            |key: &str| tokens[key].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned();
        Self {
            email,
            password,
            user_id: text("userId"),
            access_token: text("accessToken"),
            refresh_token: text("refreshToken"),
        }
    }
}
