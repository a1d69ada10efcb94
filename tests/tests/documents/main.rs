//! Documents on the command line, and what is told of them: apply, diff, delete,
//! get, explain, replay. One mesh serves all tests; those that change its routes
//! take turns.

mod apply;
mod explain;
mod replay;

// Of its servers, only those of HTTP/1.1 are needed here.
#[allow(dead_code)]
#[path = "../plain/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use server::{Manner, Server};
use tokio::sync::{Mutex, MutexGuard};
use weir_tests::{Http, Mesh, Output, weir};

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway: {showVersion: true}
services:
  - name: web
    protocol: http1
    versions:
      - {name: v1, weight: 90, addresses: [{web-1}]}
      - {name: v2, weight: 10, addresses: [{web-2}]}
  - name: shop
    protocol: http1
    sticky: {header: x-user}
    versions:
      - {name: v1, weight: 50, addresses: [{shop-1}]}
      - {name: v2, weight: 50, addresses: [{shop-2}]}
  - name: db
    protocol: tcp
    versions: [{name: v1, addresses: [{shop-1}]}]
  - name: caller
    protocol: grpc
    versions: [{name: v1, builtin: users}]
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: front}
    spec:
      parentRefs: [{name: gateway}]
      rules:
        - matches: [{path: {type: PathPrefix, value: /web}}]
          backendRefs: [{name: web, port: 80}]
        - matches: [{path: {type: PathPrefix, value: /shop}}]
          backendRefs: [{name: shop, port: 80}]
"#;

struct World {
    mesh: Mesh,
    directory: tempfile::TempDir,
    /// Kept: one that is dropped closes its port.
    _servers: BTreeMap<&'static str, Server>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let servers = BTreeMap::from([
            ("web-1", Server::start(Manner::Http1, "v1")),
            ("web-2", Server::start(Manner::Http1, "v2")),
            ("shop-1", Server::start(Manner::Http1, "v1")),
            ("shop-2", Server::start(Manner::Http1, "v2")),
        ]);
        let mut text = FILE.to_owned();
        for (name, server) in &servers {
            text = text.replace(&format!("{{{name}}}"), &format!("\"{}\"", server.address));
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mesh.yaml");
        fs::write(&file, text).unwrap();
        let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
        World { mesh, directory, _servers: servers }
    })
}

fn mesh() -> &'static Mesh {
    &world().mesh
}

/// For tests that change routes or policies.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// A file of this text.
fn file(name: &str, text: &str) -> PathBuf {
    let path = world().directory.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn weir(args: &[&str]) -> Output {
    mesh().weir(args)
}

/// Runs a command with this as its standard input.
fn weir_with_input(args: &[&str], input: &str) -> Output {
    let path = file("stdin", input);
    let mut command = Command::new(weir!());
    command.args(args).args(["--control", &mesh().control, "--token", &mesh().token]);
    command.stdin(Stdio::from(fs::File::open(path).unwrap()));
    Output::of(&mut command)
}

fn revision() -> u64 {
    let status = weir(&["status", "-o", "json"]).json();
    status["mesh"]["revision"].as_u64().unwrap_or_else(|| panic!("{status}"))
}

/// The outbound listener of a sidecar, asked for a service.
fn sidecar(service: &str) -> Http {
    let outbound = mesh().process("caller-v1-1-router").outbound.unwrap();
    Http::new(&format!("http://{outbound}")).with_header("host", service)
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap_or_else(|| panic!("{list}"));
    items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}
