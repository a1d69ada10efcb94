//! The verb `load` against the verb `upstream`.

use serde_json::json;

use crate::{Process, bench, load, refused};

#[test]
fn every_protocol_is_answered_and_checked() {
    let http1 = Process::upstream("--protocol http1 --body-bytes 64 --name v1");
    let http2 = Process::upstream("--protocol http2 --body-bytes 64 --name v2");
    let cases = [
        (&http1, "--protocol http1 --connections 4", 64),
        (&http1, "--protocol http1 --connections 2 --churn", 64),
        (&http1, "--protocol http1 --path /bytes/0 --response-bytes 0", 0),
        (&http1, "--protocol http1 --path /bytes/70000 --response-bytes 70000", 70_000),
        (&http1, "--protocol http1 --method POST --request-bytes 1000", 64),
        (&http1, "--protocol http1 --upload --request-bytes 10", 0),
        (&http1, "--protocol http1 --upload --request-bytes 3000000", 0),
        (&http2, "--protocol http2 --connections 2 --streams 4", 64),
        (&http2, "--protocol http2 --connections 2 --churn", 64),
        (&http2, "--protocol http2 --path /bytes/70000 --response-bytes 70000", 70_000),
        (&http2, "--protocol http2 --upload --request-bytes 3000000", 0),
        (&http2, "--protocol grpc --connections 2 --streams 16", 64),
        (&http2, "--protocol grpc --request-bytes 70000", 64),
        (
            &http2,
            "--protocol grpc --path /bench.v1.Bench/Bytes2000000 --response-bytes 2000000",
            2_000_000,
        ),
        (&http2, "--protocol grpc-stream --messages 100 --streams 2", 6400),
        (&http2, "--protocol grpc-stream --messages 0", 0),
    ];
    for (upstream, arguments, bytes) in cases {
        let report = load(upstream.address, &format!("{arguments} --requests 50"));
        assert_eq!(report["failed"], 0, "{arguments}: {report}");
        assert_eq!(report["requests"], 50, "{arguments}: {report}");
        assert_eq!(report["bytes"], 50 * bytes, "{arguments}: {report}");
        let name = if std::ptr::eq(upstream, &raw const http1) { "v1" } else { "v2" };
        assert_eq!(report["upstreams"], json!({ name: 50 }), "{arguments}: {report}");
        let opened = report["connections"].as_u64().unwrap();
        let churns = arguments.contains("--churn");
        assert_eq!(opened >= 50, churns, "{arguments}: {report}");
    }
    assert!(http1.stop()["requests"].as_u64() >= Some(350));
    assert!(http2.stop()["requests"].as_u64() >= Some(400));
}

#[test]
fn a_body_of_16_mib_passes_whole() {
    for (protocol, streams) in [("http1", 1), ("http2", 2)] {
        let upstream = Process::upstream(&format!("--protocol {protocol} --body-bytes 16777216"));
        let report = load(
            upstream.address,
            &format!(
                "--protocol {protocol} --streams {streams} --requests 6 --response-bytes 16777216"
            ),
        );
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!(report["bytes"], 6 * 16_777_216_u64, "{report}");
    }
}

#[test]
fn wrong_answers_are_counted_by_kind() {
    let cases = [
        ("http1", "http1", "--corrupt-every 10", "body differs"),
        ("http1", "http1", "--status-every 10", "status 503"),
        ("http2", "http2", "--corrupt-every 10", "body differs"),
        ("http2", "http2", "--status-every 10", "status 503"),
        ("http2", "grpc", "--corrupt-every 10", "body differs"),
        ("http2", "grpc", "--status-every 10", "grpc-status 14"),
        ("http2", "grpc-stream", "--corrupt-every 10", "body differs"),
    ];
    for (served, spoken, fault, kind) in cases {
        let upstream = Process::upstream(&format!("--protocol {served} {fault}"));
        let report = load(upstream.address, &format!("--protocol {spoken} --requests 100"));
        assert_eq!(report["errors"], json!({ kind: 10 }), "{spoken} {fault}: {report}");
        assert_eq!(report["failed"], 10, "{report}");
        assert_eq!(report["requests"], 90, "{report}");
        assert_eq!(report["connections"], 1, "{report}");
    }
}

#[test]
fn other_lengths_are_failures() {
    let http1 = Process::upstream("--protocol http1 --body-bytes 64");
    let http2 = Process::upstream("--protocol http2 --body-bytes 64");
    let cases = [
        (&http1, "--protocol http1 --response-bytes 63", "body length"),
        (&http1, "--protocol http1 --response-bytes 65", "body length"),
        (&http2, "--protocol http2 --response-bytes 63", "body length"),
        (&http2, "--protocol grpc --response-bytes 63", "message length"),
        (
            &http2,
            "--protocol grpc-stream --messages 9 --path /bench.v1.Bench/Stream8",
            "number of messages",
        ),
        (&http2, "--protocol grpc --path /bench.v1.Other/Unary", "grpc-status 12"),
        (
            &http1,
            "--protocol http1 --method POST --path /sink/5 --request-bytes 6 --response-bytes 0",
            "status 400",
        ),
        (
            &http2,
            "--protocol http2 --method POST --path /sink/5 --request-bytes 6 --response-bytes 0",
            "status 400",
        ),
    ];
    for (upstream, arguments, kind) in cases {
        let report = load(upstream.address, &format!("{arguments} --requests 5"));
        assert_eq!(report["errors"], json!({ kind: 5 }), "{arguments}: {report}");
    }
}

