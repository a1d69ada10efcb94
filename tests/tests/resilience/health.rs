//! Instances are asked how they are.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;
use weir_tests::eventually;

use crate::server::Manner;
use crate::{Service, ask, kill, metric, states};

pub fn services() -> Vec<Service> {
    let check = |more: serde_json::Value| {
        let mut check =
            json!({"interval": "100ms", "healthyThreshold": 1, "unhealthyThreshold": 2});
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"healthCheck": check})
    };
    let turns = |mut policy: serde_json::Value| {
        policy["loadBalancer"] = json!({"type": "RoundRobin"});
        policy
    };
    vec![
        ("asked", "http1", 2, turns(check(json!({"type": "HTTP", "path": "/health"})))),
        ("asked-grpc", "http2", 2, turns(check(json!({"type": "GRPC"})))),
        ("asked-tcp", "http1", 2, turns(check(json!({"type": "TCP"})))),
    ]
}

async fn leaves_and_comes_back(service: &str) {
    let ill = states(service)[0].clone();
    let path = format!("/{service}");
    let name = format!("{service}-1");
    let has = |seen: Vec<String>| seen.contains(&name);
    assert!(has(ask(&path, 4).await));
    ill.set_health(Manner::Status(500));
    eventually("it is left out", || async { (!has(ask(&path, 6).await)).then_some(()) }).await;
    let before = ill.count();
    ask(&path, 20).await;
    assert_eq!(ill.count(), before);
    ill.set_health(Manner::Good);
    eventually("it is back", || async { has(ask(&path, 4).await).then_some(()) }).await;
    // A check that gets no answer is a bad one.
    ill.set_health(Manner::Hangs);
    eventually("it is left out", || async { (!has(ask(&path, 6).await)).then_some(()) }).await;
    assert!(ill.checks.load(SeqCst) > 2);
}

#[tokio::test]
async fn http_checks() {
    leaves_and_comes_back("asked").await;
}

#[tokio::test]
async fn grpc_checks() {
    leaves_and_comes_back("asked-grpc").await;
}

#[tokio::test]
async fn tcp_checks() {
    let healthy = || metric("weir_router_health_check_healthy", &["weir_service=\"asked-tcp\""]);
    eventually("both are well", || async { (healthy().await == 2.0).then_some(()) }).await;
    kill("asked-tcp", 0);
    eventually("one is gone", || async { (healthy().await == 1.0).then_some(()) }).await;
    assert!(ask("/asked-tcp", 10).await.iter().all(|name| name == "asked-tcp-2"));
}

#[tokio::test]
async fn instances_behind_routers_are_asked_through_mtls() {
    let healthy = |service: &'static str| async move {
        let label = format!("weir_service=\"{service}\"");
        metric("weir_router_health_check_healthy", &[&label]).await
    };
    eventually("it is well", || async { (healthy("behind").await == 1.0).then_some(()) }).await;
    // It answers, but not that it serves this.
    let ill = || async {
        let config = crate::world().mesh.admin("gateway").get("/config").ok().await;
        let services = config["snapshot"]["services"].as_array()?.clone();
        let other = services.into_iter().find(|service| service["name"] == "behind-other")?;
        (other["versions"][0]["instances"][0]["failsChecks"] == true).then_some(())
    };
    eventually("the other is not", ill).await;
    assert_eq!(healthy("behind-other").await, 0.0);
}
