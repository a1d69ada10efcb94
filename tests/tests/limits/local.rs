//! What each router counts by itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::Method;
use prost::Message as _;
use weir_proto::google::rpc;
use weir_tests::Http;

use crate::{call, counted, gateway, logged, mesh, status};

const DECISIONS: &str = "weir_router_rate_limit_decisions_total";

#[tokio::test]
async fn a_limit_that_is_used_up_answers_429_and_says_when_to_come_again() {
    let http = gateway();
    for left in ["2", "1", "0"] {
        let reply = http.get("/three").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("ratelimit-policy"), "\"three/all\";q=3;w=3600");
        let state = reply.header("ratelimit");
        assert!(state.starts_with(&format!("\"three/all\";r={left};t=")), "{state}");
        assert!(reply.headers.get("retry-after").is_none());
    }
    // A connection of its own, and so perhaps another worker.
    let reply = gateway().get("/three").send().await;
    assert_eq!(reply.status, 429, "{}", reply.text());
    let after: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=1200).contains(&after), "{after}");
    assert!(reply.header("ratelimit").starts_with("\"three/all\";r=0;t="), "{:?}", reply.headers);
    let json = reply.json();
    let message = json["message"].as_str().unwrap();
    let wanted = "rate limit \"all\" of RateLimitPolicy \"three\" is used up (3 in 1h); come again";
    assert!(message.starts_with(wanted), "{message}");
    assert_eq!(json["code"], 8);
    assert_eq!(json["details"][0]["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    logged("/three", "RL").await;
    let labels = ["weir_policy=\"three\"", "weir_rule=\"all\"", "decision=\"refused\""];
    assert_eq!(counted("gateway", DECISIONS, &labels).await, 1);

    // A new table is no fresh start.
    let body = serde_json::json!({"weights": {"v1": 7}, "wait": true});
    let shifted = mesh().api().post("/v1/services/echo/shift", &body).ok().await;
    assert_eq!(shifted["converged"]["applied"], shifted["converged"]["routers"], "{shifted}");
    assert_eq!(gateway().get("/three").send().await.status, 429);
}

#[tokio::test]
async fn grpc_gets_resource_exhausted_with_retry_info() {
    let http = Http::http2(&mesh().gateway);
    for _ in 0..2 {
        let reply = call(&http, "/refused.v1.Echo/Say", 10).await;
        assert_eq!(status(&reply).0, "0", "{reply:?}");
    }
    let reply = call(&http, "/refused.v1.Echo/Say", 10).await;
    let (code, message) = status(&reply);
    assert_eq!((reply.status.as_u16(), &*code), (200, "8"), "{message}");
    assert!(message.contains("RateLimitPolicy \"refused\""), "{message}");
    let details = STANDARD_NO_PAD.decode(reply.header("grpc-status-details-bin")).unwrap();
    let details = rpc::Status::decode(&*details).unwrap();
    let retry = rpc::RetryInfo::decode(&*details.details[0].value).unwrap();
    assert!((1..=1800).contains(&retry.retry_delay.unwrap().seconds), "{retry:?}");
    assert_eq!(reply.header("retry-after"), retry.retry_delay.unwrap().seconds.to_string());
}

#[tokio::test]
async fn each_key_has_a_count_and_those_without_share_one() {
    let http = gateway();
    let mut asked = Vec::new();
    for _ in 0..3 {
        for user in ["ann", "bob", ""] {
            let get = http.get("/by-user");
            let get = if user.is_empty() { get } else { get.header("x-user", user) };
            asked.push((user, get.send().await.status.as_u16()));
        }
    }
    let (passed, refused) = asked.split_at(6);
    assert!(passed.iter().all(|(_, status)| *status == 200), "{asked:?}");
    assert!(refused.iter().all(|(_, status)| *status == 429), "{asked:?}");
}

#[tokio::test]
async fn a_rule_counts_what_it_matches_and_keys_are_bounded() {
    let http = gateway();
    let post =
        |user: String| http.call(Method::POST, "/flooded").header("x-user", &user).body("x").send();
    let first = post("post-1".to_owned()).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert!(first.header("ratelimit-policy").contains("\"flooded/posts\";q=1;w=3600"));
    assert_eq!(post("post-2".to_owned()).await.status, 429);
    // The table takes 200; who used up a limit before them is not forgotten.
    for _ in 0..2 {
        http.get("/flooded").header("x-user", "abuser").send().await;
    }
    for user in 0..1000 {
        http.get("/flooded").header("x-user", &format!("user-{user}")).send().await;
    }
    let reply = http.get("/flooded").header("x-user", "abuser").send().await;
    assert_eq!(reply.status, 429, "{}", reply.text());
    let forgotten = "weir_router_rate_limit_keys_forgotten_total";
    assert!(
        counted("gateway", forgotten, &["weir_policy=\"flooded\"", "weir_rule=\"user\""]).await > 0
    );
}

#[tokio::test]
async fn an_audited_limit_only_reports() {
    let http = gateway();
    for _ in 0..5 {
        let reply = http.get("/audited").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.headers.get("ratelimit").is_none());
    }
    let labels = ["weir_policy=\"audited\"", "decision=\"audited\""];
    assert_eq!(counted("gateway", DECISIONS, &labels).await, 4);
}

/// At the router beside the instance, by the certificate of the one that sent.
#[tokio::test]
async fn a_service_counts_callers_by_identity() {
    let path = "/weir.users.v1.UserService/Limited";
    let outbound = mesh().process("notifications-v1-1-router").outbound.unwrap();
    let doors = [Http::http2(&mesh().gateway), Http::http2_via("http://users", outbound)];
    for http in &doors {
        for _ in 0..3 {
            let reply = call(http, path, 0).await;
            assert_eq!(status(&reply).0, "12", "the application does not know it: {reply:?}");
        }
        let reply = call(http, path, 0).await;
        let (code, message) = status(&reply);
        assert_eq!(code, "8", "{message}");
        assert!(
            message.contains("rate limit \"caller\" of RateLimitPolicy \"users\""),
            "{message}"
        );
        assert!(reply.header("ratelimit").starts_with("\"users/caller\";r=0"), "{reply:?}");
    }
    let other = call(&doors[0], "/weir.users.v1.UserService/Other", 0).await;
    assert_eq!(status(&other).0, "12");
}
