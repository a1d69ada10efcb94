//! A rollout's end through a real control plane, over a webhook, into real git.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;

/// Ended with the test.
struct Receiver {
    child: Child,
    url: String,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Receiver {
    fn start(clone: &Path, secret: &Path) -> Self {
        let mut child = Command::new(weir!())
            .args(["gitops", "receive", "--push", "--file", "mesh.yaml", "--repository"])
            .arg(clone)
            .arg("--secret-file")
            .arg(secret)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let url = first.strip_prefix("receives at ").unwrap().to_owned();
        Self { child, url }
    }
}

fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(directory).args(["-c", "user.name=t", "-c", "user.email=t@localhost"]);
    weir_tests::Output::of(command.args(args)).ok()
}

fn status(mesh: &Mesh, name: &str) -> Value {
    mesh.weir(&["rollout", "status", name, "-o", "json"]).json()["status"].clone()
}

/// Waits until a rollout's write-back begins with this.
fn written_back(mesh: &Mesh, name: &str, wanted: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status(mesh, name);
        if status["writeBack"].as_str().unwrap_or_default().starts_with(wanted) {
            return status;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn rollout(name: &str, canary: &str, url: &str) -> String {
    json!({
        "apiVersion": "weir.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": name},
        "spec": {
            "service": "web",
            "stable": if canary == "v2" { "v1" } else { "v2" },
            "canary": canary,
            "steps": [{"setWeight": 100}],
            "writeBack": {"webhook": {"url": url}},
        },
    })
    .to_string()
}

#[test]
fn a_rollout_ends_as_a_commit() {
    let root = tempfile::tempdir().unwrap();
    let text = SMALL.replace("weight: 90", "weight: 100").replace("weight: 10,", "weight: 0,");
    let (bare, clone) = (root.path().join("bare"), root.path().join("clone"));
    git(root.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "bare"]);
    git(root.path(), &["clone", "--quiet", "bare", "clone"]);
    git(&clone, &["checkout", "--quiet", "-B", "main"]);
    fs::write(clone.join("mesh.yaml"), &text).unwrap();
    git(&clone, &["add", "mesh.yaml"]);
    git(&clone, &["commit", "--quiet", "-m", "the mesh"]);
    git(&clone, &["push", "--quiet", "-u", "origin", "main"]);
    let secret = root.path().join("secret");
    fs::write(&secret, "a secret of some length\n").unwrap();
    let receiver = Receiver::start(&clone, &secret);

    let file = clone.join("mesh.yaml");
    let mesh = Mesh::start_with(
        weir!(),
        &["--file", file.to_str().unwrap()],
        &[("WEIR_WRITE_BACK_SECRET_FILE", secret.to_str().unwrap())],
    );
    let path = root.path().join("rollout.json");
    let apply = |text: &str| {
        fs::write(&path, text).unwrap();
        mesh.weir(&["apply", "-f", path.to_str().unwrap()]).ok();
    };
    apply(&rollout("web-v2", "v2", &receiver.url));
    let ended = written_back(&mesh, "web-v2", "done");
    assert_eq!(ended["phase"], json!("SUCCEEDED"));

    // Exactly the weights changed, in one commit, there and where it was pushed.
    let want = text.replace("weight: 100", "weight: 1").replace("weight: 0,", "weight: 100,");
    let want = want.replace("weight: 1,", "weight: 0,");
    assert_eq!(git(&bare, &["show", "main:mesh.yaml"]), want);
    let log = git(&bare, &["log", "--format=%an|%B", "main"]);
    assert!(log.starts_with("Weir|web: Succeeded of web-v2\n\nv2 has everything\n"), "{log}");
    assert!(log.contains("\nWeir-Rollout: web-v2\nWeir-Revision: "), "{log}");
    assert_eq!(git(&bare, &["rev-list", "--count", "main"]).trim(), "2");
    assert_eq!(mesh.weir(&["diff", "-f", file.to_str().unwrap()]).ok(), "");

    // Not signed, or signed otherwise: refused, and nothing is written.
    let other = root.path().join("other");
    fs::write(&other, "another secret, as long\n").unwrap();
    let strict = Receiver::start(&clone, &other);
    apply(&rollout("web-v1", "v1", &strict.url));
    let pending = written_back(&mesh, "web-v1", "pending: try ");
    assert!(pending["writeBack"].as_str().unwrap().contains("401"), "{pending}");
    assert_eq!(git(&bare, &["rev-list", "--count", "main"]).trim(), "2");
    let metrics = mesh.weir(&["rollout", "status", "web-v1"]).ok();
    assert!(metrics.contains("written back: pending"), "{metrics}");
}
