//! Decisions of somebody else, by Envoy's ext_authz.

use serde_json::Value;
use weir_tests::Reply;

use crate::mesh;

async fn wish(path: &str, wish: &str) -> Reply {
    let call = mesh().http().get(path).header("x-wish", wish).header("x-secret", "s");
    call.send().await
}

#[tokio::test]
async fn another_service_decides_and_changes_headers() {
    let reply = wish("/external/%61?q=1", "pass").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let headers = &reply.json()["headers"];
    assert_eq!(headers["x-checked"], "GET /external/a?q=1 from \"\"");
    assert_eq!(headers["x-secret"], Value::Null);
    assert_ne!(headers["host"], "elsewhere");

    let reply = wish("/external", "login").await;
    assert_eq!((reply.status.as_u16(), reply.header("location")), (302, "/login"));
    assert_eq!(reply.text(), "log in first");
    let reply = wish("/external", "none").await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("AuthorizationPolicy external"), "{}", reply.text());
}

#[tokio::test]
async fn no_answer_denies_unless_the_policy_fails_open() {
    for trouble in ["hang", "break"] {
        let asked = tokio::time::timeout(crate::server::PATIENCE, wish("/external", trouble));
        assert_eq!(asked.await.unwrap().status, 403, "{trouble}");
    }
    assert_eq!(wish("/closed", "pass").await.status, 403);
    assert_eq!(wish("/open", "pass").await.status, 200);
    let metrics = mesh().admin("gateway").get("/metrics").send().await.text();
    for result in ["failed", "failed_open", "denied"] {
        assert!(metrics.contains(&format!("result=\"{result}\"")), "{result}");
    }
}
