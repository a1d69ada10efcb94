//! Counts that all routers keep together, in Redis: one connection for the whole
//! process, on which every worker's questions follow each other without waiting
//! for answers.
//!
//! Our own client and not a crate: three commands need 300 lines, and the crate
//! at hand would be the largest part of a sidecar after TLS. What is not there:
//! TLS, following a cluster's redirections, Sentinel.

mod connection;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use weir_mesh::policy::rate_limit::Store;
use weir_mesh::telemetry::metrics::{Counter, Gauge, Registry};

use super::local::Verdict;

/// Questions that wait to be sent; more are answered as if the store were away.
const QUEUE: usize = 4096;

/// Whom to ask for counts.
pub struct Client {
    store: Store,
    questions: mpsc::Sender<Question>,
    health: Arc<Health>,
}

/// One question.
pub struct Question {
    /// Name of the count.
    pub key: String,
    /// Length of the window.
    pub per: Duration,
    /// Most in a window.
    pub limit: u32,
    /// What this request counts as.
    pub cost: u32,
    answer: oneshot::Sender<Verdict>,
}

/// Why there is no answer. Either way the policy's `onFailure` decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no connection.
    Away,
    /// None came in time.
    Late,
    /// The server answered with an error, or the connection broke.
    Failed,
}

/// What is known of the server.
struct Health {
    state: AtomicU8,
    up: Gauge,
    away: Counter,
    late: Counter,
    failed: Counter,
}

/// Not connected yet, for the first time: worth waiting for.
const STARTING: u8 = 0;
const UP: u8 = 1;
const AWAY: u8 = 2;

impl Client {
    /// Begins to connect, when there is a runtime to do it on. The connection
    /// ends with the last clone.
    #[must_use]
    pub fn start(store: Store, registry: &Registry) -> Arc<Self> {
        let (questions, asked) = mpsc::channel(QUEUE);
        let health = Arc::new(Health::new(&store, registry));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(connection::keep(store.clone(), asked, health.clone()));
        }
        Arc::new(Self { store, questions, health })
    }

    /// Counts a request, if it may come: one round trip.
    ///
    /// # Errors
    /// [`NoAnswer`], after the store's timeout at the latest.
    pub async fn take(
        &self,
        key: String,
        per: Duration,
        limit: u32,
        cost: u32,
    ) -> Result<Verdict, NoAnswer> {
        let answer = self.ask(key, per, limit, cost).await;
        match answer {
            Ok(_) => {}
            Err(NoAnswer::Away) => self.health.away.inc(),
            Err(NoAnswer::Late) => self.health.late.inc(),
            Err(NoAnswer::Failed) => self.health.failed.inc(),
        }
        answer
    }

    async fn ask(
        &self,
        key: String,
        per: Duration,
        limit: u32,
        cost: u32,
    ) -> Result<Verdict, NoAnswer> {
        if self.health.state.load(Relaxed) == AWAY {
            return Err(NoAnswer::Away);
        }
        let (answer, answered) = oneshot::channel();
        let question = Question { key, per, limit, cost, answer };
        self.questions.try_send(question).map_err(|_| NoAnswer::Away)?;
        match timeout(self.store.timeout, answered).await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(_)) => Err(NoAnswer::Failed),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

impl Health {
    fn new(store: &Store, registry: &Registry) -> Self {
        let name = store.url.to_string();
        let failures = |reason| {
            let help = "Questions to the store of rate limits that got no answer.";
            let labels = [("weir_store", &*name), ("reason", reason)];
            registry.counter("weir.router.rate_limit.store.failures", help, "", &labels)
        };
        let help = "Connections to the store of rate limits; 0 while it is away.";
        Self {
            state: AtomicU8::new(STARTING),
            up: registry.gauge(
                "weir.router.rate_limit.store.up",
                help,
                "",
                &[("weir_store", &name)],
            ),
            away: failures("away"),
            late: failures("late"),
            failed: failures("failed"),
        }
    }

    fn set(&self, up: bool) {
        let before = self.state.swap(if up { UP } else { AWAY }, Relaxed);
        // Another client may ask the same server with other patience.
        self.up.add(i64::from(up) - i64::from(before == UP));
    }
}
