//! A router that has too much to do refuses, and says so.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tempfile::TempDir;
use weir_tests::{Http, Mesh, eventually, weir};

use crate::server::{Manner, Server};

/// A mesh of one service whose routers have this in their environment.
fn mesh(environment: &str, server: &Server) -> (Mesh, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("mesh.yaml");
    let text = format!(
        "apiVersion: weir.dev/v1alpha1\nkind: Mesh\nservices:\n  - name: web\n    \
         protocol: http1\n    versions: [{{name: v1, addresses: [\"{}\"]}}]\nroutes:\n  \
         - apiVersion: gateway.networking.k8s.io/v1\n    kind: HTTPRoute\n    \
         metadata: {{name: all}}\n    spec:\n      parentRefs: [{{name: gateway}}]\n      \
         rules: [{{backendRefs: [{{name: web, port: 80}}]}}]\n",
        server.address
    );
    fs::write(&file, text).unwrap();
    let program = directory.path().join("weir");
    fs::write(&program, format!("#!/bin/sh\n{environment} exec {} \"$@\"\n", weir!())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap().to_owned();
    (Mesh::start(program, &["--file", file.to_str().unwrap()]), directory)
}

#[tokio::test]
async fn without_memory_requests_are_refused() {
    let server = Server::start("web-1", false);
    let (mesh, _directory) = mesh("WEIR_MEMORY_LIMIT=1Mi", &server);
    let reply = eventually("it is refused", || async {
        let reply = mesh.http().get("/").send().await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert!(reply.text().contains("this router is overloaded: its memory"), "{}", reply.text());
    assert!(!reply.header("retry-after").is_empty());
    let metrics = mesh.admin("gateway").get("/metrics").send().await.text();
    assert!(metrics.contains("weir_router_shedding 1"), "{metrics}");
    assert!(metrics.contains("flag=\"OM\""), "{metrics}");
}

#[tokio::test]
async fn more_requests_than_may_be_are_refused() {
    let server = Server::start("web-1", false);
    let (mesh, _directory) = mesh("WEIR_MAX_REQUESTS=2", &server);
    server.state.set(Manner::Slow(Duration::from_secs(1)));
    let asking: Vec<_> = (0..12)
        .map(|_| {
            let http = Http::new(&mesh.gateway);
            tokio::spawn(async move { http.get("/").send().await })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in asking {
        statuses.push(one.await.unwrap().status.as_u16());
    }
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    server.state.set(Manner::Good);
    assert_eq!(mesh.http().get("/").send().await.status, 200);
}
