//! Servers that fail on command.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// What a server does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// 200, with the server's name.
    Good,
    /// This status.
    Status(u16),
    /// A gRPC status, with the head.
    Grpc(u8),
    /// Nothing, for ever.
    Hangs,
    /// Good after a while.
    Slow(Duration),
    /// Every second request gets this status.
    Half(u16),
}

/// What a server has seen, and does next.
#[derive(Debug)]
pub struct State {
    name: String,
    manner: Mutex<Manner>,
    /// Answers to `/health` and to gRPC health checks, beside the manner.
    health: Mutex<Manner>,
    /// Requests that are not health checks.
    pub requests: AtomicU64,
    /// Health checks.
    pub checks: AtomicU64,
    /// Requests that were given up while they waited.
    pub cancelled: AtomicU64,
    /// The value of `x-envoy-expected-rq-timeout-ms` of the last one.
    pub told: AtomicU64,
    inside: AtomicU64,
    /// The most requests at one time.
    pub peak: AtomicU64,
    /// Connections that are open.
    pub connections: AtomicU64,
    /// The most connections at one time.
    pub most_connections: AtomicU64,
}

/// A process at an address. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct Server {
    pub address: SocketAddr,
    pub state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Speaks HTTP/1.1, or HTTP/2.
    pub fn start(name: &str, is_http2: bool) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            manner: Mutex::new(Manner::Good),
            health: Mutex::new(Manner::Good),
            requests: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            told: AtomicU64::new(0),
            inside: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            most_connections: AtomicU64::new(0),
        });
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = accept(&listener, &shared, is_http2) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().unwrap(), state, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl State {
    /// From now on.
    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// What health checks are answered, from now on.
    pub fn set_health(&self, manner: Manner) {
        *self.health.lock().unwrap() = manner;
    }

    /// How many requests so far.
    pub fn count(&self) -> u64 {
        self.requests.load(SeqCst)
    }
}

async fn accept(listener: &TcpListener, state: &Arc<State>, is_http2: bool) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = state.clone();
        tokio::spawn(async move {
            let open = state.connections.fetch_add(1, SeqCst) + 1;
            state.most_connections.fetch_max(open, SeqCst);
            serve(stream, &state, is_http2).await;
            state.connections.fetch_sub(1, SeqCst);
        });
    }
}

async fn serve(stream: TcpStream, state: &Arc<State>, is_http2: bool) {
    let answering = state.clone();
    let service = service_fn(move |request| answer(request, answering.clone()));
    // However a connection ends, the next one is served.
    if is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), service).await);
    } else {
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    }
}

/// Counts a request that was given up.
struct Inside<'a>(&'a State, bool);

impl<'a> Inside<'a> {
    fn new(state: &'a State) -> Self {
        let inside = state.inside.fetch_add(1, SeqCst) + 1;
        state.peak.fetch_max(inside, SeqCst);
        Self(state, false)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
        if !self.1 {
            self.0.cancelled.fetch_add(1, SeqCst);
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let is_check = request.uri().path().ends_with("/health")
        || request.uri().path().starts_with("/grpc.health.v1.Health/");
    let (manner, number) = if is_check {
        (*state.health.lock().unwrap(), state.checks.fetch_add(1, SeqCst))
    } else {
        let left = request.headers().get("x-envoy-expected-rq-timeout-ms");
        let left = left.and_then(|left| left.to_str().ok()?.parse().ok());
        state.told.store(left.unwrap_or_default(), SeqCst);
        (*state.manner.lock().unwrap(), state.requests.fetch_add(1, SeqCst))
    };
    let mut inside = Inside::new(&state);
    let grpc = request.uri().path().starts_with("/grpc.health.v1.Health/");
    let response = match manner {
        Manner::Good if grpc => Ok(serving(1)),
        Manner::Status(_) if grpc => Ok(serving(2)),
        Manner::Good => Ok(named(&state, 200)),
        Manner::Status(status) => Ok(named(&state, status)),
        Manner::Half(status) => Ok(named(&state, if number % 2 == 0 { status } else { 200 })),
        Manner::Grpc(code) => {
            let mut response = named(&state, 200);
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(u16::from(code)));
            *response.body_mut() = Full::default();
            Ok(response)
        }
        Manner::Hangs => std::future::pending().await,
        Manner::Slow(time) => {
            tokio::time::sleep(time).await;
            Ok(named(&state, 200))
        }
    };
    inside.1 = true;
    response
}

fn named(state: &State, status: u16) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("x-server", &state.name);
    response.body(Full::from(state.name.clone())).unwrap()
}

/// A `grpc.health.v1.HealthCheckResponse`; its trailers come with the head's
/// end, so the status is in the head and the message after it.
fn serving(status: u8) -> Response<Full<Bytes>> {
    let message = vec![0, 0, 0, 0, 2, 8, status];
    let response =
        Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
    response.body(Full::from(message)).unwrap()
}
