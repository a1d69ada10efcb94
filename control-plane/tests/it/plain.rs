//! Instances without routers: addresses that are part of the desired state.

use serde_json::{Value, json};

use crate::plane::Plane;
use crate::router::{Door, Manner, Router, hello};

fn web(v1: &[&str], v2: &[&str]) -> Value {
    json!({"services": [{
        "name": "web",
        "protocol": "PROTOCOL_HTTP1",
        "versions": [
            {"version": "v1", "weight": 100, "addresses": v1},
            {"version": "v2", "weight": 0, "addresses": v2},
        ],
    }]})
}

async fn addresses(plane: &Plane) -> Vec<Value> {
    let service = plane.get("/v1/services/web").await;
    let versions = service["versions"].as_array().unwrap();
    versions.iter().map(|version| version["addresses"].clone()).collect()
}

async fn newest_change(plane: &Plane) -> String {
    let history = plane.get("/v1/services/web/history").await;
    history["entries"][0]["changes"][0].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_instances_and_outlive_shifts_rollbacks_and_restarts() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", web(&["127.0.0.1:9001", "[::1]:9002"], &["127.0.0.1:9003"])).await;
    let listed = plane.get("/v1/instances").await;
    let listed = listed["instances"].as_array().unwrap();
    let ids: Vec<_> = listed.iter().map(|i| i["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["web-v1@127.0.0.1:9001", "web-v1@[::1]:9002", "web-v2@127.0.0.1:9003"]);
    assert!(listed.iter().all(|i| i["healthy"] == true && i["plain"] == true), "{listed:?}");
    let status = plane.get("/v1/services").await["services"][0].clone();
    assert_eq!((&status["healthyInstances"], &status["instances"]), (&json!(3), &json!(3)));
    let change = newest_change(&plane).await;
    let wanted = "web: new, v1=100 v2=0 v1 at 127.0.0.1:9001,[::1]:9002 v2 at 127.0.0.1:9003";
    assert_eq!(change, wanted);

    // An address is an instance that weight may go to.
    let shift = json!({"weights": {"v1": 90, "v2": 10}});
    plane.post("/v1/services/web/shift", shift).await;
    let kept = [json!(["127.0.0.1:9001", "[::1]:9002"]), json!(["127.0.0.1:9003"])];
    assert_eq!(addresses(&plane).await, kept);
    assert_eq!(newest_change(&plane).await, "web: v1=100 v2=0 -> v1=90 v2=10");

    plane.post("/v1/apply", web(&["127.0.0.1:9001"], &[])).await;
    assert_eq!(addresses(&plane).await, [json!(["127.0.0.1:9001"]), json!([])]);
    let change = newest_change(&plane).await;
    let wanted = "web: v1=90 v2=10 v1 at 127.0.0.1:9001,[::1]:9002 v2 at 127.0.0.1:9003 -> \
                  v1=100 v2=0 v1 at 127.0.0.1:9001";
    assert_eq!(change, wanted);
    plane.post("/v1/services/web/rollback", json!({})).await;
    assert_eq!(addresses(&plane).await, kept);
    let plane = plane.restart().await;
    assert_eq!(addresses(&plane).await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_are_told_and_weight_needs_an_address_or_a_router() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", web(&["127.0.0.1:9001"], &[])).await;
    let door = Door::of(&plane);
    let mut gateway = Router::connect(&door, hello("g", "gateway", "v1", 0), Manner::Applies).await;
    let seen = gateway.sees("an instance", |s| s.instances.len() == 1).await;
    assert_eq!((&*seen.instances[0].id, seen.instances[0].plain), ("web-v1@127.0.0.1:9001", true));

    let shift = json!({"weights": {"v2": 1}});
    let (status, answer) = plane.http("POST", "/v1/services/web/shift", shift.clone()).await;
    assert_eq!(status, 400, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("no healthy instance"), "{answer}");
    plane.post("/v1/apply", web(&["127.0.0.1:9001"], &["127.0.0.1:9003"])).await;
    gateway.sees("another", |s| s.instances.len() == 2).await;
    plane.post("/v1/services/web/shift", shift).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_addresses_are_refused_with_their_paths() {
    let plane = Plane::start().await;
    let bad = web(&["127.0.0.1:9001", "db:80", "127.0.0.1:9001"], &["0.0.0.0:80", "127.0.0.1:0"]);
    let (status, answer) = plane.http("POST", "/v1/apply", bad).await;
    assert_eq!(status, 400, "{answer}");
    let violations = answer["details"][0]["fieldViolations"].as_array().unwrap();
    let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    let told: Vec<_> =
        violations.iter().map(|v| (text(v, "field"), text(v, "description"))).collect();
    let wanted = [
        ("[0].addresses[1]", "\"db:80\" is not `ip:port`"),
        ("[0].addresses[2]", "127.0.0.1:9001 is an address of v1 already"),
        ("[1].addresses[0]", "0.0.0.0:80 cannot be connected to"),
        ("[1].addresses[1]", "127.0.0.1:0 has port 0"),
    ];
    assert_eq!(told.len(), wanted.len(), "{told:?}");
    for ((field, description), (at, why)) in told.iter().zip(wanted) {
        assert_eq!(*field, format!("services[0].versions{at}"));
        assert!(description.starts_with(why), "{description}");
    }
    assert_eq!(plane.get("/v1/mesh").await["revision"], 0, "nothing has changed");
}
