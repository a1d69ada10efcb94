//! Applications without a router that answer with what they were asked, and
//! remember it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// One application, for as long as the process lives.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Upstream {
    /// Speaks HTTP/1.1, or gRPC.
    pub fn start(version: &'static str, grpc: bool) -> Self {
        let seen = Arc::new(Mutex::default());
        let (tell, told) = mpsc::channel();
        let remembers = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let stream = TokioIo::new(stream);
                    let seen = Arc::clone(&remembers);
                    tokio::spawn(async move {
                        if grpc {
                            let say = service_fn(move |r| say(r, version, Arc::clone(&seen)));
                            let server = http2::Builder::new(TokioExecutor::new());
                            drop(server.serve_connection(stream, say).await);
                        } else {
                            let echo = service_fn(move |r| echo(r, version, Arc::clone(&seen)));
                            drop(http1::Builder::new().serve_connection(stream, echo).await);
                        }
                    });
                }
            });
        });
        Self { address: told.recv().unwrap(), seen }
    }

    /// What it was asked below this path.
    pub fn seen(&self, path: &str) -> Vec<Value> {
        let seen = self.seen.lock().unwrap();
        let below = |one: &&Value| one["target"].as_str().unwrap().starts_with(path);
        seen.iter().filter(below).cloned().collect()
    }
}

async fn read(request: Request<Incoming>, version: &str, seen: &Mutex<Vec<Value>>) -> Value {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut headers = serde_json::Map::new();
    for name in parts.headers.keys() {
        let values = parts.headers.get_all(name).iter().map(|v| v.to_str().unwrap_or_default());
        headers.insert(name.to_string(), values.collect::<Vec<_>>().join(", ").into());
    }
    let authority = parts.uri.authority().map(ToString::to_string);
    let json = json!({
        "version": version,
        "method": parts.method.as_str(),
        "target": parts.uri.path_and_query().map(ToString::to_string),
        "host": authority.or_else(|| Some(headers.get("host")?.as_str()?.to_owned())),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    seen.lock().unwrap().push(json.clone());
    json
}

async fn echo(
    request: Request<Incoming>,
    version: &'static str,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let json = read(request, version, &seen).await;
    if json["target"].as_str().unwrap().contains("/slow") {
        std::future::pending::<()>().await;
    }
    let response = Response::builder()
        .header("x-upstream", version)
        .header("access-control-allow-origin", "https://upstream.test");
    Ok(response.body(json.to_string().into()).unwrap())
}

async fn say(
    request: Request<Incoming>,
    version: &'static str,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let json = read(request, version, &seen).await;
    let status = http::HeaderName::from_static("grpc-status");
    let trailers = HeaderMap::from_iter([(status, HeaderValue::from_static("0"))]);
    let message = json["body"].as_str().unwrap().to_owned();
    let body = Full::new(Bytes::from(message)).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-upstream", version);
    Ok(response.body(body).unwrap())
}
