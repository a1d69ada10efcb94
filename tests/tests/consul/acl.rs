//! A Consul that asks for tokens, and one that proves who it is.

use std::fs;
use std::time::Duration;

use serde_json::json;
use weir_tests::{eventually, installed, never};

use crate::agent::Agent;
use crate::app::App;
use crate::world::{mesh, route, service, shares, status_says};

const MANAGEMENT: &str = "5f6a4d3c-0000-4000-8000-000000000001";
const READ: &str =
    "service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }";

#[tokio::test]
async fn a_token_is_read_anew_and_its_loss_empties_nothing() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::with_acls(MANAGEMENT).await;
    let app = App::start("app");
    consul.register("web", "web-1", &app, json!({})).await;
    let good = consul.token("weir", READ).await;
    let blind = consul.token("blind", "key_prefix \"x\" { policy = \"read\" }").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    // What Consul does not know is refused.
    let unknown = "5f6a4d3c-0000-4000-8000-000000000002";
    fs::write(&file, unknown).unwrap();
    let graces = ["--consul-leave-grace", "0s", "--consul-empty-grace", "1s"];
    let args = [&["--consul-token-file", file.to_str().unwrap()], &graces[..]].concat();
    let mesh = mesh(&consul.url, "", &args);
    let status = status_says(&mesh, "NOT in touch").await;
    assert!(status.contains("refuses the token"), "{status}");
    for rule in ["service_prefix \"\" { policy = \"read\" }", "node_prefix"] {
        assert!(status.contains(rule), "{status}");
    }
    assert!(!status.contains(unknown) && !mesh.printed().contains(unknown));

    fs::write(&file, &good).unwrap();
    eventually("web is found", || async { service(&mesh, "web") }).await;
    status_says(&mesh, ": in touch").await;
    route(&mesh, "web");

    // A token without rights is not refused: Consul shows it an empty catalogue.
    fs::write(&file, &blind).unwrap();
    let two = App::start("two");
    // Wakes the questions that are held back.
    consul.register("web", "web-2", &two, json!({})).await;
    let status = status_says(&mesh, "NOT in touch").await;
    assert!(status.contains("does not show ") && status.contains("policy = \"read\""), "{status}");
    never("what was known is lost", Duration::from_secs(4), || async {
        // Requests of any number succeed, and the first instance is there still.
        shares(&mesh.http(), "web").await;
        !mesh.weir(&["get", "instances"]).ok().contains("/web-1 ")
    })
    .await;
    fs::write(&file, &good).unwrap();
    eventually("the second is found", || async {
        (service(&mesh, "web")?["instances"] == 2).then_some(())
    })
    .await;
    status_says(&mesh, ": in touch").await;
}

#[tokio::test]
async fn registering_needs_another_rule_and_says_which() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::with_acls(MANAGEMENT).await;
    let reader = consul.token("reader", READ).await;
    let writer = consul.token("writer", &READ.replacen("read", "write", 1)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, reader).unwrap();
    let args = ["--consul-token-file", file.to_str().unwrap(), "--consul-register"];
    let mesh = mesh(&consul.url, "", &args);
    let status = status_says(&mesh, "NOT in touch").await;
    assert!(status.contains("`service_prefix \"\" { policy = \"write\" }`"), "{status}");
    fs::write(&file, writer).unwrap();
    status_says(&mesh, "1 of this mesh registered there").await;
    status_says(&mesh, ": in touch").await;
}

#[tokio::test]
async fn https_is_believed_by_its_root_alone() {
    if !installed("consul") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (consul, url, root) = Agent::with_tls(directory.path()).await;
    let app = App::start("app");
    consul.register("web", "web-1", &app, json!({})).await;
    let good = mesh(&url, "", &["--consul-ca-file", root.to_str().unwrap()]);
    let found = service(&good, "web").expect("web is found");
    assert_eq!(found["sources"], json!(["consul"]));
    drop(good);

    let other = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("consul")
        .args(["tls", "ca", "create"])
        .current_dir(other.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let root = other.path().join("consul-agent-ca.pem");
    let bad = mesh(&url, "", &["--consul-ca-file", root.to_str().unwrap()]);
    let status = status_says(&bad, "NOT in touch").await;
    assert!(status.contains("certificate"), "{status}");
    assert!(service(&bad, "web").is_none());
}
