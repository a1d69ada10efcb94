//! Recent traces, in memory: what OTLP brings, oldest out first.

mod otlp;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::text::hex;

pub use otlp::{Receiver, take_in};

/// How much is kept. Whole traces go, the oldest first.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Traces.
    pub traces: usize,
    /// Spans of all traces.
    pub spans: usize,
    /// Spans of one trace; more are dropped.
    pub spans_per_trace: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { traces: 5_000, spans: 100_000, spans_per_trace: 2_000 }
    }
}

/// 16 bytes, not all zero (W3C Trace Context §3.2.2.3).
pub type TraceId = [u8; 16];
/// 8 bytes, not all zero (W3C Trace Context §3.2.2.4).
pub type SpanId = [u8; 8];

/// One span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its own.
    pub id: SpanId,
    /// None: the root.
    pub parent: Option<SpanId>,
    /// As its maker named it.
    pub name: String,
    /// `server`, `client`, `internal`, `producer`, `consumer`.
    pub kind: &'static str,
    /// `service.name` of the resource.
    pub service: Arc<str>,
    /// `service.version` of the resource.
    pub version: Arc<str>,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Nanoseconds since the Unix epoch.
    pub end: u64,
    /// Whether its status is an error.
    pub error: bool,
    /// As text.
    pub attributes: Vec<(String, String)>,
}

/// A trace in short.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Its id.
    pub id: TraceId,
    /// Service and name of the span that all others are under, or of the first.
    pub root: String,
    /// Nanoseconds since the Unix epoch.
    pub start: u64,
    /// Nanoseconds.
    pub duration: u64,
    /// How many.
    pub spans: usize,
    /// Whether any span's status is an error.
    pub error: bool,
}

/// Why there is no such trace to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// Not a beginning of an id.
    #[error("{0:?} is not 8 to 32 hexadecimal digits")]
    Shape(String),
    /// None begins so.
    #[error("no trace {0} is in memory; traces are kept for a while only")]
    None(String),
    /// Several begin so.
    #[error("{prefix} is the beginning of {count} traces, {first} among them; give more digits")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many begin so.
        count: usize,
        /// One of them.
        first: String,
    },
}

#[derive(Default)]
struct Inner {
    traces: HashMap<TraceId, Vec<Span>>,
    /// By arrival of the first span.
    order: VecDeque<TraceId>,
    spans: usize,
}

/// All traces in memory.
#[derive(Default)]
pub struct Traces {
    limits: Limits,
    inner: Mutex<Inner>,
}

impl Traces {
    /// Keeps so much.
    #[cfg(test)]
    pub fn new(limits: Limits) -> Self {
        Self { limits, inner: Mutex::default() }
    }

    /// Adds a span. False: its trace has too many already.
    pub fn add(&self, trace: TraceId, span: Span) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let spans = inner.traces.entry(trace).or_insert_with(|| {
            inner.order.push_back(trace);
            Vec::new()
        });
        if spans.len() >= self.limits.spans_per_trace {
            return false;
        }
        // Exporters send again what was not acknowledged.
        if spans.iter().any(|known| known.id == span.id && known.kind == span.kind) {
            return true;
        }
        spans.push(span);
        inner.spans += 1;
        while inner.order.len() > self.limits.traces || inner.spans > self.limits.spans {
            let Some(oldest) = inner.order.pop_front() else { break };
            inner.spans -= inner.traces.remove(&oldest).map_or(0, |spans| spans.len());
        }
        true
    }

    /// The newest, newest first.
    #[must_use]
    pub fn list(&self, limit: usize) -> Vec<Summary> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut newest: Vec<_> = inner
            .traces
            .iter()
            .filter_map(|(id, spans)| Some((spans.iter().map(|s| s.start).min()?, *id)))
            .collect();
        newest.sort_unstable_by(|a, b| b.cmp(a));
        newest.truncate(limit);
        newest.iter().filter_map(|(_, id)| summary(*id, inner.traces.get(id)?)).collect()
    }

    /// One trace by its id or an unambiguous beginning of it: spans, each with its
    /// depth, parents before their children, siblings by time.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn find(&self, prefix: &str) -> Result<(TraceId, Vec<(Span, u32)>), FindError> {
        let digits = prefix.to_ascii_lowercase();
        let hexadecimal = digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !(8..=32).contains(&digits.len()) || !hexadecimal {
            return Err(FindError::Shape(prefix.chars().take(40).collect()));
        }
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let matching: Vec<_> =
            inner.traces.iter().filter(|(id, _)| hex(*id).starts_with(&digits)).collect();
        match matching.as_slice() {
            [] => Err(FindError::None(digits)),
            [(id, spans)] => Ok((**id, tree(spans))),
            [(first, _), ..] => Err(FindError::Ambiguous {
                prefix: digits,
                count: matching.len(),
                first: hex(*first),
            }),
        }
    }
}

fn summary(id: TraceId, spans: &[Span]) -> Option<Summary> {
    let start = spans.iter().map(|span| span.start).min()?;
    let end = spans.iter().map(|span| span.end).max()?;
    let root = spans
        .iter()
        .find(|span| span.parent.is_none())
        .or_else(|| spans.iter().min_by_key(|span| span.start))?;
    Some(Summary {
        id,
        root: format!("{} {}", root.service, root.name),
        start,
        duration: end.saturating_sub(start),
        spans: spans.len(),
        error: spans.iter().any(|span| span.error),
    })
}

/// Spans whose parent is not there are roots. Some exporters give a client span and
/// the server span under it one id (Zipkin's way); the server one is the child then.
fn tree(spans: &[Span]) -> Vec<(Span, u32)> {
    let mut by_time: Vec<usize> = (0..spans.len()).collect();
    by_time.sort_by_key(|&i| (spans[i].start, spans[i].kind != "client", spans[i].id));
    let mut first_with: HashMap<SpanId, usize> = HashMap::new();
    for &i in &by_time {
        first_with.entry(spans[i].id).or_insert(i);
    }
    let parent = |i: usize| match first_with.get(&spans[i].id) {
        Some(&first) if first != i => Some(first),
        _ => spans[i].parent.and_then(|id| first_with.get(&id).copied()).filter(|&p| p != i),
    };
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for &i in &by_time {
        match parent(i) {
            Some(parent) => children.entry(parent).or_default().push(i),
            None => roots.push(i),
        }
    }
    let mut out = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    // Spans in a circle are under no root: they follow as roots themselves.
    for start in roots.into_iter().chain(by_time) {
        let mut stack = vec![(start, 0)];
        while let Some((i, depth)) = stack.pop() {
            if std::mem::replace(&mut seen[i], true) {
                continue;
            }
            out.push((spans[i].clone(), depth));
            let below = children.get(&i).into_iter().flatten().rev();
            stack.extend(below.map(|&child| (child, depth + 1)));
        }
    }
    out
}

#[cfg(test)]
mod tests;
