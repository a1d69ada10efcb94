//! A thousand shifts under constant load, through real routers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::{Mutex, RwLock};
use weir_tests::process::{self, Signal};
use weir_tests::{Http, Mesh, weir};

const SHIFTS: u64 = 1000;
/// After so many shifts, every router is asked what it uses, and requests are counted.
const LOOK: u64 = 50;
/// Requests that are counted each time, by all clients.
const COUNTED: usize = 200;
const CLIENTS: usize = 4;

/// Clients that never stop, but for the moment in which counting begins or ends.
struct Load {
    gate: RwLock<()>,
    stop: AtomicBool,
    sent: AtomicUsize,
    counts: Mutex<BTreeMap<String, usize>>,
}

impl Load {
    async fn client(self: Arc<Self>, http: Http) {
        while !self.stop.load(Ordering::Relaxed) {
            let _open = self.gate.read().await;
            let reply = http.get("/v1/products?pageSize=1").send().await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let version = reply.header("x-weir-version").to_owned();
            *self.counts.lock().await.entry(version).or_default() += 1;
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What at least so many requests from now on were answered by.
    async fn count(&self) -> BTreeMap<String, usize> {
        {
            let _closed = self.gate.write().await;
            self.counts.lock().await.clear();
            self.sent.store(0, Ordering::Relaxed);
        }
        weir_tests::eventually("enough requests", || async {
            (self.sent.load(Ordering::Relaxed) >= COUNTED).then_some(())
        })
        .await;
        let _closed = self.gate.write().await;
        self.counts.lock().await.clone()
    }
}

/// The revision that a router says it uses.
async fn applied(mesh: &Mesh, router: &str) -> Value {
    mesh.admin(router).get("/config").ok().await["snapshot"]["revision"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_shifts_under_load() {
    let mesh = Mesh::start(weir!(), &[]);
    let load = Arc::new(Load {
        gate: RwLock::default(),
        stop: AtomicBool::new(false),
        sent: AtomicUsize::new(0),
        counts: Mutex::default(),
    });
    let clients: Vec<_> = (0..CLIENTS)
        .map(|i| {
            let make = if i % 2 == 0 { Http::new } else { Http::http2 };
            tokio::spawn(load.clone().client(make(&mesh.gateway)))
        })
        .collect();
    let routers: Vec<_> = mesh
        .processes()
        .into_iter()
        .filter(|one| one.role == "gateway" || one.role == "sidecar")
        .map(|one| one.name)
        .collect();
    assert_eq!(routers.len(), 11, "{routers:?}");
    let workers = std::thread::available_parallelism().map_or(4, usize::from).min(4);
    let (api, began) = (mesh.api(), Instant::now());
    let mut slowest = 0;
    let mut total = 0;
    for i in 1..=SHIFTS {
        let v2 = (i * 37) % 101;
        let body = json!({"weights": {"v1": 101 - v2, "v2": v2}, "wait": true,
                          "reason": format!("shift {i}"), "idempotencyKey": format!("shift-{i}")});
        let answer = api.post("/v1/services/products/shift", &body).ok().await;
        let converged = &answer["converged"];
        assert_eq!((&converged["routers"], &converged["applied"]), (&json!(11), &json!(11)));
        slowest = slowest.max(converged["slowestMs"].as_u64().unwrap());
        // The one that splits the load, each time; every other one now and then.
        let look = i % LOOK == 0;
        let asked = if look { &routers[..] } else { &routers[..0] };
        assert_eq!(applied(&mesh, "gateway").await, answer["revision"], "shift {i}");
        for router in asked {
            assert_eq!(applied(&mesh, router).await, answer["revision"], "{router}, shift {i}");
        }
        if look {
            total += load.sent.load(Ordering::Relaxed);
            let counts = load.count().await;
            let requests: usize = counts.values().sum();
            let found = counts.get("v2").copied().unwrap_or_default() as f64;
            let wanted = requests as f64 * v2 as f64 / 101.0;
            assert!(
                (found - wanted).abs() <= workers as f64,
                "shift {i}: {found} of {requests} requests to v2, {wanted} wanted"
            );
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    println!(
        "{SHIFTS} shifts in {:?}, the slowest converged in {slowest} ms; more than {total} \
         requests, none failed",
        began.elapsed()
    );
    let history = api.get("/v1/services/products/history?limit=1000").ok().await;
    let entries = history["entries"].as_array().unwrap();
    for (entry, i) in entries.iter().zip((1..=SHIFTS).rev()) {
        assert_eq!(entry["reason"], format!("shift {i}"));
    }
    let verified = api.get("/v1/history/verify").ok().await;
    assert_eq!(verified["ok"], true, "{verified}");
    assert_eq!(mesh.weir(&["verify-history"]).code, Some(0));
    outlives_the_control_plane(mesh).await;
}

/// `weir shift --wait` waits for a router that hangs; the control plane is killed. The
/// command goes on by itself, and there is one revision.
async fn outlives_the_control_plane(mesh: Mesh) {
    let mesh = Arc::new(mesh);
    let newest = async || {
        let reply = mesh.api().get("/v1/history?limit=1").try_send().await.ok()?;
        (reply.status == 200).then(|| reply.json()["entries"][0].clone())
    };
    let before = newest().await.unwrap()["revision"].as_u64().unwrap();
    let hung = mesh.pid("auth-v2-1-router");
    process::send(hung, Signal::STOP);
    let own = mesh.clone();
    let shift = tokio::task::spawn_blocking(move || {
        own.weir(&["shift", "users", "v1=3", "v2=4", "--wait", "-o", "json"])
    });
    weir_tests::eventually("the shift is made", || async {
        newest().await.filter(|entry| entry["revision"] == before + 1)
    })
    .await;
    process::send(mesh.pid("control-plane"), Signal::KILL);
    process::send(hung, Signal::CONT);
    let answer = shift.await.unwrap().json();
    assert_eq!(
        (&answer["revision"], &answer["replayed"], &answer["converged"]["applied"]),
        (&json!(before + 1), &json!(true), &json!(11)),
        "{answer}"
    );
    assert_eq!(newest().await.unwrap()["revision"], before + 1);
}
