//! Sends requests, checks every answer, and says what it took.

pub mod http1;
pub mod http2;
mod pace;
pub mod plan;
mod record;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cpu::{Sample, Usage};
use crate::net;
use pace::Pace;
use plan::{Plan, RequestOptions};
pub use record::Kind;
use record::{Figures, Record};

/// The longest that a connection may take, TLS included.
pub const CONNECT: Duration = Duration::from_secs(5);
/// Answers that are under way when the window ends are waited for so long.
const DRAIN: Duration = Duration::from_secs(5);
/// After a connection that failed.
const PAUSE: Duration = Duration::from_millis(5);
/// Of a run that is bounded by requests.
const LONGEST: f64 = 600.0;

/// What `weir-bench load` can be told.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    request: RequestOptions,
    /// Connections
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = positive)]
    connections: usize,
    /// Requests at a time on each connection; HTTP/1.1 has one
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = positive)]
    streams: usize,
    /// Length of the counted window [default: 10; with --requests at most 600]
    #[arg(long, value_name = "D", value_parser = seconds)]
    seconds: Option<f64>,
    /// Seconds before it; requests are sent and checked, not counted
    #[arg(long, value_name = "W", default_value = "0", value_parser = seconds)]
    warmup: f64,
    /// Ends the window after so many
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Open loop: so many requests a second, whatever becomes of them; latency
    /// counts from when each was due
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Processes whose CPU over the window is wanted
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pid_cpu: Vec<u32>,
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number from 1 on".into())
}

/// Reads a number of seconds, at most a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    let seconds: Option<f64> = text.parse().ok();
    seconds.filter(|s| (0.0..=86_400.0).contains(s)).ok_or_else(|| "seconds, 0 to 86400".into())
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|r| (0.001..=1e7).contains(r)).ok_or_else(|| "a rate, 0.001 to 10000000".into())
}

/// What all workers share.
pub struct Run {
    pub plan: Plan,
    pace: Pace,
    record: Record,
    /// After a connection that failed.
    pause: Duration,
}

impl Run {
    /// A run whose requests its owner sends by itself.
    ///
    /// # Errors
    /// As [`RequestOptions::plan`].
    pub fn single(request: RequestOptions) -> Result<Self, String> {
        let (pace, record) = (Pace::new(None, None), Record::new(None, false)?);
        Ok(Self { plan: request.plan()?, pace, record, pause: Duration::ZERO })
    }

    async fn connected(&self, well: bool) {
        self.record.connected(well);
        if !well && !self.pause.is_zero() {
            sleep(self.pause).await;
        }
    }
}

/// The name of an error that the system gave.
fn io_kind(what: &'static str, error: &io::Error) -> Kind {
    match error.kind() {
        // Its kind says nothing.
        io::ErrorKind::Other | io::ErrorKind::InvalidData => format!("{what}: {error}").into(),
        kind => format!("{what}: {kind}").into(),
    }
}

/// What `weir-bench load` prints.
#[derive(Serialize)]
pub struct Report {
    #[serde(flatten)]
    figures: Figures,
    rate: Option<f64>,
    warmup_seconds: f64,
    /// Of this process, over the window.
    own_cpu_seconds: f64,
    pids: BTreeMap<u32, Usage>,
}

/// Runs a load to its end.
///
/// # Errors
/// When what was asked for makes no sense, or a process is not there.
pub async fn run(options: Options) -> Result<Report, String> {
    net::raise_file_limit();
    let open_loop = options.rate.is_some();
    let is_http1 = options.request.is_http1();
    if is_http1 && options.streams > 1 {
        return Err("--streams: HTTP/1.1 has one request at a time; use --connections".into());
    }
    let default_seconds = if options.requests.is_some() { LONGEST } else { 10.0 };
    let seconds = options.seconds.unwrap_or(default_seconds);
    // Answers to requests of a warm-up fall into the window, so that only
    // without one can requests be counted when they are sent.
    let to_send = options.requests.filter(|_| options.warmup == 0.0);
    let run = Arc::new(Run {
        plan: options.request.plan()?,
        pace: Pace::new(options.rate, to_send),
        record: Record::new(options.requests, open_loop)?,
        pause: PAUSE,
    });
    let mut pids = options.pid_cpu;
    pids.push(std::process::id());
    // A wrong one is better told before the load than after it.
    sample(&pids)?;
    let mut workers = if is_http1 {
        spawn_http1(&run, options.connections)
    } else {
        spawn_http2(&run, options.connections, options.streams)
    };
    let clock = tokio::spawn({
        let run = run.clone();
        async move { run.pace.drive().await }
    });
    let usage = window(&run, options.warmup, seconds, &pids).await?;
    let end = run.record.close();
    run.pace.stop();
    let waiting = run.pace.waiting(end);
    clock.abort();
    drain(&run, &mut workers).await;
    run.record.unsent(&waiting, end);
    let own = std::process::id();
    Ok(Report {
        figures: run.record.report(),
        rate: options.rate,
        warmup_seconds: options.warmup,
        own_cpu_seconds: usage.get(&own).map_or(0.0, |usage| usage.cpu_seconds),
        pids: usage.into_iter().filter(|(pid, _)| *pid != own).collect(),
    })
}

/// The warm-up, and then the window that counts. Gives what processes used in
/// it.
async fn window(
    run: &Run,
    warmup: f64,
    seconds: f64,
    pids: &[u32],
) -> Result<BTreeMap<u32, Usage>, String> {
    let enough = run.record.enough.notified();
    if warmup > 0.0 && timeout(Duration::from_secs_f64(warmup), enough).await.is_ok() {
        return Ok(BTreeMap::new());
    }
    let before = sample(pids)?;
    run.record.open();
    let _ = timeout(Duration::from_secs_f64(seconds), run.record.enough.notified()).await;
    run.record.close();
    let mut usage = BTreeMap::new();
    for (pid, before) in before {
        match Sample::take(pid) {
            Ok(after) => drop(usage.insert(pid, after.since(&before))),
            Err(error) => eprintln!("weir-bench: {error}"),
        }
    }
    Ok(usage)
}

fn sample(pids: &[u32]) -> Result<Vec<(u32, Sample)>, String> {
    pids.iter().map(|pid| Ok((*pid, Sample::take(*pid).map_err(|e| e.to_string())?))).collect()
}

fn spawn_http1(run: &Arc<Run>, connections: usize) -> JoinSet<()> {
    let script = Arc::new(http1::Script::new(&run.plan));
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        let (run, script) = (run.clone(), script.clone());
        workers.spawn(async move { http1::work(&run, &script).await });
    }
    workers
}

fn spawn_http2(run: &Arc<Run>, connections: usize, streams: usize) -> JoinSet<()> {
    let links = http2::links(connections);
    let mut workers = JoinSet::new();
    // The first workers in line are of different connections.
    for _ in 0..streams {
        for link in &links {
            let run = run.clone();
            // Nobody else may use a connection that is for one request.
            let link = if run.plan.churn { Arc::default() } else { link.clone() };
            workers.spawn(async move { http2::work(&run, &link).await });
        }
    }
    workers
}

/// Waits for answers that are under way, and counts those that do not come.
async fn drain(run: &Run, workers: &mut JoinSet<()>) {
    let ended = timeout(DRAIN, async { while workers.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        run.record.unanswered(workers.len() as u64);
        workers.abort_all();
    }
}
