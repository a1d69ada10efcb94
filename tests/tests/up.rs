//! `weir up` as a program: other people's services, what is refused, and what is
//! left behind (nothing).

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::process::{self, Signal};
use weir_tests::{Http, Mesh, Output, free_port, weir};

fn up(args: &[&str]) -> Output {
    Output::of(Command::new(weir!()).arg("up").args(args).stdin(Stdio::null()))
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const FOREIGN: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway: {showVersion: true}
services:
  - name: web
    protocol: http1
    versions:
      - name: v1
        weight: 3
        workingDirectory: one
        command: [python3, -m, http.server, $PORT, --bind, 127.0.0.1]
      - name: v2
        weight: 1
        workingDirectory: two
        command: [python3, -m, http.server, $PORT, --bind, 127.0.0.1]
  - name: caller
    protocol: http1
    versions:
      - name: v1
        command: [sh, -c, 'echo "$WEIR_OUTBOUND" >outbound; exec python3 -m http.server "$PORT" --bind 127.0.0.1']
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: HTTPRoute
    metadata: {name: web}
    spec:
      parentRefs: [{name: gateway}]
      hostnames: [web.example.com]
      rules:
        - matches: [{path: {type: PathPrefix, value: /files}}]
          backendRefs: [{name: web, port: 80}]
"#;

#[tokio::test]
async fn programs_that_no_one_here_wrote_run_behind_routers() {
    let directory = tempfile::tempdir().unwrap();
    for version in ["one", "two"] {
        let files = directory.path().join(version).join("files");
        fs::create_dir_all(&files).unwrap();
        fs::write(files.join("name.txt"), version).unwrap();
        fs::write(files.join("large.bin"), vec![b'x'; 8 << 20]).unwrap();
    }
    let file = write(directory.path(), "mesh.yaml", FOREIGN);
    let mesh = Mesh::start(weir!(), &["--file", &file]);

    // From outside, by route.
    let http = mesh.http();
    let mut versions = Vec::new();
    for _ in 0..40 {
        let reply = http.get("/files/name.txt").header("host", "web.example.com").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let served = if reply.text() == "one" { "v1" } else { "v2" };
        assert_eq!(reply.header("x-weir-version"), served);
        versions.push(served);
    }
    assert!(versions.iter().filter(|v| **v == "v2").count().abs_diff(10) <= 1, "{versions:?}");
    assert_eq!(http.get("/files/name.txt").send().await.status, 404, "another host");
    let elsewhere = http.get("/other").header("host", "web.example.com").send().await;
    assert_eq!(elsewhere.status, 404, "no route");

    // From another service, through its router's outbound listener.
    let outbound = mesh.process("caller-v1-1-router").outbound.unwrap();
    let told = fs::read_to_string(directory.path().join("outbound")).unwrap();
    assert_eq!(told.trim(), format!("http://{outbound}"));
    for client in [Http::new, Http::http2] {
        let caller = client(&format!("http://{outbound}"));
        for host in ["web", "web.mesh", "WEB:80"] {
            let reply = caller.get("/files/large.bin").header("host", host).send().await;
            if reply.status == 404 && reply.text().contains("127.0.0.1") {
                // HTTP/2 has its authority from the URL.
                continue;
            }
            assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 8 << 20), "{host}");
        }
        let missing = caller.get("/nothing").header("host", "web").send().await;
        assert_eq!(missing.status, 404);
    }
}

