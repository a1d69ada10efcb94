//! Rollouts as resources: kubectl starts and ends them, and a leader's death does not.

use serde_json::{Value, json};

use super::replica::{Replica, can_announce};
use super::server::shared;
use super::world::{Shop, pairs, traffic_split};
use crate::plane::eventually;

fn rollout(steps: Value) -> Value {
    json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "Rollout",
        "metadata": { "name": "to-v2" },
        "spec": { "service": "products", "stable": "v1", "canary": "v2", "steps": steps },
    })
}

async fn status(shop: &Shop) -> Value {
    let found = shop.get("weir.dev/v1alpha1", "Rollout", "to-v2").await;
    found.map(|found| found["status"].clone()).unwrap_or_default()
}

async fn phase(shop: &Shop, phase: &str) -> Value {
    let seen = async || {
        let status = status(shop).await;
        (status["phase"] == phase).then_some(status)
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(9), eventually(phase, seen));
    match waited.await {
        Ok(status) => status,
        Err(_) => panic!("not {phase}: {}", status(shop).await),
    }
}

/// A service whose TrafficSplit this control plane wrote: all to v1.
async fn ready(replica: &Replica, shop: &Shop) {
    let path = format!("/v1/services/{}/shift", shop.products());
    eventually("the service", async || {
        let shift = json!({ "weights": { "v1": 100, "v2": 0 } });
        (replica.http("POST", &path, shift).await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_starts_a_rollout_and_ends_one_by_deleting_it() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-rollout", "cp").await;
    let shop = Shop::open(&server, "shop-rollout").await;
    ready(&replica, &shop).await;
    let mut router = shop.router(&replica, "products-1").await;
    shop.apply(rollout(json!([{ "setWeight": 20 }, { "pause": {} }, { "setWeight": 100 }]))).await;
    router.sees("the first step", |s| shop.weights(s) == pairs(80, 20)).await;
    let told = phase(&shop, "Paused").await;
    assert_eq!((&told["progress"], &told["weight"]), (&json!("2/3"), &json!(20)), "{told}");
    assert_eq!(told["conditions"][0]["status"], "True", "{told}");
    let shown = replica.get(&format!("/v1/rollouts/to-v2.{}", shop.namespace)).await;
    assert_eq!(shown["status"]["phase"], "PAUSED", "{shown}");

    // A plan that is changed meanwhile waits for the end of this one.
    shop.apply(rollout(json!([{ "setWeight": 50 }, { "pause": {} }]))).await;
    eventually("what becomes of the change", async || {
        let told = status(&shop).await;
        let message = told["conditions"][0]["message"].as_str()?.to_owned();
        message.contains("while the rollout runs").then_some(())
    })
    .await;
    assert_eq!(status(&shop).await["weight"], 20);
    let name = format!("to-v2.{}", shop.namespace);
    let resume = format!("/v1/rollouts/{name}/resume");
    let (code, answer) = replica.http("POST", &resume, json!({})).await;
    assert_eq!(code, 200, "{answer}");
    router.sees("everything", |s| shop.weights(s) == pairs(0, 100)).await;
    router.sees("the new plan", |s| shop.weights(s) == pairs(50, 50)).await;
    phase(&shop, "Paused").await;

    let of = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "Rollout",
        "metadata": { "namespace": shop.namespace },
    });
    server.api(&of).await.delete("to-v2", &Default::default()).await.unwrap();
    router.sees("weights as before", |s| shop.weights(s) == pairs(0, 100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_pauses_when_somebody_else_sets_weights_and_takes_none_from_others() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-owners", "cp").await;
    let shop = Shop::open(&server, "shop-owners").await;
    ready(&replica, &shop).await;
    let mut router = shop.router(&replica, "products-1").await;
    shop.apply(rollout(json!([{ "setWeight": 20 }, { "pause": { "duration": "1h" } }]))).await;
    router.sees("the first step", |s| shop.weights(s) == pairs(80, 20)).await;
    shop.apply_as("gitops", traffic_split(60, 40)).await;
    let told = phase(&shop, "Paused").await;
    assert!(told["message"].as_str().unwrap().contains("gitops"), "{told}");
    assert_eq!(shop.split().await.unwrap()["spec"]["versions"][0]["weight"], 60);
    // The weights are gitops' now: going on would take them.
    let resume = format!("/v1/rollouts/to-v2.{}/resume", shop.namespace);
    let (code, answer) = replica.http("POST", &resume, json!({})).await;
    assert!(code == 400 && answer.to_string().contains("gitops"), "{code} {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_when_the_leader_is_killed() {
    let Some((server, _turn)) = shared().await else { return };
    if !can_announce() {
        return;
    }
    let [leader, second, third] = Replica::trio(&server, "weir-goes-on").await;
    let shop = Shop::open(&server, "shop-goes-on").await;
    ready(&leader, &shop).await;
    let mut router = shop.router(&second, "products-1").await;
    let steps: Vec<_> = (1..=12)
        .flat_map(|i| [json!({ "setWeight": i * 8 }), json!({ "pause": { "duration": "400ms" } })])
        .collect();
    shop.apply(rollout(steps.into())).await;
    router.sees("a step in the middle", |s| shop.weights(s) == pairs(76, 24)).await;
    let killed = std::time::Instant::now();
    leader.kill().await;
    let v2 = |s: &_| shop.weights(s)[1].1;
    let first = router.sees("the next step", |s| v2(s) > 32).await;
    println!("at {} {:?} after the leader was killed", v2(&first), killed.elapsed());
    let done = async {
        for _ in 0..3 {
            let ended = tokio::time::timeout(
                std::time::Duration::from_secs(9),
                eventually("the end", async || {
                    (status(&shop).await["phase"] == "Succeeded").then_some(())
                }),
            );
            if ended.await.is_ok() {
                return;
            }
        }
        panic!("{} {} {}", status(&shop).await, second.log(), third.log());
    };
    done.await;
    router.sees("everything", |s| shop.weights(s) == pairs(0, 100)).await;
    // It never went back.
    let history = third.get("/v1/history?limit=1000").await;
    let mut last = u64::MAX;
    for entry in history["entries"].as_array().unwrap() {
        for change in entry["changes"].as_array().unwrap() {
            // `products.shop: v1=100 v2=0 -> v1=92 v2=8`
            let after =
                change.as_str().and_then(|text| text.split_once("-> ")).unwrap_or_default().1;
            if let Some((_, weight)) = after.split_once("v2=") {
                let weight: u64 =
                    weight.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
                assert!(weight <= last, "newest first: {history}");
                last = weight;
            }
        }
    }
}
