//! What came of the requests.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::Notify;

/// The name under which a failure is counted.
pub type Kind = Cow<'static, str>;

/// So many connections in a row that failed end a run.
const HOPELESS: u64 = 100;
/// Latencies are kept to three digits, from 1 ns up to this.
const LONGEST: Duration = Duration::from_secs(600);

/// What a good answer was.
pub struct Answer {
    /// Of its body, or of its messages' payloads, in bytes.
    pub bytes: u64,
    /// By [`Record::name`].
    pub upstream: Option<usize>,
}

/// Counts, while the window is open.
pub struct Record {
    state: Mutex<State>,
    /// The run is to end: enough requests, or no hope.
    pub enough: Notify,
    /// The most requests to count.
    limit: u64,
    /// Whether latency counts from when requests were due.
    open_loop: bool,
}

struct State {
    opened: Option<Instant>,
    closed: Option<Instant>,
    latency: Histogram<u64>,
    ok: u64,
    bytes: u64,
    errors: BTreeMap<Kind, u64>,
    outside_failed: u64,
    names: Vec<(Vec<u8>, u64)>,
    connections: u64,
    refused_in_a_row: u64,
    retried: u64,
    unfinished: u64,
}

impl State {
    fn is_open(&self) -> bool {
        self.opened.is_some() && self.closed.is_none()
    }

    fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    fn latency(&mut self, latency: Duration) {
        let nanoseconds = latency.clamp(Duration::from_nanos(1), LONGEST).as_nanos();
        self.latency.saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    }
}

impl Record {
    /// Counts at most `limit` requests.
    ///
    /// # Errors
    /// Never, with the bounds above.
    pub fn new(limit: Option<u64>, open_loop: bool) -> Result<Self, String> {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        let latency =
            Histogram::new_with_bounds(1, longest, 3).map_err(|e| format!("histogram: {e:?}"))?;
        let state = State {
            opened: None,
            closed: None,
            latency,
            ok: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            outside_failed: 0,
            names: Vec::new(),
            connections: 0,
            refused_in_a_row: 0,
            retried: 0,
            unfinished: 0,
        };
        let limit = limit.unwrap_or(u64::MAX);
        Ok(Self { state: Mutex::new(state), enough: Notify::new(), limit, open_loop })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from now on.
    pub fn open(&self) {
        self.lock().opened = Some(Instant::now());
    }

    /// Counts no more. Gives the end of the window.
    pub fn close(&self) -> Instant {
        *self.lock().closed.get_or_insert_with(Instant::now)
    }

    /// The number of an upstream that named itself.
    pub fn name(&self, name: &[u8]) -> usize {
        let mut state = self.lock();
        if let Some(index) = state.names.iter().position(|(known, _)| known == name) {
            return index;
        }
        state.names.push((name.to_vec(), 0));
        state.names.len() - 1
    }

    /// A good answer, to a request that counts from `intended`. Gives the
    /// time.
    pub fn ok(&self, intended: Instant, answer: &Answer) -> Instant {
        let now = Instant::now();
        let mut state = self.lock();
        state.refused_in_a_row = 0;
        if state.is_open() {
            state.ok += 1;
            state.bytes += answer.bytes;
            if let Some((_, count)) = answer.upstream.and_then(|i| state.names.get_mut(i)) {
                *count += 1;
            }
        }
        // A slow answer that comes when the window is closed must not be lost:
        // the slowest are those that are.
        let counts = match (state.opened, state.closed) {
            (Some(opened), closed) if self.open_loop => {
                intended >= opened && closed.is_none_or(|closed| intended < closed)
            }
            _ => state.is_open(),
        };
        if counts {
            state.latency(now.saturating_duration_since(intended));
        }
        self.end_if_enough(&mut state);
        now
    }

    /// A request that failed. Gives the time.
    pub fn failed(&self, kind: Kind) -> Instant {
        let mut state = self.lock();
        if state.opened.is_some() {
            *state.errors.entry(kind).or_default() += 1;
        } else {
            if state.outside_failed == 0 {
                eprintln!("weir-bench: in the warm-up: {kind}");
            }
            state.outside_failed += 1;
        }
        self.end_if_enough(&mut state);
        Instant::now()
    }

    fn end_if_enough(&self, state: &mut State) {
        if state.is_open() && state.ok + state.failed() >= self.limit {
            // Here and not where the window's end is waited for: by then more
            // answers would have come.
            state.closed = Some(Instant::now());
            self.enough.notify_one();
        }
    }

    /// A connection was opened, or not.
    pub fn connected(&self, well: bool) {
        let mut state = self.lock();
        if well {
            state.connections += 1;
            state.refused_in_a_row = 0;
        } else {
            state.refused_in_a_row += 1;
            if state.refused_in_a_row >= HOPELESS {
                self.enough.notify_one();
            }
        }
    }

    /// A request that the server said it had not begun was sent again.
    pub fn retried(&self) {
        self.lock().retried += 1;
    }

    /// Requests that got no answer while one was waited for.
    pub fn unanswered(&self, count: u64) {
        if count > 0 {
            *self.lock().errors.entry("no answer".into()).or_default() += count;
        }
    }

    /// Requests of an open loop that were due and not sent: each took at least
    /// until `end`.
    pub fn unsent(&self, due: &[Instant], end: Instant) {
        let mut state = self.lock();
        state.unfinished = due.len() as u64;
        for due in due {
            state.latency(end.saturating_duration_since(*due));
        }
    }

    /// The figures.
    pub fn report(&self) -> Figures {
        let state = self.lock();
        let seconds = match (state.opened, state.closed) {
            (Some(opened), Some(closed)) => closed.saturating_duration_since(opened).as_secs_f64(),
            _ => 0.0,
        };
        let rps = if seconds > 0.0 { state.ok as f64 / seconds } else { 0.0 };
        let hopeless = state.refused_in_a_row >= HOPELESS;
        Figures {
            requests: state.ok,
            failed: state.failed(),
            errors: state.errors.clone(),
            warmup_failed: state.outside_failed,
            retried: state.retried,
            unsent: state.unfinished,
            stopped: hopeless.then(|| format!("{HOPELESS} connections in a row failed")),
            seconds,
            rps,
            bytes: state.bytes,
            latency_us: (!state.latency.is_empty()).then(|| Latency::of(&state.latency)),
            upstreams: state
                .names
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|(name, count)| (String::from_utf8_lossy(name).into_owned(), *count))
                .collect(),
            connections: state.connections,
        }
    }
}

/// What is reported of the window.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Good answers that came within the window.
    requests: u64,
    failed: u64,
    errors: BTreeMap<Kind, u64>,
    warmup_failed: u64,
    retried: u64,
    unsent: u64,
    stopped: Option<String>,
    seconds: f64,
    rps: f64,
    bytes: u64,
    latency_us: Option<Latency>,
    upstreams: BTreeMap<String, u64>,
    connections: u64,
}

/// In microseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
    max: f64,
}

impl Latency {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            min: nanoseconds.min() as f64 / 1e3,
            mean: nanoseconds.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: nanoseconds.max() as f64 / 1e3,
        }
    }
}
