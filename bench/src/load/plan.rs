//! What every request is, and what every answer must be.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use crate::grpc;
use crate::payload::Payload;
use crate::tls::{Tls, TlsOptions};

/// What is spoken.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Http1,
    Http2,
    /// One message each way
    Grpc,
    /// One message there, many back
    GrpcStream,
}

impl Protocol {
    /// Whether messages with a prefix are sent, and trailers expected.
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcStream)
    }
}

/// Where requests go and what they are.
#[derive(clap::Args)]
pub struct RequestOptions {
    /// Where to connect
    #[arg(long, value_name = "IP:PORT")]
    target: SocketAddr,
    /// The `host` or `:authority` of every request (default: the target)
    #[arg(long, value_name = "HOST")]
    authority: Option<String>,
    /// What to speak
    #[arg(long, value_enum, default_value = "http1")]
    protocol: Protocol,
    /// Path and query (default: / or /sink/K, /bench.v1.Bench/Unary or .../StreamM)
    #[arg(long, value_name = "P")]
    path: Option<String>,
    /// Method (default: GET; with a body, and for gRPC, POST)
    #[arg(long)]
    method: Option<Method>,
    /// Length of a request's body, or of its message's payload
    #[arg(long, value_name = "K", default_value_t = 0)]
    request_bytes: u64,
    /// A request's body, instead of the pattern
    #[arg(long, value_name = "FILE", conflicts_with = "request_bytes")]
    request_file: Option<PathBuf>,
    /// Length that an answer's body, or each message's payload, must have
    /// [default: 64; 0 with --upload]
    #[arg(long, value_name = "N")]
    response_bytes: Option<u64>,
    /// What an answer's body must be, instead of the pattern
    #[arg(long, value_name = "FILE", conflicts_with = "response_bytes")]
    expect_file: Option<PathBuf>,
    /// Messages that each answer of grpc-stream must have
    #[arg(long, value_name = "M", default_value_t = 100)]
    messages: u64,
    /// POST the body to the upstream's sink, which checks it
    #[arg(long)]
    upload: bool,
    /// A new connection for every request
    #[arg(long)]
    churn: bool,
    /// Another header of every request
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    tls: TlsOptions,
}

/// [`RequestOptions`], checked and made ready.
pub struct Plan {
    pub target: SocketAddr,
    pub protocol: Protocol,
    /// What is cloned for every request of HTTP/2.
    pub head: Request<()>,
    /// Of every request; of gRPC with its prefix.
    pub body: Payload,
    /// The body of an answer, or of each of its messages.
    pub expected: Payload,
    /// Messages of an answer.
    pub messages: u64,
    pub churn: bool,
    pub tls: Option<Tls>,
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME:VALUE")?;
    let name = name.trim().parse().map_err(|e| format!("{e}"))?;
    Ok((name, value.trim().parse().map_err(|e| format!("{e}"))?))
}

impl RequestOptions {
    /// Whether a connection takes one request at a time.
    pub fn is_http1(&self) -> bool {
        self.protocol == Protocol::Http1
    }

    /// Checks what must fit together, and reads the files.
    ///
    /// # Errors
    /// What is wrong, with the flag's name.
    pub fn plan(self) -> Result<Plan, String> {
        let is_grpc = self.protocol.is_grpc();
        if is_grpc && (self.upload || self.request_file.is_some() || self.expect_file.is_some()) {
            return Err("--upload, --request-file, --expect-file: not with gRPC".into());
        }
        let tls = self.tls.load()?;
        if tls.is_some() && self.is_http1() {
            return Err("--mtls-cert: --protocol http1 has no TLS here; use http2 or grpc".into());
        }
        let body = match &self.request_file {
            Some(path) => Payload::load("--request-file", path)?,
            None if is_grpc => Payload::File(message("--request-bytes", self.request_bytes)?),
            None => Payload::Pattern(self.request_bytes),
        };
        let length = self.response_bytes.unwrap_or(if self.upload { 0 } else { 64 });
        let expected = match &self.expect_file {
            Some(path) => Payload::load("--expect-file", path)?,
            None => Payload::Pattern(length),
        };
        if is_grpc && u32::try_from(length).is_err() {
            return Err("--response-bytes: a gRPC message is shorter than 4 GiB".into());
        }
        let messages = if self.protocol == Protocol::GrpcStream { self.messages } else { 1 };
        let (target, protocol, churn) = (self.target, self.protocol, self.churn);
        let head = self.head(body.len())?;
        Ok(Plan { target, protocol, head, body, expected, messages, churn, tls })
    }

    fn head(self, length: u64) -> Result<Request<()>, String> {
        let is_grpc = self.protocol.is_grpc();
        let default_path = || match self.protocol {
            Protocol::Grpc => "/bench.v1.Bench/Unary".to_owned(),
            Protocol::GrpcStream => format!("/bench.v1.Bench/Stream{}", self.messages),
            _ if self.upload => format!("/sink/{length}"),
            _ => "/".to_owned(),
        };
        let path = self.path.clone().unwrap_or_else(default_path);
        let authority = self.authority.unwrap_or_else(|| self.target.to_string());
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(path).build();
        let posts = is_grpc || self.upload || length > 0;
        let default_method = if posts { Method::POST } else { Method::GET };
        let mut head = Request::new(());
        *head.uri_mut() = uri.map_err(|e| format!("--authority, --path: {e}"))?;
        *head.method_mut() = self.method.unwrap_or(default_method);
        *head.version_mut() = Version::HTTP_2;
        let headers = head.headers_mut();
        if is_grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        } else if posts {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        headers.extend(self.headers);
        Ok(head)
    }
}

fn message(flag: &str, length: u64) -> Result<Bytes, String> {
    let length = u32::try_from(length);
    length.map(grpc::message).map_err(|_| format!("{flag}: a gRPC message is shorter than 4 GiB"))
}
