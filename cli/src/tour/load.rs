//! Requests to the gateway, many at a time, and what came of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::http_client::HttpClient;

/// Requests in flight at once, each on a connection of its own.
pub const CONCURRENCY: u64 = 8;

/// What came of a number of requests.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Answered or not.
    pub requests: u64,
    /// No answer, or a status other than 200.
    pub failed: u64,
    /// Requests by the version that served them.
    pub versions: BTreeMap<String, u64>,
    /// The first few failures.
    pub failures: Vec<String>,
    durations: Vec<Duration>,
    /// When the latest request that failed was sent.
    pub last_failed: Option<Instant>,
}

impl Stats {
    /// How many this version served.
    #[must_use]
    pub fn served_by(&self, version: &str) -> u64 {
        self.versions.get(version).copied().unwrap_or(0)
    }

    /// The time that 99 of 100 requests stayed below.
    #[must_use]
    pub fn p99(&self) -> Duration {
        let mut sorted = self.durations.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * 99 / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).copied().unwrap_or_default()
    }

    fn note(&mut self, outcome: Result<String, String>, began: Instant) {
        self.requests += 1;
        self.durations.push(began.elapsed());
        match outcome {
            Ok(version) => *self.versions.entry(version).or_default() += 1,
            Err(failure) => {
                self.failed += 1;
                self.last_failed = self.last_failed.max(Some(began));
                if self.failures.len() < 5 {
                    self.failures.push(failure);
                }
            }
        }
    }
}

/// Requests that go on until they are stopped or their number is reached.
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    left: AtomicU64,
    stats: Mutex<Stats>,
}

impl Load {
    /// Begins to GET `path`.
    #[must_use]
    pub fn start(gateway: SocketAddr, path: &'static str) -> Self {
        Self::limited(gateway, path, u64::MAX)
    }

    fn limited(gateway: SocketAddr, path: &'static str, total: u64) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            left: AtomicU64::new(total),
            stats: Mutex::default(),
        });
        let worker = |_| tokio::spawn(work(gateway, path, shared.clone()));
        let tasks = (0..CONCURRENCY).map(worker).collect();
        Self { shared, tasks }
    }

    /// What came of it so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets what is in flight end, and tells what came of all.
    pub async fn stop(self) -> Stats {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.finish().await
    }

    async fn finish(self) -> Stats {
        for task in self.tasks {
            let _ = task.await;
        }
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sends exactly `total` requests.
pub async fn count(gateway: SocketAddr, path: &'static str, total: u64) -> Stats {
    Load::limited(gateway, path, total).finish().await
}

async fn work(gateway: SocketAddr, path: &'static str, shared: Arc<Shared>) {
    let mut client = HttpClient::new(gateway);
    let take = |left: u64| left.checked_sub(1);
    while !shared.stop.load(Ordering::Relaxed)
        && shared.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    {
        let began = Instant::now();
        let outcome = match client.get(path).await {
            Ok(answer) if answer.status == http::StatusCode::OK => {
                Ok(answer.header("x-weir-version").to_owned())
            }
            Ok(answer) => Err(format!(
                "{} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body).chars().take(200).collect::<String>()
            )),
            Err(error) => Err(error.to_string()),
        };
        shared.stats.lock().unwrap_or_else(PoisonError::into_inner).note(outcome, began);
    }
}
