//! The queue between the hot path and the exporter.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::span::SpanData;
use crate::telemetry::metrics::{Counter, Registry};

/// Spans that wait to be exported, at most.
pub const QUEUE: usize = 2048;

/// Where finished spans go. Cheap to clone; sending never waits, and drops the
/// span when the queue is full.
#[derive(Debug, Clone, Default)]
pub struct SpanSink(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<SpanData>,
    counters: Counters,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub exported: Counter,
    /// The queue was full.
    pub dropped: Counter,
    /// The collector did not want them, or there was no time to send them.
    pub failed: Counter,
}

impl SpanSink {
    /// A sink that takes no span and costs nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// A sink whose spans the caller receives: for tests, and for whoever
    /// keeps spans in memory. At most `capacity` (at least 1) wait.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, mpsc::Receiver<SpanData>) {
        Self::with_counters(capacity, Counters::default())
    }

    pub(super) fn with_counters(
        capacity: usize,
        counters: Counters,
    ) -> (Self, mpsc::Receiver<SpanData>) {
        let (queue, receiver) = mpsc::channel(capacity.max(1));
        (Self(Some(Arc::new(Inner { queue, counters }))), receiver)
    }

    /// Whether spans are wanted at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Queues a span, or drops and counts it when the queue is full.
    pub fn send(&self, span: SpanData) {
        let Some(inner) = &self.0 else { return };
        match inner.queue.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => inner.counters.dropped.inc(),
        }
    }

    /// Spans dropped so far because the queue was full or its end gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.counters.dropped.get())
    }

    /// Spans that the collector has taken so far.
    #[must_use]
    pub fn exported(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.counters.exported.get())
    }

    /// Shows the counters in `registry`, by OpenTelemetry's names:
    /// `otel.sdk.exporter.span.exported` (with `error.type` for those that
    /// failed) and `otel.sdk.processor.span.processed` with
    /// `error.type="queue_full"`.
    pub fn register(&self, registry: &Registry) {
        let Some(Inner { counters, .. }) = self.0.as_deref() else { return };
        let name = "otel.sdk.exporter.span.exported";
        let help = "Spans that the exporter is done with.";
        registry.bind_counter(name, help, "{span}", &[], &counters.exported);
        registry.bind_counter(name, help, "{span}", &[("error.type", "failed")], &counters.failed);
        registry.bind_counter(
            "otel.sdk.processor.span.processed",
            "Spans that never reached the exporter.",
            "{span}",
            &[("error.type", "queue_full")],
            &counters.dropped,
        );
    }
}
