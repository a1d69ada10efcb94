//! What was desired once, and whether the history is what was written.

use serde_json::{Value, json};

use crate::plane::{Plane, mesh, route};

async fn shift(plane: &Plane, v2: i64) -> Value {
    let body = json!({"weights": {"v1": 100, "v2": v2}, "allowEmpty": true});
    plane.post("/v1/services/products/shift", body).await
}

async fn weight(plane: &Plane, revision: u32) -> Value {
    let state = plane.get(&format!("/v1/revisions/{revision}")).await;
    assert_eq!(state["revision"], revision);
    let services = state["services"].as_array().unwrap();
    let products = services.iter().find(|service| service["name"] == "products");
    products.map_or(Value::Null, |products| products["versions"][1]["weight"].clone())
}

/// Revisions 1 to 5: all, a shift, a route more, a route less, another service.
async fn story() -> Plane {
    let plane = Plane::start().await;
    plane.seed().await;
    shift(&plane, 10).await;
    plane.http("PUT", "/v1/routes/extra", route("extra", "users")).await;
    plane.http("DELETE", "/v1/routes/web", Value::Null).await;
    let users = json!({"services": [mesh()["services"][1].clone()]});
    let mut users = users;
    users["services"][0]["versions"][0]["weight"] = 7.into();
    assert_eq!(plane.post("/v1/apply", users).await["revision"], 5);
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn every_revision_can_be_seen_again() {
    let plane = story().await.restart().await;
    let routes = async |revision: u32| {
        let state = plane.get(&format!("/v1/revisions/{revision}")).await;
        let routes = state["routes"].as_array().unwrap();
        routes.iter().map(|r| r["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(weight(&plane, 0).await, Value::Null);
    assert_eq!(weight(&plane, 1).await, 0);
    for revision in 2..=5 {
        assert_eq!(weight(&plane, revision).await, 10);
    }
    assert_eq!(routes(2).await, ["web"]);
    assert_eq!(routes(3).await, ["extra", "web"]);
    assert_eq!(routes(5).await, ["extra"]);
    let (status, refused) = plane.http("GET", "/v1/revisions/6", Value::Null).await;
    assert_eq!(status, 400);
    let why = refused["message"].as_str().unwrap();
    assert!(why.contains("there is no revision 6 yet; the newest is 5"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_revisions_are_compared_in_both_directions() {
    let plane = story().await;
    let diff = async |path: &str| {
        let answer = plane.get(&format!("/v1/revisions/{path}")).await;
        let changes = answer["changes"].as_array().unwrap().iter();
        changes.map(|c| c["change"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(diff("1/diff/2").await, ["products: v1=100 v2=0 -> v1=100 v2=10"]);
    assert_eq!(diff("2/diff/1").await, ["products: v1=100 v2=10 -> v1=100 v2=0"]);
    assert_eq!(diff("2/diff/2").await, Vec::<String>::new());
    // What came and went between them is no difference.
    let all = diff("1/diff/5").await;
    assert_eq!(all.len(), 4, "{all:?}");
    assert_eq!(diff("2/diff/5?object=route/web").await.len(), 1);
    let answer = plane.get("/v1/revisions/1/diff/2").await;
    let after: Value =
        serde_json::from_str(answer["changes"][0]["afterJson"].as_str().unwrap()).unwrap();
    assert_eq!(after["versions"][1]["weight"], 10);
    let (status, refused) =
        plane.http("GET", "/v1/revisions/1/diff/2?object=nonsense", Value::Null).await;
    assert_eq!(
        (status, &refused["details"][0]["fieldViolations"][0]["field"]),
        (400, &json!("object"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_of_one_object() {
    let plane = story().await;
    let entries = plane.get("/v1/history?object=route/web").await["entries"].clone();
    let revisions: Vec<_> =
        entries.as_array().unwrap().iter().map(|e| e["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [4, 1]);
    let (status, _) = plane.http("GET", "/v1/history?object=web", Value::Null).await;
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_is_verified_and_kept_hashes_are_looked_for() {
    let plane = story().await;
    let entries = plane.get("/v1/history").await["entries"].clone();
    let hash = entries[3]["hash"].as_str().unwrap();
    let answer = plane.get(&format!("/v1/history/verify?hashes={hash}")).await;
    assert_eq!((&answer["ok"], &answer["entries"]), (&json!(true), &json!(5)), "{answer}");
    assert_eq!(answer["hash"], entries[0]["hash"]);
    let wrong = "ab".repeat(32);
    let answer = plane.get(&format!("/v1/history/verify?hashes={wrong}")).await;
    assert_eq!(answer["ok"], false);
    assert!(answer["faults"][0]["description"].as_str().unwrap().contains(&wrong), "{answer}");
    let (status, refused) = plane.http("GET", "/v1/history/verify?hashes=xyz", Value::Null).await;
    assert_eq!(
        (status, &refused["details"][0]["fieldViolations"][0]["field"]),
        (400, &json!("hashes[0]"))
    );
    // Offline: only when nobody uses it.
    let data = plane.dir.path().to_owned();
    let error = weir_control_plane::verify_history(&data, &[]).unwrap_err();
    assert!(error.contains("in use by another control plane"), "{error}");
    let dir = plane.dir;
    plane.running.stop().await;
    let offline = weir_control_plane::verify_history(&data, &[hash.to_owned()]).unwrap();
    assert!(offline.ok && offline.entries == 5, "{offline:?}");
    drop(dir);
}
