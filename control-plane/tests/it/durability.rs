//! kill -9 at any moment: what was acknowledged is there afterwards.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use weir_control_plane::start;
use weir_mesh::shutdown::Shutdown;

use crate::plane::{Plane, config, mesh};

const CHILD: &str = "WEIR_TEST_CONTROL_PLANE_CHILD";

/// Not a test by itself: the process that is killed. It writes through its own API
/// and prints each revision once it is acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Some(data) = std::env::var_os(CHILD) else { return };
    let plane = Plane::over(std::path::Path::new(&data)).await;
    if plane.get("/v1/mesh").await["revision"] == 0 {
        plane.seed().await;
        println!("acknowledged 1");
    }
    for weight in 1.. {
        let body =
            json!({"weights": {"v1": weight, "v2": std::process::id() % 1000}, "allowEmpty": true});
        let answer = plane.post("/v1/services/products/shift", body).await;
        println!("acknowledged {} {weight}", answer["revision"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_revision_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("join.json"), "{}").unwrap();
    let mut acknowledged: Vec<(u64, Option<i64>)> = Vec::new();
    for round in 0..6u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durability::child", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some writes, then death at an arbitrary moment of the next ones.
        let wanted = 3 + round * 2;
        let mut seen = 0;
        let mut deadline = None;
        loop {
            let line = match deadline {
                None => lines.next_line().await.unwrap(),
                Some(at) => match tokio::time::timeout_at(at, lines.next_line()).await {
                    Ok(line) => line.unwrap(),
                    Err(_) => break,
                },
            };
            let line = line.expect("the child ended by itself");
            acknowledged.extend(parse(&line));
            seen += u64::from(line.contains("acknowledged"));
            if seen == wanted {
                let after = Duration::from_micros(700 * round * round);
                deadline = Some(tokio::time::Instant::now() + after);
            }
        }
        child.start_kill().unwrap();
        // What it managed to say before it died was acknowledged too.
        while let Ok(Some(line)) = lines.next_line().await {
            acknowledged.extend(parse(&line));
        }
        child.wait().await.unwrap();
    }

    let plane = Plane::over(dir.path()).await;
    let history = plane.get("/v1/history?limit=1000").await["entries"].clone();
    let entries = history.as_array().unwrap();
    let newest = entries[0]["revision"].as_u64().unwrap();
    assert!(acknowledged.len() >= 30, "{acknowledged:?}");
    for (revision, weight) in acknowledged {
        assert!(revision <= newest, "revision {revision} is lost; {newest} is the newest");
        let entry = &entries[usize::try_from(newest - revision).unwrap()];
        assert_eq!(entry["revision"], revision, "the history has no gap");
        if let Some(weight) = weight {
            let change = entry["changes"][0].as_str().unwrap();
            assert!(change.contains(&format!("-> v1={weight} ")), "{change}");
        }
    }
}

fn parse(line: &str) -> Option<(u64, Option<i64>)> {
    let words = line.split("acknowledged ").nth(1)?;
    let mut words = words.split_whitespace();
    Some((words.next()?.parse().ok()?, words.next().and_then(|w| w.parse().ok())))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_for_one_control_plane() {
    let plane = Plane::start().await;
    let error = plane.second().await.err().unwrap().to_string();
    assert!(error.contains("in use by another control plane"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_history_is_not_served() {
    let plane = Plane::start().await;
    plane.seed().await;
    let dir = plane.dir;
    plane.running.stop().await;
    tamper(&dir.path().join("weir.redb"));
    let error = start(config(dir.path(), Duration::from_secs(60)), Shutdown::new()).await;
    let error = error.err().unwrap().to_string();
    assert!(error.contains("damaged at revision"), "{error}");
}

/// Changes who made the first revision, behind the control plane's back, and adds
/// another after it so that the chain can tell.
fn tamper(path: &std::path::Path) {
    use redb::{Database, ReadableTable as _, TableDefinition};
    const HISTORY: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("history");
    let database = Database::create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(HISTORY).unwrap();
        let first = table.get(1).unwrap().unwrap().value().to_vec();
        let mut second = first.clone();
        let at = second.windows(5).position(|w| w == b"admin").unwrap();
        second[at..at + 5].copy_from_slice(b"mallo");
        table.insert(2, second.as_slice()).unwrap();
    }
    write.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_history_keeps_descriptor_sets_once() {
    let plane = Plane::start().await;
    let mut large = mesh();
    let set = base64(weir_proto::descriptors::PRODUCTS);
    large["services"][0]["descriptorSet"] = Value::String(set);
    plane.post("/v1/apply", large).await;
    for weight in 1..=50 {
        let body = json!({"weights": {"v1": weight, "v2": 1000}, "allowEmpty": true});
        plane.post("/v1/services/products/shift", body).await;
    }
    let plane = plane.restart().await;
    let service = plane.get("/v1/services/products").await;
    assert_eq!(service["versions"][0]["weight"], 50);
    assert!(service["descriptorSet"].as_str().unwrap().len() > 1000);
    let size = std::fs::metadata(plane.dir.path().join("weir.redb")).unwrap().len();
    assert!(size < 50 * weir_proto::descriptors::PRODUCTS.len() as u64, "{size}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let plane = Plane::start().await;
    let file = plane.dir.path().join("weir.redb");
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    // As older versions made it.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _plane = plane.restart().await;
    assert_eq!(mode(), 0o600);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0u8; 3];
        bits[..group.len()].copy_from_slice(group);
        let n = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for i in 0..4 {
            let digit =
                if i <= group.len() { DIGITS[(n >> (18 - 6 * i) & 63) as usize] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}
