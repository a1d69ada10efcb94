//! Sends finished spans to a collector, in the background.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use weir_proto::otlp::trace_service_client::TraceServiceClient;

use super::otlp::{self, Resource};
use super::sink::{Counters, QUEUE, SpanSink};
use super::span::SpanData;

/// Spans in one request, at most.
const BATCH: usize = 512;
/// How long a span waits for others to go with.
const LINGER: Duration = Duration::from_millis(200);
/// How often the queue is emptied meanwhile. Between two looks the worker
/// sleeps on a timer and not on the queue: so a span that is sent costs no
/// wake-up of another thread.
const TICK: Duration = Duration::from_millis(20);
/// Bounds of the pause after a failure; it doubles between them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// For one request, as OTLP's exporters have it by default.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes the background task.
#[derive(Debug)]
pub struct Exporter;

/// An OTLP endpoint that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("OTLP endpoint {endpoint:?} {reason}; use a URL such as http://127.0.0.1:4317")]
pub struct InvalidEndpoint {
    endpoint: String,
    reason: &'static str,
}

impl Exporter {
    /// Starts to export to the OTLP/gRPC collector at `endpoint`
    /// (`http://host:port`) on the current tokio runtime. Without an endpoint,
    /// nothing is started and the sink takes no span.
    ///
    /// The collector need not be there: spans are retried while it is away, up
    /// to [`QUEUE`] waiting and the batch on its way; further ones are dropped
    /// and counted.
    ///
    /// # Errors
    /// When the endpoint is no `http` URL with a host.
    ///
    /// # Panics
    /// With an endpoint, outside a tokio runtime.
    pub fn spawn(
        endpoint: Option<&str>,
        resource: Resource,
    ) -> Result<(SpanSink, ExporterHandle), InvalidEndpoint> {
        let Some(endpoint) = endpoint else {
            return Ok((SpanSink::disabled(), ExporterHandle(None)));
        };
        let channel = channel(endpoint)?;
        let counters = Counters::default();
        let (sink, queue) = SpanSink::with_counters(QUEUE, counters.clone());
        let stop = Arc::new(Notify::new());
        let worker = Worker {
            queue,
            client: TraceServiceClient::new(channel),
            resource,
            counters,
            stop: stop.clone(),
            stopping: false,
            failing: false,
        };
        let task = tokio::spawn(worker.run());
        Ok((sink, ExporterHandle(Some((task, stop)))))
    }
}

fn channel(endpoint: &str) -> Result<Channel, InvalidEndpoint> {
    let invalid = |reason| InvalidEndpoint { endpoint: endpoint.to_owned(), reason };
    let uri: Uri = endpoint.parse().map_err(|_| invalid("is not a URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(invalid("needs TLS, which is not supported here")),
        _ => return Err(invalid("does not begin with http://")),
    }
    let endpoint = Endpoint::new(uri).map_err(|_| invalid("is not a URL with a host"))?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).connect_lazy())
}

/// Stops the exporter in order. Dropped instead, it goes on until every
/// [`SpanSink`] is gone.
#[derive(Debug)]
#[must_use]
pub struct ExporterHandle(Option<(JoinHandle<()>, Arc<Notify>)>);

impl ExporterHandle {
    /// Sends what waits, for `limit` at most, and ends. Answers whether
    /// everything was sent. Sinks that are still there then drop their spans.
    pub async fn shutdown(self, limit: Duration) -> bool {
        let Some((mut task, stop)) = self.0 else { return true };
        stop.notify_one();
        let done = timeout(limit, &mut task).await.is_ok();
        task.abort();
        done
    }
}

struct Worker {
    queue: mpsc::Receiver<SpanData>,
    client: TraceServiceClient<Channel>,
    resource: Resource,
    counters: Counters,
    stop: Arc<Notify>,
    stopping: bool,
    failing: bool,
}

impl Worker {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                received = self.queue.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    self.gather(&mut batch).await;
                    self.export(&batch).await;
                    batch.clear();
                }
                () = self.stop.notified(), if !self.stopping => self.begin_to_stop(),
            }
        }
    }

    fn begin_to_stop(&mut self) {
        self.stopping = true;
        self.queue.close();
    }

    /// Waits for company, up to [`LINGER`].
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        let deadline = Instant::now() + LINGER;
        loop {
            while batch.len() < BATCH
                && let Ok(span) = self.queue.try_recv()
            {
                batch.push(span);
            }
            if batch.len() == BATCH || self.stopping || Instant::now() >= deadline {
                return;
            }
            self.pause(TICK).await;
        }
    }

    /// Sleeps, but not on when it is time to stop.
    async fn pause(&mut self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            () = self.stop.notified(), if !self.stopping => self.begin_to_stop(),
        }
    }

    /// Sends a batch, again and again while that may help (OTLP, "Failures").
    async fn export(&mut self, batch: &[SpanData]) {
        let count = batch.len() as u64;
        let mut backoff = BACKOFF.0;
        loop {
            let request = otlp::request(&self.resource, batch);
            let error = match timeout(REQUEST_TIMEOUT, self.client.export(request)).await {
                Ok(Ok(response)) => {
                    let rejected = response.into_inner().partial_success;
                    let rejected = rejected.map_or(0, |p| p.rejected_spans.max(0) as u64);
                    self.counters.failed.add(rejected.min(count));
                    self.counters.exported.add(count.saturating_sub(rejected));
                    self.recovered();
                    return;
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("the collector did not answer in time"),
            };
            self.failed(&error);
            if !may_retry(&error) {
                self.counters.failed.add(count);
                return;
            }
            // Many routers lose the collector at once; they must not return at once.
            self.pause(backoff.mul_f64(0.5 + fastrand::f64())).await;
            backoff = if self.stopping { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
        }
    }

    /// Says so once, not for every batch.
    fn failed(&mut self, status: &Status) {
        if !std::mem::replace(&mut self.failing, true) {
            let (code, message) = (status.code(), status.message());
            tracing::warn!(?code, message, "traces cannot be exported");
        }
    }

    fn recovered(&mut self) {
        if std::mem::take(&mut self.failing) {
            let dropped = self.counters.dropped.get() + self.counters.failed.get();
            tracing::info!(dropped, "traces are exported again");
        }
    }
}

fn may_retry(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::DataLoss => true,
        // Not the collector's answer: the connection broke.
        Code::Unknown => status.source().is_some(),
        _ => false,
    }
}
