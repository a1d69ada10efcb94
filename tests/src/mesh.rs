//! A mesh of `weir up`, from its start to its end.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use crate::cli::Output;
use crate::http::Http;
use crate::process;

/// Twenty-two processes of a debug build start on two busy cores.
const START: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(30);

/// Runs `weir up` until standard input ends, however the test ends: then the
/// mesh is stopped as a person would stop it, and its directory removed.
const GUARDIAN: &str = r#"
root=$1; shift
"$@" >"$root/up.log" 2>&1 </dev/null &
up=$!
echo "$up" >"$root/pid"
read -r line
kill -TERM "$up" 2>/dev/null
wait "$up"
code=$?
[ -n "$WEIR_TESTS_KEEP" ] || rm -rf "$root"
exit "$code"
"#;

/// A running mesh. Dropping it stops it and checks that nothing is left.
#[derive(Debug)]
pub struct Mesh {
    program: String,
    root: PathBuf,
    guardian: Child,
    stdin: Option<ChildStdin>,
    /// URL of the gateway.
    pub gateway: String,
    /// URL of the control API.
    pub control: String,
    /// Bearer token of the control API.
    pub token: String,
}

/// One line of a mesh's ready file.
#[derive(Debug, Clone)]
pub struct Process {
    /// `products-v1-1`, `products-v1-1-router`, `gateway`, `control-plane`.
    pub name: String,
    /// Its service; empty for the control plane.
    pub service: String,
    /// Its version.
    pub version: String,
    /// `control-plane`, `gateway`, `sidecar` or `app`.
    pub role: String,
    /// While it runs.
    pub pid: Option<u32>,
    /// Its admin listener.
    pub admin: Option<SocketAddr>,
    /// Its inbound listener; the gateway's is the one for the outside.
    pub inbound: Option<SocketAddr>,
    /// Its outbound listener.
    pub outbound: Option<SocketAddr>,
}

/// A port that is free now, outside the range of outgoing connections and of
/// what `weir up` itself chooses.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| fastrand::u16(12_000..20_000))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

impl Mesh {
    /// Runs `PROGRAM up` with these arguments until all is ready.
    ///
    /// # Panics
    /// When it does not become so, with all it printed.
    #[must_use]
    pub fn start(program: String, args: &[&str]) -> Self {
        Self::start_with(program, args, &[])
    }

    /// The same, with more in the environment of all of its processes.
    ///
    /// # Panics
    /// When it does not become ready, with all it printed.
    #[must_use]
    pub fn start_with(program: String, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let root = tempfile::Builder::new().prefix("weir-test-").tempdir().unwrap().keep();
        fs::create_dir(root.join("runtime")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", GUARDIAN, "sh"]).arg(&root).args([&program, "up"]);
        command.arg("--data").arg(root.join("data"));
        command.arg("--ready-file").arg(root.join("ready.json"));
        command.args(["--gateway-port", &free_port().to_string()]);
        command.args(["--control-port", &free_port().to_string()]);
        command.args(args);
        command.envs(environment.iter().copied());
        // Commands find the newest mesh of this directory: only this one.
        command.env("XDG_RUNTIME_DIR", root.join("runtime"));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut guardian = command.spawn().unwrap();
        let stdin = guardian.stdin.take();
        let mut mesh = Self {
            program,
            root,
            guardian,
            stdin,
            gateway: String::new(),
            control: String::new(),
            token: String::new(),
        };
        mesh.wait_ready();
        mesh
    }

    fn wait_ready(&mut self) {
        let began = Instant::now();
        let ready = loop {
            if let Some(ready) = self.ready_file() {
                break ready;
            }
            let ended = self.up_pid().is_some_and(|pid| !process::is_alive(pid));
            if ended || began.elapsed() > START {
                panic!("`weir up` is not ready after {:?}:\n{}", began.elapsed(), self.printed());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        (self.gateway, self.control, self.token) =
            (text("gateway"), text("control"), text("token"));
    }

    fn ready_file(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.root.join("ready.json")).ok()?).ok()
    }

    /// Process id of `weir up` itself.
    #[must_use]
    pub fn up_pid(&self) -> Option<u32> {
        fs::read_to_string(self.root.join("pid")).ok()?.trim().parse().ok()
    }

    /// What `weir up` has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(self.root.join("up.log")).unwrap_or_default()
    }

