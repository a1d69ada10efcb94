//! What is refused at the gateway, and how the client is told.

use http::Method;
use serde_json::json;

use crate::{account, mesh};

#[tokio::test]
async fn fields_that_are_unknown_or_wrong_are_named() {
    let http = mesh().http().with_token(&account().await.access_token);
    let cases = [
        (json!({"name": "x", "colour": "red"}), "colour"),
        (json!({"name": 7}), "name"),
        (json!({"price": {"currencyCode": "EUR", "amountMinor": "many"}}), "price.amountMinor"),
        (json!({"tags": "one"}), "tags"),
    ];
    for (body, field) in cases {
        let violations = http.post("/v1/products", &body).send().await.violations();
        assert!(violations.iter().any(|(f, _)| f == field), "{field}: {violations:?}");
    }
    let unknown = http.get("/v1/products?colour=red").send().await.violations();
    assert_eq!(unknown[0].0, "colour");
}

#[tokio::test]
async fn a_service_names_each_wrong_field_too() {
    let http = mesh().http().with_token(&account().await.access_token);
    let wrong = json!({
        "name": "", "sku": "no spaces", "category": "c",
        "price": {"currencyCode": "EURO", "amountMinor": "-1"},
    });
    let violations = http.post("/v1/products", &wrong).send().await.violations();
    for field in ["name", "sku", "price.currencyCode", "price.amountMinor"] {
        assert!(violations.iter().any(|(f, _)| f == field), "{field}: {violations:?}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused() {
    let http = mesh().http();
    for body in ["{", "[]", "null", "{\"email\": \"a\"} x", "\u{0}"] {
        let reply = http
            .call(Method::POST, "/v1/auth/login")
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await;
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (400, &json!(3)), "{body}");
    }
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there() {
    let http = mesh().http();
    let reply = http.call(Method::DELETE, "/v1/products").send().await;
    assert_eq!(reply.status, 405, "{}", reply.text());
    let mut allowed: Vec<_> = reply.header("allow").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "POST"]);

    for path in ["/v1/nothing", "/", "/v1/auth/nothing", "/v1/products/a/b/c"] {
        let reply = http.get(path).send().await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        assert!(reply.json()["message"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_body_over_four_mebibytes_is_refused() {
    let body = json!({"name": "x".repeat(4 << 20)});
    let reply = mesh().http().post("/v1/products", &body).send().await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.json()["message"].as_str().unwrap().contains("4194304"), "{}", reply.text());
}

#[tokio::test]
async fn secrets_of_a_wrong_request_are_not_told_again() {
    let body = json!({"email": "a@example.com", "password": "hunter2-hunter2", "pasword": 1});
    let reply = mesh().http().post("/v1/auth/login", &body).send().await;
    assert!(!reply.violations().is_empty());
    assert!(!reply.text().contains("hunter2"), "{}", reply.text());
}

/// A request that no instance could be sent is the client's fault: it must not
/// take instances out of the balance.
#[tokio::test]
async fn a_host_that_is_taken_back_or_no_authority_harms_no_instance() {
    let http = mesh().http();
    for _ in 0..8 {
        let call = http.get("/v1/products").header("connection", "host");
        assert_eq!(call.send().await.status, 200);
        let call = http.get("/v1/products").header("host", "a/b");
        assert_eq!(call.send().await.status, 400);
    }
    assert_eq!(http.get("/v1/products").send().await.status, 200);
}
