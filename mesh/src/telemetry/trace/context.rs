//! Where in a trace something happens.

use http::{HeaderMap, HeaderValue};

use super::id::{SpanId, TraceId};
use super::propagate::{self, B3, Incoming};

/// The ids of a span, and what goes with them from process to process.
///
/// Cheap to clone: at most a reference count goes up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanContext {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent_id: Option<SpanId>,
    pub(super) sampled: bool,
    pub(super) b3: B3,
    pub(super) trace_state: Option<HeaderValue>,
}

impl SpanContext {
    /// The first span of a new trace.
    #[must_use]
    pub fn root(sampled: bool) -> Self {
        Self {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent_id: None,
            sampled,
            b3: B3::default(),
            trace_state: None,
        }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: SpanId::random(), parent_id: Some(self.span_id), ..self.clone() }
    }

    /// The caller's span, as a request's headers name it: `traceparent` (W3C
    /// Trace Context), else `b3`, else `X-B3-TraceId` and its like.
    ///
    /// `None` when there is none, or when it is malformed: as the standard
    /// says, the trace then starts anew. Where B3 leaves the decision open, the
    /// span counts as sampled.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        match propagate::extract(headers) {
            Incoming::Span { context, .. } => Some(context),
            Incoming::Nothing | Incoming::Decision { .. } => None,
        }
    }

    /// The span to serve a request in: below the caller's, or the first of a
    /// new trace. `sample` is asked whether to record it when the caller has
    /// not decided.
    #[must_use]
    pub fn accept(headers: &HeaderMap, sample: impl FnOnce() -> bool) -> Self {
        match propagate::extract(headers) {
            Incoming::Nothing => Self::root(sample()),
            Incoming::Decision { sampled, b3 } => Self { b3, ..Self::root(sampled) },
            Incoming::Span { context, decided: true } => context.child(),
            Incoming::Span { context, decided: false } => {
                Self { sampled: sample(), ..context.child() }
            }
        }
    }

    /// Names this span as the parent in a request that goes out: writes
    /// `traceparent` and `tracestate`, and B3 headers too, in the form that the
    /// incoming request had, if it had one. Replaces what is there.
    ///
    /// For tonic: `context.inject(request.metadata_mut().as_mut())`.
    #[inline]
    pub fn inject(&self, headers: &mut HeaderMap) {
        propagate::inject(self, headers);
    }

    /// The trace it is part of.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span itself.
    #[must_use]
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// The span above it; `None` for a root, and for one that came by
    /// [`SpanContext::extract`] (its parent is only its sender's concern).
    #[must_use]
    pub fn parent_id(&self) -> Option<SpanId> {
        self.parent_id
    }

    /// Whether its spans are recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}
