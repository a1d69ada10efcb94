//! Takes in spans by OTLP over gRPC.

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};
use weir_proto::otlp;
use weir_proto::otlp::trace_service_server::TraceService;

use super::{Span, Traces};
use crate::control::Control;

/// Of the resource: routers say `router`, so that a service's own spans and
/// those of its router can be told apart.
const COMPONENT: &str = "weir.component";
/// Attributes of one span that are kept.
const MAX_ATTRIBUTES: usize = 64;
/// Bytes of one text that are kept.
const MAX_TEXT: usize = 1024;

/// The OTLP receiver.
pub struct Receiver(pub Arc<Control>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<otlp::ExportTraceServiceRequest>,
    ) -> Result<Response<otlp::ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let told = &self.0.replica.spans;
        if told.receiver_count() > 0 {
            // Nobody may follow any more.
            let _ = told.send(request.encode_to_vec().into());
        }
        let (rejected, why) = keep(&self.0.traces, request);
        let partial_success = (rejected > 0).then(|| otlp::ExportTracePartialSuccess {
            rejected_spans: rejected,
            error_message: why.to_owned(),
        });
        Ok(Response::new(otlp::ExportTraceServiceResponse { partial_success }))
    }
}

/// Takes in spans that another control plane received.
pub fn take_in(traces: &Traces, bytes: &[u8]) {
    match otlp::ExportTraceServiceRequest::decode(bytes) {
        // What there is no room for here was taken, or not, where it came in.
        Ok(request) => {
            keep(traces, request);
        }
        Err(error) => tracing::warn!(%error, "spans of another control plane are left out"),
    }
}

/// How many spans are not taken, and why.
fn keep(traces: &Traces, request: otlp::ExportTraceServiceRequest) -> (i64, &'static str) {
    let (mut rejected, mut why) = (0, "");
    for resource_spans in request.resource_spans {
        let resource = resource_spans.resource.unwrap_or_default().attributes;
        let service: Arc<str> = attribute(&resource, "service.name").into();
        let version: Arc<str> = attribute(&resource, "service.version").into();
        let component = attribute(&resource, COMPONENT);
        for message in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let Some((trace, mut span)) = read(message, &service, &version) else {
                rejected += 1;
                why = "a trace id has 16 bytes and a span id 8, not all zero";
                continue;
            };
            if !component.is_empty() {
                span.attributes.push((COMPONENT.to_owned(), component.to_owned()));
            }
            if !traces.add(trace, span) {
                rejected += 1;
                why = "the trace has too many spans";
            }
        }
    }
    (rejected, why)
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

fn read(
    message: otlp::Span,
    service: &Arc<str>,
    version: &Arc<str>,
) -> Option<(super::TraceId, Span)> {
    use otlp::span::SpanKind;
    let kind = match message.kind() {
        SpanKind::Server => "server",
        SpanKind::Client => "client",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal | SpanKind::Unspecified => "internal",
    };
    let status = message.status.unwrap_or_default();
    let mut attributes: Vec<_> = message
        .attributes
        .into_iter()
        .take(MAX_ATTRIBUTES)
        .map(|pair| (short(pair.key), text(pair.value)))
        .collect();
    if !status.message.is_empty() {
        attributes.push(("error.message".to_owned(), short(status.message.clone())));
    }
    let span = Span {
        id: id(&message.span_id)?,
        parent: id(&message.parent_span_id),
        name: short(message.name),
        kind,
        service: service.clone(),
        version: version.clone(),
        start: message.start_time_unix_nano,
        end: message.end_time_unix_nano.max(message.start_time_unix_nano),
        error: status.code() == otlp::status::StatusCode::Error,
        attributes,
    };
    Some((id(&message.trace_id)?, span))
}

fn attribute(attributes: &[otlp::KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key);
    found.map(|pair| text(pair.value.clone())).unwrap_or_default()
}

fn text(value: Option<otlp::AnyValue>) -> String {
    use otlp::any_value::Value;
    match value.and_then(|value| value.value) {
        None => String::new(),
        Some(Value::StringValue(text)) => short(text),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        Some(Value::BytesValue(bytes)) => crate::text::hex(&bytes[..bytes.len().min(MAX_TEXT / 2)]),
        Some(Value::ArrayValue(array)) => {
            let parts: Vec<_> = array.values.into_iter().map(|v| text(Some(v))).collect();
            short(format!("[{}]", parts.join(", ")))
        }
    }
}

fn short(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
