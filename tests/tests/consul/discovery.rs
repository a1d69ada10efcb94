//! What is registered in Consul is a service of the mesh.

use http::Method;
use serde_json::json;
use weir_tests::{eventually, installed};

use crate::agent::Agent;
use crate::app::App;
use crate::world::{
    doors, has_weights, mesh, route, service, settled, shares, status_says, weights,
};

#[tokio::test]
async fn versions_found_in_consul_are_shifted_like_any_other() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let (one, two) = (App::start("v1"), App::start("v2"));
    // By meta, and by tag.
    consul.register("web", "web-1", &one, json!({"Meta": {"version": "v1"}})).await;
    consul.register("web", "web-2", &two, json!({"Tags": ["weir", "version=v2"]})).await;
    let mesh = mesh(&consul.url, "", &[]);
    // It was there before the mesh, so it is there from its start.
    let found = service(&mesh, "web").expect("web is found");
    assert_eq!((weights(&found).as_str(), &found["sources"]), ("v1=1 v2=1", &json!(["consul"])));
    let table = mesh.weir(&["get", "services"]).ok();
    assert!(table.lines().any(|l| l.starts_with("web ") && l.contains(" consul ")), "{table}");

    route(&mesh, "web");
    for (door, http) in doors(&mesh, "web") {
        let shares = shares(&http, "web").await;
        assert!(shares["v1"].abs_diff(50) <= 2, "{door}: {shares:?}");
    }
    for (v1, v2) in [(90, 10), (0, 1), (1, 0)] {
        let (first, second) = (format!("v1={v1}"), format!("v2={v2}"));
        mesh.weir(&["shift", "web", &first, &second, "--wait"]).ok();
        for (door, http) in doors(&mesh, "web") {
            let shares = shares(&http, "web").await;
            let got = shares.get("v2").copied().unwrap_or(0);
            assert!(got.abs_diff(100 * v2 / (v1 + v2)) <= 2, "{door}, {v1}:{v2}: {shares:?}");
        }
    }
    let shifted = service(&mesh, "web").unwrap();
    assert_eq!(shifted["sources"], json!(["mesh", "consul"]));
    // A version that comes now gets nothing until someone gives it something.
    let three = App::start("v3");
    consul.register("web", "web-3", &three, json!({"Tags": ["weir", "v3"]})).await;
    has_weights(&mesh, "web", "v1=1 v2=0 v3=0").await;
    // Back to when nobody had asked for anything.
    mesh.weir(&["rollback", "web", "--to", "1", "--wait"]).ok();
    has_weights(&mesh, "web", "v1=1 v2=1 v3=1").await;
    assert_eq!(service(&mesh, "web").unwrap()["sources"], json!(["consul"]));
}

#[tokio::test]
async fn checks_decide_who_gets_requests() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let (one, two) = (App::start("one"), App::start("two"));
    consul.register("web", "web-1", &one, json!({})).await;
    consul.register("web", "web-2", &two, json!({})).await;
    let mesh = mesh(&consul.url, "", &[]);
    route(&mesh, "web");
    let healthy = |wanted: u64| {
        let mesh = &mesh;
        async move {
            eventually(&format!("{wanted} are healthy"), || async {
                let found = service(mesh, "web")?;
                (found["healthyInstances"].as_u64().unwrap_or(0) == wanted).then_some(())
            })
            .await;
            settled(mesh).await;
        }
    };
    let only = |name: &'static str| {
        let mesh = &mesh;
        async move {
            for (door, http) in doors(mesh, "web") {
                let shares = shares(&http, "web").await;
                assert_eq!(shares, [(name.to_owned(), 100)].into(), "{door}");
            }
        }
    };
    healthy(2).await;
    consul.health("web-1", "critical").await;
    healthy(1).await;
    only("two").await;
    let listed = mesh.weir(&["get", "instances"]).ok();
    assert!(listed.lines().any(|l| l.contains("/web-1 ") && l.contains("unhealthy")), "{listed}");
    consul.health("web-1", "warning").await;
    healthy(2).await;
    consul.maintenance("web-2", true).await;
    healthy(1).await;
    only("one").await;
    consul.maintenance("web-2", false).await;
    healthy(2).await;
}

