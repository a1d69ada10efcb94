//! Instances that answer badly are left out, and come back.

use serde_json::json;
use weir_tests::eventually;

use crate::server::Manner;
use crate::{Service, ask, http, logged, metric, states};

pub fn services() -> Vec<Service> {
    let outlier = |more: serde_json::Value| {
        let mut rules = json!({"consecutiveErrors": 3, "baseEjectionTime": "30s"});
        rules.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rules
    };
    let turns = json!({"type": "RoundRobin"});
    let with = |more| json!({"outlierDetection": outlier(more), "loadBalancer": turns});
    let mut panicky = with(json!({"maxEjectionPercent": 100}));
    panicky["panicThresholdPercent"] = json!(50);
    let rate = json!({
        "consecutiveErrors": 0, "interval": "200ms",
        "successRate": {"minRequests": 5, "thresholdPercent": 70},
    });
    vec![
        ("outlier", "http1", 3, with(json!({"baseEjectionTime": "1s"}))),
        ("grpc-outlier", "http2", 2, with(json!({}))),
        ("most", "http1", 2, with(json!({}))),
        ("hurried", "http1", 2, with(json!({}))),
        ("late-outlier", "http1", 2, with(json!({}))),
        ("panicky", "http1", 3, panicky),
        ("rated", "http1", 3, with(rate)),
    ]
}

async fn ejections(service: &str) -> f64 {
    metric("weir_router_ejections_total", &[&format!("weir_service=\"{service}\"")]).await
}

#[tokio::test]
async fn a_bad_instance_is_left_out_and_comes_back() {
    let bad = states("outlier")[1].clone();
    bad.set(Manner::Status(500));
    eventually("it is left out", || async {
        let _ = http().get("/outlier").send().await;
        (ejections("outlier").await >= 1.0).then_some(())
    })
    .await;
    let before = bad.count();
    assert!(!ask("/outlier", 30).await.contains(&"outlier-2".to_owned()));
    assert_eq!(bad.count(), before);
    bad.set(Manner::Good);
    eventually("it is back", || async {
        ask("/outlier", 3).await.contains(&"outlier-2".to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_grpc_status_counts_as_well() {
    let bad = states("grpc-outlier")[0].clone();
    states("grpc-outlier")[1].set(Manner::Grpc(0));
    bad.set(Manner::Grpc(13));
    let http = weir_tests::Http::http2(&crate::world().mesh.gateway);
    let call = || {
        let call = http.call(http::Method::POST, "/grpc-outlier/x").body(&b"\0\0\0\0\0"[..]);
        call.header("content-type", "application/grpc").send()
    };
    eventually("it is left out", || async {
        call().await;
        (ejections("grpc-outlier").await >= 1.0).then_some(())
    })
    .await;
    for _ in 0..10 {
        assert_eq!(call().await.header("grpc-status"), "0");
    }
}

#[tokio::test]
async fn never_more_than_the_share_that_may_be() {
    states("most").iter().for_each(|state| state.set(Manner::Status(500)));
    for _ in 0..40 {
        assert_eq!(http().get("/most").send().await.status, 500);
    }
    assert_eq!(ejections("most").await, 1.0);
}

#[tokio::test]
async fn when_nearly_all_look_bad_all_are_asked() {
    let all = states("panicky");
    all.iter().for_each(|state| state.set(Manner::Status(500)));
    eventually("two are left out", || async {
        http().get("/panicky").send().await;
        (ejections("panicky").await >= 2.0).then_some(())
    })
    .await;
    let before: Vec<_> = all.iter().map(|state| state.count()).collect();
    for _ in 0..9 {
        http().get("/panicky/all").send().await;
    }
    let asked = all.iter().zip(before).filter(|(state, before)| state.count() > *before).count();
    assert_eq!(asked, 3);
    let line = logged("/panicky/all").await;
    assert!(line["flags"].to_string().contains("PR"), "{line}");
}

#[tokio::test]
async fn one_that_fails_often_is_left_out_though_it_answers_well_between() {
    states("rated")[2].set(Manner::Half(503));
    eventually("it is left out", || async {
        for _ in 0..20 {
            http().get("/rated").send().await;
        }
        let labels = ["weir_service=\"rated\"", "reason=\"success_rate\""];
        (metric("weir_router_ejections_total", &labels).await >= 1.0).then_some(())
    })
    .await;
    assert!(!ask("/rated", 20).await.contains(&"rated-3".to_owned()));
}

#[tokio::test]
async fn who_is_in_a_hurry_has_nobody_left_out() {
    for service in ["hurried", "late-outlier"] {
        states(service).iter().for_each(|state| state.set(Manner::Hangs));
    }
    for _ in 0..10 {
        // The client's own time, and the 400 ms of a route.
        let reply = http().get("/hurried").header("grpc-timeout", "10m").send().await;
        assert_eq!(reply.status, 504);
        assert_eq!(http().get("/late-outlier").send().await.status, 504);
    }
    assert_eq!(ejections("hurried").await, 0.0);
    assert_eq!(ejections("late-outlier").await, 1.0);
}
