//! Spans of calls (OpenTelemetry semantic conventions for RPC and gRPC).

use http::HeaderMap;
use tonic::Code;

use crate::telemetry::trace::{Span, SpanContext, SpanSink};

/// Asked every few seconds by whoever watches a process: spans of these would
/// bury those of users' calls. A caller that traces them still gets them.
const UNASKED: &[&str] = &["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"];

/// The span of one call, on either side of it.
pub(super) struct Rpc {
    span: Span,
    sink: SpanSink,
    serving: bool,
}

impl Rpc {
    /// Of a call that came in: below the caller's span, if it sent one.
    pub(super) fn server(path: &str, headers: &HeaderMap, sink: &SpanSink) -> Self {
        let sample = || !split(path).is_some_and(|(service, _)| UNASKED.contains(&service));
        let context = SpanContext::accept(headers, sample);
        let span = named(path, context, Span::server);
        Self { span, sink: sink.clone(), serving: true }
    }

    /// Of a call that goes out: below `parent`, and named in `headers`.
    pub(super) fn client(
        path: &str,
        parent: Option<&SpanContext>,
        headers: &mut HeaderMap,
        sink: &SpanSink,
    ) -> Self {
        let context = parent.map_or_else(|| SpanContext::root(true), SpanContext::child);
        context.inject(headers);
        let span = named(path, context, Span::client);
        Self { span, sink: sink.clone(), serving: false }
    }

    pub(super) fn context(&self) -> &SpanContext {
        self.span.context()
    }

    pub(super) fn finish(mut self, code: Code) {
        self.span.set("rpc.grpc.status_code", code as i32);
        if if self.serving { is_servers_fault(code) } else { code != Code::Ok } {
            self.span.error(code.description());
        }
        self.span.finish(&self.sink);
    }
}

/// `/weir.users.v1.UsersService/GetMe` without its slashes.
fn split(path: &str) -> Option<(&str, &str)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/'))
        .then_some((service, method))
}

fn named(path: &str, context: SpanContext, begin: fn(String, SpanContext) -> Span) -> Span {
    let Some((service, method)) = split(path) else {
        // Not gRPC; a path of someone's making is no name.
        return begin("unknown".to_owned(), context);
    };
    let mut span = begin(format!("{service}/{method}"), context);
    span.set("rpc.system", "grpc");
    if span.is_recording() {
        span.set("rpc.service", service.to_owned());
        span.set("rpc.method", method.to_owned());
    }
    span
}

/// The codes that are errors of a server span; the others tell the client that
/// it is in the wrong.
pub(super) fn is_servers_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::trace::{SpanKind, Status, Value};

    const PATH: &str = "/weir.users.v1.UsersService/GetMe";

    #[test]
    fn a_server_span_is_below_its_caller_and_says_how_the_call_ended() {
        let (sink, mut spans) = SpanSink::channel(4);
        let caller = SpanContext::root(true);
        let mut headers = HeaderMap::new();
        caller.inject(&mut headers);

        Rpc::server(PATH, &headers, &sink).finish(Code::Internal);

        let span = spans.try_recv().unwrap();
        assert_eq!(span.name, "weir.users.v1.UsersService/GetMe");
        assert_eq!(span.kind, SpanKind::Server);
        assert_eq!(span.context.trace_id(), caller.trace_id());
        assert_eq!(span.context.parent_id(), Some(caller.span_id()));
        assert!(matches!(span.status, Status::Error(_)));
        for (key, value) in [
            ("rpc.system", Value::from("grpc")),
            ("rpc.service", Value::from("weir.users.v1.UsersService")),
            ("rpc.method", Value::from("GetMe")),
            ("rpc.grpc.status_code", Value::from(13)),
        ] {
            assert!(span.attributes.contains(&(key, value)), "{key}");
        }
    }

    #[test]
    fn a_clients_mistake_is_no_error_of_the_server_but_one_of_the_client() {
        let (sink, mut spans) = SpanSink::channel(4);
        Rpc::server(PATH, &HeaderMap::new(), &sink).finish(Code::NotFound);
        assert_eq!(spans.try_recv().unwrap().status, Status::Unset);
        Rpc::client(PATH, None, &mut HeaderMap::new(), &sink).finish(Code::NotFound);
        assert!(matches!(spans.try_recv().unwrap().status, Status::Error(_)));
    }

    #[test]
    fn a_health_check_makes_a_span_only_when_its_caller_traces() {
        let (sink, mut spans) = SpanSink::channel(4);
        let path = "/grpc.health.v1.Health/Check";
        let mut headers = HeaderMap::new();
        Rpc::server(path, &headers, &sink).finish(Code::Ok);
        assert!(spans.try_recv().is_err());
        SpanContext::root(true).inject(&mut headers);
        Rpc::server(path, &headers, &sink).finish(Code::Ok);
        assert!(spans.try_recv().is_ok());
    }
}
