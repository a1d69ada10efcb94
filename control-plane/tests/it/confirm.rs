//! What a shift led to, counted by routers.

use std::time::Duration;

use serde_json::{Value, json};
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::{Edge, Report};

use crate::plane::Plane;
use crate::router::{Door, Manner, Router, hello};

fn edge(version: &str, requests: u64, revision: u32) -> Edge {
    Edge {
        source: "gateway".into(),
        destination: "products".into(),
        version: version.into(),
        requests,
        failures: requests / 10,
        revision,
        ..Default::default()
    }
}

fn confirm(v2: u32, seconds: u32) -> Value {
    json!({"weights": {"v1": 100 - v2, "v2": v2}, "allowEmpty": true, "confirm": true,
           "confirmSeconds": seconds})
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_new_weights_decided_is_counted() {
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.seed().await;
    let door = Door::of(&plane);
    let gateway = Router::connect(&door, hello("gw-1", "gateway", "", 1), Manner::Applies).await;
    let other = Router::connect(&door, hello("users-1", "users", "v1", 2), Manner::Applies).await;
    let shift = {
        let plane = plane.clone();
        tokio::spawn(async move { plane.post("/v1/services/products/shift", confirm(20, 2)).await })
    };
    let mut reports = tokio::time::interval(Duration::from_millis(50));
    let mut sent = 0;
    while !shift.is_finished() {
        reports.tick().await;
        let edges = vec![edge("v1", 80, 2), edge("v2", 20, 2), edge("v1", 1000, 1)];
        gateway.send(Message::Report(Report { edges })).await;
        sent += 1;
    }
    let answer = shift.await.unwrap();
    let measured = &answer["measured"];
    let requests: u64 = measured["requests"].as_str().unwrap().parse().unwrap();
    assert!(requests > 0 && requests <= sent * 100 && requests.is_multiple_of(100), "{answer}");
    assert_eq!(answer["converged"]["applied"], 2);
    assert_eq!(measured["silentRouters"], 1);
    let versions = measured["versions"].as_array().unwrap();
    for (version, share) in versions.iter().zip([0.8, 0.2]) {
        assert_eq!(version["share"], share, "{answer}");
        assert_eq!(version["expected"], share, "{answer}");
    }
    assert_eq!(versions[1]["failures"], (requests / 50).to_string());
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn counting_ends_when_somebody_shifts_again() {
    let plane = std::sync::Arc::new(Plane::start().await);
    plane.seed().await;
    let own = plane.clone();
    let shift =
        tokio::spawn(async move { own.post("/v1/services/products/shift", confirm(20, 60)).await });
    crate::plane::eventually("the first shift is made", async || {
        (plane.get("/v1/mesh").await["revision"] == 2).then_some(())
    })
    .await;
    let weights = json!({"weights": {"v1": 1, "v2": 1}, "allowEmpty": true});
    // Counting may begin just after it: then the next one ends it.
    let answer = crate::plane::eventually("the confirmation", async || {
        plane.post("/v1/services/products/shift", weights.clone()).await;
        plane.post("/v1/services/products/rollback", json!({})).await;
        shift.is_finished().then_some(())
    })
    .await;
    let () = answer;
    let answer = shift.await.unwrap();
    assert_eq!(answer["measured"]["requests"], "0");
    assert!(answer["measured"]["seconds"].as_f64().unwrap() < 30.0, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_times_are_refused() {
    let plane = Plane::start().await;
    plane.seed().await;
    let (status, refused) = plane.http("POST", "/v1/services/products/shift", confirm(1, 61)).await;
    assert_eq!(
        (status, &refused["details"][0]["fieldViolations"][0]["field"]),
        (400, &json!("confirmSeconds"))
    );
}
