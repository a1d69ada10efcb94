//! `weir try` serves a small program and asks it.

// A test that cannot go on says so by panicking.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");

struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(version: &str) -> Self {
        let mut child = Command::new(WEIR)
            .args(["try", "serve", "--says", version])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().to_owned();
        assert!(line.starts_with(version), "{line}");
        Self { child, address }
    }

    fn ask(&self, more: &[&str]) -> Output {
        let url = format!("http://{}/some/path", self.address);
        Command::new(WEIR).args(["try", "send", &url]).args(more).output().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn it_counts_who_answered() {
    let program = Program::start("v2");
    let out = program.ask(&["--count", "7"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), "v2 7\n".to_owned()));
    let out = program.ask(&["--count", "7", "--expect", "v2=7", "--expect", "v1=0"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn another_answer_than_was_expected_is_a_failure_that_says_what_came() {
    let program = Program::start("v1");
    let out = program.ask(&["--count", "5", "--expect", "v2=5"]);
    assert!(!out.status.success());
    let told = text(&out.stderr);
    assert!(
        told.contains("other versions answered than v2=5") && told.contains("5 x v1"),
        "{told}"
    );
}

#[test]
fn nobody_there_is_a_failure_that_says_so() {
    let program = Program::start("v1");
    let address = program.address.clone();
    drop(program);
    let out = Command::new(WEIR).args(["try", "send", &format!("http://{address}")]).output();
    let out = out.unwrap();
    assert!(!out.status.success());
    let told = text(&out.stderr);
    assert!(told.contains("20 of 20 requests failed") && told.contains("cannot connect"), "{told}");
}

#[test]
fn it_begins_again_until_it_is_as_expected() {
    // A port that is free now, and has a program later.
    let program = Program::start("v1");
    let address = program.address.clone();
    drop(program);
    let mut asking = Command::new(WEIR)
        .args(["try", "send", &format!("http://{address}"), "--expect", "v3=20", "--within", "60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let serving = Command::new(WEIR)
        .args(["try", "serve", "--says", "v3", "--listen", &address])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _program = Program { child: serving, address };
    assert!(asking.wait().unwrap().success());
}
