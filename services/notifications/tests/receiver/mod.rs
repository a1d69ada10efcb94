//! Receives webhooks over HTTP and answers as it is told.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap().to_str().unwrap()
    }

    /// Checks the signature as a receiver does (Standard Webhooks).
    pub fn is_signed_by(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.trim().strip_prefix("whsec_").unwrap()).unwrap();
        let (version, signature) = self.header("webhook-signature").split_once(',').unwrap();
        let mut signed =
            format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"))
                .into_bytes();
        signed.extend_from_slice(&self.body);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        version == "v1" && hmac::verify(&key, &signed, &STANDARD.decode(signature).unwrap()).is_ok()
    }
}

type Log = Arc<Mutex<Vec<Received>>>;

pub struct Receiver {
    address: SocketAddr,
    log: Log,
}

impl Receiver {
    /// `answer` gives the status for a path's nth request, from 1.
    pub async fn start(answer: impl Fn(&str, u32) -> u16 + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let shared =
            (Arc::new(answer), log.clone(), Arc::new(Mutex::new(HashMap::<String, u32>::new())));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = shared.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, log, counts) = shared.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let path = parts.uri.to_string();
                        let nth = {
                            let mut counts = counts.lock().unwrap();
                            let count = counts.entry(path.clone()).or_default();
                            *count += 1;
                            *count
                        };
                        let status = answer(&path, nth);
                        log.lock().unwrap().push(Received { path, headers: parts.headers, body });
                        Ok::<_, Infallible>(
                            Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap(),
                        )
                    }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, log }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }
}
