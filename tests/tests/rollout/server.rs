//! Programs that are as good or as bad as they are told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What a program does with requests. Evenly spread, so that every run sees the same.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// 200.
    Good,
    /// Each of so many is slow.
    Slow(u64),
    /// Each of so many is a 500.
    Fails(u64),
}

/// How long a slow answer takes: far beyond what a busy machine makes of a fast one.
const SLOW: Duration = Duration::from_millis(400);

/// Serves for as long as the runtime lives.
pub async fn start(manner: Manner) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let count = count.clone();
            let serve = service_fn(move |_: Request<Incoming>| {
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                async move { Ok::<_, std::convert::Infallible>(answer(manner, number).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    address
}

async fn answer(manner: Manner, number: u64) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(b"ok")));
    match manner {
        Manner::Slow(each) if number.is_multiple_of(each) => tokio::time::sleep(SLOW).await,
        Manner::Fails(each) if number.is_multiple_of(each) => {
            *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        }
        _ => {}
    }
    answer
}
