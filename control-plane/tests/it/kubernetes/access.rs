//! Service accounts as callers of the API, and refusals in the cluster's history.

use serde_json::{Value, json};

use super::replica::Replica;
use super::server::shared;
use super::world::{Shop, pairs, traffic_split};
use crate::plane::eventually;

const ACCESS: &str = "serviceAccounts:\n\
    - {namespace: weir-access-ci, name: deployer, role: shifter, services: [none.here]}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_calls_by_its_token_and_is_refused_by_its_role() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-access", "cp").await;
    for name in ["deployer", "stranger"] {
        server.namespace("weir-access-ci").await;
        server.account("weir-access-ci", name).await;
    }
    let token =
        async |name: &str, audience: &str| server.token("weir-access-ci", name, audience).await;
    let call = async |token: &str, method: &str, path: &str, body: &Value| {
        let (status, text) = replica.raw(method, path, token, body).await;
        (status, serde_json::from_str::<Value>(&text).unwrap())
    };
    let own = token("deployer", "weir-api").await;
    assert_eq!(call(&own, "GET", "/v1/whoami", &Value::Null).await.0, 401, "nobody named it");
    replica.access(ACCESS);
    let who = eventually("the file", async || {
        let (status, who) = call(&own, "GET", "/v1/whoami", &Value::Null).await;
        (status == 200).then_some(who)
    })
    .await;
    assert_eq!(who["name"], "system:serviceaccount:weir-access-ci:deployer");
    assert_eq!((&who["role"], &who["services"]), (&json!("shifter"), &json!(["none.here"])));
    let stranger = token("stranger", "weir-api").await;
    assert_eq!(call(&stranger, "GET", "/v1/whoami", &Value::Null).await.0, 403);
    let (status, answer) =
        call(&token("deployer", "weir").await, "GET", "/v1/whoami", &Value::Null).await;
    let message = answer["message"].as_str().unwrap();
    assert!(status == 401 && message.contains("audience"), "a router's token: {message}");

    let world = Shop::open(&server, "shop-access").await;
    world.pods(&[("p1", "v1"), ("p2", "v2")]).await;
    world.apply(traffic_split(100, 0)).await;
    let path = format!("/v1/services/{}", world.products());
    eventually("the split", async || {
        let service = replica.http("GET", &path, Value::Null).await.1;
        (service["versions"][0]["weight"] == 100).then_some(())
    })
    .await;
    let mut router = world.router(&replica, "p1").await;
    let before = router.sees("the split", |s| world.weights(s) == pairs(100, 0)).await;

    let shift = json!({"weights": {"v1": 1, "v2": 1}});
    let (status, answer) = call(&own, "POST", &format!("{path}/shift"), &shift).await;
    assert_eq!(status, 403, "{answer}");
    let history = replica.get("/v1/history").await;
    let newest = &history["entries"][0];
    assert_eq!(
        (&newest["action"], &newest["actor"]),
        (&json!("refused"), &who["name"]),
        "{newest}"
    );
    let mesh = replica.get("/v1/mesh").await;
    assert_eq!(mesh["revision"], newest["revision"]);

    // What somebody changes next follows it, and routers are sent that.
    world.apply(traffic_split(60, 40)).await;
    let after = router.sees("another split", |s| world.weights(s) == pairs(60, 40)).await;
    let refused = u32::try_from(newest["revision"].as_u64().unwrap()).unwrap();
    assert!(before.revision < refused && refused < after.revision, "{refused}");
}