    /// The mesh's data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// What the ready file says now.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let ready = self.ready_file().expect("a ready file");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let address = |value: &Value| value.as_str().and_then(|value| value.parse().ok());
        let processes = ready["processes"].as_array().unwrap().iter().map(|one| Process {
            name: text(&one["name"]),
            service: text(&one["service"]),
            version: text(&one["version"]),
            role: text(&one["role"]),
            pid: one["pid"].as_u64().and_then(|pid| pid.try_into().ok()),
            admin: address(&one["admin"]),
            inbound: address(&one["inbound"]),
            outbound: address(&one["outbound"]),
        });
        processes.collect()
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none of this name.
    #[track_caller]
    #[must_use]
    pub fn process(&self, name: &str) -> Process {
        let all = self.processes();
        let found = all.iter().find(|process| process.name == name).cloned();
        found.unwrap_or_else(|| panic!("no process {name:?} in {all:?}"))
    }

    /// The process id of one that runs.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.process(name).pid.unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Every process of the mesh that runs now, `weir up` among them.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let processes = self.ready_file().map(|_| self.processes()).unwrap_or_default();
        self.up_pid().into_iter().chain(processes.iter().filter_map(|p| p.pid)).collect()
    }

    /// A client of the gateway.
    #[must_use]
    pub fn http(&self) -> Http {
        Http::new(&self.gateway)
    }

    /// A client of the control API that shows the token.
    #[must_use]
    pub fn api(&self) -> Http {
        Http::new(&self.control).with_header("authorization", &format!("Bearer {}", self.token))
    }

    /// A client of a process's admin listener.
    ///
    /// # Panics
    /// When it has none.
    #[track_caller]
    #[must_use]
    pub fn admin(&self, name: &str) -> Http {
        let address = self.process(name).admin.unwrap_or_else(|| panic!("{name} has no admin"));
        Http::new(&format!("http://{address}"))
    }

    /// A gRPC connection to the gateway.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn channel(&self) -> Channel {
        Endpoint::from_shared(self.gateway.clone()).unwrap().connect().await.unwrap()
    }

    /// Runs a command as a person on this machine would: it finds the mesh by
    /// itself.
    #[track_caller]
    #[must_use]
    pub fn weir(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).env("XDG_RUNTIME_DIR", self.root.join("runtime"));
        command.env_remove("WEIR_CONTROL").env_remove("WEIR_TOKEN");
        Output::of(&mut command)
    }

    /// The lines that routers have written to their access logs, as
    /// (instance or `gateway`, line).
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn access_log(&self) -> Vec<(String, Value)> {
        let mut lines = Vec::new();
        for entry in fs::read_dir(self.data().join("logs")).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let Some(router) = name.strip_suffix(".access.log") else { continue };
            let text = fs::read_to_string(entry.path()).unwrap();
            // The last line may be half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            for line in whole.lines() {
                let json = serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                lines.push((router.to_owned(), json));
            }
        }
        lines
    }

    /// Stops it by SIGTERM to `weir up`.
    ///
    /// # Panics
    /// When something of it is left.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        self.end()
    }

    #[track_caller]
    fn end(&mut self) -> ExitStatus {
        let pids = self.pids();
        drop(self.stdin.take());
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.guardian.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < STOP, "`weir up` did not stop:\n{}", self.printed());
            std::thread::sleep(Duration::from_millis(20));
        };
        process::all_gone(&pids, Duration::from_secs(5));
        status
    }

    /// Whether its directory is still there.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if self.stdin.is_none() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("`weir up` printed:\n{}", self.printed());
            drop(self.stdin.take());
            let _ = self.guardian.wait();
        } else {
            self.end();
        }
    }
}
