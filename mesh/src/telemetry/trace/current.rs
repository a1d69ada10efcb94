//! The span that a task serves.

use std::future::Future;

use super::context::SpanContext;

tokio::task_local! {
    static CURRENT: SpanContext;
}

/// Runs `future` as a part of `context`'s span, so that [`current`] finds it
/// however deep. A task that the future spawns does not inherit it.
pub async fn scope<F: Future>(context: SpanContext, future: F) -> F::Output {
    CURRENT.scope(context, future).await
}

/// The span that this task serves, if [`scope`] set one.
#[must_use]
pub fn current() -> Option<SpanContext> {
    CURRENT.try_with(Clone::clone).ok()
}
