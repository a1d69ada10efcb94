//! `weir rollout` while the control plane comes and goes.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const DEADLINE: Duration = Duration::from_secs(60);

const MESH: &str = "\
apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  - name: products
    protocol: http1
    versions:
      - {name: v1, weight: 100, addresses: ['127.0.0.1:1']}
      - {name: v2, weight: 0, addresses: ['127.0.0.1:2']}
";

fn weir() -> Command {
    let mut command = Command::new(WEIR);
    for name in ["CONTROL", "TOKEN", "CA", "CERT", "KEY"] {
        command.env_remove(format!("WEIR_{name}"));
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct ControlPlane {
    directory: tempfile::TempDir,
    child: Child,
    api: String,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill();
    }
}

impl ControlPlane {
    /// With a service, and a rollout of it that waits for somebody.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (child, api) = serve(&directory, "127.0.0.1:0");
        let plane = Self { directory, child, api };
        let file = plane.file("mesh.yaml");
        std::fs::write(&file, MESH).unwrap();
        plane.ok(&["apply", "-f", file.to_str().unwrap()]);
        plane.ok(&["rollout", "start", "products", "--to", "v2", "--pause", "manual"]);
        plane
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Where it was before.
    fn start_again(&mut self) {
        self.child = serve(&self.directory, &self.api).0;
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let token = std::fs::read_to_string(self.file("data/token")).unwrap();
        let mut command = weir();
        command.args(["--control", &format!("http://{}", self.api)]).args(arguments);
        command.env("WEIR_TOKEN", token.trim());
        command
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let out = self.command(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// A process that watches, and has seen the rollout.
    fn watch(&self) -> Watch {
        let mut command = self.command(&["rollout", "watch", "products-v2"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.contains("Progressing") || line.contains("Paused"), "{line}");
        Watch { child, lines }
    }
}

#[expect(clippy::zombie_processes, reason = "who gets it waits for it; a test that panics ends")]
fn serve(directory: &tempfile::TempDir, listen: &str) -> (Child, String) {
    let file = |name: &str| directory.path().join(name);
    let ready = file("ready.json");
    let _ = std::fs::remove_file(&ready);
    let mut child = Command::new(WEIR)
        .args(["control-plane", "--api-listen", listen, "--mesh-listen", "127.0.0.1:0"])
        .arg("--data")
        .arg(file("data"))
        .arg("--ready-file")
        .arg(&ready)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(ready) = std::fs::read(&ready)
            && let Ok(ready) = serde_json::from_slice::<Value>(&ready)
        {
            return (child, ready["api"].as_str().unwrap().to_owned());
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the control plane did not start");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn end(mut self) -> Output {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        self.child.wait_with_output().unwrap()
    }
}

#[test]
fn who_watches_outlives_a_restart_and_says_when_the_end_is_not_known() {
    let mut plane = ControlPlane::start();
    let watch = plane.watch();
    plane.kill();
    plane.start_again();
    plane.ok(&["rollout", "abort", "products-v2"]);
    let out = watch.end();
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{error}");
    assert!(error.contains("products-v2: Aborted"), "{error}");

    plane.ok(&["rollout", "delete", "products-v2"]);
    plane.ok(&["rollout", "start", "products", "--to", "v2", "--pause", "manual"]);
    let watch = plane.watch();
    plane.kill();
    let out = watch.end();
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{error}");
    assert!(error.contains("how products-v2 ends is not known"), "{error}");
}

#[test]
fn each_command_of_a_rollout_has_a_key() {
    let plane = ControlPlane::start();
    for verb in ["pause", "resume", "promote", "abort", "delete"] {
        plane.ok(&["rollout", verb, "products-v2"]);
    }
    let history = plane.ok(&["history", "--object", "rollout/products-v2", "-o", "json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let entries = history["entries"].as_array().unwrap();
    let keys: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry["idempotencyKey"].as_str())
        .filter(|key| key.starts_with("weir-"))
        .collect();
    assert!(keys.len() >= 6, "{history:#}");
}

#[test]
fn a_certificate_of_the_environment_is_for_https_alone() {
    let plane = ControlPlane::start();
    let out = plane
        .command(&["status"])
        .env("WEIR_CERT", "somebody.pem")
        .env("WEIR_KEY", "somebody.key")
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", text(&out.stderr));
    let out = plane.command(&["status", "--cert", "me.pem", "--key", "me.key"]).output().unwrap();
    assert!(text(&out.stderr).contains("a certificate is shown by https alone"));
}
