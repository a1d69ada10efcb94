//! A gateway, a sidecar, and the versions of a service.

use std::fs;
use std::future::Future;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::watch_request::Message as In;

use crate::plane::{DOMAIN, Plane};

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const GATEWAY: &str = "gateway";
pub const CALLER: &str = "caller-1";

/// Asks until there is an answer.
pub async fn eventually<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A router's process.
pub struct Router {
    process: Child,
    directory: PathBuf,
    args: Vec<String>,
    ready: Value,
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Router {
    async fn start(directory: &Path, id: &str, args: &[&str]) -> Self {
        let directory = directory.join(id);
        fs::create_dir(&directory).unwrap();
        let args = args.iter().map(ToString::to_string).collect::<Vec<_>>();
        let process = spawn(&directory, &args);
        let mut router = Self { process, directory, args, ready: Value::Null };
        router.wait().await;
        router
    }

    /// Without a word to anybody.
    pub async fn kill_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_file(self.directory.join("ready")).unwrap();
        self.process = spawn(&self.directory, &self.args);
        self.wait().await;
    }

    async fn wait(&mut self) {
        let file = self.directory.join("ready");
        let read = || async { serde_json::from_slice(&fs::read(&file).ok()?).ok() };
        self.ready = eventually("the router is ready", read).await;
    }

    /// The address of its listener of this name.
    pub fn at(&self, listener: &str) -> SocketAddr {
        self.ready[listener].as_str().unwrap().parse().unwrap()
    }

    /// A file that it keeps.
    pub fn state(&self, file: &str) -> PathBuf {
        self.directory.join("state").join(file)
    }

    /// The snapshot that it runs, as it says itself.
    pub fn config(&self) -> Value {
        let reply = Client::new(self.at("admin")).get("x", "/config", &[]);
        serde_json::from_str::<Value>(&reply.body).unwrap()["snapshot"].take()
    }
}

fn spawn(directory: &Path, args: &[String]) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_weir-router"))
        .args(args)
        .args(["--trust-domain", DOMAIN, "--ready-file"])
        .arg(directory.join("ready"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .env_clear()
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// What a version that hangs up has for a status.
pub const HANGS_UP: u16 = 0;

/// A version of the service: it answers its name and the status that it was told, or
/// reads requests and closes the connection.
pub struct App {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl App {
    pub fn start(name: &'static str, status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let kept = kept.clone();
                thread::spawn(move || serve(stream, name, status, &kept));
            }
        });
        Self { address, seen }
    }

    /// Requests that it got for paths that begin so.
    pub fn seen(&self, path: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|seen| seen.starts_with(path)).count()
    }
}

fn serve(stream: TcpStream, name: &str, status: u16, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (path, _) = head(&mut reader)?;
        let path = path.split(' ').nth(1)?.to_owned();
        seen.lock().unwrap().push(path);
        if status == HANGS_UP {
            return None;
        }
        let length = name.len();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{name}");
        reader.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// First line, and the length of the body.
fn head(reader: &mut BufReader<TcpStream>) -> Option<(String, usize)> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Some((first, length));
        }
        if first.is_empty() {
            line.clone_into(&mut first);
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
}

/// One connection, and so one worker.
pub struct Client(BufReader<TcpStream>);

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Client {
    pub fn new(to: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn get(&mut self, host: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let (first, length) = head(&mut self.0).expect("an answer");
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, body: String::from_utf8(body).unwrap() }
    }

    /// The version that answers.
    pub fn version(&mut self, host: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let reply = self.get(host, path, headers);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }
}

pub struct World {
    pub plane: Plane,
    pub gateway: Router,
    /// A sidecar of `caller`.
    pub caller: Router,
    pub v1: App,
    pub v2: App,
    _directory: tempfile::TempDir,
}

