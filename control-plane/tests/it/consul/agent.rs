//! A real Consul in memory, on free ports of loopback. Also part of the crate's own
//! tests, so it needs nothing but the standard library.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Runs a program until standard input ends, however the test ends.
const GUARDIAN: &str =
    r#""$@" >/dev/null 2>&1 </dev/null & p=$!; read -r l; kill -KILL "$p"; wait"#;
/// How long it has to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Consul. Dropping it ends it.
pub struct Agent {
    guardian: Child,
    stdin: Option<ChildStdin>,
    /// Shown with every request.
    token: String,
    pub port: u16,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("WEIR_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/weir"));
    let cached = cache.or_else(home).map(|cache| cache.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = cached.into_iter().chain(std::env::split_paths(&path));
    let found = dirs.map(|dir| dir.join("consul")).find(|path| path.exists());
    if found.is_none() {
        assert!(std::env::var("WEIR_TESTS").as_deref() != Ok("all"), "no consul: install it");
        eprintln!("skipped: no consul");
    }
    found
}

impl Agent {
    /// Starts one; none: it is not installed. Blocks.
    pub fn start() -> Option<Self> {
        Self::start_with("", &[])
    }

    /// One with ACLs that deny what no token allows.
    pub fn with_acls(management: &str) -> Option<Self> {
        let acl = format!(
            "acl {{ enabled = true default_policy = \"deny\" tokens {{ initial_management = \
             \"{management}\" agent = \"{management}\" }} }}"
        );
        Self::start_with(management, &["-hcl", &acl])
    }

    fn start_with(token: &str, more: &[&str]) -> Option<Self> {
        let consul = program()?;
        let port = free_port();
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "sh"]).arg(consul);
        command.args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"]);
        command.arg(format!("-http-port={port}"));
        for name in ["server", "serf-lan", "serf-wan"] {
            command.arg(format!("-{name}-port={}", free_port()));
        }
        command.args(["-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1"]);
        command.args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut guardian = command.spawn().unwrap();
        let stdin = guardian.stdin.take();
        let agent = Self { guardian, stdin, token: token.to_owned(), port };
        let deadline = Instant::now() + PATIENCE;
        while !agent.knows_itself() {
            assert!(Instant::now() < deadline, "Consul does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(agent)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn knows_itself(&self) -> bool {
        let health = self.try_call("GET", "/v1/health/state/passing", b"");
        health.is_some_and(|(status, body)| status == 200 && body.len() > 10)
    }

    /// One request; status and body.
    pub fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        self.try_call(method, path, body).expect("Consul answers")
    }

    /// One request whose answer is JSON.
    pub fn json(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, body) = self.call(method, path, body.as_bytes());
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    fn try_call(&self, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        // HTTP/1.0: the body ends with the connection, and comes in one piece.
        let (token, length) = (&self.token, body.len());
        let head = format!(
            "{method} {path} HTTP/1.0\r\nX-Consul-Token: {token}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
        let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer[end..].to_vec()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.guardian.wait();
    }
}
