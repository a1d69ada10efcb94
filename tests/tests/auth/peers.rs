//! Identities come from certificates, and denials are explained.

use weir_tests::{Http, Mesh, eventually};

use crate::{from, mesh};

async fn status(http: &Http, path: &str) -> u16 {
    http.get(path).send().await.status.as_u16()
}

#[tokio::test]
async fn a_service_is_open_to_those_that_its_policy_names() {
    let (caller, stranger) = (from("caller", "vault"), from("stranger", "vault"));
    for (path, of_caller, of_stranger) in [
        ("/exact", 200, 403),
        ("/exact/x", 403, 403),
        ("/prefix/x", 200, 200),
        ("/namespace", 200, 403),
        ("/elsewhere", 403, 403),
        ("/", 403, 403),
    ] {
        assert_eq!(status(&caller, path).await, of_caller, "caller {path}");
        assert_eq!(status(&stranger, path).await, of_stranger, "stranger {path}");
    }
    let post = caller.post("/namespace", &serde_json::json!({})).send().await;
    assert_eq!(post.status, 403);
}

#[tokio::test]
async fn what_a_client_says_of_itself_changes_nothing() {
    let forged = "By=spiffe://weir.local/ns/default/sa/vault;\
                  URI=spiffe://weir.local/ns/default/sa/caller";
    for http in [from("stranger", "vault"), mesh().http()] {
        for path in ["/exact", "/vault/exact"] {
            let reply = http.get(path).header("x-forwarded-client-cert", forged).send().await;
            assert!(matches!(reply.status.as_u16(), 403 | 404), "{path}: {}", reply.text());
        }
    }
    let reply = from("caller", "vault")
        .get("/exact")
        .header("x-forwarded-client-cert", &forged.replace("sa/caller", "sa/root"))
        .send()
        .await;
    let seen = reply.json()["headers"]["x-forwarded-client-cert"].clone();
    assert!(seen.as_str().unwrap().ends_with("sa/caller"), "{seen}");
}

/// The last line of a router's access log about a path.
async fn line(mesh: &Mesh, router: &str, path: &str) -> serde_json::Value {
    eventually("the access log tells of it", || async {
        let log = mesh.access_log();
        log.into_iter().rev().find(|(r, l)| r == router && l["path"] == path).map(|(_, l)| l)
    })
    .await
}

#[tokio::test]
async fn a_denial_is_explained_to_the_client_the_log_and_the_metrics() {
    let reply = from("stranger", "vault").get("/%65xact/explained").send().await;
    assert_eq!(reply.status, 403);
    let message = reply.json()["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "access denied: no rule of AuthorizationPolicy vault allows it");
    let line = line(mesh(), "vault-v1-1", "/exact/explained").await;
    assert_eq!(line["flags"], serde_json::json!(["RBAC_ACCESS_DENIED"]));
    let error = line["error"].as_str().unwrap();
    assert!(
        error.ends_with("; the caller is spiffe://weir.local/ns/default/sa/stranger"),
        "{error}"
    );
    let metrics = mesh().admin("vault-v1-1-router").get("/metrics").send().await.text();
    assert!(metrics.contains("{mode=\"enforce\",weir_policy=\"vault\",weir_service=\"vault\"}"));
}

#[tokio::test]
async fn a_route_of_the_mesh_is_guarded_by_the_callers_router() {
    let stranger = from("stranger", "caller");
    assert_eq!(status(&stranger, "/x").await, 200);
    assert_eq!(status(&stranger, "/x/../%63losed/guarded").await, 403);
    let line = line(mesh(), "stranger-v1-1", "/closed/guarded").await;
    assert_eq!((&line["side"], &line["route"]), (&"outbound".into(), &"inner/0".into()));
    assert!(line["error"].as_str().unwrap().contains("AuthorizationPolicy inner"), "{line}");
    assert_eq!(status(&from("vault", "caller"), "/closed").await, 200);
}

#[tokio::test]
async fn an_audit_reports_and_lets_pass() {
    assert_eq!(mesh().http().get("/web/audited/x").send().await.status, 200);
    let line = line(mesh(), "web-v1-1", "/web/audited/x").await;
    assert_eq!((&line["status"], &line["flags"][0]), (&200.into(), &"RBAC_SHADOW_DENIED".into()));
    let audit = line["audit"].as_str().unwrap();
    assert!(audit.contains("AuthorizationPolicy watched, rule audited"), "{audit}");
    let metrics = mesh().admin("web-v1-1-router").get("/metrics").send().await.text();
    assert!(metrics.contains("{mode=\"audit\",weir_policy=\"watched\",weir_service=\"web\"}"));
}
