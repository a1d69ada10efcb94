//! A user stays on a version, and never goes back while a canary only grows.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use weir_tests::Reply;

use crate::{mesh, shift, shift_with, turn};

const PATH: &str = "/v1/products?pageSize=1";
const USERS: usize = 100;

fn version(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.header("x-weir-version").to_owned()
}

/// Lets a canary grow and asks as each user, twice a step.
async fn grow(sticky: Value, header: &str, value: impl Fn(usize) -> String) {
    let mut before: BTreeMap<usize, String> = BTreeMap::new();
    for weight in [0, 10, 50, 100] {
        let weights = json!({"v1": 100 - weight, "v2": weight});
        shift_with(json!({"weights": weights, "sticky": sticky})).await;
        let http = mesh().http();
        for user in 0..USERS {
            let ask = || http.get(PATH).header(header, &value(user)).send();
            let (one, two) = (version(&ask().await), version(&ask().await));
            assert_eq!(one, two, "user {user} at {weight}");
            if before.get(&user).is_some_and(|version| version == "v2") {
                assert_eq!(one, "v2", "user {user} went back at {weight}");
            }
            before.insert(user, one);
        }
        let on_v2 = before.values().filter(|version| *version == "v2").count();
        let close = on_v2.abs_diff(weight * USERS / 100) <= if weight % 100 == 0 { 0 } else { 20 };
        assert!(close, "{on_v2} of {USERS} users are on v2 at {weight}");
    }
    shift(json!({"v1": 100, "v2": 0})).await;
}

#[tokio::test]
async fn by_header() {
    let _turn = turn().await;
    grow(json!({"header": "x-user"}), "x-user", |user| format!("user-{user}")).await;
}

#[tokio::test]
async fn by_user() {
    let _turn = turn().await;
    // Reading products needs no token, so that one which nobody signed will do.
    let token = |user| {
        let claims = URL_SAFE_NO_PAD.encode(json!({"sub": format!("u-{user}")}).to_string());
        format!("Bearer e30.{claims}.c2ln")
    };
    grow(json!({"user": true}), "authorization", token).await;
}

#[tokio::test]
async fn by_cookie() {
    let _turn = turn().await;
    let sticky = json!({"cookie": "weir-version"});
    shift_with(json!({"weights": {"v1": 50, "v2": 50}, "sticky": sticky})).await;
    let http = mesh().http();
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        let first = http.get(PATH).send().await;
        let cookie = first.header("set-cookie").split(';').next().unwrap().to_owned();
        assert!(cookie.starts_with("weir-version="), "{:?}", first.headers);
        for _ in 0..3 {
            let next = http.get(PATH).header("cookie", &format!("a=b; {cookie}")).send().await;
            assert_eq!(version(&next), version(&first));
            assert_eq!(next.header("set-cookie"), "", "a cookie that is there is kept");
        }
        *seen.entry(version(&first)).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    shift(json!({"v1": 100, "v2": 0})).await;
}
