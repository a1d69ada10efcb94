//! What a handler's own calls inherit from the call that it serves.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::shutdown::Shutdown;
use crate::telemetry::trace::SpanContext;

tokio::task_local! {
    static CALL: Call;
}

/// The call that the current task serves: its trace and its deadline.
///
/// It follows the handler, not the tasks that the handler spawns: give those
/// [`Call::detached`] where they should still belong to the trace.
#[derive(Debug, Clone)]
pub struct Call {
    pub(super) context: SpanContext,
    pub(super) deadline: Option<Instant>,
    pub(super) draining: Shutdown,
}

impl Call {
    /// The call being served, if any.
    #[must_use]
    pub fn current() -> Option<Self> {
        CALL.try_with(Clone::clone).ok()
    }

    /// Time left until the caller stops waiting; `None` when it set no limit.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// The span that serves it.
    #[must_use]
    pub fn context(&self) -> &SpanContext {
        &self.context
    }

    /// The same trace without the deadline, for work that outlives the call.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.deadline = None;
        self
    }

    /// Completes when the process begins to drain: a streaming method ends its
    /// stream then, so that the client moves on to another instance.
    pub fn draining(&self) -> impl Future<Output = ()> + Send + use<> {
        let draining = self.draining.clone();
        async move { draining.requested().await }
    }

    /// Runs `future` as part of this call.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CALL.scope(self, future)
    }

    /// Runs `work` as part of this call, without awaiting.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CALL.sync_scope(self.clone(), work)
    }
}
