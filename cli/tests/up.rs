//! `weir up` as a user meets it: a process with flags, files and signals.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// One service, one process: the smallest mesh that is one.
const MESH: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway: {showVersion: true}
services:
  - name: products
    protocol: grpc
    descriptorSet: builtin
    versions:
      - {name: v1, weight: 100, builtin: products}
      - {name: v2, weight: 0, builtin: products}
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: products}
    spec:
      parentRefs: [{name: gateway}]
      rules:
        - matches: [{path: {type: PathPrefix, value: /v1/products}}]
          backendRefs: [{name: products, port: 80}]
"#;

/// A directory that is the whole world of a `weir`: its home, its temporary
/// files, its mesh file.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        fs::create_dir(world.path("tmp")).unwrap();
        fs::write(world.path("mesh.yaml"), MESH).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(WEIR);
        command.args(arguments).current_dir(self.0.path());
        command.env("HOME", self.0.path()).env("TMPDIR", self.path("tmp"));
        command.env_remove("XDG_RUNTIME_DIR").env_remove("WEIR_CONTROL").env_remove("WEIR_TOKEN");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.weir(arguments).output().unwrap()
    }

    /// Starts a mesh and waits until it is ready.
    fn up(&self, arguments: &[&str]) -> Up {
        let log = fs::File::create(self.path("up.log")).unwrap();
        let all = ["up", "--file", "mesh.yaml", "--ready-file", "ready.json"];
        let child = self
            .weir(&[&all, arguments].concat())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut up = Up { child, ready: serde_json::Value::Null };
        let file = self.path("ready.json");
        wait("the mesh is ready", || {
            assert!(up.child.try_wait().unwrap().is_none(), "{}", self.log());
            file.exists()
        });
        up.ready = read(&file);
        up
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("up.log")).unwrap_or_default()
    }
}

struct Up {
    child: Child,
    ready: serde_json::Value,
}

