//! Wrong requests to the control API: refused whole, with the field's path.

use http::Method;
use serde_json::{Value, json};

use crate::{mesh, turn};

async fn revision() -> Value {
    mesh().api().get("/v1/mesh").ok().await["revision"].clone()
}

#[tokio::test]
async fn wrong_weights_name_their_field_and_change_nothing() {
    let _turn = turn().await;
    let before = (revision().await, mesh().api().get("/v1/services/products").ok().await);
    let cases = [
        (json!({"weights": {"v1": 90, "v2": -5}}), "weights.v2", "-5 is below 0"),
        (json!({"weights": {"v1": 1, "v2": 1_000_001}}), "weights.v2", "1000001 is above 1000000"),
        (json!({"weights": {"v1": 90, "v9": 10}}), "weights.v9", "no such version"),
        (json!({"weights": {"v1": 0, "v2": 0}}), "weights", "0"),
        (json!({"weights": {}}), "weights", ""),
        (json!({"weights": {"v1": 1}, "colour": "red"}), "colour", ""),
        (json!({"weights": {"v1": "many"}}), "weights.v1", ""),
        (json!({"weights": {"v1": 1}, "sticky": {"header": "not a header"}}), "sticky.header", ""),
        (json!({"weights": {"v1": 1}, "wait": true, "waitSeconds": 301}), "waitSeconds", "301"),
    ];
    for (body, field, description) in cases {
        let reply = mesh().api().post("/v1/services/products/shift", &body).send().await;
        let violations = reply.violations();
        let named = violations.iter().any(|(f, d)| {
            f.replace(['[', '"', ']'], "").ends_with(field) && d.contains(description)
        });
        assert!(named, "{body}: wanted {field}: {description}, got {violations:?}");
    }
    let after = (revision().await, mesh().api().get("/v1/services/products").ok().await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let body = json!({"weights": {"v1": -1, "v9": 1}});
    let reply = mesh().api().post("/v1/services/products/shift", &body).send().await;
    assert!(reply.violations().len() >= 2, "{}", reply.text());
}

#[tokio::test]
async fn wrong_routes_name_their_field() {
    let rule = json!({
        "backendRefs": [{"service": "products", "weight": 1}, {"service": "users", "weight": -5}],
    });
    let route = json!({
        "kind": "HTTP_ROUTE",
        "parentRefs": [{"kind": "Gateway", "name": "gateway"}],
        "rules": [rule],
    });
    let put = |route: Value| async move {
        mesh().api().call(Method::PUT, "/v1/routes/wrong").json(&route).send().await
    };
    let violations = put(route.clone()).await.violations();
    let (field, description) = &violations[0];
    assert!(field.ends_with("rules[0].backendRefs[1].weight"), "{violations:?}");
    assert!(description.contains("-5 is below 0"), "{violations:?}");

    let mut unknown = route.clone();
    unknown["rules"][0]["backendRefs"][1] = json!({"service": "nobody", "weight": 1});
    let violations = put(unknown).await.violations();
    assert!(
        violations
            .iter()
            .any(|(f, d)| { f.contains("rules[0].backendRefs[1]") && d.contains("nobody") }),
        "{violations:?}"
    );

    let mut misspelt = route;
    misspelt["rules"][0]["backendRef"] = json!([]);
    let violations = put(misspelt).await.violations();
    assert!(violations[0].0.contains("backendRef"), "{violations:?}");
    let routes = mesh().api().get("/v1/routes").ok().await;
    assert!(!routes.to_string().contains("\"wrong\""), "{routes}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let api = mesh().api();
    let body = json!({"weights": {"v1": 1}});
    assert_eq!(api.post("/v1/services/nobody/shift", &body).send().await.status, 404);
    assert_eq!(api.get("/v1/services/nobody").send().await.status, 404);
    assert_eq!(api.get("/v1/nothing").send().await.status, 404);
    assert_eq!(api.call(Method::DELETE, "/v1/routes/nobody").send().await.status, 404);
    let reply = api.call(Method::DELETE, "/v1/services").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, "GET"));
}

#[tokio::test]
async fn a_change_based_on_an_old_state_is_aborted() {
    let _turn = turn().await;
    let shift = |body: Value| async move {
        mesh().api().post("/v1/services/products/shift", &body).send().await
    };
    let weights = json!({"v1": 99, "v2": 1});
    let made = shift(json!({"weights": weights})).await.json()["revision"].as_u64().unwrap();
    let late = shift(json!({"weights": {"v1": 1}, "expectedRevision": made - 1})).await;
    assert_eq!((late.status.as_u16(), &late.json()["code"]), (409, &json!(10)), "{}", late.text());
    let back = json!({"weights": {"v1": 100}, "expectedRevision": made, "wait": true});
    assert_eq!(shift(back).await.status, 200);
}

#[tokio::test]
async fn weights_may_name_a_version_to_come_when_asked_to() {
    let _turn = turn().await;
    let body = json!({"weights": {"v1": 100, "v3": 0}, "allowEmpty": true, "wait": true});
    mesh().api().post("/v1/services/users/shift", &body).ok().await;
    let users = mesh().api().get("/v1/services/users").ok().await;
    assert!(users.to_string().contains("v3"), "{users}");
    let back = mesh().weir(&["rollback", "users", "--wait"]).ok();
    assert!(back.contains("revision"), "{back}");
}
