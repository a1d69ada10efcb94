//! Routes that change while the mesh runs.

use http::Method;
use serde_json::json;
use weir_tests::eventually;

use crate::{mesh, shift, turn};

#[tokio::test]
async fn a_route_can_name_a_version() {
    let _turn = turn().await;
    shift(json!({"v1": 100, "v2": 0})).await;
    let route = json!({
        "kind": "HTTP_ROUTE",
        "parentRefs": [{"kind": "Gateway", "name": "gateway"}],
        "rules": [{
            "matches": [{
                "pathType": "PATH_PREFIX",
                "path": "/v1/products",
                "headers": [{"name": "x-canary", "value": "yes"}],
            }],
            "filters": [{"responseHeaderModifier": {"add": [{"name": "x-route", "value": "canary"}]}}],
            "backendRefs": [{"service": "products", "version": "v2", "weight": 1}],
        }],
    });
    let api = mesh().api();
    api.call(Method::PUT, "/v1/routes/canary").json(&route).ok().await;
    let ask = |canary: &'static str| async move {
        let http = mesh().http();
        let reply = http.get("/v1/products?pageSize=1").header("x-canary", canary).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        (reply.header("x-weir-version").to_owned(), reply.header("x-route").to_owned())
    };
    let canary = ("v2".to_owned(), "canary".to_owned());
    eventually("the route is used", || async { (ask("yes").await == canary).then_some(()) }).await;
    assert_eq!(ask("no").await, ("v1".to_owned(), String::new()));

    api.call(Method::DELETE, "/v1/routes/canary").ok().await;
    eventually("the route is gone", || async { (ask("yes").await.0 == "v1").then_some(()) }).await;
    let history = api.get("/v1/history?limit=2").ok().await;
    let actions: Vec<_> =
        history["entries"].as_array().unwrap().iter().map(|e| e["action"].clone()).collect();
    assert_eq!(actions, [json!("delete-route"), json!("put-route")]);
}
