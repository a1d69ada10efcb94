//! `weir-cni install` as a DaemonSet runs it: a process with directories and signals.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

const CNI: &str = env!("CARGO_BIN_EXE_weir-cni");

struct Node(tempfile::TempDir);

impl Node {
    fn new() -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        fs::create_dir(node.path("bin")).unwrap();
        fs::create_dir(node.path("net.d")).unwrap();
        let list = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "bridge"}]}"#;
        fs::write(node.list(), list).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn list(&self) -> PathBuf {
        self.path("net.d/10-net.conflist")
    }

    fn is_configured(&self) -> bool {
        fs::read_to_string(self.list()).unwrap().contains("\"weir-cni\"")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(CNI);
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        command.arg("install").arg(option("bin-dir", &self.path("bin")));
        command.arg(option("conf-dir", &self.path("net.d")));
        command
    }

    /// Runs until it says that it is there.
    fn install(&self) -> Installer {
        let mut child = self.command().stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("installed in"), "{line}");
        Installer(child, output)
    }
}

struct Installer(Child, BufReader<ChildStdout>);

impl Installer {
    /// What it says at its end.
    fn stop(mut self) -> String {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert!(self.0.wait().unwrap().success());
        line
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_comes_and_goes_with_its_process() {
    let node = Node::new();
    let program = node.path("bin/weir-cni");
    let installer = node.install();
    assert!(node.is_configured());
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
    let help = Command::new(&program).arg("--help").output().unwrap();
    assert!(help.status.success(), "what is installed runs");
    assert_eq!(installer.stop(), "removed\n");
    assert!(!node.is_configured() && !program.exists());
}

#[test]
fn an_update_leaves_no_gap() {
    let node = Node::new();
    let old = node.install();
    let new = node.install();
    assert_eq!(old.stop(), "", "the new one's is not removed");
    assert!(node.is_configured() && node.path("bin/weir-cni").exists());
    assert_eq!(new.stop(), "removed\n");
    assert!(!node.is_configured());
}

#[test]
fn once_is_for_nodes_that_others_set_up() {
    let node = Node::new();
    assert!(node.command().arg("--once").status().unwrap().success());
    assert!(node.is_configured() && node.path("bin/weir-cni").exists());
    let wrong = node.command().args(["--bindir", "x"]).output().unwrap();
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(!wrong.status.success() && said.contains("--bindir: is no option"), "{said}");
}
