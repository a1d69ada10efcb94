//! A mesh that looks for services in Consul, and what tests ask of it.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use weir_tests::{Http, Mesh, eventually, weir};

/// A gateway, and a service with a router, whose outbound listener is used.
const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway: {showVersion: true}
services:
  - name: caller
    protocol: grpc
    versions: [{name: v1, builtin: users}]
"#;

/// A mesh with these services more in its file.
pub fn mesh(url: &str, services: &str, args: &[&str]) -> Mesh {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    fs::write(&file, format!("{FILE}{services}")).unwrap();
    let own = ["--file", file.to_str().unwrap(), "--consul", url];
    Mesh::start(weir!(), &[&own, args].concat())
}

/// Routes what is below `/NAME` to a service.
pub fn route(mesh: &Mesh, service: &str) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("route.yaml");
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {service}}}\n\
         spec:\n  parentRefs: [{{name: gateway}}]\n  rules:\n    - matches: [{{path: {{type: \
         PathPrefix, value: /{service}}}}}]\n      backendRefs: [{{name: {service}, port: 80}}]\n"
    );
    fs::write(&file, text).unwrap();
    mesh.weir(&["apply", "-f", file.to_str().unwrap(), "--wait"]).ok();
}

/// The gateway and a sidecar's outbound listener.
pub fn doors(mesh: &Mesh, service: &str) -> [(&'static str, Http); 2] {
    let outbound = mesh.process("caller-v1-1-router").outbound.unwrap();
    let sidecar = Http::new(&format!("http://{outbound}")).with_header("host", service);
    [("gateway", mesh.http()), ("sidecar", sidecar)]
}

/// How many of a hundred requests each application answers.
pub async fn shares(http: &Http, service: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for _ in 0..100 {
        let reply = http.get(&format!("/{service}")).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        *found.entry(reply.text()).or_default() += 1;
    }
    found
}

/// What `weir get services` has of a service; none: it is not there.
pub fn service(mesh: &Mesh, name: &str) -> Option<Value> {
    let all = mesh.weir(&["get", "services", "-o", "json"]).json();
    all["services"].as_array()?.iter().find(|s| s["service"]["name"] == name).cloned()
}

/// Versions and their weights: `v1=1 v2=1`.
pub fn weights(service: &Value) -> String {
    let versions = service["service"]["versions"].as_array().unwrap().iter();
    let words = versions.map(|version| {
        let weight = version["weight"].as_i64().unwrap_or(0);
        format!("{}={weight}", version["version"].as_str().unwrap())
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Waits until a service has these weights.
#[track_caller]
pub fn has_weights(mesh: &Mesh, name: &str, wanted: &str) -> impl Future<Output = Value> {
    let what = format!("{name} has {wanted}");
    let (mesh, name, wanted) = (mesh, name.to_owned(), wanted.to_owned());
    async move {
        eventually(&what, || async {
            service(mesh, &name).filter(|service| weights(service) == wanted)
        })
        .await
    }
}

/// Waits until the first line of `weir status` about Consul has these words.
pub async fn status_says(mesh: &Mesh, words: &str) -> String {
    eventually(&format!("`weir status` says {words:?}"), || async {
        let status = mesh.weir(&["status"]).ok();
        status.contains(words).then_some(status)
    })
    .await
}

/// Waits until all routers use the newest snapshot.
pub async fn settled(mesh: &Mesh) {
    eventually("all routers have applied", || async {
        let routers = mesh.api().get("/v1/routers").ok().await;
        let routers = routers["routers"].as_array()?.clone();
        let lags = routers.iter().any(|r| r["lag"].as_str().is_some_and(|lag| lag != "0"));
        (!lags).then_some(())
    })
    .await;
}
