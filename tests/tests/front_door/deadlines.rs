//! Deadlines and cancellation, end to end.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use weir_proto::weir::products::v1::LookupProductsRequest;
use weir_proto::weir::users::v1::WatchMeRequest;
use weir_proto::weir::users::v1::users_service_client::UsersServiceClient;
use weir_tests::eventually;

use crate::grpc::products;
use crate::{account, mesh};

/// A request with this trace id.
fn traced<T>(trace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

fn trace() -> String {
    format!("{:032x}", fastrand::u128(1..))
}

/// What the router beside a service says of the request with this trace id, once
/// it has ended there.
async fn ended_at(service: &str, trace: &str) -> Value {
    eventually(&format!("the router of {service} ends the request"), || async {
        let here = |line: &Value| {
            line["trace_id"] == trace && line["side"] == "inbound" && line["service"] == service
        };
        mesh().access_log().into_iter().map(|(_, line)| line).find(here)
    })
    .await
}

#[tokio::test]
async fn a_deadline_ends_a_call_in_time_at_both_ends() {
    let trace = trace();
    // The stream stays open: without the deadline it would for ever.
    let (_open, receiver) = mpsc::channel::<LookupProductsRequest>(1);
    let mut request = traced(&trace, ReceiverStream::new(receiver));
    // By hand: tonic's `set_timeout` would end the call at the client.
    request.metadata_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let began = Instant::now();
    let status = match products().await.lookup_products(request).await {
        Ok(answer) => answer.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    };
    let took = began.elapsed();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(took >= Duration::from_millis(450), "{took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");

    let line = ended_at("products", &trace).await;
    let duration = line["duration_ms"].as_f64().unwrap();
    assert!((300.0..30_000.0).contains(&duration), "{line}");
}

#[tokio::test]
async fn a_deadline_that_is_met_changes_nothing() {
    let mut request = Request::new(weir_proto::weir::products::v1::ListProductsRequest::default());
    request.metadata_mut().insert("grpc-timeout", "20S".parse().unwrap());
    products().await.list_products(request).await.unwrap();
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_is_given_up_at_the_service() {
    let trace = trace();
    // A stream that ends by itself only with the service.
    let mut client = UsersServiceClient::new(mesh().channel().await);
    let mut request = traced(&trace, WatchMeRequest {});
    let value = format!("Bearer {}", account().await.access_token);
    request.metadata_mut().insert("authorization", value.parse().unwrap());
    let mut answers = client.watch_me(request).await.unwrap().into_inner();
    answers.message().await.unwrap().expect("an answer");
    let began = Instant::now();
    drop(answers);
    let line = ended_at("users", &trace).await;
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(line["grpc_status"], 1, "{line}");
}
