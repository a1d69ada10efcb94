//! Applications without a router, each on a thread of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

/// One of them; it runs as long as the tests do.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
}

impl Server {
    /// What it answers is in the last segments of the path:
    /// `text/N` and `chunked/N` are N bytes, of known length or not; `events` one
    /// event of a stream that goes on. Anything else says how many bytes came.
    pub fn http1() -> Self {
        Self::start(|stream| async move {
            let served =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(web));
            drop(served.await);
        })
    }

    /// gRPC: the same message again.
    pub fn grpc() -> Self {
        Self::start(|stream| async move {
            let served = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(echo));
            drop(served.await);
        })
    }

    fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(serve(stream));
                }
            });
        });
        Self { address: told.recv().unwrap() }
    }
}

/// N bytes that compress well and differ from their neighbours.
pub fn text(bytes: usize) -> String {
    let mut text: String = (0..bytes / 8 + 1).map(|line| format!("{line:07}\n")).collect();
    text.truncate(bytes);
    text
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

async fn web(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    let kind = segments.next().unwrap_or_default();
    let response = Response::builder().header("content-type", "text/plain; charset=utf-8");
    let data = |text: String| Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
    let response = match (kind, last) {
        ("text", bytes) => {
            let body = Full::new(Bytes::from(text(bytes.parse().unwrap())));
            response.header("etag", "\"one\"").body(body.boxed_unsync())
        }
        ("chunked", bytes) => {
            let text = text(bytes.parse().unwrap());
            let pieces: Vec<_> = text.as_bytes().chunks(1000).map(<[u8]>::to_vec).collect();
            let pieces = pieces.into_iter().map(|piece| String::from_utf8(piece).unwrap());
            response.body(StreamBody::new(stream::iter(pieces.map(data))).boxed_unsync())
        }
        (_, "events") => {
            let first = stream::iter([data("data: first\n\n".to_owned())]);
            let body = StreamBody::new(first.chain(stream::pending()));
            let response = response.header("cache-control", "no-cache");
            let mut response = response.body(body.boxed_unsync()).unwrap();
            let events = HeaderValue::from_static("text/event-stream");
            response.headers_mut().insert("content-type", events);
            return Ok(response);
        }
        _ => match request.into_body().collect().await {
            Ok(body) => {
                let text = body.to_bytes().len().to_string();
                response.body(Full::new(Bytes::from(text)).boxed_unsync())
            }
            Err(_) => response.status(400).body(Full::default().boxed_unsync()),
        },
    };
    Ok(response.unwrap())
}

async fn echo(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(body).with_trailers(async move { Some(Ok(trailers)) });
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body.boxed_unsync()).unwrap())
}
