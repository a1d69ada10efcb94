//! Limits of connections, and what a file that is wrong is told.

use std::fs;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weir_tests::{DEADLINE, Mesh, eventually, free_port, process, weir};

use crate::world::{connect, is_echoed, is_reset, read_all};

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
tcp: {idleTimeout: 2s, maxConnections: 2}
services:
  - {name: echo, protocol: tcp, versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]}
  - name: caller
    protocol: tcp
    versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]
    upstreams: [{service: echo, port: {port}}]
"#;

async fn echoes(stream: &mut tokio::net::TcpStream) -> bool {
    let mut back = [0; 4];
    stream.write_all(b"ping").await.is_ok() && stream.read_exact(&mut back).await.is_ok()
}

#[tokio::test]
async fn connections_are_bounded_and_idle_ones_end() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("server.py"), include_str!("server.py")).unwrap();
    let port = free_port();
    let file = directory.path().join("mesh.yaml");
    let text = FILE.replace("{port}", &port.to_string());
    fs::write(&file, &text).unwrap();
    let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);

    let (mut first, mut second) = (connect(port).await, connect(port).await);
    assert!(echoes(&mut first).await && echoes(&mut second).await);
    assert!(is_reset(port).await, "a third was taken");
    // Both are idle now, and end; a reset, for nobody was done.
    for stream in [&mut first, &mut second] {
        let mut byte = [0];
        let ended = tokio::time::timeout(DEADLINE, stream.read(&mut byte)).await.unwrap();
        assert!(ended.is_err(), "{ended:?}");
    }
    // And there is room again.
    eventually("a connection", || async { is_echoed(port).await.then_some(()) }).await;
    let flags = |wanted: &str| {
        let lines = mesh.access_log();
        lines
            .iter()
            .filter(|(_, l)| l["flags"].as_array().unwrap().contains(&wanted.into()))
            .count()
    };
    eventually("flags in the access log", || async {
        (flags("UO") >= 1 && flags("SI") >= 2).then_some(())
    })
    .await;

    // A router that stops lets connections finish.
    let mut last = connect(port).await;
    assert!(echoes(&mut last).await);
    let echo = mesh.pid("echo-v1-1-router");
    process::send(echo, Signal::TERM);
    assert!(echoes(&mut last).await, "cut off at once");
    last.shutdown().await.unwrap();
    assert_eq!(read_all(last).await, b"");

    // Values that cannot be are told by their place.
    let wrong = text
        .replace("2s", "0s")
        .replace("maxConnections: 2", "maxConnections: 0")
        .replace("service: echo", "service: nobody");
    fs::write(&file, wrong).unwrap();
    let error = mesh.weir(&["apply", "-f", file.to_str().unwrap()]).failed();
    for wanted in [
        "tcp.idleTimeout: must be above 0",
        "tcp.maxConnections: 0 is not from 1",
        "services[1].upstreams[0].service: no service \"nobody\"",
    ] {
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}
