//! A call whose deadline passed is cancelled upstream.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};
use weir_tests::eventually;

use crate::server::Manner;
use crate::{Service, http, states};

pub fn services() -> Vec<Service> {
    let policy = json!({"outlierDetection": {}});
    vec![
        ("late", "http1", 1, Value::Null),
        ("late-policy", "http1", 1, policy.clone()),
        ("late-h2", "http2", 1, Value::Null),
        ("late-h2-policy", "http2", 1, policy),
    ]
}

#[tokio::test]
async fn what_is_late_is_cancelled_upstream() {
    for service in ["late", "late-policy", "late-h2", "late-h2-policy"] {
        let state = states(service)[0].clone();
        state.set(Manner::Hangs);
        let reply = http().get(&format!("/{service}")).send().await;
        assert_eq!(reply.status, 504, "{service}: {}", reply.text());
        eventually(&format!("{service}: the server learns of it"), || async {
            (state.cancelled.load(SeqCst) == state.count()).then_some(())
        })
        .await;
        let told = state.told.load(SeqCst);
        assert!((1..=400).contains(&told), "{service}: {told} ms were told to be left");
    }
}
