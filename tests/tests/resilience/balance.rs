//! Who gets a request.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use weir_tests::{Http, eventually};

use crate::server::Manner;
use crate::{Service, ask, http, server_of, states, world};

pub fn services() -> Vec<Service> {
    let by = |method: &str, what| json!({"loadBalancer": {"type": method, "hashOn": [what]}});
    let plain = |method: &str| json!({"loadBalancer": {"type": method}});
    vec![
        ("ring", "http1", 4, by("RingHash", json!({"header": "x-user"}))),
        ("maglev", "http1", 4, by("Maglev", json!({"queryParam": "user"}))),
        ("turns", "http1", 3, plain("RoundRobin")),
        ("least", "http1", 2, plain("LeastRequest")),
        ("any", "http1", 3, plain("Random")),
    ]
}

#[tokio::test]
async fn a_hashed_user_stays_and_users_spread() {
    let http = http();
    let mut all = BTreeSet::new();
    for user in 0..40 {
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            let call = http.get("/ring").header("x-user", &format!("user-{user}"));
            seen.insert(server_of(&call.send().await));
            let call = http.get(&format!("/maglev?a=b&user={user}"));
            seen.insert(server_of(&call.send().await));
        }
        assert_eq!(seen.len(), 2, "one of each service: {seen:?}");
        all.extend(seen);
    }
    assert!(all.len() >= 7, "{all:?}");
    // Without what is hashed, any instance does.
    server_of(&http.get("/ring").send().await);
}

#[tokio::test]
async fn each_in_its_turn() {
    let mut counts = BTreeMap::new();
    for name in ask("/turns", 30).await {
        *counts.entry(name).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn any_means_all_of_them() {
    let seen: BTreeSet<_> = ask("/any", 60).await.into_iter().collect();
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn who_is_busy_is_spared() {
    let busy = states("least")[0].clone();
    busy.set(Manner::Hangs);
    // One connection, so one worker: each counts what it sent itself.
    let http = Http::http2(&world().mesh.gateway);
    let stuck = loop {
        let one = http.get("/least").try_send();
        let one = tokio::spawn(async move { one.await.is_ok() });
        let there = || async { (one.is_finished() || busy.count() > 0).then_some(()) };
        eventually("it is answered, or stuck", there).await;
        if busy.count() > 0 {
            break one;
        }
    };
    busy.set(Manner::Good);
    let before = busy.count();
    for _ in 0..20 {
        assert_eq!(server_of(&http.get("/least").send().await), "least-2");
    }
    assert_eq!(busy.count(), before);
    stuck.abort();
}
