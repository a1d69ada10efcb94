//! `weir control-plane` as a process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use tonic::Code;
use weir_mesh::identity::TrustBundle;

use crate::plane::{JOIN_TOKENS, eventually};
use crate::router::{Door, Manner, Router, hello};

const CHILD: &str = "WEIR_TEST_CONTROL_PLANE_ARGS";

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: weir_control_plane::Args,
}

fn parse(args: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("control-plane").chain(args.split_whitespace()))
}

/// Not a test by itself: the process.
#[test]
fn child() {
    let Ok(args) = std::env::var(CHILD) else { return };
    weir_control_plane::run(parse(&args).unwrap().args).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_where_it_listens_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(path("join.json"), JOIN_TOKENS).unwrap();
    let args = format!(
        "--data {} --join-tokens {} --ready-file {} --certificate-lifetime 1h30m",
        path("data"),
        path("join.json"),
        path("ready.json")
    );
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::child", "--nocapture"])
        .env(CHILD, args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready: Value = eventually("the ready file", async || {
        let text = std::fs::read_to_string(path("ready.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    })
    .await;
    for listener in ["api", "mesh", "otlp"] {
        let address = ready[listener].as_str().unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_ok(), "{listener}");
    }
    let door = Door {
        address: ready["mesh"].as_str().unwrap().parse().unwrap(),
        bundle: TrustBundle::load(path("data/ca/bundle.pem")).unwrap(),
    };
    let mut router =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    router.sees("something", |s| s.sequence > 0).await;
    assert_eq!(std::fs::read_to_string(path("data/token")).unwrap().trim().len(), 43);

    let started = Instant::now();
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(router.end().await.code(), Code::Unavailable);
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert!(status.unwrap().unwrap().success());
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn wrong_options_are_refused_with_what_would_be_right() {
    for (option, expected) in [
        ("--certificate-lifetime 30s", "from 1m to 7d"),
        ("--certificate-lifetime 8d", "from 1m to 7d"),
        ("--certificate-lifetime soon", "such as 90s, 1h or 7d"),
        ("--api-listen localhost", "--api-listen"),
    ] {
        let error = parse(&format!("--data x {option}")).err().unwrap().to_string();
        assert!(error.contains(expected), "{option}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_it_from_starting_is_named() {
    use weir_mesh::shutdown::Shutdown;
    let dir = tempfile::tempdir().unwrap();
    let good = || {
        let mut config = crate::plane::config(dir.path(), Duration::from_secs(3600));
        config.join_tokens = None;
        config
    };
    let fails = async |config| {
        weir_control_plane::start(config, Shutdown::new()).await.err().unwrap().to_string()
    };
    let mut config = good();
    config.trust_domain = "Weir Local".into();
    assert!(fails(config).await.starts_with("--trust-domain: "));
    let mut config = good();
    config.join_tokens = Some(dir.path().join("missing.json"));
    let error = fails(config).await;
    assert!(error.contains("missing.json: no such file"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = good();
    config.mesh_listen = taken.local_addr().unwrap();
    let error = fails(config).await;
    assert!(error.starts_with("--mesh-listen 127.0.0.1:"), "{error}");
    std::fs::write(dir.path().join("file"), "").unwrap();
    let mut config = good();
    config.data = dir.path().join("file/data");
    let error = fails(config).await;
    assert!(error.contains("file/data: "), "{error}");
    let running = weir_control_plane::start(good(), Shutdown::new()).await.unwrap();
    running.stop().await;
}