impl Up {
    fn pids(&self) -> Vec<i32> {
        let processes = self.ready["processes"].as_array().unwrap();
        processes.iter().map(|one| i32::try_from(one["pid"].as_i64().unwrap()).unwrap()).collect()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn lives(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

#[track_caller]
fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(90), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn json(out: &Output) -> serde_json::Value {
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What the control API itself answers.
fn api(up: &Up, path: &str) -> serde_json::Value {
    let [url, token] = ["control", "token"].map(|key| up.ready[key].as_str().unwrap());
    let host = url.strip_prefix("http://").unwrap();
    let mut connection = TcpStream::connect(host).unwrap();
    // HTTP/1.0: no chunks, and the end of the answer is the end of the connection.
    let request =
        format!("GET {path} HTTP/1.0\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n");
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}

fn one_error(out: &Output) -> String {
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    String::from_utf8(out.stderr.clone()).unwrap().trim().to_owned()
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let world = World::new();
    let error = one_error(&world.run(&["up", "--file", "gone.yaml"]));
    assert!(error.contains("gone.yaml") && error.contains("weir init"), "{error}");

    fs::write(world.path("bad.yaml"), MESH.replace("weight: 100", "weight: -5")).unwrap();
    let error = one_error(&world.run(&["up", "--file", "bad.yaml"]));
    assert_eq!(error, "error: bad.yaml:9:28: services[0].versions[0].weight: -5 is below 0");

    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let error = one_error(&world.run(&["up", "--file", "mesh.yaml", "--gateway-port", &port]));
    assert!(error.contains(&format!("port {port} of --gateway-port is in use")), "{error}");
    assert!(!error.contains('\n'), "{error}");

    let error = one_error(&world.run(&["status"]));
    assert!(error.contains("weir up"), "{error}");
    let error = one_error(&world.run(&["status", "--control", "127.0.0.1:1", "--token", "t"]));
    assert!(error.contains("127.0.0.1:1") && error.contains("--control"), "{error}");
    let error = one_error(&world.run(&["--control", "127.0.0.1:1", "up"]));
    assert!(error.contains("asks no mesh"), "{error}");
}

#[test]
fn a_mesh_is_named_before_or_after_the_command() {
    let world = World::new();
    let asked = |before: &[&str], after: &[&str]| {
        let mut command = world.weir(&[before, &["status"], after].concat());
        // The last resort: it must not win over an option in either place.
        command.env("WEIR_CONTROL", "127.0.0.1:3").env("WEIR_TOKEN", "t");
        one_error(&command.output().unwrap())
    };
    let [before, after] = [["--control", "127.0.0.1:1"], ["--control", "127.0.0.1:2"]];
    assert!(asked(&[], &[]).contains("127.0.0.1:3"));
    assert!(asked(&before, &[]).contains("127.0.0.1:1"));
    assert!(asked(&[], &after).contains("127.0.0.1:2"));
    assert!(asked(&before, &after).contains("127.0.0.1:2"));
}

#[test]
fn init_writes_a_file_once() {
    let world = World::new();
    assert!(world.run(&["init", "new.yaml"]).status.success());
    let error = one_error(&world.run(&["init", "new.yaml"]));
    assert!(error.contains("--force"), "{error}");
    assert!(world.run(&["init", "new.yaml", "--force"]).status.success());

    let out = world.run(&["init", "-"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(out.stdout, fs::read(world.path("new.yaml")).unwrap());
    assert!(!world.path("-").exists());
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let world = World::new();
    let mut up = world.up(&[]);
    let pids = up.pids();
    // The control plane, the gateway, two applications with their routers.
    assert_eq!(pids.len(), 6, "{}", up.ready);
    assert!(pids.iter().all(|pid| lives(*pid)));

    // Other commands find it by themselves.
    let out = world.run(&["shift", "products", "v1=90", "v2=10", "--wait", "-o", "json"]);
    assert!(out.status.success(), "{out:?}");
    let change: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(change["converged"]["routers"], 3, "{change}");
    assert_eq!(change["converged"]["applied"], 3, "{change}");
    assert_eq!(json(&world.run(&["get", "edges", "-o", "json"])), serde_json::json!({"edges": []}));
    assert_eq!(json(&world.run(&["get", "services", "-o", "json"])), api(&up, "/v1/services"));
    // Routes are printed as the documents that they were.
    let routes = json(&world.run(&["get", "routes", "-o", "json"]));
    assert_eq!(routes["items"][0]["metadata"]["name"], "products", "{routes}");
    let status = json(&world.run(&["status", "-o", "json"]));
    assert_eq!(status["mesh"]["trustDomain"], "weir.local", "{status}");
    assert_eq!(status["mesh"]["revision"], change["revision"], "{status}");
    for router in status["routers"].as_array().unwrap() {
        assert_eq!((&router["live"], &router["refused"]), (&true.into(), &"".into()), "{status}");
    }
    for command in ["status", "history", "traces"] {
        assert!(world.run(&[command]).status.success(), "{command}");
    }
    for what in ["services", "routes", "instances", "routers", "edges"] {
        assert!(world.run(&["get", what]).status.success(), "{what}");
        assert!(world.run(&["get", what, "-o", "json"]).status.success(), "{what}");
    }
    let error = one_error(&world.run(&["shift", "products", "v9=1"]));
    assert!(error.contains("v9"), "{error}");
    assert!(world.run(&["rollback", "products", "--wait"]).status.success());

    up.signal(Signal::INT);
    let status = up.child.wait().unwrap();
    assert!(status.success(), "{}", world.log());
    assert!(!pids.iter().any(|pid| lives(*pid)), "{}", world.log());
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path(".weir/meshes")).unwrap().count(), 0);
}

#[test]
fn children_die_with_a_killed_parent() {
    let world = World::new();
    let mut up = world.up(&[]);
    let pids = up.pids();
    up.signal(Signal::KILL);
    up.child.wait().unwrap();
    wait("all children are gone", || !pids.iter().any(|pid| lives(*pid)));
    // Nobody could remove its directory then; the next command does.
    let _ = world.run(&["status"]);
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0);
}

#[test]
fn a_child_that_dies_is_started_again_on_the_same_ports() {
    let world = World::new();
    let up = world.up(&["--data", "data"]);
    let error = one_error(&world.run(&["up", "--file", "mesh.yaml", "--data", "data"]));
    assert!(error.contains("in use by another `weir up`"), "{error}");
    let find = |ready: &serde_json::Value, name: &str| {
        let processes = ready["processes"].as_array().unwrap();
        processes.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    for name in ["products-v1-1-router", "products-v1-1", "control-plane"] {
        let before = find(&read(&world.path("ready.json")), name);
        let pid = i32::try_from(before["pid"].as_i64().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        wait("it runs again", || {
            let now = find(&read(&world.path("ready.json")), name);
            now["pid"].is_number() && now["pid"] != before["pid"]
        });
        let now = find(&read(&world.path("ready.json")), name);
        for key in ["inbound", "outbound", "admin"] {
            assert_eq!(now[key], before[key], "{name} {key}");
        }
    }
    wait("the control API answers again", || world.run(&["status"]).status.success());
    drop(up);
}
