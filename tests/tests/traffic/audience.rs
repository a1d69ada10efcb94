//! Audiences and mirrors of a service, by the API and through the mesh.

use serde_json::{Value, json};
use weir_tests::eventually;

use crate::{count, mesh, shift, turn};

const PATH: &str = "/v1/products?pageSize=1";

/// Applies products with these fields changed.
async fn apply(fields: Value) {
    let api = mesh().api();
    let mut products = api.get("/v1/services/products").ok().await;
    products.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let body = json!({"services": [products], "wait": true, "reason": "audience"});
    let answer = api.post("/v1/apply", &body).ok().await;
    assert_eq!(answer["converged"]["applied"], 11, "{answer}");
}

/// Requests on the edge from the gateway to a version, and its success.
async fn edge(version: &str) -> (u64, f64) {
    let edges = mesh().api().get("/v1/edges").ok().await;
    let all = edges["edges"].as_array().unwrap().iter();
    let of = |edge: &&Value| {
        edge["source"] == "gateway"
            && edge["destination"] == "products"
            && edge["version"] == version
    };
    let found = all.clone().find(of).cloned().unwrap_or_default();
    let requests = match &found["requests"] {
        Value::String(text) => text.parse().unwrap(),
        number => number.as_u64().unwrap_or(0),
    };
    (requests, found["success"].as_f64().unwrap_or(1.0))
}

#[tokio::test]
async fn testers_get_a_version_that_gets_nobody_else_and_explain_says_why() {
    let _turn = turn().await;
    shift(json!({"v1": 100, "v2": 0})).await;
    let audience = json!({"headers": {"headers": {"x-tester": "yes"}}, "version": "v2"});
    apply(json!({"audiences": [audience]})).await;
    let http = mesh().http();
    for _ in 0..5 {
        let reply = http.get(PATH).header("x-tester", "yes").send().await;
        assert_eq!(reply.header("x-weir-version"), "v2", "{}", reply.text());
    }
    assert_eq!(count(&http, 5).await["v1"], 5);
    let told = mesh().weir(&["explain", PATH, "-H", "x-tester: yes"]).ok();
    assert!(told.contains("products-v2: it is of the version's audience"), "{told}");
    // A shift leaves it as it is.
    shift(json!({"v1": 50, "v2": 50})).await;
    let reply = http.get(PATH).header("x-tester", "yes").send().await;
    assert_eq!(reply.header("x-weir-version"), "v2");
    apply(json!({"audiences": []})).await;
    shift(json!({"v1": 100, "v2": 0})).await;
}

#[tokio::test]
async fn copies_reach_a_version_of_weight_0_and_count_on_its_edge() {
    let _turn = turn().await;
    shift(json!({"v1": 100, "v2": 0})).await;
    apply(json!({"mirror": {"version": "v2", "perMillion": 500_000}})).await;
    let (before, _) = edge("v2").await;
    assert_eq!(count(&mesh().http(), 40).await["v1"], 40, "nobody but v1 answers");
    eventually("the copies are on the edge", || async {
        let (now, success) = edge("v2").await;
        // Each worker of the gateway counts for itself.
        (now >= before + 16 && (success - 1.0).abs() < f64::EPSILON).then_some(())
    })
    .await;
    apply(json!({"mirror": null})).await;
}
