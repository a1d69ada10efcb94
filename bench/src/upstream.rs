//! The application behind the proxies: it answers, checks what it is sent, and
//! costs little.

mod http1;
mod http2;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpListener;
use weir_mesh::shutdown::Shutdown;

use crate::net;

/// What `weir-bench upstream` can be told.
#[derive(clap::Args)]
pub struct Options {
    /// Where to listen; port 0 takes a free one (see --ready-file)
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// What to speak
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// Length of an answer's body, or of a gRPC message's payload
    #[arg(long, value_name = "N", default_value_t = 64)]
    body_bytes: u64,
    /// The value of `x-upstream` in every answer
    #[arg(long, default_value = "v1")]
    name: String,
    /// Gets {"listen": "IP:PORT"} when connections are taken
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    #[command(flatten)]
    faults: Faults,
}

/// What an upstream speaks.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    /// gRPC too
    Http2,
}

/// Ways to be wrong, so that tests can see that a load notices.
#[derive(clap::Args)]
struct Faults {
    /// One byte of every K-th body is wrong
    #[arg(long, value_name = "K", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    corrupt_every: Option<u64>,
    /// Every K-th answer is 503 (gRPC: status 14)
    #[arg(long, value_name = "K", hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    status_every: Option<u64>,
    /// Once, the whole process sleeps so long
    #[arg(long, value_name = "MS", hide = true)]
    stall_ms: Option<u64>,
    /// Which request it sleeps on
    #[arg(long, value_name = "N", hide = true, default_value_t = 50)]
    stall_at: u64,
}

/// What is wrong with one answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Status,
    Corrupt,
}

/// What a request asks for, by its method and path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// A body of so many bytes.
    Bytes(u64),
    /// That its body is checked, and its length if that is named.
    Sink(Option<u64>),
}

/// What every connection shares.
struct Upstream {
    name: String,
    body_bytes: u64,
    faults: Faults,
    requests: AtomicU64,
    connections: AtomicU64,
}

impl Upstream {
    fn wanted(&self, method: &[u8], path: &[u8]) -> Wanted {
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        if let Some(count) = path.strip_prefix(b"/bytes/").and_then(count) {
            return Wanted::Bytes(count);
        }
        match path.strip_prefix(b"/sink") {
            Some(b"") if method == b"POST" => Wanted::Sink(None),
            Some([b'/', length @ ..]) if method == b"POST" => Wanted::Sink(count(length)),
            _ => Wanted::Bytes(self.body_bytes),
        }
    }

    /// Counts a request, and says what is to be wrong with its answer.
    fn fault(&self) -> Fault {
        let number = self.requests.fetch_add(1, Relaxed) + 1;
        let is_multiple = |every: Option<u64>| every.is_some_and(|k| number.is_multiple_of(k));
        if let Some(stall) = self.faults.stall_ms
            && number == self.faults.stall_at
        {
            // The thread and not the task: a process that stops answers nobody.
            std::thread::sleep(Duration::from_millis(stall));
        }
        if is_multiple(self.faults.status_every) {
            Fault::Status
        } else if is_multiple(self.faults.corrupt_every) {
            Fault::Corrupt
        } else {
            Fault::None
        }
    }
}

fn count(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// `piece` with one byte wrong.
fn spoil(piece: &[u8]) -> Vec<u8> {
    let mut piece = piece.to_vec();
    if let Some(last) = piece.last_mut() {
        *last ^= 1;
    }
    piece
}

/// What an upstream says when it is stopped.
#[derive(Serialize)]
pub struct Report {
    requests: u64,
    connections: u64,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(options: Options) -> io::Result<Report> {
    net::raise_file_limit();
    let shutdown = Shutdown::on_signals()?;
    let listener = net::listen(options.listen, options.ready_file.as_deref()).await?;
    let upstream = Arc::new(Upstream {
        name: options.name,
        body_bytes: options.body_bytes,
        faults: options.faults,
        requests: AtomicU64::new(0),
        connections: AtomicU64::new(0),
    });
    tokio::select! {
        () = accept(listener, options.protocol, upstream.clone()) => {}
        () = shutdown.requested() => {}
    }
    Ok(Report {
        requests: upstream.requests.load(Relaxed),
        connections: upstream.connections.load(Relaxed),
    })
}

async fn accept(listener: TcpListener, protocol: Protocol, upstream: Arc<Upstream>) {
    let http1 = Arc::new(http1::Answers::new(&upstream));
    let http2 = Arc::new(http2::Answers::new(&upstream));
    loop {
        let stream = net::accept(&listener).await;
        upstream.connections.fetch_add(1, Relaxed);
        // A connection that breaks is the other side's to report.
        match protocol {
            Protocol::Http1 => {
                let (upstream, answers) = (upstream.clone(), http1.clone());
                tokio::spawn(async move { http1::serve(stream, &upstream, &answers).await.ok() });
            }
            Protocol::Http2 => {
                let (upstream, answers) = (upstream.clone(), http2.clone());
                tokio::spawn(async move { http2::serve(stream, upstream, answers).await.ok() });
            }
        }
    }
}
