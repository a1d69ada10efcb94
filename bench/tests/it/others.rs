//! The other verbs.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::{Process, bench, load, refused, run};

/// `idle`, up to where all is open.
struct Idle {
    child: Child,
    output: BufReader<ChildStdout>,
    hold: tempfile::TempDir,
}

impl Idle {
    fn start(arguments: &str) -> (Self, Value) {
        let hold = tempfile::tempdir().unwrap();
        let mut command = bench(&format!("idle {arguments} --hold-file"));
        let mut child =
            command.arg(hold.path().join("end")).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut idle = Self { child, output, hold };
        let opened = idle.line();
        (idle, opened)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn end(mut self) -> Value {
        std::fs::write(self.hold.path().join("end"), "").unwrap();
        let report = self.line();
        assert!(self.child.wait().unwrap().success());
        report
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn idle_connections_are_held_and_looked_after() {
    for protocol in ["http1", "http2"] {
        let upstream = Process::upstream(&format!("--protocol {protocol}"));
        let arguments =
            format!("--target {} --protocol {protocol} --connections 20", upstream.address);
        let (held, opened) = Idle::start(&arguments);
        assert_eq!(opened, json!({ "open": 20 }));
        assert_eq!(held.end(), json!({ "open": 20, "failed": 0, "closed_early": 0 }));

        let (dropped, _) = Idle::start(&arguments);
        assert_eq!(upstream.stop(), json!({ "requests": 40, "connections": 40 }));
        assert_eq!(dropped.end(), json!({ "open": 20, "failed": 0, "closed_early": 20 }));
    }
}

#[test]
fn a_connection_without_a_good_answer_is_not_open() {
    let upstream = Process::upstream("--protocol http2 --status-every 2");
    let (idle, opened) =
        Idle::start(&format!("--target {} --protocol http2 --connections 4", upstream.address));
    assert_eq!(opened, json!({ "open": 2 }));
    assert_eq!(idle.end(), json!({ "open": 2, "failed": 2, "closed_early": 0 }));
}

#[test]
fn a_relay_passes_everything() {
    let upstream = Process::upstream("--protocol http1 --body-bytes 16777216");
    let relay = Process::start(&format!("relay --to {}", upstream.address));
    let download = "--protocol http1 --requests 3 --response-bytes 16777216";
    assert_eq!(load(relay.address, download)["requests"], 3);
    let upload = "--protocol http1 --requests 3 --upload --request-bytes 16777216";
    assert_eq!(load(relay.address, upload)["requests"], 3);
    assert_eq!(relay.stop(), json!({ "connections": 2 }));
}

#[test]
fn encryption_has_a_speed() {
    let report = run("aes --seconds 0.05");
    assert!(report["seal_bytes_per_second"].as_f64() > Some(1e6), "{report}");
    assert!(report["open_bytes_per_second"].as_f64() > Some(1e6), "{report}");
}

#[test]
fn the_first_byte_is_waited_for() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ask = format!("first-byte --target {address} --authority a --deadline-ms");
    let program = env!("CARGO_BIN_EXE_weir-bench");
    let upstream = format!("{program} upstream --listen {address} --protocol http1");
    let report = run(&format!("{ask} 60000 -- {upstream}"));
    assert!(report["milliseconds"].as_f64() > Some(0.0), "{report}");
    assert!(report["attempts"].as_u64() >= Some(1), "{report}");
    // It is gone, or its port would be taken.
    drop(std::net::TcpListener::bind(address).unwrap());

    let bad = refused(&format!("{ask} 300 -- {upstream} --body-bytes 5"));
    assert!(bad.contains("no good answer within 300ms") && bad.contains("body length"), "{bad}");
    let ended = refused(&format!("{ask} 60000 -- {program} --version"));
    assert!(ended.contains("ended"), "{ended}");
    let missing = refused(&format!("{ask} 60000 -- /nonexistent/program"));
    assert!(missing.contains("/nonexistent/program"), "{missing}");
}

#[test]
fn simulated_canaries_are_judged_the_same_each_time() {
    let ask = "analysis --runs 20 --scenario fail-20pct --scenario good";
    let report = run(ask);
    let [good, bad] = report["scenarios"].as_array().unwrap().as_slice() else { panic!() };
    assert_eq!((&good["name"], &good["wrong_is"]), (&json!("good"), &json!("rolled_back")));
    assert_eq!((&bad["name"], &bad["weir"]["rolled_back"]), (&json!("fail-20pct"), &json!(20)));
    assert!(bad["weir"]["seconds"]["p95"].as_u64() < bad["naive"]["seconds"]["p95"].as_u64());
    assert_eq!(run(ask), report);

    let missing = refused("analysis --scenario nothing");
    assert!(missing.contains("fail-20pct"), "{missing}");
    let beyond = refused("analysis --runs 1 --tolerance-ratio 0.5");
    assert!(beyond.contains("success.toleranceRatio"), "{beyond}");
}
