//! Another service stands in while all instances of one are unhealthy.

use serde_json::{Value, json};
use weir_tests::eventually;

use crate::server::Manner;
use crate::{Service, ask, http, logged, server_of, states};

pub fn services() -> Vec<Service> {
    let check = json!({
        "type": "HTTP", "path": "/health", "interval": "100ms", "healthyThreshold": 1,
    });
    let policy = json!({
        "failover": [{"service": "first-also"}, {"service": "spare", "version": "v1"}],
        "healthCheck": check,
    });
    vec![
        ("open", "http1", 1, json!({"failover": [{"service": "walled"}], "healthCheck": check})),
        // An AuthorizationPolicy of the mesh denies it to everybody.
        ("walled", "http1", 1, Value::Null),
        ("first", "http1", 2, policy),
        ("first-also", "http1", 1, json!({"healthCheck": check})),
        ("spare", "http1", 1, Value::Null),
    ]
}

#[tokio::test]
async fn nobody_gets_by_a_stand_in_where_they_may_not_go() {
    assert_eq!(http().get("/walled").send().await.status, 403);
    assert_eq!(http().get("/open").send().await.status, 200);
    let own = states("open")[0].clone();
    own.set(Manner::Status(500));
    own.set_health(Manner::Status(503));
    eventually("the ill one is known", || async {
        let reply = http().get("/open/logged").send().await;
        (reply.status == 500).then_some(())
    })
    .await;
    let checks = own.checks.load(std::sync::atomic::Ordering::SeqCst);
    eventually("it was asked for its health again", || async {
        (own.checks.load(std::sync::atomic::Ordering::SeqCst) > checks + 5).then_some(())
    })
    .await;
    assert_eq!(http().get("/open").send().await.status, 500, "nothing stands in");
    assert_eq!(states("walled")[0].count(), 0);
}

#[tokio::test]
async fn another_service_stands_in() {
    let own = states("first");
    assert!(ask("/first", 5).await.iter().all(|name| name.starts_with("first")));
    // The first that could stand in is ill as well.
    states("first-also")[0].set_health(Manner::Status(503));
    own[0].set_health(Manner::Status(503));
    eventually("the well one is asked alone", || async {
        ask("/first", 10).await.iter().all(|name| name == "first-2").then_some(())
    })
    .await;
    own[1].set_health(Manner::Status(503));
    eventually("the spare one stands in", || async {
        let reply = http().get("/first/spare").send().await;
        (server_of(&reply) == "spare-1").then_some(())
    })
    .await;
    server_of(&http().get("/first/logged").send().await);
    let line = logged("/first/logged").await;
    assert!(line["flags"].to_string().contains("FO"), "{line}");
    assert_eq!(line["service"], "spare");
    own[0].set_health(Manner::Good);
    eventually("it is back", || async {
        ask("/first", 5).await.iter().all(|name| name == "first-1").then_some(())
    })
    .await;
}
