//! Spans as OTLP messages.

use weir_proto::otlp;

use super::span::{Event, SpanData, SpanKind, Status, Value};

/// Who makes the spans of a process (OpenTelemetry's resource).
#[derive(Debug, Clone, PartialEq)]
pub struct Resource(Vec<(&'static str, Value)>);

impl Resource {
    /// A process of the service `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(vec![
            ("service.name", name.into().into()),
            ("telemetry.sdk.name", "weir".into()),
            ("telemetry.sdk.language", "rust".into()),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").into()),
        ])
    }

    /// Of which version it is, such as `v2`.
    #[must_use]
    pub fn version(self, version: impl Into<String>) -> Self {
        self.with("service.version", version.into())
    }

    /// Which of the service's instances it is.
    #[must_use]
    pub fn instance(self, id: impl Into<String>) -> Self {
        self.with("service.instance.id", id.into())
    }

    /// Which namespace the service is of.
    #[must_use]
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.with("service.namespace", namespace.into())
    }

    /// Any other attribute, such as `cloud.availability_zone`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Into<Value>) -> Self {
        self.0.retain(|(k, _)| *k != key);
        self.0.push((key, value.into()));
        self
    }
}

/// One request for a batch.
pub(super) fn request(resource: &Resource, spans: &[SpanData]) -> otlp::ExportTraceServiceRequest {
    let resource =
        otlp::Resource { attributes: attributes(&resource.0), dropped_attributes_count: 0 };
    let scope = otlp::InstrumentationScope {
        name: "weir".into(),
        version: env!("CARGO_PKG_VERSION").into(),
    };
    otlp::ExportTraceServiceRequest {
        resource_spans: vec![otlp::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![otlp::ScopeSpans {
                scope: Some(scope),
                spans: spans.iter().map(span).collect(),
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn span(data: &SpanData) -> otlp::Span {
    let context = &data.context;
    otlp::Span {
        trace_id: context.trace_id.to_bytes().to_vec(),
        span_id: context.span_id.to_bytes().to_vec(),
        trace_state: context
            .trace_state
            .as_ref()
            .and_then(|state| state.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        parent_span_id: context.parent_id.map(|id| id.to_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(context.sampled),
        name: data.name.to_string(),
        kind: match data.kind {
            SpanKind::Internal => otlp::span::SpanKind::Internal,
            SpanKind::Server => otlp::span::SpanKind::Server,
            SpanKind::Client => otlp::span::SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: data.start_unix_nanos,
        end_time_unix_nano: data.end_unix_nanos,
        attributes: attributes(&data.attributes),
        dropped_attributes_count: 0,
        events: data.events.iter().map(event).collect(),
        dropped_events_count: 0,
        status: status(&data.status),
    }
}

fn event(event: &Event) -> otlp::span::Event {
    otlp::span::Event {
        time_unix_nano: event.unix_nanos,
        name: event.name.to_string(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: 0,
    }
}

fn status(status: &Status) -> Option<otlp::Status> {
    use otlp::status::StatusCode;
    let (code, message) = match status {
        Status::Unset => return None,
        Status::Ok => (StatusCode::Ok, String::new()),
        Status::Error(message) => (StatusCode::Error, message.to_string()),
    };
    Some(otlp::Status { message, code: code.into() })
}

fn attributes(pairs: &[(&'static str, Value)]) -> Vec<otlp::KeyValue> {
    use otlp::any_value::Value as Any;
    let pair = |(key, value): &(&'static str, Value)| otlp::KeyValue {
        key: (*key).to_owned(),
        value: Some(otlp::AnyValue {
            value: Some(match value {
                Value::Str(text) => Any::StringValue(text.to_string()),
                Value::Int(number) => Any::IntValue(*number),
                Value::Bool(yes) => Any::BoolValue(*yes),
                Value::Double(number) => Any::DoubleValue(*number),
            }),
        }),
    };
    pairs.iter().map(pair).collect()
}
