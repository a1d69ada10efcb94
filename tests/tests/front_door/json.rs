//! The services' JSON, by their annotations.

use http::Method;
use serde_json::{Value, json};
use weir_tests::{Account, Http, eventually};

use crate::{account, mesh, unique};

async fn create(http: &Http, name: &str, category: &str) -> Value {
    let product = json!({
        "name": name,
        "sku": unique("SKU-"),
        "price": {"currencyCode": "EUR", "amountMinor": "1999"},
        "category": category,
    });
    http.post("/v1/products", &product).ok().await
}

#[tokio::test]
async fn a_session_from_registration_to_logout() {
    let http = mesh().http();
    let user = Account::register(&http).await;
    let again = json!({"email": user.email, "password": user.password});
    let taken = http.post("/v1/auth/register", &again).send().await;
    assert_eq!((taken.status.as_u16(), &taken.json()["code"]), (409, &json!(6)));

    let login = http.post("/v1/auth/login", &again).ok().await;
    assert_eq!(login["userId"], json!(user.user_id));
    assert_eq!(login["tokenType"], "Bearer");
    let wrong = json!({"email": user.email, "password": "not the password"});
    let refused = http.post("/v1/auth/login", &wrong).send().await;
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (401, &json!(16)));

    // Each refresh token works once; using one twice ends its session.
    let first = json!({"refreshToken": login["refreshToken"]});
    let next = http.post("/v1/auth/refresh", &first).ok().await;
    assert_ne!(next["refreshToken"], login["refreshToken"]);
    assert_eq!(http.post("/v1/auth/refresh", &first).send().await.status, 401);
    let second = json!({"refreshToken": next["refreshToken"]});
    assert_eq!(http.post("/v1/auth/refresh", &second).send().await.status, 401);

    // The other session, of the registration, goes on until its logout.
    let mine = json!({"refreshToken": user.refresh_token});
    let mine = http.post("/v1/auth/refresh", &mine).ok().await;
    let mine = json!({"refreshToken": mine["refreshToken"]});
    http.post("/v1/auth/logout", &mine).ok().await;
    assert_eq!(http.post("/v1/auth/refresh", &mine).send().await.status, 401);
}

#[tokio::test]
async fn keys_of_tokens_are_public() {
    let jwks = mesh().http().get("/.well-known/jwks.json").ok().await;
    let key = &jwks["keys"][0];
    assert_eq!(
        (&key["kty"], &key["alg"], &key["use"]),
        (&json!("EC"), &json!("ES256"), &json!("sig"))
    );
    assert!(key.get("d").is_none(), "the private key is out");
}

#[tokio::test]
async fn a_profile_is_its_owners() {
    let http = mesh().http();
    let anonymous = http.get("/v1/users/me").send().await;
    assert_eq!((anonymous.status.as_u16(), &anonymous.json()["code"]), (401, &json!(16)));

    let user = Account::register(&http).await;
    let http = http.with_token(&user.access_token);
    let me = http.get("/v1/users/me").ok().await;
    assert_eq!((&me["email"], &me["displayName"]), (&json!(user.email), &json!("Ada")));

    let change =
        json!({"displayName": "Grace", "timeZone": "Europe/Lisbon", "preferences": {"a": "1"}});
    let changed = http.call(Method::PATCH, "/v1/users/me").json(&change).ok().await;
    assert_eq!(changed["displayName"], "Grace");
    assert_eq!(http.get("/v1/users/me").ok().await["preferences"], json!({"a": "1"}));

    let own = format!("/v1/users/{}", user.user_id);
    assert_eq!(http.get(&own).ok().await["displayName"], "Grace");
    let other = format!("/v1/users/{}", account().await.user_id);
    assert_eq!(http.get(&other).send().await.status, 403);
}

#[tokio::test]
async fn products_are_written_by_users_and_read_by_all() {
    let (open, category) = (mesh().http(), unique("c-"));
    let http = mesh().http().with_token(&account().await.access_token);
    let product = create(&http, "Rust", &category).await;
    let path = format!("/v1/products/{}", product["productId"].as_str().unwrap());
    let read = open.get(&path).ok().await;
    // int64 is a string in protobuf's JSON mapping.
    assert_eq!(read["price"], json!({"currencyCode": "EUR", "amountMinor": "1999"}));
    assert_eq!(read["createdBy"], json!(account().await.user_id));

    let change = json!({"name": "Rust 2", "etag": product["etag"]});
    let changed = http.call(Method::PATCH, &path).json(&change).ok().await;
    assert_eq!(changed["name"], "Rust 2");
    let stale = http.call(Method::PATCH, &path).json(&change).send().await;
    assert_eq!((stale.status.as_u16(), &stale.json()["code"]), (409, &json!(10)));

    let batch = format!("/v1/products:batchGet?productIds={}", path.rsplit_once('/').unwrap().1);
    assert_eq!(open.get(&batch).ok().await["products"][0]["name"], "Rust 2");
    assert_eq!(open.call(Method::DELETE, &path).send().await.status, 401);
    http.call(Method::DELETE, &path).ok().await;
    assert_eq!(open.get(&path).send().await.status, 404);
}

#[tokio::test]
async fn products_are_listed_by_filter_and_page() {
    let category = unique("c-");
    let http = mesh().http().with_token(&account().await.access_token);
    for name in ["a", "b", "c", "d", "e"] {
        create(&http, name, &category).await;
    }
    let mut names = Vec::new();
    let mut token = String::new();
    for _ in 0..3 {
        let path = format!(
            "/v1/products?filter=category%3D{category}&orderBy=name%20desc&pageSize=2&pageToken={token}"
        );
        let page = mesh().http().get(&path).ok().await;
        names.extend(page["products"].as_array().unwrap().iter().map(|p| p["name"].clone()));
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!((names, token), (["e", "d", "c", "b", "a"].map(Value::from).into(), String::new()));

    // A stream of messages is a line of JSON each.
    let export = format!("/v1/products:export?filter=category%3D{category}");
    let reply = mesh().http().get(&export).send().await;
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        reply.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
}

#[tokio::test]
async fn whoever_registers_is_welcomed() {
    let http = mesh().http();
    let user = Account::register(&http).await;
    let http = http.with_token(&user.access_token);
    let inbox = eventually("a welcome", || async {
        let inbox = http.get("/v1/notifications").ok().await;
        inbox["notifications"].as_array().is_some_and(|all| !all.is_empty()).then_some(inbox)
    })
    .await;
    let welcome = &inbox["notifications"][0];
    assert_eq!(http.get("/v1/notifications:unreadCount").ok().await["unread"], 1);
    let path =
        format!("/v1/notifications/{}:markRead", welcome["notificationId"].as_str().unwrap());
    assert!(http.post(&path, &json!({})).ok().await["readTime"].is_string());
    let unread = http.get("/v1/notifications:unreadCount").ok().await;
    assert_eq!(unread["unread"].as_u64().unwrap_or(0), 0);
    // Somebody else's does not exist.
    let other = mesh().http().with_token(&account().await.access_token);
    assert_eq!(other.post(&path, &json!({})).send().await.status, 404);
}

#[tokio::test]
async fn answers_say_which_version_served() {
    for http in [mesh().http(), Http::http2(&mesh().gateway)] {
        let reply = http.get("/v1/products?pageSize=1").send().await;
        assert_eq!((reply.status.as_u16(), reply.header("x-weir-version")), (200, "v1"));
        assert_eq!(reply.header("content-type"), "application/json");
    }
}