#[test]
fn a_wrong_mesh_file_is_refused_whole_with_the_field_of_each_mistake() {
    let directory = tempfile::tempdir().unwrap();
    for version in ["one", "two"] {
        fs::create_dir(directory.path().join(version)).unwrap();
    }
    let cases = [
        ("weight: 3", "weight: -3", "services[0].versions[0].weight: -3 is below 0"),
        ("kind: Mesh", "kind: Mess", "kind"),
        ("protocol: http1", "protocol: http4", "services[0].protocol"),
        ("protocol: http1", "protocol: http1\n    colour: red", "services[0].colour"),
        ("name: web\n", "name: Web\n", "services[0].name"),
        (
            "workingDirectory: two",
            "workingDirectory: three",
            "services[0].versions[1].workingDirectory",
        ),
        ("[python3, -m", "[no-such-program, -m", "services[0].versions[0].command[0]"),
        ("name: v2", "name: v1", "services[0].versions"),
        ("name: caller", "name: web", "services[1].name"),
        (
            "{name: web, port: 80}",
            "{name: wbe, port: 80}",
            "routes[0].spec.rules[0].backendRefs[0].name",
        ),
        (
            "{name: web, port: 80}",
            "{name: web, port: 80, weight: -5}",
            "routes[0].spec.rules[0].backendRefs[0].weight: -5 is below 0",
        ),
        ("hostnames: [web", "hostname: [web", "routes[0]"),
        ("type: PathPrefix", "type: PathSuffix", "routes[0].spec.rules[0].matches[0].path.type"),
        ("kind: HTTPRoute", "kind: HttpRoute", "routes[0].kind"),
        ("services:", "services: [", ""),
    ];
    for (from, to, wanted) in cases {
        assert!(FOREIGN.contains(from), "{from}");
        let file = write(directory.path(), "wrong.yaml", &FOREIGN.replacen(from, to, 1));
        let error = up(&["--file", &file]).failed();
        assert!(error.contains(wanted), "{to}: wanted {wanted}: {error}");
        // FILE:LINE:COLUMN
        let place = error.split("wrong.yaml:").nth(1).unwrap_or_else(|| panic!("{to}: {error}"));
        assert!(place.starts_with(|c: char| c.is_ascii_digit()), "{to}: {error}");
    }
    let two = FOREIGN.replace("weight: 3", "weight: -3").replace("kind: HTTPRoute", "kind: X");
    let error = up(&["--file", &write(directory.path(), "wrong.yaml", &two)]).failed();
    assert!(error.contains("versions[0].weight") && error.contains("routes[0].kind"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named_in_one_line_with_the_way_out() {
    let missing = up(&["--file", "/nowhere/mesh.yaml"]).failed();
    assert!(missing.contains("/nowhere/mesh.yaml") && missing.contains("weir init"), "{missing}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for flag in ["--gateway-port", "--control-port"] {
        let error = up(&[flag, &port]).failed();
        assert!(error.contains(flag) && error.contains(&port), "{error}");
        assert_eq!(error.trim().lines().count(), 1, "{error}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "a file", "");
    let error = up(&["--data", &file]).failed();
    assert!(error.contains("a file"), "{error}");

    let mut alone = Command::new(weir!());
    let alone = Output::of(alone.arg("status").env("XDG_RUNTIME_DIR", directory.path()));
    assert!(alone.failed().contains("weir up"));
}

#[test]
fn a_program_that_does_not_stay_is_told_with_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let text = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
services:
  - name: web
    protocol: http1
    versions:
      - name: v1
        command: [sh, -c, "echo the cupboard is bare >&2; exit 3"]
"#;
    let file = write(directory.path(), "mesh.yaml", text);
    let error = up(&["--file", &file]).failed();
    assert!(error.contains("web-v1-1") && error.contains("the cupboard is bare"), "{error}");
}

/// Runs `weir up` and waits for its ready file, all inside one directory.
fn start(directory: &Path, args: &[&str]) -> (Child, Value) {
    let file = directory.join("ready.json");
    let (tmp, runtime) = (directory.join("tmp"), directory.join("runtime"));
    for one in [&tmp, &runtime] {
        fs::create_dir_all(one).unwrap();
    }
    let mut up = Command::new(weir!())
        .args(["up", "--gateway-port", &free_port().to_string()])
        .args(["--control-port", &free_port().to_string(), "--ready-file"])
        .arg(&file)
        .args(args)
        .envs([("TMPDIR", tmp), ("XDG_RUNTIME_DIR", runtime)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    loop {
        let ready = fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(ready) = ready {
            return (up, ready);
        }
        assert!(up.try_wait().unwrap().is_none(), "`weir up` ended");
        assert!(began.elapsed() < Duration::from_secs(120), "`weir up` is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A mesh with all its traces (files, announcements) inside one directory.
struct Alone {
    directory: tempfile::TempDir,
    up: Child,
    pids: Vec<u32>,
}

impl Alone {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (up, ready) = start(directory.path(), &[]);
        let processes = ready["processes"].as_array().unwrap();
        let pids: Vec<u32> = processes
            .iter()
            .map(|process| process["pid"].as_u64().unwrap().try_into().unwrap())
            .collect();
        assert_eq!(pids.len(), 22);
        Self { directory, up, pids }
    }

    fn files(&self, name: &str) -> Vec<String> {
        walk(&self.directory.path().join(name))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}

fn walk(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files.extend(walk(&entry.path()));
        } else {
            files.push(entry.path().display().to_string());
        }
    }
    files
}

#[test]
fn a_signal_ends_all_and_leaves_nothing() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut mesh = Alone::start();
        assert!(!mesh.files("tmp").is_empty(), "its state is in the temporary directory");
        process::send(mesh.up.id(), signal);
        let status = mesh.up.wait().unwrap();
        assert!(status.success(), "{signal:?}: {status}");
        process::all_gone(&mesh.pids, Duration::from_secs(1));
        assert_eq!(fs::read_dir(mesh.directory.path().join("tmp")).unwrap().count(), 0);
        assert_eq!(mesh.files("runtime"), [""; 0]);
        assert!(!mesh.directory.path().join("ready.json").exists());
    }
}

#[test]
fn no_child_outlives_a_killed_weir_up() {
    let mut mesh = Alone::start();
    mesh.up.kill().unwrap();
    mesh.up.wait().unwrap();
    process::all_gone(&mesh.pids, Duration::from_secs(5));
    // What it could not remove itself goes with the next command.
    let mut status = Command::new(weir!());
    status.arg("status").env("TMPDIR", mesh.directory.path().join("tmp"));
    status.env("XDG_RUNTIME_DIR", mesh.directory.path().join("runtime"));
    assert!(Output::of(&mut status).failed().contains("no mesh runs"));
    assert_eq!((mesh.files("tmp"), mesh.files("runtime")), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn the_file_that_init_writes_runs() {
    let directory = tempfile::tempdir().unwrap();
    let init = || {
        let mut command = Command::new(weir!());
        Output::of(command.arg("init").current_dir(directory.path()))
    };
    init().ok();
    let again = init().failed();
    assert!(again.contains("mesh.yaml") && again.contains("--force"), "{again}");
    let file = directory.path().join("mesh.yaml");
    let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
    let reply = mesh.http().get("/mesh.yaml").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("x-weir-version")), (200, "v1"));
    assert!(mesh.stop().success());
}

#[test]
fn state_in_a_named_directory_outlives_the_mesh() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let args = ["--data", data.to_str().unwrap(), "--no-access-log"];
    let weir = |args: &[&str]| {
        let mut command = Command::new(weir!());
        command.args(args).args(["-o", "json"]);
        Output::of(command.env("XDG_RUNTIME_DIR", directory.path().join("runtime"))).json()
    };
    let stop = |mut up: Child| {
        process::send(up.id(), Signal::TERM);
        assert!(up.wait().unwrap().success());
    };
    let (up, _) = start(directory.path(), &args);
    weir(&["shift", "products", "v1=90", "v2=10", "--reason", "kept"]);
    stop(up);

    let (up, _) = start(directory.path(), &args);
    let history = weir(&["history", "products"]);
    let services = weir(&["get", "services"]);
    stop(up);
    assert_eq!(history["entries"][0]["reason"], "kept");
    let all = services["services"].as_array().unwrap().iter();
    let products = all.map(|s| &s["service"]).find(|s| s["name"] == "products").unwrap();
    assert_eq!(products["versions"][0]["weight"], 90, "{products}");
}
