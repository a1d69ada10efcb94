//! Connections that the kernel redirects to a router, in a network namespace of
//! their own.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use weir_tests::{DEADLINE, Mesh, eventually, free_port, weir};

use crate::world::{certificate, http_server, openssl};

/// Set for the run inside of the namespace.
const INSIDE: &str = "WEIR_TEST_INSIDE_NETNS";

const FILE: &str = r#"apiVersion: weir.dev/v1alpha1
kind: Mesh
egress:
  hosts:
    - {host: 10.99.0.1, ports: [7002]}
    - {host: localhost, ports: [{tls}]}
    - {host: 127.0.0.1, ports: [{tls}]}
services:
  - {name: db, protocol: tcp, versions: [{name: v1, addresses: ["10.99.0.1:7001"]}]}
  - {name: web, protocol: http1, versions: [{name: v1, addresses: ["127.0.0.1:{web}"]}]}
  - name: secure
    protocol: tcp
    versions: [{name: v1, port: {tls}, command: [python3, server.py, tls, $PORT, "{directory}/a"]}]
  - name: caller
    protocol: tcp
    versions: [{name: v1, command: [python3, server.py, echo, $PORT]}]
"#;

fn works(program: &str, args: &[&str]) -> bool {
    let quiet = || Stdio::null();
    let status = Command::new(program).args(args).stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

fn must(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
}

#[test]
fn connections_go_where_they_were_meant_to() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    let rules = ["-n", "nft", "add", "table", "ip", "trial"];
    if !works("unshare", &rules) || !works("ip", &["-V"]) {
        eprintln!("skipped: no right to make a network namespace, or no nft in it");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .arg("-n")
        .arg(test)
        .args(["--exact", "redirected::connections_go_where_they_were_meant_to", "--nocapture"])
        .env(INSIDE, "1")
        .env("WEIR_TRANSPARENT", "true")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

/// A process outside the mesh that speaks first.
async fn greeter(address: &str) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let address = listener.local_addr().unwrap();
            let _ = stream.write_all(format!("220 {address}\r\n").as_bytes()).await;
        }
    });
}

/// A connection of an application, which the kernel redirects.
async fn connect(to: &str) -> TcpStream {
    try_connect(to).await.unwrap()
}

async fn try_connect(to: &str) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("10.99.0.9:0".parse().unwrap())?;
    socket.connect(to.parse::<SocketAddr>().unwrap()).await
}

async fn hear(mut stream: TcpStream) -> std::io::Result<String> {
    let mut got = String::new();
    let heard = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut got)).await;
    heard.expect("an end").map(|_| got)
}

async fn ask(to: &str, host: &str) -> String {
    let mut stream = connect(to).await;
    let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    hear(stream).await.unwrap()
}

async fn inside() {
    must("ip", &["link", "set", "lo", "up"]);
    for address in ["10.99.0.1/32", "10.99.0.9/32", "10.99.0.77/32"] {
        must("ip", &["address", "add", address, "dev", "lo"]);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("server.py"), include_str!("server.py")).unwrap();
    certificate(path, "a");
    let (tls, web) = (free_port(), http_server());
    let text = FILE
        .replace("{directory}", path.to_str().unwrap())
        .replace("{tls}", &tls.to_string())
        .replace("{web}", &web.to_string());
    let file = path.join("mesh.yaml");
    fs::write(&file, text).unwrap();
    let mesh = Mesh::start(weir!(), &["--file", file.to_str().unwrap()]);
    for port in 7001..=7003 {
        greeter(&format!("10.99.0.1:{port}")).await;
    }
    let outbound = mesh.process("caller-v1-1-router").outbound.unwrap();
    let chain = "{ type nat hook output priority -100 ; }";
    must("nft", &["add", "table", "ip", "weir"]);
    must("nft", &["add", "chain", "ip", "weir", "output", chain]);
    let redirect = format!(
        "add rule ip weir output ip saddr 10.99.0.9 tcp dport 1-65535 redirect to :{}",
        outbound.port()
    );
    must("nft", &redirect.split(' ').collect::<Vec<_>>());

    // A service that is declared opaque: nothing is waited for.
    assert_eq!(hear(connect("10.99.0.1:7001").await).await.unwrap(), "220 10.99.0.1:7001\r\n");
    // A stranger who speaks first, and may be reached.
    assert_eq!(hear(connect("10.99.0.1:7002").await).await.unwrap(), "220 10.99.0.1:7002\r\n");
    // One who may not.
    let denied = match try_connect("10.99.0.1:7003").await {
        Ok(stream) => hear(stream).await.is_err(),
        // The reset was quicker.
        Err(_) => true,
    };
    assert!(denied, "a stranger was reached");

    // HTTP goes by the host that a request names.
    let answer = ask("10.99.0.77:80", "web").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /x"), "{answer}");
    let answer = ask("10.99.0.77:80", "example.com").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

    // TLS goes by the name that a client asks for, looked up by the router.
    let client = |name: &'static str| async move {
        let address = format!("10.99.0.77:{tls}");
        let args = move || {
            let (bind, quiet) = ("10.99.0.9:0", "-ign_eof");
            openssl(&["s_client", "-bind", bind, "-connect", &address, "-servername", name, quiet])
        };
        tokio::task::spawn_blocking(args).await.unwrap()
    };
    let said = client("localhost").await;
    assert!(said.contains("hello from a"), "{said}");
    let said = client("example.com").await;
    assert!(said.contains("access denied"), "{said}");

    eventually("lines of the access log", || async {
        let lines = mesh.access_log();
        let line = |key: &str, value: &str, flag: Option<&str>| {
            lines.iter().any(|(_, line)| {
                let flags = line["flags"].as_array().unwrap();
                line["protocol"] == "tcp"
                    && line[key] == value
                    && flag.map_or(flags.is_empty(), |flag| flags.contains(&flag.into()))
            })
        };
        let all = line("service", "db", None)
            && line("server_name", "localhost", None)
            && line("server_name", "example.com", Some("ED"));
        all.then_some(())
    })
    .await;
}
