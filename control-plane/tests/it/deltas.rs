//! Deltas: what a router makes of them is what a whole snapshot says.

use serde_json::{Value, json};
use weir_mesh::wire::digest::digest;
use weir_proto::weir::mesh::v1::hello::Role;
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::{Health, Hello, Leave, Snapshot};

use crate::plane::{Plane, eventually};
use crate::router::{Came, Door, Manner, Router, hello};

const SHIFT: &str = "/v1/services/products/shift";

fn shift(v1: u16) -> Value {
    json!({"weights": {"v1": v1, "v2": 1}, "allowEmpty": true, "wait": true})
}

/// A router that takes deltas.
fn takes_deltas(id: &str, service: &str, version: &str, port: u16) -> Hello {
    Hello { deltas: true, ..hello(id, service, version, port) }
}

/// Many instances without routers, so that deltas are worth it.
async fn crowd(plane: &Plane) {
    let address = |i: u32| Value::from(format!("10.0.{}.{}:80", i / 200, 1 + i % 200));
    let addresses: Vec<Value> = (0..400).map(address).collect();
    let users = json!({"name": "users", "protocol": "PROTOCOL_HTTP1",
        "versions": [{"version": "v1", "weight": 1, "addresses": addresses}]});
    plane.post("/v1/apply", json!({"services": [users]})).await;
}

/// One who watches, and a whole snapshot's reader to compare it with.
async fn watchers(plane: &Plane) -> (Door, Router, Router) {
    plane.seed().await;
    crowd(plane).await;
    let door = Door::of(plane);
    let gateway = Hello { role: Role::Sidecar.into(), ..takes_deltas("watcher", "gateway", "", 0) };
    let plain = Hello { deltas: false, router_id: "old".into(), ..gateway.clone() };
    let mut watcher = Router::connect(&door, gateway, Manner::Applies).await;
    let mut old = Router::connect(&door, plain, Manner::Applies).await;
    watcher.sees("all", |s| s.instances.len() == 400).await;
    old.sees("all", |s| s.instances.len() == 400).await;
    (door, watcher, old)
}

