//! A control plane that is killed at each transition: the rollout goes on from where
//! it was, never skips a step, and never goes forward on what it does not know.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use weir_control_plane::start;
use weir_mesh::shutdown::Shutdown;

use super::{mesh, phase, plan, story, weights};
use crate::plane::{Plane, config};

const CHILD: &str = "WEIR_TEST_ROLLOUT_CHILD";

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(data) = std::env::var_os(CHILD) else { return };
    let data = std::path::Path::new(&data);
    let running = start(config(data, Duration::from_secs(3600)), Shutdown::new()).await.unwrap();
    std::fs::write(data.join("api.tmp"), running.api.to_string()).unwrap();
    std::fs::rename(data.join("api.tmp"), data.join("api")).unwrap();
    std::future::pending::<()>().await;
}

fn spawn(data: &std::path::Path) -> Child {
    let _ = std::fs::remove_file(data.join("api"));
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "rollout::restart::child", "--nocapture"])
        .env(CHILD, data)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_transition_it_does_every_step_once_and_in_order() {
    let plane = Plane::start().await;
    plane.post("/v1/apply", mesh()).await;
    let steps = json!([
        {"setWeight": 5}, {"pause": {"duration": "400ms"}}, {"setWeight": 25},
        {"pause": {"duration": "400ms"}}, {"setWeight": 50}, {"pause": {"duration": "400ms"}},
    ]);
    plane.post("/v1/rollouts", plan("products", steps)).await;
    let data = plane.dir.path().to_owned();
    let token = plane.token.clone();
    let crate::plane::Dir::Own(dir) = plane.dir else { panic!() };
    plane.running.stop().await;

    let mut last = 0;
    let mut kills = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    'kills: loop {
        assert!(Instant::now() < deadline, "it never ends; {kills} kills, revision {last}");
        let mut child = spawn(&data);
        loop {
            assert!(Instant::now() < deadline, "the child is stuck at revision {last}");
            tokio::time::sleep(Duration::from_millis(2)).await;
            // The one before may have the file open for a moment more.
            if child.try_wait().unwrap().is_some() {
                break;
            }
            let Ok(api) = std::fs::read_to_string(data.join("api")) else { continue };
            let Some((revision, end)) = look(&api, &token).await else { continue };
            if end {
                child.kill().await.unwrap();
                break 'kills;
            }
            // At the moment of a transition, and once more in the middle of a step.
            if revision > last {
                last = revision;
                kills += 1;
                child.kill().await.unwrap();
                break;
            }
        }
    }
    // Most of the time it is eight: a weight and the pause after it may come between two
    // looks. Each pause is longer than that.
    assert!(kills >= 3, "{kills}");
    let plane = Plane::over(dir.path()).await;
    phase(&plane, "products-v2", "SUCCEEDED").await;
    let story = story(&plane, "products").await;
    let weights_of: Vec<_> =
        story[1..].iter().map(|line| line.split(';').next().unwrap().to_owned()).collect();
    assert_eq!(
        weights_of,
        [
            "products: v1=100 v2=0 -> v1=95 v2=5",
            "products: v1=95 v2=5 -> v1=75 v2=25",
            "products: v1=75 v2=25 -> v1=50 v2=50",
            "products: v1=50 v2=50 -> v1=0 v2=100",
        ]
    );
    assert_eq!(weights(&plane, "products").await, [0, 100]);
    plane.running.stop().await;
}

/// The mesh's revision, and whether the rollout is at its end.
async fn look(api: &str, token: &str) -> Option<(u64, bool)> {
    use http_body_util::{BodyExt as _, Empty};
    let stream = tokio::net::TcpStream::connect(api).await.ok()?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
    tokio::spawn(connection);
    let mut get = async |path: &str| {
        let request = http::Request::builder()
            .uri(path)
            .header("host", api)
            .header("authorization", format!("Bearer {token}"))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice::<serde_json::Value>(&body).ok()
    };
    let mesh = get("/v1/mesh").await?;
    let rollout = get("/v1/rollouts/products-v2").await?;
    Some((mesh["revision"].as_u64()?, rollout["status"]["phase"] == "SUCCEEDED"))
}
