//! Copies of requests.

use http::Method;
use weir_tests::eventually;

use crate::upstream::Upstream;
use crate::{doors, good, http2_doors, mesh, say, world};

async fn arrived(upstream: &Upstream, path: &str, copies: usize) -> Vec<serde_json::Value> {
    eventually("the copies arrive", || async {
        Some(upstream.seen(path)).filter(|seen| seen.len() >= copies)
    })
    .await
}

#[tokio::test]
async fn a_copy_is_the_same_request_and_the_answer_is_the_backends() {
    for (i, (door, http)) in doors("web").into_iter().enumerate() {
        let path = format!("/mirror/{i}?a=b");
        let call = http.call(Method::POST, &path).header("x-kept", "yes").body("some text");
        let reply = call.send().await;
        let json = good(&reply);
        assert_eq!(json["target"], format!("/mirrored/{i}?a=b"), "{door}");
        let copies = arrived(&world().shadow, &format!("/mirrored/{i}"), 1).await;
        assert_eq!(copies.len(), 1, "{door}: {copies:?}");
        for field in ["method", "target", "host", "body"] {
            assert_eq!(copies[0][field], json[field], "{door}: {field}");
        }
        assert_eq!(copies[0]["headers"]["x-kept"], "yes", "{door}");
    }
    let metrics = || async { mesh().admin("gateway").get("/metrics").send().await.text() };
    eventually("they are counted", || async {
        let metrics = metrics().await;
        let counted = metrics.lines().any(|line| {
            line.starts_with("weir_router_mirror_requests_total")
                && line.contains("outcome=\"answered\"")
                && line.contains("weir_service=\"shadow\"")
        });
        counted.then_some(())
    })
    .await;
    let client = metrics().await;
    let as_client = |line: &str| {
        line.starts_with("http_server_request") && line.contains("weir_service=\"shadow\"")
    };
    assert!(!client.lines().any(as_client), "copies are no requests of clients");
}

#[tokio::test]
async fn a_fraction_is_exact() {
    // One connection of HTTP/1.1, and so one worker: each counts for itself.
    let (_, http) = doors("web").into_iter().next().unwrap();
    for i in 0..40 {
        good(&http.get(&format!("/quarter/{i}")).send().await);
    }
    let copies = arrived(&world().shadow, "/quarter", 9).await;
    assert!((9..=11).contains(&copies.len()), "{} of 40", copies.len());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_copied() {
    let (_, http) = doors("web").into_iter().next().unwrap();
    let large = "x".repeat(1024 * 1024 + 1);
    let json = good(&http.call(Method::POST, "/mirror/large").body(large.clone()).send().await);
    assert_eq!(json["body"].as_str().unwrap().len(), large.len());
    eventually("it is counted", || async {
        let metrics = mesh().admin("gateway").get("/metrics").send().await.text();
        metrics.contains("outcome=\"too_large\"").then_some(())
    })
    .await;
    assert!(world().shadow.seen("/mirrored/large").is_empty());
}

#[tokio::test]
async fn grpc_is_copied_too() {
    for (i, (door, http)) in http2_doors("talk").enumerate() {
        let path = format!("/talk.v1.Talk/Copy{i}");
        let reply = say(&http, &path).await;
        assert_eq!(
            (reply.header("x-upstream"), reply.trailers["grpc-status"].to_str().unwrap()),
            ("v1", "0"),
            "{door}"
        );
        let copies = arrived(&world().shadow_grpc, &path, 1).await;
        assert_eq!(copies[0]["headers"]["content-type"], "application/grpc", "{door}");
    }
}
