//! What is written was worked out from what is there: who has not heard of a change
//! does not write over it.

use std::time::Duration;

use serde_json::json;

use super::replica::Replica;
use super::server::shared;
use super::world::{Shop, pairs, traffic_split};

/// Races to run: each is won by the watch, by the request, or by the round between.
const RACES: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_writes_over_nothing_that_was_set_meanwhile() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-frozen", "cp").await;
    let shop = Shop::open(&server, "shop-frozen").await;
    let mut router = shop.router(&replica, "products-1").await;
    router.sees("pods", |s| shop.weights(s) == pairs(1, 1)).await;
    let path = format!("/v1/services/{}/shift", shop.products());
    for i in 1..=RACES {
        let mine = i32::try_from(i).unwrap();
        // The weights before, which nobody sets meanwhile.
        let shift = json!({ "weights": { "v1": i, "v2": 1 }, "wait": true });
        let (status, before) = replica.http("POST", &path, shift).await;
        assert_eq!(status, 200, "{before}");
        router.sees("the shift", |s| shop.weights(s) == pairs(mine, 1)).await;
        // What it needs the API server for, beforehand.
        let token = replica.token().await;
        replica.freeze(true);
        shop.apply_as("gitops", traffic_split(i, 50)).await;
        let stale = json!({
            "weights": { "v1": 1, "v2": 99 }, "expectedRevision": before["revision"],
        });
        let request = replica.raw("POST", &path, &token, &stale);
        let go_on = async {
            // In some races the request is there before the process goes on, in some not.
            tokio::time::sleep(Duration::from_millis(u64::from(i % 4) * 4)).await;
            replica.freeze(false);
        };
        let ((status, answer), ()) = tokio::join!(request, go_on);
        assert_eq!(status, 409, "race {i}: {answer}");
        let split = shop.split().await.unwrap();
        assert_eq!(split["spec"], traffic_split(i, 50)["spec"], "race {i}");
        router.sees("what was set", |s| shop.weights(s) == pairs(mine, 50)).await;
    }
}
