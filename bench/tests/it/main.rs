//! `weir-bench` as a program, through its flags and what it prints.

#![allow(clippy::unwrap_used)]

mod load;
mod others;
mod servers;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Whatever has not happened by then will not.
const DEADLINE: Duration = Duration::from_secs(60);

/// The program, with `arguments` separated by spaces.
fn bench(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-bench"));
    command.args(arguments.split_whitespace());
    command
}

/// Runs to the end, which must be good; what was printed.
fn run(arguments: &str) -> Value {
    let Output { status, stdout, stderr } = bench(arguments).output().unwrap();
    assert!(status.success(), "{arguments}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

/// Runs to an end that must be bad; what was said.
fn refused(arguments: &str) -> String {
    let Output { status, stdout, stderr } = bench(arguments).output().unwrap();
    assert!(!status.success(), "{arguments}");
    assert!(stdout.is_empty(), "{arguments}");
    String::from_utf8(stderr).unwrap()
}

/// `load` against `target`.
fn load(target: SocketAddr, arguments: &str) -> Value {
    run(&format!("load --target {target} --authority bench.test {arguments}"))
}

/// A process that is killed in the end.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    /// Starts a verb that listens.
    fn start(arguments: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ready = directory.path().join("ready");
        let mut command = bench(arguments);
        command.args(["--listen", "127.0.0.1:0", "--ready-file"]).arg(&ready);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut process = Self { child, address: ([127, 0, 0, 1], 0).into() };
        wait_for(&ready);
        let ready: Value = serde_json::from_slice(&std::fs::read(ready).unwrap()).unwrap();
        process.address = ready["listen"].as_str().unwrap().parse().unwrap();
        process
    }

    fn upstream(arguments: &str) -> Self {
        Self::start(&format!("upstream {arguments}"))
    }

    /// Asks it to end; what it printed.
    fn stop(mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(file: &Path) {
    let deadline = Instant::now() + DEADLINE;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} does not come", file.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}
