//! One mesh for most tests.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use weir_tests::{Http, Mesh, free_port, installed, weir};

/// What an application of a mesh runs.
const SERVER: &str = include_str!("server.py");

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
gateway:
  listeners:
    - {name: plainly, port: {gateway-plainly}, protocol: TCP}
    - {name: outer, port: {gateway-outer}, protocol: TCP}
    - {name: secure, port: {gateway-secure}, protocol: TLS}
egress:
  hosts:
    - {host: localhost, ports: [{egress-open}, {egress-inner}]}
    - {host: 127.0.0.1, ports: [{egress-open}]}
services:
  - {name: echo, protocol: tcp, versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]}
  - {name: guarded, protocol: tcp, versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]}
  - {name: granted, protocol: tcp, versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]}
  - {name: told, protocol: tcp, versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]}
  - {name: count, protocol: tcp, versions: [{name: v1, command: [python3, server.py, count, $PORT]}]}
  - {name: first, protocol: tcp, versions: [{name: v1, command: [python3, server.py, first, $PORT]}]}
  - {name: greet, protocol: tcp, versions: [{name: v1, command: [python3, server.py, greet, $PORT]}]}
  - {name: reset, protocol: tcp, versions: [{name: v1, command: [python3, server.py, reset, $PORT]}]}
  - name: name
    protocol: tcp
    versions:
      - {name: v1, weight: 1, command: [python3, server.py, name, $PORT, v1]}
      - {name: v2, weight: 0, command: [python3, server.py, name, $PORT, v2]}
  - name: split
    protocol: tcp
    versions: [{name: v1, addresses: ["127.0.0.1:1"]}]
  - name: tls-a
    protocol: tcp
    versions: [{name: v1, command: [python3, server.py, tls, $PORT, "{directory}/a"]}]
  - name: tls-b
    protocol: tcp
    versions: [{name: v1, command: [python3, server.py, tls, $PORT, "{directory}/b"]}]
  - {name: elsewhere, protocol: tcp, versions: [{name: v1, addresses: ["127.0.0.1:{elsewhere}"]}]}
  - {name: walled, protocol: tcp, versions: [{name: v1, addresses: ["127.0.0.1:{elsewhere}"]}]}
  - {name: nobody, protocol: tcp, versions: [{name: v1, addresses: ["127.0.0.1:1"]}]}
  - {name: faked, protocol: tcp, versions: [{name: v1, addresses: ["127.0.0.1:1"]}]}
{redis}  - name: caller
    protocol: tcp
    versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]
    upstreams:
{upstreams}policies:
  - apiVersion: weir.dev/v1alpha1
    kind: AuthorizationPolicy
    metadata: {name: others}
    spec:
      targetRefs: [{kind: Service, name: guarded}, {kind: Service, name: walled}]
      action: Allow
      rules: [{from: {services: [told]}}]
  - apiVersion: weir.dev/v1alpha1
    kind: AuthorizationPolicy
    metadata: {name: caller}
    spec:
      targetRefs: [{kind: Service, name: granted}]
      action: Allow
      rules: [{from: {services: [caller]}}]
routes:
  - apiVersion: gateway.networking.k8s.io/v1
    kind: TCPRoute
    metadata: {name: split}
    spec:
      parentRefs: [{group: "", kind: Service, name: split}]
      rules: [{backendRefs: [{name: name-v1, weight: 50}, {name: name-v2, weight: 50}]}]
  - apiVersion: gateway.networking.k8s.io/v1
    kind: TCPRoute
    metadata: {name: plainly}
    spec:
      parentRefs: [{name: gateway, sectionName: plainly}]
      rules: [{backendRefs: [{name: name-v1, weight: 3}, {name: name-v2, weight: 1}]}]
  - apiVersion: gateway.networking.k8s.io/v1alpha2
    kind: TCPRoute
    metadata: {name: outer}
    spec:
      parentRefs: [{name: gateway, port: {gateway-outer}}]
      rules: [{backendRefs: [{name: name, port: 80}]}]
  - apiVersion: gateway.networking.k8s.io/v1
    kind: TLSRoute
    metadata: {name: a}
    spec:
      parentRefs: [{name: gateway, sectionName: secure}]
      hostnames: [a.example.com]
      rules: [{backendRefs: [{name: tls-a}]}]
  - apiVersion: gateway.networking.k8s.io/v1
    kind: TLSRoute
    metadata: {name: b}
    spec:
      parentRefs: [{name: gateway}]
      hostnames: ["*.example.com"]
      rules: [{backendRefs: [{name: tls-b}]}]
"#;

const UPSTREAMS: [&str; 14] = [
    "echo",
    "walled",
    "guarded",
    "granted",
    "told",
    "count",
    "first",
    "greet",
    "reset",
    "name",
    "split",
    "elsewhere",
    "nobody",
    "faked",
];

