//! Against a collector that speaks OTLP/gRPC.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use weir_proto::otlp;
use weir_proto::otlp::trace_service_server::{TraceService, TraceServiceServer};

use super::super::{Exporter, QUEUE, Resource, Span, SpanContext, SpanSink};

#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<otlp::ExportTraceServiceRequest>>>,
    refuse: Option<tonic::Code>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<otlp::ExportTraceServiceRequest>,
    ) -> Result<Response<otlp::ExportTraceServiceResponse>, Status> {
        self.requests.lock().unwrap().push(request.into_inner());
        match self.refuse {
            Some(code) => Err(Status::new(code, "no")),
            None => Ok(Response::new(otlp::ExportTraceServiceResponse::default())),
        }
    }
}

impl Collector {
    async fn listen(&self, address: SocketAddr) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone());
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }

    fn spans(&self) -> Vec<otlp::Span> {
        let requests = self.requests.lock().unwrap();
        let scopes = requests.iter().flat_map(|r| &r.resource_spans).flat_map(|r| &r.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn send(sink: &SpanSink, count: usize) {
    for _ in 0..count {
        Span::server("GetProduct", SpanContext::root(true)).finish(sink);
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn spans_reach_the_collector_with_their_resource() {
    let collector = Collector::default();
    let address = collector.listen(any_port()).await;
    let resource = Resource::new("products").version("v2").instance("i-1").namespace("default");
    let (sink, exporter) = Exporter::spawn(Some(&format!("http://{address}")), resource).unwrap();

    let root = SpanContext::root(true);
    let mut span = Span::server("GetProduct", root.child());
    span.set("rpc.system", "grpc");
    span.error("gone");
    span.finish(&sink);
    until("it arrived", || !collector.spans().is_empty()).await;
    until("it was counted", || sink.exported() == 1).await;

    let sent = &collector.spans()[0];
    assert_eq!(sent.trace_id, root.trace_id().to_bytes());
    assert_eq!(sent.parent_span_id, root.span_id().to_bytes());
    assert_eq!((sent.name.as_str(), sent.kind), ("GetProduct", 2));
    assert_eq!(sent.status.as_ref().unwrap().message, "gone");
    let request = collector.requests.lock().unwrap()[0].clone();
    let resource = request.resource_spans[0].resource.clone().unwrap();
    let value = |key: &str| {
        let pair = resource.attributes.iter().find(|pair| pair.key == key).unwrap();
        match pair.value.clone().unwrap().value.unwrap() {
            otlp::any_value::Value::StringValue(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(value("service.name"), "products");
    assert_eq!(value("service.version"), "v2");
    assert_eq!(value("service.instance.id"), "i-1");
    assert_eq!(value("service.namespace"), "default");
    assert_eq!(value("telemetry.sdk.name"), "weir");
    assert!(exporter.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn shutdown_sends_what_waits_in_batches() {
    let collector = Collector::default();
    let address = collector.listen(any_port()).await;
    let endpoint = format!("http://{address}");
    let (sink, exporter) = Exporter::spawn(Some(&endpoint), Resource::new("x")).unwrap();
    send(&sink, 1100);
    assert!(exporter.shutdown(Duration::from_secs(10)).await);
    assert_eq!((collector.spans().len(), sink.exported(), sink.dropped()), (1100, 1100, 0));
    assert!(collector.requests.lock().unwrap().len() <= 4);
    send(&sink, 1);
    assert_eq!(sink.dropped(), 1);
}

#[tokio::test]
async fn spans_wait_for_a_collector_that_is_away() {
    let address = Collector::default().listen(any_port()).await;
    // Nobody listens on a port that was just given back.
    let listener = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let away = listener.local_addr().unwrap();
    assert_ne!(address, away);
    drop(listener);

    let endpoint = format!("http://{away}");
    let (sink, exporter) = Exporter::spawn(Some(&endpoint), Resource::new("x")).unwrap();
    send(&sink, QUEUE + 1000);
    let dropped = sink.dropped();
    assert!(dropped >= 1000, "{dropped}");

    let collector = Collector::default();
    collector.listen(away).await;
    until("all arrived", || collector.spans().len() as u64 + dropped == QUEUE as u64 + 1000).await;
    assert!(exporter.shutdown(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn what_the_collector_refuses_for_good_is_not_sent_again() {
    let collector =
        Collector { refuse: Some(tonic::Code::InvalidArgument), ..Collector::default() };
    let address = collector.listen(any_port()).await;
    let endpoint = format!("http://{address}");
    let (sink, exporter) = Exporter::spawn(Some(&endpoint), Resource::new("x")).unwrap();
    send(&sink, 3);
    assert!(exporter.shutdown(Duration::from_secs(5)).await);
    assert_eq!((collector.spans().len(), sink.exported()), (3, 0));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let collector = Collector { refuse: Some(tonic::Code::Unavailable), ..Collector::default() };
    let address = collector.listen(any_port()).await;
    let endpoint = format!("http://{address}");
    let (sink, exporter) = Exporter::spawn(Some(&endpoint), Resource::new("x")).unwrap();
    send(&sink, 1);
    assert!(!exporter.shutdown(Duration::from_millis(300)).await);
    assert!(!collector.spans().is_empty());
}

#[tokio::test]
async fn a_wrong_endpoint_is_named() {
    for wrong in ["", "127.0.0.1:4317", "https://127.0.0.1:4317", "ftp://x", "http://"] {
        let error = Exporter::spawn(Some(wrong), Resource::new("x")).unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}")) && error.contains("http://127"), "{error}");
    }
    let (sink, exporter) = Exporter::spawn(None, Resource::new("x")).unwrap();
    assert!(!sink.is_enabled());
    assert!(exporter.shutdown(Duration::ZERO).await);
}