/// Waits until both have the newest, and fails unless it is the same.
async fn agree(plane: &Plane, watcher: &mut Router, old: &mut Router) -> Snapshot {
    eventually("both agree", async || {
        let newest = plane.get("/v1/mesh").await["sequence"].as_str()?.parse::<u64>().ok()?;
        let (mut a, mut b) = (watcher.snapshot.borrow().clone(), old.snapshot.borrow().clone());
        if a.sequence != newest || b.sequence != newest {
            return None;
        }
        assert_eq!(digest(&mut a), digest(&mut b));
        assert_eq!(a, b);
        Some(a)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_changes_a_delta_makes_what_a_whole_snapshot_says() {
    let plane = Plane::start().await;
    let (door, mut watcher, mut old) = watchers(&plane).await;
    let svid = door.svid("products").await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut live: Vec<Option<Router>> = (0..6).map(|_| None).collect();
    for round in 0..40_u16 {
        let at = random.usize(..live.len());
        match (random.u8(..6), live[at].take()) {
            (0, Some(router)) => router.send(Message::Leave(Leave {})).await,
            (1, router) => {
                plane.post(SHIFT, shift(1 + round)).await;
                live[at] = router;
            }
            (2, router) => {
                let route = crate::plane::route(&format!("r{round}"), "products");
                plane.post("/v1/apply", json!({"routes": [route]})).await;
                live[at] = router;
            }
            (3, router) => {
                let name = format!("s{}", round % 3);
                let service = json!({"name": name, "protocol": "PROTOCOL_GRPC",
                    "versions": [{"version": "v1", "weight": 1 + round,
                                  "addresses": [format!("10.9.0.{}:1", 1 + round)]}]});
                plane.post("/v1/apply", json!({"services": [service]})).await;
                live[at] = router;
            }
            (_, Some(router)) => {
                let health = Health { healthy: random.bool(), certificate_not_after: 0 };
                router.send(Message::Health(health)).await;
                live[at] = Some(router);
            }
            (_, None) => {
                let id = format!("p{at}");
                let hello = takes_deltas(&id, "products", "v1", 1000 + round);
                live[at] = Some(Router::with(&door, &svid, hello, Manner::Applies).await);
            }
        }
        if round % 4 == 0 {
            agree(&plane, &mut watcher, &mut old).await;
        }
    }
    agree(&plane, &mut watcher, &mut old).await;
    let came = *watcher.came.borrow();
    assert_eq!(came.wholes, 1, "{came:?}");
    assert!(came.deltas > 5, "{came:?}");
    assert_eq!(old.came.borrow().deltas, 0, "who does not take deltas gets none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shift_among_many_instances_is_a_small_message() {
    let plane = Plane::start().await;
    let (_door, mut watcher, mut old) = watchers(&plane).await;
    let answer = plane.post(SHIFT, shift(9)).await;
    assert_eq!(answer["converged"]["applied"], 2, "{answer}");
    agree(&plane, &mut watcher, &mut old).await;
    let (delta, whole) = (watcher.came.borrow().bytes, old.came.borrow().bytes);
    assert!(delta * 20 < whole, "{delta} of {whole}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_who_has_it_all_is_told_the_new_numbers_alone() {
    let plane = Plane::start().await;
    let (_, mut watcher, mut old) = watchers(&plane).await;
    let mut had = agree(&plane, &mut watcher, &mut old).await;
    let plane = plane.restart().await;
    eventually("it was told to come back", async || watcher.came.borrow().reconnect).await;
    assert_eq!(old.came.borrow().reconnect, None, "who does not know the word is not told");
    let before = had.sequence;
    let known = digest(&mut had).to_vec();
    let again = Hello {
        role: Role::Sidecar.into(),
        digest: known.clone(),
        sequence: before,
        ..hello("watcher", "gateway", "", 0)
    };
    let door = Door::of(&plane);
    let svid = door.svid("gateway").await;
    let mut stranger = Router::with(
        &door,
        &svid,
        Hello { digest: vec![7; 32], router_id: "stranger".into(), ..again.clone() },
        Manner::Applies,
    )
    .await;
    let seen = stranger.sees("all of it", |s| s.instances.len() == 400).await;
    assert!(seen.sequence > before);
    assert_eq!(stranger.came.borrow().deltas, 0, "nobody knows what it has");
    let router = Router::resume(&door, &svid, again, Manner::Applies, had).await;
    let mut came = router.came.clone();
    came.wait_for(|came| came.deltas == 1).await.unwrap();
    let came = *router.came.borrow();
    assert_eq!((came.wholes, came.deltas), (0, 1));
    assert!(came.bytes < 100, "{came:?}");
    let mut now = router.snapshot.borrow().clone();
    assert!(now.sequence > before);
    assert_eq!(digest(&mut now).to_vec(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_a_delta_is_sent_the_whole() {
    let plane = Plane::start().await;
    plane.seed().await;
    crowd(&plane).await;
    let door = Door::of(&plane);
    let hello = takes_deltas("p1", "products", "v1", 1001);
    let mut router = Router::connect(&door, hello, Manner::RefusesDeltas).await;
    router.sees("itself", |s| s.instances.len() == 401).await;
    let answer = plane.post(SHIFT, shift(9)).await["converged"].clone();
    assert_eq!((&answer["routers"], &answer["applied"]), (&json!(1), &json!(1)), "{answer}");
    let came = *router.came.borrow();
    assert!(came.deltas >= 1 && came.wholes >= 2, "{came:?}");
    let routers = plane.get("/v1/routers").await["routers"].clone();
    assert!(routers[0]["refused"].is_null() || routers[0]["refused"] == "", "{routers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_is_counted() {
    let plane = Plane::start().await;
    let (_door, mut watcher, mut old) = watchers(&plane).await;
    plane.post(SHIFT, shift(9)).await;
    agree(&plane, &mut watcher, &mut old).await;
    let auth = format!("Bearer {}", plane.token);
    let (_, text) =
        plane.raw("GET", "/metrics", &[("authorization", auth.as_str())], String::new()).await;
    let value = |series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.unwrap_or_else(|| panic!("no {series}: {text}")).trim().parse().unwrap()
    };
    let Came { wholes, deltas, .. } = *watcher.came.borrow();
    assert!(value("weir_control_snapshots_sent_total{kind=\"whole\"}") >= f64::from(wholes));
    assert!(value("weir_control_snapshots_sent_total{kind=\"delta\"}") >= f64::from(deltas));
    assert!(value("weir_control_snapshots_sent_size_bytes_total") > 0.0);
    assert!(value("weir_control_publish_duration_seconds_count") > 0.0);
    assert_eq!(value("weir_control_waiting{for=\"snapshot\"}"), 0.0);
}
