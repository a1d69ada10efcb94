//! Several replicas: any of them serves, and one that dies loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::replica::{Replica, can_announce};
use super::server::shared;
use super::world::{Shop, pairs, traffic_split};
use crate::plane::eventually;

/// A change that was acknowledged.
struct Acknowledged {
    reason: String,
    revision: u64,
    at: Instant,
}

async fn history(replica: &Replica) -> Vec<Value> {
    let answer = replica.get("/v1/history?limit=1000").await;
    answer["entries"].as_array().cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_serves_reads_watches_and_writes() {
    let Some((server, _turn)) = shared().await else { return };
    if !can_announce() {
        return;
    }
    let all = Replica::trio(&server, "weir-any").await;
    let shop = Shop::open(&server, "shop-any").await;
    let pods = [("products-1", "v1"), ("products-2", "v2"), ("products-3", "v2")];
    shop.pods(&pods).await;
    let mut routers = Vec::new();
    for (replica, (pod, _)) in all.iter().zip(pods) {
        routers.push(shop.router(replica, pod).await);
    }
    let mut base = 0;
    for router in &mut routers {
        base = router.sees("pods", |s| shop.weights(s) == pairs(1, 2)).await.revision;
    }
    let path = format!("/v1/services/{}/shift", shop.products());
    for (i, replica) in all.iter().enumerate() {
        let v2 = 10 * (i32::try_from(i).unwrap() + 1);
        let shift = json!({
            "weights": { "v1": 100 - v2, "v2": v2 }, "reason": format!("by {i}"), "wait": true,
        });
        eventually("all routers known to the leader", async || {
            let found = replica.get("/v1/routers").await;
            let live = found["routers"].as_array()?.len();
            (live == 3).then_some(())
        })
        .await;
        let (status, answer) = replica.http("POST", &path, shift).await;
        base += 1;
        assert_eq!((status, &answer["revision"]), (200, &json!(base)), "{answer}");
        assert_eq!(answer["converged"]["applied"], 3, "whoever they are connected to: {answer}");
        for router in &mut routers {
            let right = |s: &_| shop.weights(s) == pairs(100 - v2, v2);
            router.sees("the shift", |s| s.revision == base && right(s)).await;
        }
    }
    shop.apply_as("gitops", traffic_split(1, 3)).await;
    base += 1;
    for router in &mut routers {
        let seen = router.sees("what GitOps set", |s| shop.weights(s) == pairs(1, 3)).await;
        assert_eq!(seen.revision, base, "a revision means the same everywhere");
    }
    let first = history(&all[0]).await;
    for replica in &all[1..] {
        eventually("the same history", async || (history(replica).await == first).then_some(()))
            .await;
    }
    let verified = all[2].get("/v1/history/verify").await;
    assert_eq!(verified["ok"], true, "{verified}");
}

/// Shifts again and again, each by a key of its own.
async fn write(replica: &Replica, path: &str, who: &str, stop: &AtomicBool) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    for i in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let reason = format!("{who}-{i}");
        let shift = json!({
            "weights": { "v1": i, "v2": if who == "a" { 1 } else { 2 } },
            "reason": reason, "idempotencyKey": reason,
        });
        let (status, answer) = replica.http("POST", path, shift).await;
        if status == 200 && answer["unchanged"] == false {
            let revision = answer["revision"].as_u64().unwrap();
            acknowledged.push(Acknowledged { reason, revision, at: Instant::now() });
        } else {
            println!("{reason}: {status} {answer}");
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_loses_no_acknowledged_change() {
    let Some((server, _turn)) = shared().await else { return };
    if !can_announce() {
        return;
    }
    let [leader, second, third] = Replica::trio(&server, "weir-killed").await;
    let shop = Shop::open(&server, "shop-killed").await;
    let mut router = shop.router(&leader, "products-1").await;
    router.sees("pods", |s| shop.weights(s) == pairs(1, 1)).await;
    let stop = AtomicBool::new(false);
    let path = format!("/v1/services/{}/shift", shop.products());
    let kill = async {
        let some = async || (history(&second).await.len() > 10).then_some(());
        eventually("some changes", some).await;
        let killed = Instant::now();
        leader.kill().await;
        let next = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                if let Some(next) = [&second, &third].into_iter().find(|r| r.is_leading()) {
                    return next;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let next = next.await.unwrap_or_else(|_| panic!("nobody leads: {}", second.log()));
        let led = killed.elapsed();
        let before = history(next).await.len();
        let more = async || (history(&second).await.len() > before + 10).then_some(());
        eventually("more changes", more).await;
        stop.store(true, Ordering::Relaxed);
        (killed, led, next)
    };
    let (first, other, (killed, led, next)) =
        tokio::join!(write(&second, &path, "a", &stop), write(&third, &path, "b", &stop), kill,);
    let acknowledged: Vec<_> = first.into_iter().chain(other).collect();
    let first_after = acknowledged.iter().map(|a| a.at).filter(|at| *at > killed + led).min();
    println!(
        "{} acknowledged; the next one led after {led:?}, the first write after {:?}",
        acknowledged.len(),
        first_after.map(|at| at - killed),
    );
    for replica in [&second, &third] {
        let entries = history(replica).await;
        for Acknowledged { reason, revision, .. } in &acknowledged {
            let mut found = entries.iter().filter(|entry| entry["reason"] == reason.as_str());
            let entry = found.next().unwrap_or_else(|| panic!("{reason} is lost"));
            assert_eq!(entry["revision"], *revision, "{entry}");
            assert!(found.next().is_none(), "{reason} was made twice");
        }
        let verified = replica.get("/v1/history/verify").await;
        assert_eq!(verified["ok"], true, "{verified}");
    }
    let newest = history(next).await[0]["revision"].as_u64().unwrap();
    let mut router = shop.router(&third, "products-1").await;
    router.sees("what was written last", |s| u64::from(s.revision) >= newest).await;
}
