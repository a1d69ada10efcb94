//! `weir exec-child` ties a process to its parent's life.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

#[test]
fn a_child_dies_with_its_parent_even_by_kill_9() {
    // The shell is the parent; it says which process its child is and waits.
    let script = format!("{WEIR} exec-child --parent $$ -- sleep 600 & echo $!; wait");
    let mut parent =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    // From here on it is what it became, tied to the parent.
    wait("the child runs", || command_line(child).starts_with(b"sleep\0"));

    parent.kill().unwrap();
    parent.wait().unwrap();
    wait("the child is gone", || command_line(child).is_empty());
}

#[test]
fn a_child_whose_parent_is_gone_already_does_not_start() {
    let out = Command::new(WEIR).args(["exec-child", "--parent", "1", "--", "true"]).output();
    let out = out.unwrap();
    assert!(!out.status.success());
    assert_eq!(String::from_utf8_lossy(&out.stderr).trim(), "the parent is gone");
}

#[test]
fn a_program_that_is_missing_is_named() {
    let parent = std::process::id().to_string();
    let out = Command::new(WEIR)
        .args(["exec-child", "--parent", &parent, "--", "/no/such/program"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&out.stderr).contains("/no/such/program"));
}

/// Empty for a process that is gone or a zombie.
fn command_line(pid: u32) -> Vec<u8> {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap_or_default()
}

#[track_caller]
fn wait(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
