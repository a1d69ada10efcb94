//! A span while it runs, and what is left of it.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::context::SpanContext;
use super::sink::SpanSink;

/// Which side of a call a span is (OpenTelemetry's span kinds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpanKind {
    /// Work within a process.
    Internal,
    /// Serving a request.
    Server,
    /// Sending a request.
    Client,
}

/// An attribute's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Str(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Yes or no.
    Bool(bool),
    /// A number.
    Double(f64),
}

macro_rules! value_from {
    ($($from:ty => |$x:ident| $value:expr),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from($x: $from) -> Self {
                $value
            }
        }
    )*};
}

value_from! {
    &'static str => |x| Self::Str(Cow::Borrowed(x)),
    String => |x| Self::Str(Cow::Owned(x)),
    Cow<'static, str> => |x| Self::Str(x),
    i64 => |x| Self::Int(x),
    i32 => |x| Self::Int(x.into()),
    u32 => |x| Self::Int(x.into()),
    u16 => |x| Self::Int(x.into()),
    u64 => |x| Self::Int(i64::try_from(x).unwrap_or(i64::MAX)),
    usize => |x| Self::Int(i64::try_from(x).unwrap_or(i64::MAX)),
    bool => |x| Self::Bool(x),
    f64 => |x| Self::Double(x),
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What happened.
    pub name: Cow<'static, str>,
    /// When, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// About what happened.
    pub attributes: Vec<(&'static str, Value)>,
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Status {
    /// Nobody said; that is what a success usually has.
    #[default]
    Unset,
    /// Explicitly good.
    Ok,
    /// It failed; the text says how and may be empty.
    Error(Cow<'static, str>),
}

/// A span that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanData {
    /// Its ids.
    pub context: SpanContext,
    /// What was done, in words of low cardinality: a route or method, no path.
    pub name: Cow<'static, str>,
    /// Which side.
    pub kind: SpanKind,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// Nanoseconds since the Unix epoch; never before the start.
    pub end_unix_nanos: u64,
    /// In the order set; a key may occur once only.
    pub attributes: Vec<(&'static str, Value)>,
    /// In order of time.
    pub events: Vec<Event>,
    /// How it ended.
    pub status: Status,
}

/// A span that runs: it began when it was made, and ends at
/// [`Span::finish`]. One that is dropped instead is not recorded.
///
/// When its context is not sampled, every setter does nothing.
#[derive(Debug)]
pub struct Span {
    data: SpanData,
    /// None when nobody will read it.
    started: Option<Instant>,
}

impl Span {
    /// Begins to serve a request; see [`SpanContext::accept`].
    #[must_use]
    pub fn server(name: impl Into<Cow<'static, str>>, context: SpanContext) -> Self {
        Self::begin(name.into(), SpanKind::Server, context)
    }

    /// Begins to send a request; its context is a [`SpanContext::child`].
    #[must_use]
    pub fn client(name: impl Into<Cow<'static, str>>, context: SpanContext) -> Self {
        Self::begin(name.into(), SpanKind::Client, context)
    }

    /// Begins some work within the process; its context is a
    /// [`SpanContext::child`].
    #[must_use]
    pub fn internal(name: impl Into<Cow<'static, str>>, context: SpanContext) -> Self {
        Self::begin(name.into(), SpanKind::Internal, context)
    }

    fn begin(name: Cow<'static, str>, kind: SpanKind, context: SpanContext) -> Self {
        // Most requests of a busy mesh are not sampled: then nobody reads it.
        let started = context.sampled.then(Instant::now);
        let start = if context.sampled {
            nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
        } else {
            0
        };
        let data = SpanData {
            context,
            name,
            kind,
            start_unix_nanos: start,
            end_unix_nanos: start,
            attributes: Vec::new(),
            events: Vec::new(),
            status: Status::Unset,
        };
        Self { data, started }
    }

    /// Its ids: for children, headers and logs.
    #[must_use]
    pub fn context(&self) -> &SpanContext {
        &self.data.context
    }

    /// Whether it will be recorded; what is costly to compute can be left out
    /// when not.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.data.context.sampled
    }

    /// Renames it, when the route is known only later.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        self.data.name = name.into();
    }

    /// Sets an attribute, replacing one of the same key. Keys are
    /// OpenTelemetry's semantic conventions, or begin with `weir.`.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if !self.is_recording() {
            return;
        }
        let value = value.into();
        match self.data.attributes.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.data.attributes.push((key, value)),
        }
    }

    /// Notes that something happened now.
    pub fn event(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        attributes: impl IntoIterator<Item = (&'static str, Value)>,
    ) {
        if self.is_recording() {
            let unix_nanos = self.now();
            let attributes = attributes.into_iter().collect();
            self.data.events.push(Event { name: name.into(), unix_nanos, attributes });
        }
    }

    /// Says that it went well. Needed only where that is not plain.
    pub fn ok(&mut self) {
        self.data.status = Status::Ok;
    }

    /// Says that it failed, and how.
    pub fn error(&mut self, message: impl Into<Cow<'static, str>>) {
        self.data.status = Status::Error(message.into());
    }

    /// Ends it and hands it to the exporter, if it is sampled.
    pub fn finish(mut self, sink: &SpanSink) {
        if self.is_recording() && sink.is_enabled() {
            self.data.end_unix_nanos = self.now();
            sink.send(self.data);
        }
    }

    /// By the monotonic clock, so that a step of the wall clock makes no
    /// negative duration.
    fn now(&self) -> u64 {
        self.data
            .start_unix_nanos
            .saturating_add(nanos(self.started.map_or(Duration::ZERO, |at| at.elapsed())))
    }
}

/// Enough until the year 2554.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