#[test]
fn what_is_sent_and_expected_may_be_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let body = directory.path().join("body");
    std::fs::write(&body, "abcdef").unwrap();
    let other = directory.path().join("other");
    std::fs::write(&other, "abcdeF").unwrap();
    let upstream = Process::upstream("--protocol http1 --body-bytes 6");
    let with = |sent: &std::path::Path, expected: &std::path::Path, more: &str| {
        let (sent, expected) = (sent.display(), expected.display());
        let files = format!("--request-file {sent} --expect-file {expected}");
        load(upstream.address, &format!("{files} {more} --requests 3"))["errors"].clone()
    };
    assert_eq!(with(&body, &body, ""), json!({}));
    assert_eq!(with(&body, &other, ""), json!({ "body differs": 3 }));
    assert_eq!(with(&other, &body, "--path /sink/6"), json!({ "status 400": 3 }));
}

/// 200 requests a second on two connections; the upstream sleeps 1 s at the
/// 50th, so that some 200 are due meanwhile. A closed loop would see two slow
/// ones.
#[test]
fn an_open_loop_counts_from_when_requests_were_due() {
    for (served, spoken) in [("http1", "http1"), ("http2", "grpc")] {
        let upstream = Process::upstream(&format!("--protocol {served} --stall-ms 1000"));
        let report = load(
            upstream.address,
            &format!("--protocol {spoken} --connections 2 --rate 200 --seconds 3"),
        );
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!(report["rate"], 200.0);
        let p90 = report["latency_us"]["p90"].as_f64().unwrap();
        let p99 = report["latency_us"]["p99"].as_f64().unwrap();
        assert!(p90 > 500_000.0, "{report}");
        assert!(p99 > 900_000.0, "{report}");
    }
}

/// The answers stop for good: what was due must not vanish from the figures.
#[test]
fn requests_that_nobody_could_send_are_counted_as_slow() {
    let upstream = Process::upstream("--protocol http1 --stall-ms 2500 --stall-at 20");
    let report = load(upstream.address, "--protocol http1 --rate 100 --seconds 2");
    let unsent = report["unsent"].as_u64().unwrap();
    assert!(unsent > 100, "{report}");
    assert!(report["latency_us"]["p90"].as_f64().unwrap() > 1_000_000.0, "{report}");
    assert!(report["requests"].as_u64().unwrap() < 100, "{report}");
}

#[test]
fn the_warm_up_is_not_counted() {
    let upstream = Process::upstream("--protocol http1");
    let report = load(upstream.address, "--protocol http1 --warmup 0.2 --requests 10");
    assert_eq!(report["requests"], 10, "{report}");
    assert_eq!(report["warmup_seconds"], 0.2, "{report}");
    assert!(upstream.stop()["requests"].as_u64() > Some(11));
}

#[test]
fn the_cpu_of_other_processes_is_told() {
    let upstream = Process::upstream("--protocol http2");
    let pid = upstream.child.id();
    let arguments = format!("--protocol grpc --seconds 0.5 --pid-cpu {pid}");
    let report = load(upstream.address, &arguments);
    let usage = &report["pids"][pid.to_string()];
    let seconds = usage["cpu_seconds"].as_f64().unwrap();
    assert!(seconds > 0.0, "{report}");
    let parts = usage["user_seconds"].as_f64().unwrap() + usage["system_seconds"].as_f64().unwrap();
    assert!((seconds - parts).abs() < 1e-6, "{report}");
    assert!(usage["voluntary_switches"].is_u64(), "{report}");
    assert!(usage["involuntary_switches"].is_u64(), "{report}");
}

#[test]
fn where_nobody_listens_a_run_soon_ends() {
    // A port that was free a moment ago.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for more in ["", "--warmup 300"] {
        let report = load(address, &format!("--protocol grpc --seconds 300 {more}"));
        assert_eq!(report["stopped"], "100 connections in a row failed", "{report}");
        assert_eq!(report["requests"], 0, "{report}");
        if more.is_empty() {
            assert_eq!(report["errors"], json!({ "connect: connection refused": 100 }), "{report}");
        }
    }
}

#[test]
fn misuse_is_told() {
    let cases = [
        ("--protocol http1 --streams 2", "--streams"),
        ("--protocol grpc --upload", "--upload"),
        ("--protocol http1 --connections 0", "--connections"),
        ("--protocol http1 --rate 0", "--rate"),
        ("--protocol http1 --seconds 1e9", "--seconds"),
        ("--protocol http1 --header novalue", "NAME:VALUE"),
        ("--protocol http1 --expect-file /nonexistent", "--expect-file /nonexistent"),
        ("--protocol http1 --pid-cpu 4294967295", "--pid-cpu 4294967295"),
        ("--protocol http2 --mtls-cert a", "--mtls-key"),
    ];
    for (arguments, named) in cases {
        let said = refused(&format!("load --target 127.0.0.1:1 {arguments}"));
        assert!(said.contains(named), "{arguments}: {said}");
    }
    assert!(!bench("").output().unwrap().status.success());
}
