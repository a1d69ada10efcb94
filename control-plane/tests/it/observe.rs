use serde_json::json;
use weir_proto::otlp::trace_service_client::TraceServiceClient;
use weir_proto::otlp::{
    AnyValue, ExportTraceServiceRequest, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
    Status, any_value,
};
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::{Edge, Report};

use crate::plane::{Plane, eventually};
use crate::router::{Door, Manner, Router, hello};

#[tokio::test(flavor = "multi_thread")]
async fn spans_come_by_otlp_and_are_shown_as_a_tree() {
    let plane = Plane::start().await;
    let text = |text: &str| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
    let attribute = |key: &str, value: &str| KeyValue { key: key.into(), value: Some(text(value)) };
    let span = |id: u8, parent: &[u8], kind: i32, start: u64, code: i32| Span {
        trace_id: vec![0xab; 16],
        span_id: vec![id; 8],
        parent_span_id: parent.to_vec(),
        name: format!("GET /{id}"),
        kind,
        start_time_unix_nano: 1_000_000_000 + start,
        end_time_unix_nano: 1_000_000_000 + start + 2_000_000,
        attributes: vec![attribute("http.route", "/v1/products")],
        status: Some(Status { message: String::new(), code }),
        ..Default::default()
    };
    let broken = Span { trace_id: vec![1], ..Default::default() };
    let resource = Resource {
        attributes: vec![attribute("service.name", "gateway"), attribute("service.version", "v1")],
        ..Default::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                spans: vec![span(2, &[1; 8], 3, 500_000, 2), span(1, &[], 2, 0, 0), broken],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let endpoint = format!("http://{}", plane.running.otlp);
    let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await;
    let mut client = TraceServiceClient::new(channel.unwrap());
    let answer = client.export(request).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);

    let listed = plane.get("/v1/traces").await["traces"].clone();
    let summary = &listed[0];
    assert_eq!(summary["traceId"], "ab".repeat(16));
    assert_eq!((&summary["root"], &summary["error"]), (&json!("gateway GET /1"), &json!(true)));
    assert_eq!((&summary["durationMs"], &summary["spans"]), (&json!(2.5), &json!(2)));
    assert_eq!(summary["startTime"], "1970-01-01T00:00:01.000Z");
    let trace = plane.get("/v1/traces/abababab").await;
    let spans = trace["spans"].as_array().unwrap();
    assert_eq!((&spans[0]["kind"], &spans[0]["depth"]), (&json!("server"), &json!(0)));
    assert_eq!((&spans[1]["kind"], &spans[1]["depth"]), (&json!("client"), &json!(1)));
    assert_eq!((&spans[1]["startMs"], &spans[1]["error"]), (&json!(0.5), &json!(true)));
    assert_eq!((&spans[0]["service"], &spans[0]["version"]), (&json!("gateway"), &json!("v1")));
    assert_eq!(spans[0]["attributes"]["http.route"], "/v1/products");
}

#[tokio::test(flavor = "multi_thread")]
async fn edges_are_what_routers_report() {
    let plane = Plane::start().await;
    plane.seed().await;
    let gateway =
        Router::connect(&Door::of(&plane), hello("g", "gateway", "", 0), Manner::Applies).await;
    let edge = Edge {
        source: "users".into(),
        destination: "products".into(),
        version: "v1".into(),
        requests: 100,
        failures: 1,
        buckets: vec![0, 0, 100],
        ..Default::default()
    };
    gateway.send(Message::Report(Report { edges: vec![edge] })).await;
    let edge =
        eventually("an edge", async || plane.get("/v1/edges").await["edges"].get(0).cloned()).await;
    assert_eq!(edge["source"], "gateway", "by its certificate");
    assert_eq!((&edge["destination"], &edge["version"]), (&json!("products"), &json!("v1")));
    assert_eq!((&edge["requests"], &edge["failures"]), (&json!("100"), &json!("1")));
    assert!((edge["success"].as_f64().unwrap() - 0.99).abs() < 1e-9);
    assert!(edge["rate"].as_f64().unwrap() > 0.0);
    assert!(edge["p50Seconds"].as_f64().unwrap() > 0.0);
}
