//! Connections that were used once and then rest: what do they cost a proxy?

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::load::plan::RequestOptions;
use crate::load::{Run, http1, http2};
use crate::net;

/// Between looks at the hold file.
const LOOK: Duration = Duration::from_millis(20);

/// What `weir-bench idle` can be told.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    request: RequestOptions,
    /// Connections to open
    #[arg(long, value_name = "N")]
    connections: usize,
    /// They are held until this file exists
    #[arg(long, value_name = "FILE")]
    hold_file: PathBuf,
    /// ... or so long
    #[arg(long, value_name = "S", default_value_t = 600)]
    hold_seconds: u64,
}

/// What is printed when all are open.
#[derive(Serialize)]
struct Opened {
    open: usize,
}

/// What is printed at the end.
#[derive(Serialize)]
pub struct Report {
    open: usize,
    failed: usize,
    closed_early: usize,
}

enum Connection {
    Http1(http1::Connection),
    Http2(http2::Link),
}

impl Connection {
    async fn is_alive(&self) -> bool {
        match self {
            Self::Http1(connection) => connection.is_alive(),
            Self::Http2(link) => link.is_alive().await,
        }
    }
}

/// Opens connections, sends one request on each, and holds them.
///
/// # Errors
/// When what was asked for makes no sense.
pub async fn run(options: Options) -> Result<Report, String> {
    net::raise_file_limit();
    let is_http1 = options.request.is_http1();
    let run = Run::single(options.request)?;
    if run.plan.churn {
        return Err("--churn: a connection that rests is no new one".into());
    }
    let script = http1::Script::new(&run.plan);
    let (mut held, mut failed) = (Vec::with_capacity(options.connections), 0);
    for _ in 0..options.connections {
        let opened = if is_http1 {
            open_http1(&run, &script).await
        } else {
            let link = http2::Link::default();
            http2::exchange(&run, &link, &mut None).await.map(|_| Connection::Http2(link))
        };
        match opened {
            Ok(connection) => held.push(connection),
            Err(kind) => {
                if failed == 0 {
                    eprintln!("weir-bench: {kind}");
                }
                failed += 1;
            }
        }
    }
    crate::print(&Opened { open: held.len() })?;
    let deadline = Instant::now() + Duration::from_secs(options.hold_seconds);
    while !options.hold_file.exists() && Instant::now() < deadline {
        sleep(LOOK).await;
    }
    // What has ended already must have been noticed.
    sleep(LOOK).await;
    let mut closed_early = 0;
    for connection in &held {
        closed_early += usize::from(!connection.is_alive().await);
    }
    Ok(Report { open: held.len(), failed, closed_early })
}

async fn open_http1(run: &Run, script: &http1::Script) -> Result<Connection, crate::load::Kind> {
    let mut slot = None;
    http1::exchange(run, script, &mut slot).await?;
    slot.map(Connection::Http1).ok_or("the server keeps no connection".into())
}