impl World {
    /// `status` is what v2 answers.
    pub async fn start(status: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let plane = Plane::start("127.0.0.1:0", path).await;
        // The first of these is nobody's.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let control = format!("{nobody},{}", plane.address);
        let (v1, v2) = (App::start("v1", 200), App::start("v2", status));
        let roots = path.join("ca.pem").display().to_string();
        let token = |service: &str| {
            let file = path.join(format!("token-{service}"));
            fs::write(&file, format!("default/{service}")).unwrap();
            file.display().to_string()
        };
        let (of_gateway, of_caller) = (token("gateway"), token("caller"));
        let all = |service: &'static str, id: &'static str, token| {
            let control = control.as_str();
            vec![
                "--service",
                service,
                "--instance-id",
                id,
                "--control",
                control,
                "--trust-bundle",
                &roots,
                "--join-token-file",
                token,
            ]
        };
        let mut args = all("gateway", GATEWAY, of_gateway.as_str());
        args.extend(["--role", "gateway"]);
        let gateway = Router::start(path, GATEWAY, &args).await;
        let app = v1.address.to_string();
        let mut args = all("caller", CALLER, of_caller.as_str());
        args.extend(["--app", &app, "--app-protocol", "http1"]);
        let caller = Router::start(path, CALLER, &args).await;
        let world = Self { plane, gateway, caller, v1, v2, _directory: directory };
        world.publish(1, |_| {}).await;
        world
    }

    /// Publishes the snapshot of a revision, changed.
    pub async fn publish(&self, revision: u32, change: impl FnOnce(&mut pb::Snapshot)) {
        let mut snapshot = self.snapshot();
        snapshot.revision = revision;
        change(&mut snapshot);
        snapshot.services.sort_by(|a, b| a.name.cmp(&b.name));
        self.plane.publish(snapshot, &[GATEWAY, CALLER]).await;
    }

    /// `web`, all of whose requests go to v1, and a route to it.
    fn snapshot(&self) -> pb::Snapshot {
        let version = |version: &str, weight| pb::VersionWeight {
            version: version.into(),
            weight,
            addresses: vec![],
        };
        let service = |name: &str, versions| pb::Service {
            name: name.into(),
            protocol: pb::Protocol::Http1.into(),
            versions,
            ..Default::default()
        };
        let route = pb::Route {
            name: "web".into(),
            kind: pb::route::Kind::HttpRoute.into(),
            parent_refs: vec![pb::ParentRef {
                kind: "Gateway".into(),
                name: "gateway".into(),
                ..Default::default()
            }],
            rules: vec![
                rule("tokens", "/tokens", ""),
                rule("named", "/named", "v1"),
                rule("", "/", ""),
            ],
            ..Default::default()
        };
        pb::Snapshot {
            services: vec![
                service("web", vec![version("v1", 1), version("v2", 0)]),
                service("caller", vec![version("v1", 1)]),
            ],
            routes: vec![route],
            instances: vec![
                instance("web-v1", "v1", self.v1.address),
                instance("web-v2", "v2", self.v2.address),
            ],
            ..Default::default()
        }
    }

    /// What a router has reported of a version, by revision: requests and failures.
    pub fn reported(&self, router: &str, version: &str) -> Vec<(u32, u64, u64)> {
        let mut sums: Vec<(u32, u64, u64)> = Vec::new();
        for edge in self.edges(router).iter().filter(|edge| edge.version == version) {
            match sums.iter_mut().find(|sum| sum.0 == edge.revision) {
                Some(sum) => {
                    sum.1 += edge.requests;
                    sum.2 += edge.failures;
                }
                None => sums.push((edge.revision, edge.requests, edge.failures)),
            }
        }
        sums.sort_unstable();
        sums
    }

    /// All edges that a router has reported.
    pub fn edges(&self, router: &str) -> Vec<pb::Edge> {
        let heard = self.plane.heard(router);
        let reports = heard.into_iter().filter_map(|said| match said {
            In::Report(report) => Some(report.edges),
            _ => None,
        });
        reports.flatten().collect()
    }
}

pub fn instance(id: &str, version: &str, address: SocketAddr) -> pb::Instance {
    pb::Instance {
        id: id.into(),
        service: "web".into(),
        version: version.into(),
        address: address.to_string(),
        healthy: true,
        plain: true,
        ..Default::default()
    }
}

fn rule(name: &str, path: &str, version: &str) -> pb::RouteRule {
    pb::RouteRule {
        name: name.into(),
        matches: vec![pb::RouteMatch {
            path_type: pb::route_match::PathType::PathPrefix.into(),
            path: path.into(),
            ..Default::default()
        }],
        backend_refs: vec![pb::BackendRef {
            service: "web".into(),
            version: version.into(),
            weight: 1,
            ..Default::default()
        }],
        ..Default::default()
    }
}
