//! `kill -9` and `SIGSTOP` of anything, with requests on their way. One mesh
//! serves all tests, which take turns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};
use weir_tests::process::{self, Signal};
use weir_tests::{Http, Mesh, eventually, weir};

fn mesh() -> &'static Mesh {
    static MESH: OnceLock<Mesh> = OnceLock::new();
    MESH.get_or_init(|| Mesh::start(weir!(), &[]))
}

/// The mesh with every process up, and the right to break it.
async fn whole() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    eventually("every process is up", || async {
        // A death is noticed a little after it.
        let up = mesh().processes().iter().all(|one| one.pid.is_some_and(process::is_alive));
        let healthy = match mesh().api().get("/v1/instances").try_send().await {
            Ok(reply) if reply.status == 200 => reply.json()["instances"]
                .as_array()
                .is_some_and(|all| all.iter().filter(|one| one["healthy"] == true).count() == 10),
            _ => false,
        };
        (up && healthy).then_some(())
    })
    .await;
    turn
}

/// A request that must not fail.
async fn list(http: &Http) {
    let reply = http.get("/v1/products?pageSize=1").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Sends requests, none of which may fail, until a condition holds.
async fn requests_until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let http = mesh().http();
    let began = Instant::now();
    let mut count = 0;
    while !done().await {
        list(&http).await;
        count += 1;
        assert!(began.elapsed() < weir_tests::DEADLINE, "{what}: not after {count} requests");
    }
}

fn runs_anew(name: &str, old: u32) -> bool {
    mesh().process(name).pid.is_some_and(|pid| pid != old)
}

/// Ends a process at once, and waits until its connections are closed.
fn kill(pid: u32) {
    process::send(pid, Signal::KILL);
    process::all_gone(&[pid], weir_tests::DEADLINE);
}

/// Kills a process under load of one request at a time. At most `in_flight` of
/// them may be lost with it: one that went out on a connection whose end had not
/// been seen yet.
async fn kill_under_load(name: &str, in_flight: usize) {
    let http = mesh().http();
    for _ in 0..20 {
        list(&http).await;
    }
    let old = mesh().pid(name);
    kill(old);
    let mut lost = Vec::new();
    let began = Instant::now();
    let mut after = 0;
    while after < 100 {
        assert!(began.elapsed() < weir_tests::DEADLINE, "{name} does not run again");
        after += usize::from(runs_anew(name, old));
        let reply = http.get("/v1/products?pageSize=1").send().await;
        if reply.status != 200 {
            lost.push(reply.text());
        }
    }
    assert!(lost.len() <= in_flight, "{lost:?}");
}

#[tokio::test]
async fn an_application_dies() {
    let _turn = whole().await;
    kill_under_load("products-v1-1", 1).await;
}

#[tokio::test]
async fn a_router_dies() {
    let _turn = whole().await;
    // What was a GET is sent again.
    kill_under_load("products-v1-2-router", 0).await;
}

#[tokio::test]
async fn a_router_that_is_told_to_stop_finishes_first() {
    let _turn = whole().await;
    let old = mesh().pid("products-v1-1-router");
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = [Http::new, Http::http2, Http::new, Http::http2]
        .into_iter()
        .map(|make| {
            let (stop, http) = (stop.clone(), make(&mesh().gateway));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    list(&http).await;
                }
            })
        })
        .collect();
    process::send(old, Signal::TERM);
    eventually("it runs again", || async { runs_anew("products-v1-1-router", old).then_some(()) })
        .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn the_gateway_dies_and_is_back_on_its_port() {
    let _turn = whole().await;
    let old = mesh().pid("gateway");
    kill(old);
    eventually("the gateway answers again", || async {
        let reply = mesh().http().get("/v1/products?pageSize=1").try_send().await;
        if let Ok(reply) = &reply {
            // Its snapshot is on disk: no answer of its new life says "not ready".
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        (runs_anew("gateway", old) && reply.is_ok()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_control_plane_dies_and_forgets_nothing() {
    let _turn = whole().await;
    let reason = format!("before the end {:08x}", fastrand::u32(..));
    let shift = json!({"weights": {"v1": 100, "v2": 3}, "reason": reason});
    let made = mesh().api().post("/v1/services/users/shift", &shift).ok().await;
    // As soon as the change is acknowledged.
    let old = mesh().pid("control-plane");
    kill(old);
    requests_until("the control plane runs again", async || runs_anew("control-plane", old)).await;

    let newest = eventually("the API answers again", || async {
        let reply = mesh().api().get("/v1/services/users/history?limit=1").try_send().await;
        reply.ok().filter(|reply| reply.status == 200).map(|reply| reply.json())
    })
    .await;
    assert_eq!(newest["entries"][0]["revision"], made["revision"]);
    assert_eq!(newest["entries"][0]["reason"], json!(reason));

    // The routers come back to it, and follow the next change.
    eventually("eleven routers are live", || async {
        let routers = mesh().api().get("/v1/routers").ok().await;
        let live = routers["routers"].as_array()?.iter().filter(|r| r["live"] == true).count();
        (live == 11).then_some(())
    })
    .await;
    let back = json!({"wait": true});
    let answer = mesh().api().post("/v1/services/users/rollback", &back).ok().await;
    assert_eq!(answer["converged"]["applied"], 11, "{answer}");
}

/// Continues a process, also when the test fails.
struct Stopped(u32);

impl Stopped {
    fn stop(pid: u32) -> Self {
        process::send(pid, Signal::STOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if process::is_alive(self.0) {
            process::send(self.0, Signal::CONT);
        }
    }
}

#[tokio::test]
async fn requests_go_on_while_the_control_plane_hangs() {
    let _turn = whole().await;
    let hung = Stopped::stop(mesh().pid("control-plane"));
    let began = Instant::now();
    requests_until("two seconds", async || began.elapsed() > Duration::from_secs(2)).await;
    drop(hung);
    eventually("the API answers again", || async {
        let reply = mesh().api().get("/v1/mesh").try_send().await;
        reply.is_ok_and(|reply| reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn routers_that_start_without_the_control_plane_serve_from_disk() {
    let _turn = whole().await;
    let hung = Stopped::stop(mesh().pid("control-plane"));
    // All that products v1 has, and the gateway.
    let names = ["products-v1-1-router", "products-v1-2-router", "gateway"];
    let old = names.map(|name| mesh().pid(name));
    for pid in old {
        kill(pid);
    }
    eventually("requests are answered", || async {
        let anew = names.iter().zip(old).all(|(name, pid)| runs_anew(name, pid));
        let reply = mesh().http().get("/v1/products?pageSize=1").try_send().await;
        (anew && reply.is_ok_and(|reply| reply.status == 200)).then_some(())
    })
    .await;
    let http = mesh().http();
    for _ in 0..100 {
        list(&http).await;
    }
    drop(hung);
}

#[tokio::test]
async fn the_ready_file_follows_restarts() {
    let _turn = whole().await;
    let (before, old) = (mesh().process("auth-v2-1-router"), mesh().pid("auth-v2-1-router"));
    kill(old);
    eventually("it runs again", || async { runs_anew("auth-v2-1-router", old).then_some(()) })
        .await;
    let after = mesh().process("auth-v2-1-router");
    assert_eq!(
        (after.inbound, after.outbound, after.admin),
        (before.inbound, before.outbound, before.admin)
    );
    assert!(mesh().printed().contains("auth-v2-1-router"), "{}", mesh().printed());
}