#[tokio::test]
async fn what_consul_lists_no_more_goes_after_its_grace() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let (one, two) = (App::start("one"), App::start("two"));
    consul.register("web", "web-1", &one, json!({})).await;
    consul.register("web", "web-2", &two, json!({})).await;
    consul.register("other", "other-1", &one, json!({})).await;
    let graces = ["--consul-leave-grace", "1s", "--consul-empty-grace", "2s"];
    let mesh = mesh(&consul.url, "", &graces);
    route(&mesh, "web");
    route(&mesh, "other");
    let instances = |wanted: u64| {
        let mesh = &mesh;
        async move {
            eventually(&format!("web has {wanted} instances"), || async {
                let found = service(mesh, "web")?;
                (found["instances"].as_u64().unwrap_or(0) == wanted).then_some(())
            })
            .await;
            settled(mesh).await;
        }
    };
    instances(2).await;
    consul.deregister("web-1").await;
    instances(1).await;
    for (_, http) in doors(&mesh, "web") {
        assert_eq!(shares(&http, "web").await, [("two".to_owned(), 100)].into());
    }
    consul.deregister("web-2").await;
    instances(0).await;
    // The route is still there, and nothing else is held back by it.
    let reply = mesh.http().get("/web").send().await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    let gone = service(&mesh, "web").unwrap();
    assert_eq!(gone["sources"].as_array().map_or(0, Vec::len), 0, "{gone}");
    mesh.weir(&["shift", "caller", "v1=7", "--wait"]).ok();
    assert_eq!(shares(&mesh.http(), "other").await.len(), 1);
    consul.register("web", "web-3", &one, json!({})).await;
    instances(1).await;
    assert_eq!(shares(&mesh.http(), "web").await, [("one".to_owned(), 100)].into());
}

#[tokio::test]
async fn a_service_of_the_mesh_file_gets_consuls_instances_too() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let (own, more, new) = (App::start("own"), App::start("more"), App::start("new"));
    let services = format!(
        "  - name: web\n    protocol: http1\n    versions: [{{name: v1, addresses: [\"{}\"]}}]\n",
        own.address
    );
    consul.register("web", "web-1", &more, json!({"Tags": ["weir", "v1"]})).await;
    consul.register("web", "web-2", &new, json!({"Tags": ["weir", "v2"]})).await;
    // The same process once more: it is known.
    consul.register("web", "web-3", &own, json!({"Tags": ["weir", "v1"]})).await;
    let mesh = mesh(&consul.url, &services, &[]);
    let found = has_weights(&mesh, "web", "v1=100 v2=0").await;
    assert_eq!((&found["sources"], &found["instances"]), (&json!(["mesh", "consul"]), &json!(3)));
    route(&mesh, "web");
    for (door, http) in doors(&mesh, "web") {
        let shares = shares(&http, "web").await;
        let names: Vec<_> = shares.keys().map(String::as_str).collect();
        assert_eq!(names, ["more", "own"], "{door}");
    }
    mesh.weir(&["shift", "web", "v2=100", "--wait"]).ok();
    for (door, http) in doors(&mesh, "web") {
        assert_eq!(shares(&http, "web").await, [("new".to_owned(), 100)].into(), "{door}");
    }
}

#[tokio::test]
async fn a_mesh_file_names_what_only_consul_knows_where_it_runs() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let (one, two) = (App::start("one"), App::start("two"));
    let services = "  - name: web\n    protocol: http1\n    versions:\n      - {name: v1, weight: 3, \
                    discovered: true}\n      - {name: v2, weight: 1, discovered: true}\nroutes:\n  - \
                    apiVersion: gateway.networking.k8s.io/v1\n    kind: HTTPRoute\n    metadata: \
                    {name: web}\n    spec:\n      parentRefs: [{name: gateway}]\n      rules: \
                    [{backendRefs: [{name: web, port: 80}]}]\n";
    let mesh = mesh(&consul.url, services, &[]);
    // They may come later than the mesh.
    assert_eq!(mesh.http().get("/web").send().await.status, 503);
    consul.register("web", "web-1", &one, json!({"Tags": ["weir", "v1"]})).await;
    consul.register("web", "web-2", &two, json!({"Tags": ["weir", "v2"]})).await;
    eventually("both are there", || async {
        (service(&mesh, "web")?["healthyInstances"] == 2).then_some(())
    })
    .await;
    settled(&mesh).await;
    let shares = shares(&mesh.http(), "web").await;
    assert!(shares["one"].abs_diff(75) <= 2, "{shares:?}");
}

#[tokio::test]
async fn what_cannot_be_taken_in_is_told() {
    if !installed("consul") {
        return;
    }
    let consul = Agent::dev(&[]).await;
    let app = App::start("app");
    consul.register("web", "named", &app, json!({"Address": "db.internal"})).await;
    consul.register("web", "good", &app, json!({})).await;
    consul.register("My_Service", "odd", &app, json!({})).await;
    consul.register("private", "private", &app, json!({"Tags": ["primary"]})).await;
    let mesh = mesh(&consul.url, "", &[]);
    let status = status_says(&mesh, "in touch").await;
    assert!(status.contains("1 services, 1 instances"), "{status}");
    assert!(status.contains("left out: web: named on "), "{status}");
    assert!(status.contains("\"db.internal\" is no IP address"), "{status}");
    assert!(status.contains("left out: service \"My_Service\": its name "), "{status}");
    assert!(service(&mesh, "private").is_none());
    let metrics = mesh.api().call(Method::GET, "/metrics").send().await.text();
    assert!(metrics.contains("weir_control_consul_up 1"), "{metrics}");
    assert!(metrics.contains("weir_control_consul_skipped 2"), "{metrics}");
}
