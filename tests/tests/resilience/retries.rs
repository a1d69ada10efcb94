//! Trying again, within the budget; and asking two.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use weir_tests::{Http, eventually};

use crate::server::Manner;
use crate::{Service, ask, http, logged, metric, states, world};

pub fn services() -> Vec<Service> {
    let much = json!({"minRetryRate": {"count": 1000, "interval": "1s"}});
    let retry = |retry: serde_json::Value| json!({"retry": retry, "retryConstraint": much});
    let backoff = json!({"base": "1ms", "max": "2ms"});
    vec![
        ("flaky", "http1", 2, retry(json!({"attempts": 4, "backoff": backoff}))),
        ("down", "http1", 2, json!({"retry": {"attempts": 5, "backoff": backoff}})),
        ("patient", "http1", 2, retry(json!({"perTryTimeout": "150ms"}))),
        ("unavailable", "http2", 2, retry(json!({"backoff": backoff}))),
        ("hedged", "http1", 2, json!({"hedging": {"delay": "50ms"}})),
        ("changed", "http1", 2, serde_json::Value::Null),
        ("by-route", "http1", 2, serde_json::Value::Null),
        (
            "beside-ill",
            "http1",
            2,
            json!({
                "loadBalancer": {"type": "RoundRobin"},
                "healthCheck": {
                    "type": "HTTP", "path": "/health", "interval": "100ms", "healthyThreshold": 1,
                },
            }),
        ),
        ("by-route-late", "http1", 2, serde_json::Value::Null),
    ]
}

#[tokio::test]
async fn a_bad_answer_is_tried_again_where_that_is_safe() {
    states("flaky").iter().for_each(|state| state.set(Manner::Half(503)));
    ask("/flaky", 40).await;
    // What may not be sent twice is not.
    let mut refused = 0;
    let before: u64 = states("flaky").iter().map(|state| state.count()).sum();
    for _ in 0..20 {
        let reply = http().call(Method::POST, "/flaky").body("once").send().await;
        refused += u64::from(reply.status == 503);
    }
    let after: u64 = states("flaky").iter().map(|state| state.count()).sum();
    assert_eq!(after - before, 20);
    assert!(refused > 0);
}

/// A rule's own `retry` and `timeouts.backendRequest`, at services without a policy.
#[tokio::test]
async fn a_route_says_for_itself_when_to_try_again() {
    states("by-route").iter().for_each(|state| state.set(Manner::Half(500)));
    ask("/by-route", 8).await;
    // Another status than the rule names goes to the client.
    states("by-route").iter().for_each(|state| state.set(Manner::Status(503)));
    let before: u64 = states("by-route").iter().map(|state| state.count()).sum();
    assert_eq!(http().get("/by-route").send().await.status, 503);
    let after: u64 = states("by-route").iter().map(|state| state.count()).sum();
    assert_eq!(after - before, 1);

    states("by-route-late")[0].set(Manner::Hangs);
    assert!(ask("/by-route-late", 6).await.iter().all(|name| name == "by-route-late-2"));
}

#[tokio::test]
async fn the_only_one_that_is_well_is_asked_again() {
    let (well, ill) = (states("beside-ill")[0].clone(), states("beside-ill")[1].clone());
    ill.set_health(Manner::Status(503));
    eventually("the ill one is left out", || async {
        ask("/beside-ill", 10).await.iter().all(|name| name == "beside-ill-1").then_some(())
    })
    .await;
    well.set(Manner::Half(500));
    assert!(ask("/beside-ill", 8).await.iter().all(|name| name == "beside-ill-1"));
}

#[tokio::test]
async fn retries_stay_within_the_budget() {
    states("down").iter().for_each(|state| state.set(Manner::Status(503)));
    let (began, sent) = (Instant::now(), 300);
    let http = http();
    for _ in 0..sent {
        assert_eq!(http.get("/down").send().await.status, 503);
    }
    let seconds = began.elapsed().as_secs() + 1;
    let tries: u64 = states("down").iter().map(|state| state.count()).sum();
    let most = sent * 12 / 10 + 10 * seconds;
    assert!((sent + 10..=most).contains(&tries), "{tries} tries, {most} are allowed");
    http.get("/down/last").send().await;
    let line = logged("/down/last").await;
    assert!(line["flags"].to_string().contains("URX"), "{line}");
    let denied = metric("weir_router_retries_denied_total", &["weir_service=\"down\""]).await;
    assert!(denied >= 1.0);
}

