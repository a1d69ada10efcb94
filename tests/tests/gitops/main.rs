//! Configuration that is kept in files and in git: export, weights that somebody manages,
//! and what a rollout writes back.

mod receive;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_tests::{Mesh, weir};

/// Nothing runs: addresses that nobody listens at.
const SMALL: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  # The front.
  - name: web
    protocol: http1
    versions:
      - {name: v1, weight: 90, addresses: ["127.0.0.1:9"]}   # stable
      - {name: v2, weight: 10, addresses: ["127.0.0.2:9"]}
"#;

const EXAMPLE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/src/example.yaml"));

/// Beside the example mesh.
const MORE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: RateLimitPolicy
metadata: {name: catalogue}
spec:
  targetRefs: [{kind: Service, name: products}]
  rules: [{name: all, key: [sourceIP], limit: {requests: 100, per: 1m}}]
---
apiVersion: weir.dev/v1alpha1
kind: Rollout
metadata: {name: products-v2}
spec:
  service: products
  canary: v2
  steps: [{pause: {}}]
"#;

struct World {
    mesh: Mesh,
    directory: tempfile::TempDir,
}

impl World {
    fn start(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mesh.yaml");
        fs::write(&path, text).unwrap();
        let mesh = Mesh::start(weir!(), &["--file", path.to_str().unwrap()]);
        Self { mesh, directory }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mesh.yaml")
    }

    fn apply(&self, path: &Path, more: &[&str]) -> Value {
        let args = ["apply", "-o", "json", "-f", path.to_str().unwrap()];
        self.mesh.weir(&[&args[..], more].concat()).json()
    }

    fn export(&self) -> String {
        let text = self.mesh.weir(&["export"]).ok();
        let (revision, documents) = text.split_once('\n').unwrap();
        assert!(revision.starts_with("# Revision "), "{text}");
        documents.to_owned()
    }
}

#[test]
fn an_export_applied_elsewhere_is_the_same_mesh() {
    let (here, there) = (World::start(SMALL), World::start(SMALL));
    let text = format!(
        "{}---\n{MORE}",
        EXAMPLE.replace("protocol: grpc\n", "protocol: grpc\n    managedBy: flux\n")
    );
    here.apply(&here.file("example.yaml", &text), &["--prune"]);
    let text = here.export();
    assert!(text.contains("managedBy: flux"), "{text}");
    assert!(!text.contains("base64"), "{text}");
    // Here it changes nothing,
    let same = here.apply(&here.file("export.yaml", &text), &["--prune"]);
    assert_eq!(same["unchanged"], json!(true), "{same}");
    // and there it makes the same; by JSON, too.
    there.apply(&there.file("export.yaml", &text), &["--prune"]);
    assert_eq!(there.export(), text);
    let list = here.mesh.weir(&["export", "-o", "json"]).ok();
    let same = there.apply(&there.file("export.json", &list), &["--prune"]);
    assert_eq!(same["unchanged"], json!(true), "{same}");
    // One service comes with what is attached to it.
    let path = here.directory.path().join("products.json");
    here.mesh.weir(&["export", "products", "-o", "json", "--to", path.to_str().unwrap()]).ok();
    let list: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let kinds: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|d| d["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["Mesh", "HTTPRoute", "GRPCRoute", "RateLimitPolicy", "Rollout"], "{list}");
    assert_eq!(list["items"][0]["services"].as_array().unwrap().len(), 1);
}

#[test]
fn shifted_weights_go_back_into_the_file() {
    let world = World::start(SMALL);
    let path = world.path();
    let file = path.to_str().unwrap();
    world.mesh.weir(&["shift", "web", "v1=25", "v2=75"]).ok();
    let diff = world.mesh.weir(&["export", "-f", file]).ok();
    assert!(diff.contains("-      - {name: v1, weight: 90, addresses"), "{diff}");
    assert!(diff.contains("+      - {name: v1, weight: 25, addresses"), "{diff}");
    assert_eq!(fs::read_to_string(&path).unwrap(), SMALL, "only --write writes");
    world.mesh.weir(&["export", "-f", file, "--write"]).ok();
    let want = SMALL.replace("weight: 90", "weight: 25").replace("weight: 10", "weight: 75");
    assert_eq!(fs::read_to_string(&path).unwrap(), want);
    assert_eq!(world.mesh.weir(&["diff", "-f", file]).ok(), "");
}

#[test]
fn managed_weights_are_left_and_told() {
    let world = World::start(SMALL);
    let text = SMALL.replace("protocol: http1", "protocol: http1\n    managedBy: flagger");
    let path = world.file("managed.yaml", &text);
    let file = path.to_str().unwrap();
    world.apply(&path, &[]);
    let refused = world.mesh.weir(&["shift", "web", "v1=1", "v2=1"]).failed();
    assert!(refused.contains("managed by flagger"), "{refused}");
    world.mesh.weir(&["shift", "web", "v1=1", "v2=1", "--force"]).ok();
    assert!(world.mesh.weir(&["get", "services"]).ok().contains("flagger"));
    // The file says 90 and 10, which is nobody's business now.
    let diff = world.mesh.weir(&["diff", "-f", file]);
    assert!(diff.stderr.contains("flagger manages the weights"), "{}", diff.stderr);
    assert_eq!(diff.ok(), "");
    let applied = world.apply(&path, &[]);
    assert_eq!(applied["unchanged"], json!(true), "{applied}");
    assert_eq!(applied["warnings"][0]["name"], json!("ManagedByOther"), "{applied}");
}
