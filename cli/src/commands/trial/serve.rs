//! The small program.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use weir_mesh::shutdown::{Drain, Shutdown};

use crate::Error;
use crate::commands::block_on;
use crate::output::say;

/// How long requests in flight may take after SIGTERM.
const DRAIN: Duration = Duration::from_secs(10);

/// Arguments of `weir try serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where it listens; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// The version that it says it is
    #[arg(long, default_value = "v1", value_name = "VERSION")]
    says: String,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Error> {
        block_on(async move {
            let failed = |error| Error::new(format!("cannot listen on {}: {error}", self.listen));
            let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let shutdown = Shutdown::on_signals()
                .map_err(|error| Error::new(format!("cannot wait for signals: {error}")))?;
            say(&format!("{} listens on {bound}", self.says));
            serve(listener, self.says.into(), shutdown).await;
            Ok(())
        })
    }
}

async fn serve(listener: TcpListener, says: Arc<str>, shutdown: Shutdown) {
    let drain = Drain::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (guard, says, shutdown) = (drain.guard(), says.clone(), shutdown.clone());
        tokio::spawn(async move {
            connection(stream, says, shutdown).await;
            drop(guard);
        });
    }
    drain.wait(DRAIN).await;
}

async fn connection(stream: TcpStream, says: Arc<str>, shutdown: Shutdown) {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let service = service_fn(|request: Request<Incoming>| {
        let answer = json!({
            "version": &*says,
            "host": host,
            "method": request.method().as_str(),
            "path": request.uri().path(),
        });
        let mut response = Response::new(Full::new(Bytes::from(format!("{answer}\n"))));
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    // A client that went early is no news.
    tokio::select! {
        _ = &mut connection => {}
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
