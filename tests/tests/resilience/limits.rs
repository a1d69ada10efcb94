//! How much may be under way.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use serde_json::json;
use weir_tests::eventually;

use crate::server::Manner;
use crate::{Service, at_once, metric, states};

pub fn services() -> Vec<Service> {
    let limits = |limits: serde_json::Value| json!({"limits": limits});
    let queue =
        |wait: &str| limits(json!({"maxRequests": 1, "maxPending": 10, "pendingTimeout": wait}));
    vec![
        ("narrow", "http1", 1, limits(json!({"maxRequests": 2}))),
        ("queued", "http1", 1, queue("20s")),
        ("impatient", "http1", 1, queue("100ms")),
        // Its route has a deadline of 400 ms.
        ("late-queue", "http1", 1, queue("20s")),
        ("few-wires", "http1", 4, limits(json!({"maxConnections": 2}))),
        ("wired", "http1", 1, limits(json!({"maxConnections": 1}))),
        (
            "adaptive",
            "http1",
            1,
            json!({
                "adaptiveConcurrency": {"minLimit": 1, "initialLimit": 2, "maxLimit": 2},
            }),
        ),
    ]
}

fn statuses(replies: &[weir_tests::Reply]) -> (usize, usize) {
    let of = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    (of(200), of(503))
}

#[tokio::test]
async fn over_the_limit_requests_are_refused_at_once() {
    let state = states("narrow")[0].clone();
    state.set(Manner::Slow(Duration::from_millis(500)));
    let replies = at_once("/narrow", 8).await;
    let (good, refused) = statuses(&replies);
    assert!(good >= 2 && refused >= 1 && good + refused == 8, "{good} {refused}");
    assert!(state.peak.load(SeqCst) <= 2);
    let refusal = replies.iter().find(|reply| reply.status == 503).unwrap();
    assert!(refusal.text().contains("has 2 requests in flight at narrow"), "{}", refusal.text());
    assert!(!refusal.header("retry-after").is_empty());
    state.set(Manner::Good);
    assert_eq!(statuses(&at_once("/narrow", 2).await).0, 2, "there is room again");
}

/// Fewer connections than instances: what is connected is asked.
#[tokio::test]
async fn one_after_another_needs_no_more_connections_than_may_be() {
    // One connection, so one worker: each has connections of its own.
    let http = crate::http();
    for i in 0..30 {
        let reply = http.get("/few-wires").send().await;
        assert_eq!(reply.status, 200, "request {i}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_queue_lets_them_in_one_by_one() {
    let state = states("queued")[0].clone();
    state.set(Manner::Slow(Duration::from_millis(30)));
    assert_eq!(statuses(&at_once("/queued", 8).await), (8, 0));
    assert_eq!(state.peak.load(SeqCst), 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_may_be() {
    states("impatient")[0].set(Manner::Slow(Duration::from_secs(2)));
    let replies = at_once("/impatient", 4).await;
    let (good, refused) = statuses(&replies);
    assert!(good >= 1 && refused >= 1, "{good} {refused}");
    let refusal = replies.iter().find(|reply| reply.status == 503).unwrap();
    assert!(refusal.text().contains("none of which ended within 100ms"), "{}", refusal.text());
    eventually("it is counted", || async {
        let labels = ["flag=\"UO\"", "weir_service=\"impatient\""];
        let counted = metric("weir_router_response_flags_total", &labels).await;
        (counted >= refused as f64).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_are_limited() {
    let state = states("wired")[0].clone();
    state.set(Manner::Slow(Duration::from_millis(300)));
    let (good, refused) = statuses(&at_once("/wired", 5).await);
    assert!(good >= 1 && refused >= 1, "{good} {refused}");
    assert_eq!(state.most_connections.load(SeqCst), 1);
}

#[tokio::test]
async fn an_adaptive_limit_holds_from_the_start() {
    let state = states("adaptive")[0].clone();
    state.set(Manner::Slow(Duration::from_millis(300)));
    let (good, refused) = statuses(&at_once("/adaptive", 8).await);
    assert!(good >= 2 && refused >= 1, "{good} {refused}");
    assert!(state.peak.load(SeqCst) <= 2);
}

#[tokio::test]
async fn a_deadline_ends_a_wait_in_the_queue() {
    let state = states("late-queue")[0].clone();
    state.set(Manner::Hangs);
    let replies = at_once("/late-queue", 4).await;
    assert!(replies.iter().all(|reply| reply.status == 504), "{:?}", statuses(&replies));
    let (asked, peak) = (state.count(), state.peak.load(SeqCst));
    assert!((1..=4).contains(&asked) && peak == 1, "{asked} were asked, {peak} at once");
}
