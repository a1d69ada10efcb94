//! The webhook itself: HTTP/1.1, one result at a time.

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use weir_mesh::shutdown::Shutdown;

use super::Receive;
use super::commit::CommitError;
use crate::Error;
use crate::commands::block_on;
use crate::output::say;

/// Bytes of one result: descriptor sets are the largest part.
const MAX_BODY: usize = 32 << 20;
/// For a whole request to come.
const READ: Duration = Duration::from_secs(30);
/// Connections at once; the control plane has one for each rollout that ends.
const MAX_CONNECTIONS: usize = 64;

struct Receiver {
    args: Receive,
    secret: Option<hmac::Key>,
    /// One clone has one writer.
    turn: Mutex<()>,
}

impl Receive {
    pub(super) fn run(self) -> Result<(), Error> {
        let secret = match &self.secret_file {
            None => None,
            Some(file) => {
                let failed = |error| Error::new(format!("cannot read {}: {error}", file.display()));
                let bytes = fs::read(file).map_err(failed)?;
                let bytes = bytes.trim_ascii();
                if bytes.len() < 16 {
                    return Err(Error::new("--secret-file: the secret has under 16 bytes"));
                }
                Some(hmac::Key::new(hmac::HMAC_SHA256, bytes))
            }
        };
        block_on(async move {
            let failed = |error| Error::new(format!("cannot listen on {}: {error}", self.listen));
            let listener = TcpListener::bind(self.listen).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let shutdown = Shutdown::on_signals()
                .map_err(|error| Error::new(format!("cannot wait for signals: {error}")))?;
            if secret.is_none() {
                eprintln!("warning: no --secret-file: whoever reaches {bound} can write the file");
            }
            say(&format!("receives at http://{bound}/"));
            serve(listener, Receiver { args: self, secret, turn: Mutex::new(()) }, shutdown).await;
            Ok(())
        })
    }
}

async fn serve(listener: TcpListener, receiver: Receiver, shutdown: Shutdown) {
    let (receiver, permits) =
        (Arc::new(receiver), Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => break,
        };
        let (Ok((stream, _)), Ok(permit)) = (accepted, permits.clone().acquire_owned().await)
        else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let receiver = receiver.clone();
        tokio::spawn(async move {
            connection(stream, receiver).await;
            drop(permit);
        });
    }
    // A commit that was begun is made.
    let _ = receiver.turn.lock().await;
}

async fn connection(stream: TcpStream, receiver: Arc<Receiver>) {
    let service = service_fn(|request| {
        let receiver = receiver.clone();
        async move {
            let (status, text) = receiver.answer(request).await;
            say(&format!("{}: {text}", status.as_u16()));
            let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))));
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(READ).keep_alive(false);
    // A client that went early is no news.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl Receiver {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> (StatusCode, String) {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, "results are told by POST".to_owned());
        }
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let body = match tokio::time::timeout(READ, Limited::new(body, MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => return (StatusCode::PAYLOAD_TOO_LARGE, "is too long".to_owned()),
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "took too long".to_owned()),
        };
        if let Some(secret) = &self.secret
            && !is_signed(secret, &body, header("x-weir-signature-256").unwrap_or_default())
        {
            return (StatusCode::UNAUTHORIZED, "is not signed with the secret".to_owned());
        }
        let key = header("idempotency-key").map(str::to_owned);
        let _turn = self.turn.lock().await;
        let receiver = self.clone();
        let commit = move || receiver.args.commit(&body, key.as_deref());
        match tokio::task::spawn_blocking(commit).await {
            Ok(Ok(done)) => (StatusCode::OK, done),
            Ok(Err(CommitError::Refused(why))) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            Ok(Err(CommitError::Failed(why))) => (StatusCode::SERVICE_UNAVAILABLE, why),
            Err(lost) => (StatusCode::INTERNAL_SERVER_ERROR, lost.to_string()),
        }
    }
}

/// In constant time.
fn is_signed(secret: &hmac::Key, body: &[u8], header: &str) -> bool {
    let Some(hex) = header.strip_prefix("sha256=").filter(|hex| hex.is_ascii()) else {
        return false;
    };
    let bytes: Option<Vec<u8>> = (0..hex.len())
        .step_by(2)
        .map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    bytes.is_some_and(|tag| hmac::verify(secret, body, &tag).is_ok())
}
