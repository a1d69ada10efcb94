//! This mesh's instances, as Consul has them.

use serde_json::{Value, json};
use weir_tests::process::{Signal, is_alive, send};
use weir_tests::{eventually, installed};

use crate::agent::Agent;
use crate::app::App;
use crate::world::{mesh, service, status_says};

async fn entries(consul: &Agent, query: &str) -> Vec<Value> {
    let path = format!("/v1/health/service/caller{query}");
    consul.http().get(&path).ok().await.as_array().unwrap().clone()
}

#[tokio::test]
async fn instances_are_registered_by_ttl_and_leave_with_their_routers() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let args = ["--consul-register", "--consul-tag-prefix", "*"];
    let mesh = mesh(&consul.url, "", &args);
    let entry = eventually("caller is in Consul and passes", || async {
        entries(&consul, "?passing").await.pop()
    })
    .await;
    let registered = &entry["Service"];
    let inbound = mesh.process("caller-v1-1-router").inbound.unwrap();
    assert_eq!(registered["ID"], "weir-caller-v1-1");
    assert_eq!(registered["Port"], inbound.port());
    assert_eq!(registered["Address"], inbound.ip().to_string());
    assert_eq!(registered["Tags"], json!(["version=v1"]));
    let meta = &registered["Meta"];
    assert_eq!(meta["weir-identity"], "spiffe://weir.local/ns/default/sa/caller");
    assert_eq!(meta["weir-router-port"], inbound.port().to_string());
    let checks = entry["Checks"].as_array().unwrap();
    let ttl = checks.iter().find(|check| check["Type"] == "ttl").unwrap();
    assert!(ttl["Output"].as_str().unwrap().contains("its router says"), "{ttl}");
    status_says(&mesh, "1 of this mesh registered there").await;

    // It is not found again: its router is known.
    let app = App::start("app");
    consul.register("web", "web-1", &app, json!({})).await;
    eventually("web is found", || async { service(&mesh, "web") }).await;
    let own = service(&mesh, "caller").unwrap();
    assert_eq!((&own["instances"], &own["sources"]), (&json!(1), &json!(["mesh"])));

    // Someone else takes it out of Consul: it comes back.
    consul.deregister("weir-caller-v1-1").await;
    eventually("it is registered again", || async { entries(&consul, "?passing").await.pop() })
        .await;

    // The application dies, as often as it is started again: Consul hears of it.
    eventually("it is critical in Consul", || async {
        if let Some(pid) = mesh.process("caller-v1-1").pid.filter(|pid| is_alive(*pid)) {
            send(pid, Signal::KILL);
        }
        let entry = entries(&consul, "").await.pop()?;
        let checks = entry["Checks"].as_array()?.clone();
        checks.iter().any(|check| check["Status"] == "critical").then_some(())
    })
    .await;
    eventually("it passes again", || async { entries(&consul, "?passing").await.pop() }).await;

    mesh.stop();
    assert!(entries(&consul, "").await.is_empty(), "it left with its router");
}