/// A mesh and what it was told.
pub struct World {
    pub mesh: Mesh,
    ports: BTreeMap<String, u16>,
    /// Where the caller's router listens for redis, if there is one.
    pub redis: Option<u16>,
    /// Of a process without a router: sends back what it gets.
    pub elsewhere: u16,
    /// Nobody's.
    pub free: u16,
    /// Of a process that is outside the mesh, and allowed.
    pub open: u16,
    /// The same, but its address is not listed.
    pub inner: u16,
    _directory: tempfile::TempDir,
}

impl World {
    /// Where the caller's router listens for a service.
    pub fn port(&self, service: &str) -> u16 {
        self.ports[service]
    }

    /// Of a listener of the gateway.
    pub fn gateway_port(&self, listener: &str) -> u16 {
        self.ports[&format!("gateway-{listener}")]
    }

    /// A client at the caller's outbound listener.
    pub fn outbound(&self, host: &str) -> Http {
        let outbound = self.mesh.process("caller-v1-1-router").outbound.unwrap();
        Http::new(&format!("http://{outbound}")).with_header("host", host)
    }
}

pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(start)
}

fn start() -> World {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("server.py"), SERVER).unwrap();
    for name in ["a", "b"] {
        certificate(path, name);
    }
    let elsewhere = echo();
    let (open, inner) = (http_server(), http_server());
    let has_redis = installed("redis-server");
    let redis = "  - name: redis\n    protocol: tcp\n    versions: [{name: v1, command: \
                 [redis-server, --port, $PORT, --bind, 127.0.0.1, --save, \"\"]}]\n";
    let mut ports: BTreeMap<String, u16> = BTreeMap::new();
    let mut upstreams = String::new();
    for service in UPSTREAMS.into_iter().chain(has_redis.then_some("redis")) {
        let port = fresh(&ports);
        upstreams.push_str(&format!("      - {{service: {service}, port: {port}}}\n"));
        ports.insert(service.to_owned(), port);
    }
    for listener in ["plainly", "outer", "secure"] {
        let port = fresh(&ports);
        ports.insert(format!("gateway-{listener}"), port);
    }
    let mut text = FILE.replace("{upstreams}", &upstreams);
    text = text.replace("{redis}", if has_redis { redis } else { "" });
    text = text.replace("{directory}", path.to_str().unwrap());
    text = text.replace("{elsewhere}", &elsewhere.to_string());
    text = text.replace("{egress-open}", &open.to_string());
    text = text.replace("{egress-inner}", &inner.to_string());
    for (name, port) in &ports {
        text = text.replace(&format!("{{{name}}}"), &port.to_string());
    }
    let file = path.join("mesh.yaml");
    fs::write(&file, text).unwrap();
    let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
    let redis = ports.get("redis").copied();
    let free = fresh(&ports);
    World { mesh, ports, redis, elsewhere, free, open, inner, _directory: directory }
}

fn fresh(ports: &BTreeMap<String, u16>) -> u16 {
    loop {
        let port = free_port();
        if !ports.values().any(|other| *other == port) {
            return port;
        }
    }
}

/// A key and a certificate for "server NAME".
pub fn certificate(directory: &std::path::Path, name: &str) {
    let at = |ending: &str| directory.join(format!("{name}.{ending}")).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", &format!("/CN=server {name}")])
        .args(["-keyout", &at("key"), "-out", &at("pem")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// What openssl says of something, with nothing on its standard input.
pub fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A process that is no part of the mesh: sends back what it gets.
fn echo() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut read, mut write) = (&stream, &stream);
                let _ = std::io::copy(&mut read, &mut write);
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

/// An HTTP/1.1 server outside the mesh: answers with the head that it got.
pub fn http_server() -> u16 {
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut reader = std::io::BufReader::new(&stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let length = head.len();
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}");
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// Whether a connection to a port is reset before a byte comes. A reset may be
/// there before the connection is ours.
pub async fn is_reset(port: u16) -> bool {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut stream) => stream.read(&mut [0]).await.is_err(),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Whether what is sent to a port comes back.
pub async fn is_echoed(port: u16) -> bool {
    use tokio::io::AsyncWriteExt as _;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut back = [0; 4];
    let said = stream.write_all(b"ping").await.is_ok();
    said && stream.read_exact(&mut back).await.is_ok() && &back == b"ping"
}

/// A connection to a port of this machine.
pub async fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// All that comes until the end.
#[track_caller]
pub fn read_all(mut stream: TcpStream) -> impl Future<Output = Vec<u8>> {
    let caller = std::panic::Location::caller();
    async move {
        let mut got = Vec::new();
        let reading = stream.read_to_end(&mut got);
        let read = tokio::time::timeout(weir_tests::DEADLINE, reading).await;
        read.unwrap_or_else(|_| panic!("{caller}: no end")).unwrap_or_else(|error| {
            panic!("{caller}: {error}");
        });
        got
    }
}

/// The sum of a router's series of a metric that have these labels.
pub async fn metric(router: &str, name: &str, labels: &str) -> f64 {
    let text = world().mesh.admin(router).get("/metrics").send().await.text();
    let lines = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')) && line.contains(labels)
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
