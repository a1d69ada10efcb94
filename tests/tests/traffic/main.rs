//! Moving traffic: by weight, by user, back again, and what is refused. One mesh
//! serves all tests; those that change how it routes take turns.

mod audience;
mod commands;
mod refused;
mod routes;
mod split;
mod sticky;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use weir_tests::{Http, Mesh, weir};

fn mesh() -> &'static Mesh {
    static MESH: OnceLock<Mesh> = OnceLock::new();
    MESH.get_or_init(|| Mesh::start(weir!(), &[]))
}

/// For tests that change how products are split.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Sets the weights of products and waits for every router.
async fn shift(weights: Value) -> Value {
    shift_with(json!({"weights": weights, "clearSticky": true})).await
}

async fn shift_with(mut body: Value) -> Value {
    body["wait"] = true.into();
    let answer = mesh().api().post("/v1/services/products/shift", &body).ok().await;
    let converged = &answer["converged"];
    // The gateway and the ten sidecars.
    assert_eq!(
        (&converged["routers"], &converged["applied"]),
        (&json!(11), &json!(11)),
        "{answer}"
    );
    assert!(converged.get("pending").is_none_or(|p| p == &json!([])), "{answer}");
    answer
}

/// How many of so many requests each version served. None may fail.
async fn count(http: &Http, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = http.get("/v1/products?pageSize=1").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        *counts.entry(reply.header("x-weir-version").to_owned()).or_default() += 1;
    }
    counts
}
