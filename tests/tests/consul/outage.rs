//! Consul goes away, and comes back.

use std::time::Duration;

use serde_json::json;
use weir_tests::process::{Signal, send};
use weir_tests::{eventually, installed, never};

use crate::agent::Agent;
use crate::app::App;
use crate::world::{doors, mesh, route, service, shares, status_says};

#[tokio::test]
async fn traffic_goes_on_while_consul_is_dead_also_past_a_restart_of_the_control_plane() {
    if !installed("consul") {
        return;
    }
    let mut consul = Agent::lasting().await;
    let (one, two) = (App::start("one"), App::start("two"));
    consul.register("web", "web-1", &one, json!({})).await;
    let graces = ["--consul-leave-grace", "0s", "--consul-empty-grace", "1s"];
    let mesh = mesh(&consul.url, "", &graces);
    route(&mesh, "web");
    let all = || async {
        for (door, http) in doors(&mesh, "web") {
            let shares = shares(&http, "web").await;
            assert_eq!(shares.get("one"), Some(&100), "{door}: {shares:?}");
        }
    };
    all().await;
    consul.kill();
    let status = status_says(&mesh, "NOT in touch").await;
    assert!(status.contains("what was known stays (1 services, 1 instances)"), "{status}");
    assert!(status.contains("cannot be reached"), "{status}");
    all().await;

    // The control plane dies too. `weir up` starts it again; it knows what it knew.
    send(mesh.pid("control-plane"), Signal::KILL);
    eventually("the control plane is back, without Consul", || async {
        let reply = mesh.api().get("/v1/mesh").try_send().await.ok()?;
        let found = (reply.status == 200).then(|| reply.json())?;
        (found["catalogues"][0]["trouble"].as_str()?.contains("cannot be reached")).then_some(())
    })
    .await;
    all().await;
    assert_eq!(service(&mesh, "web").unwrap()["sources"], json!(["consul"]));
    mesh.weir(&["shift", "caller", "v1=3", "--wait"]).ok();
    all().await;

    consul.run().await;
    consul.register("web", "web-2", &two, json!({})).await;
    eventually("a new one is found", || async {
        (service(&mesh, "web")?["instances"] == 2).then_some(())
    })
    .await;
    status_says(&mesh, ": in touch").await;
}

#[tokio::test]
async fn a_consul_that_lost_its_memory_empties_nothing() {
    if !installed("consul") {
        return;
    }
    let mut consul = Agent::dev(&[]).await;
    let (one, two) = (App::start("one"), App::start("two"));
    consul.register("web", "web-1", &one, json!({})).await;
    // Makes the index grow past what it is after the restart.
    for i in 0..20 {
        let status = if i % 2 == 0 { "warning" } else { "passing" };
        consul.health("web-1", status).await;
    }
    let graces = ["--consul-leave-grace", "1s", "--consul-empty-grace", "2s"];
    let mesh = mesh(&consul.url, "", &graces);
    route(&mesh, "web");
    consul.kill();
    status_says(&mesh, "NOT in touch").await;
    consul.run().await;
    status_says(&mesh, ": in touch").await;
    // Past the grace, which is ten times as long for this.
    never("web is empty", Duration::from_secs(6), || async {
        shares(&mesh.http(), "web").await.get("one") != Some(&100)
    })
    .await;
    // Its services come back one after the other.
    consul.register("web", "web-2", &two, json!({})).await;
    eventually("only the new one is left", || async {
        (shares(&mesh.http(), "web").await.get("two") == Some(&100)).then_some(())
    })
    .await;
}
