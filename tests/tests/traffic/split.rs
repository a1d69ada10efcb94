//! Weights.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;
use weir_tests::Http;

use crate::{count, mesh, shift, turn};

#[tokio::test]
async fn a_split_is_exact_once_it_has_converged() {
    let _turn = turn().await;
    for (v1, v2) in [(100, 0), (90, 10), (50, 50), (1, 2), (0, 7), (100, 0)] {
        shift(json!({"v1": v1, "v2": v2})).await;
        // One connection is one worker's, whose share is exact.
        let counts = count(&mesh().http(), 400).await;
        let wanted = 400.0 * f64::from(v2) / f64::from(v1 + v2);
        let found = counts.get("v2").copied().unwrap_or_default();
        assert!((found as f64 - wanted).abs() <= 2.0, "{v1}:{v2}: {counts:?}");
        if v2 == 0 || v1 == 0 {
            assert_eq!(counts.len(), 1, "{v1}:{v2}: {counts:?}");
        }
    }
}

#[tokio::test]
async fn no_request_fails_while_weights_change() {
    let _turn = turn().await;
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = [Http::new, Http::http2, Http::new, Http::http2]
        .into_iter()
        .map(|make| {
            let (stop, done, http) = (stop.clone(), done.clone(), make(&mesh().gateway));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let reply = http.get("/v1/products?pageSize=1").send().await;
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for weight in [10, 30, 50, 80, 100, 50, 0, 100, 0] {
        shift(json!({"v1": 100 - weight, "v2": weight})).await;
        let before = done.load(Ordering::Relaxed);
        weir_tests::eventually("twenty more requests", || async {
            (done.load(Ordering::Relaxed) > before + 20).then_some(())
        })
        .await;
    }
    mesh().weir(&["certificates", "rotate"]).ok();
    let before = done.load(Ordering::Relaxed);
    weir_tests::eventually("requests after the renewal", || async {
        (done.load(Ordering::Relaxed) > before + 200).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn what_v2_adds_is_seen_through_the_gateway() {
    let _turn = turn().await;
    let user = weir_tests::Account::register(&mesh().http()).await;
    let http = mesh().http().with_token(&user.access_token);
    let list = http.get("/v1/products?pageSize=1").ok().await;
    let id = list["products"][0]["productId"].as_str().unwrap().to_owned();
    let (product, rate) = (format!("/v1/products/{id}"), format!("/v1/products/{id}:rate"));

    shift(json!({"v1": 100, "v2": 0})).await;
    let early = http.post(&rate, &json!({"stars": 4})).send().await;
    assert_eq!((early.status.as_u16(), &early.json()["code"]), (400, &json!(9)));

    shift(json!({"v1": 0, "v2": 100})).await;
    http.post(&rate, &json!({"stars": 4})).ok().await;
    let rated = http.get(&product).ok().await;
    assert_eq!(rated["rating"], json!({"average": 4.0, "count": 1}));

    // Back to v1, which knows of no ratings and loses nothing.
    shift(json!({"v1": 100, "v2": 0})).await;
    let old = http.get(&product).ok().await;
    assert!(old.get("rating").is_none(), "{old}");
    assert_eq!((&old["etag"], &old["name"]), (&rated["etag"], &rated["name"]));
}
