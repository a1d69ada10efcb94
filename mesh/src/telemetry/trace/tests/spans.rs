use std::collections::HashSet;
use std::time::Duration;

use super::super::{Span, SpanContext, SpanKind, SpanSink, Status, Value, current, scope};

#[test]
fn a_finished_span_says_what_happened() {
    let (sink, mut spans) = SpanSink::channel(4);
    let root = SpanContext::root(true);
    let mut span = Span::client("users/GetUser", root.child());
    span.set("rpc.system", "grpc");
    span.set("rpc.grpc.status_code", 0);
    span.set("rpc.grpc.status_code", 14);
    span.event("retry", [("attempt", Value::Int(2))]);
    span.error("connection refused");
    std::thread::sleep(Duration::from_millis(2));
    span.finish(&sink);

    let data = spans.try_recv().unwrap();
    assert_eq!((&*data.name, data.kind), ("users/GetUser", SpanKind::Client));
    assert_eq!(data.context.trace_id(), root.trace_id());
    assert_eq!(data.context.parent_id(), Some(root.span_id()));
    assert_eq!(
        data.attributes,
        [("rpc.system", "grpc".into()), ("rpc.grpc.status_code", 14.into())]
    );
    assert_eq!(data.status, Status::Error("connection refused".into()));
    assert!(data.end_unix_nanos - data.start_unix_nanos >= 2_000_000);
    let at = data.events[0].unix_nanos;
    assert!(data.start_unix_nanos <= at && at <= data.end_unix_nanos);
}

#[test]
fn what_is_not_sampled_is_not_sent() {
    let (sink, mut spans) = SpanSink::channel(4);
    let mut span = Span::server("x", SpanContext::root(false));
    span.set("a", 1);
    assert!(!span.context().child().is_sampled());
    span.finish(&sink);
    assert!(spans.try_recv().is_err());
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (sink, mut spans) = SpanSink::channel(2);
    let registry = crate::telemetry::metrics::Registry::new();
    sink.register(&registry);
    for _ in 0..5 {
        Span::server("x", SpanContext::root(true)).finish(&sink);
    }
    assert_eq!(sink.dropped(), 3);
    assert!(spans.try_recv().is_ok() && spans.try_recv().is_ok() && spans.try_recv().is_err());
    let line = "otel_sdk_processor_span_processed_total{error_type=\"queue_full\"} 3\n";
    assert!(registry.render().contains(line), "{}", registry.render());

    Span::server("x", SpanContext::root(true)).finish(&SpanSink::disabled());
    assert_eq!(SpanSink::disabled().dropped(), 0);
}

#[test]
fn ids_do_not_repeat() {
    let ids: HashSet<_> = (0..10_000).map(|_| SpanContext::root(true).trace_id()).collect();
    assert_eq!(ids.len(), 10_000);
}

#[tokio::test]
async fn a_task_knows_its_span_and_another_does_not() {
    let context = SpanContext::root(true);
    let inside = scope(context.clone(), async {
        tokio::task::yield_now().await;
        (current(), tokio::spawn(async { current() }).await.unwrap())
    });
    assert_eq!(inside.await, (Some(context), None));
    assert_eq!(current(), None);
}