#[tokio::test]
async fn a_try_that_is_late_is_given_up_for_another() {
    states("patient")[0].set(Manner::Hangs);
    assert!(ask("/patient", 10).await.iter().all(|name| name == "patient-2"));
    let first = states("patient")[0].clone();
    eventually("the late one is cancelled", || async {
        (first.cancelled.load(SeqCst) == first.count()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn grpc_unavailable_is_tried_again() {
    let all = states("unavailable");
    all[0].set(Manner::Grpc(14));
    all[1].set(Manner::Grpc(0));
    let http = Http::http2(&world().mesh.gateway);
    for _ in 0..20 {
        let call = http.call(Method::POST, "/unavailable/x").body(&b"\0\0\0\0\0"[..]);
        let reply = call.header("content-type", "application/grpc").send().await;
        assert_eq!(reply.header("grpc-status"), "0");
    }
    assert!(all[0].count() > 0, "it was never asked");
}

#[tokio::test]
async fn a_slow_instance_is_hedged_and_cancelled() {
    let slow = states("hedged")[0].clone();
    slow.set(Manner::Slow(Duration::from_secs(20)));
    eventually("the slow one is asked", || async {
        assert!(ask("/hedged", 1).await.iter().all(|name| name == "hedged-2"));
        (slow.count() > 0).then_some(())
    })
    .await;
    eventually("it is cancelled", || async {
        (slow.cancelled.load(SeqCst) == slow.count()).then_some(())
    })
    .await;
    assert!(metric("weir_router_hedges_total", &["weir_service=\"hedged\""]).await >= 1.0);
    // What may not be sent twice is not: it waits for whom it was sent to.
    slow.set(Manner::Slow(Duration::from_millis(300)));
    states("hedged")[1].set(Manner::Slow(Duration::from_millis(300)));
    let before: u64 = states("hedged").iter().map(|state| state.count()).sum();
    assert_eq!(http().call(Method::POST, "/hedged").body("once").send().await.status, 200);
    let after: u64 = states("hedged").iter().map(|state| state.count()).sum();
    assert_eq!(after - before, 1);
}

#[tokio::test]
async fn a_policy_comes_and_changes_while_requests_go_on() {
    states("changed").iter().for_each(|state| state.set(Manner::Half(503)));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    let file = file.to_str().unwrap();
    let addresses = world().mesh.api().get("/v1/services/changed").ok().await;
    let addresses = addresses["versions"][0]["addresses"].clone();
    let apply = |attempts: u32| {
        let policy = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "BackendTrafficPolicy",
            "metadata": {"name": "changed"},
            "spec": {
                "targetRefs": [{"kind": "Service", "name": "changed"}],
                "retry": {"attempts": attempts, "backoff": {"base": "1ms"}},
                "retryConstraint": {"minRetryRate": {"count": 1000}},
            },
        });
        let text = format!(
            "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n  - name: changed\n    \
             protocol: http1\n    versions: [{{name: v1, addresses: {addresses}}}]\n\
             policies:\n  - {policy}\n"
        );
        std::fs::write(file, text).unwrap();
        world().mesh.weir(&["apply", "-f", file, "--wait"])
    };
    let failed = || async {
        let mut failed = 0;
        for _ in 0..20 {
            failed += u32::from(http().get("/changed").send().await.status != 200);
        }
        failed
    };
    assert!(failed().await > 0);
    apply(5).ok();
    assert_eq!(failed().await, 0);
    apply(0).ok();
    assert!(failed().await > 0);
    // What is refused changes nothing.
    let error = apply(11).failed();
    assert!(error.contains("policies[0].spec.retry.attempts: 11 is above 10"), "{error}");
}
