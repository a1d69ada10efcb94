//! What is in Kubernetes is what counts, whoever put it there.

use serde_json::{Value, json};

use super::replica::Replica;
use super::server::{Server, shared};
use super::world::{Shop, pairs, traffic_split};
use crate::plane::eventually;

async fn newest(replica: &Replica) -> Value {
    replica.get("/v1/history").await["entries"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_watched_reaches_routers_and_what_the_api_writes_is_seen_by_kubectl() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-truth", "cp").await;
    let shop = Shop::open(&server, "shop-truth").await;
    let mut router = shop.router(&replica, "products-1").await;
    let at_first = router.sees("ready pods", |s| shop.weights(s) == pairs(1, 1)).await;
    let own: Vec<_> = at_first.instances.iter().filter(|i| i.service == shop.products()).collect();
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own.iter().all(|i| i.identity.ends_with("/ns/shop-truth/sa/products")), "{own:?}");
    // Other tests of this cluster may have configured something.
    let base = at_first.revision;
    assert_eq!(
        replica.get("/v1/history").await["entries"].as_array().map_or(0, Vec::len),
        base as usize
    );

    let shift = json!({ "weights": { "v1": 90, "v2": 10 }, "reason": "a canary", "wait": true });
    let path = format!("/v1/services/{}/shift", shop.products());
    let (status, answer) = replica.http("POST", &path, shift).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(base + 1)), "{answer}");
    assert_eq!(answer["converged"]["applied"], 1, "{answer}");
    router.sees("the shift", |s| s.revision == base + 1 && shop.weights(s) == pairs(90, 10)).await;
    let split = shop.split().await.expect("no TrafficSplit");
    assert_eq!(split["spec"], traffic_split(90, 10)["spec"]);
    assert_eq!(split["metadata"]["annotations"]["weir.dev/reason"], "a canary");
    let managers = split["metadata"]["managedFields"].as_array().unwrap().iter();
    let managers: Vec<_> = managers.filter(|m| m["manager"] == "weir").collect();
    assert_eq!(managers[0]["operation"], "Apply", "{managers:?}");
    eventually("its status", async || {
        let status = shop.split().await?["status"].clone();
        (status["ancestors"][0]["conditions"][0]["status"] == "True").then_some(())
    })
    .await;
    let entry = newest(&replica).await;
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("shift"), &json!("admin")));

    shop.apply_as("gitops", traffic_split(50, 50)).await;
    router
        .sees("what GitOps set", |s| s.revision == base + 2 && shop.weights(s) == pairs(50, 50))
        .await;
    let entry = newest(&replica).await;
    assert_eq!((&entry["action"], &entry["actor"]), (&json!("observe"), &json!("gitops")));
    let get = replica.get(&format!("/v1/services/{}", shop.products())).await;
    assert_eq!(get["versions"][0]["weight"], 50, "{get}");

    shop.pods(&[("products-1", "v1"), ("products-2", "v2"), ("products-3", "v2")]).await;
    let grown = router.sees("a third pod", |s| {
        s.instances.iter().filter(|i| i.service == shop.products()).count() == 3
    });
    assert_eq!(grown.await.revision, base + 2, "pods come and go without anyone deciding it");

    let path = format!("/v1/services/{}/rollback", shop.products());
    let (status, answer) = replica.http("POST", &path, json!({ "reason": "no" })).await;
    assert_eq!(status, 200, "{answer}");
    router
        .sees("the rollback", |s| s.revision == base + 3 && shop.weights(s) == pairs(90, 10))
        .await;
    assert_eq!(shop.split().await.unwrap()["spec"], traffic_split(90, 10)["spec"]);

    let history = replica.get("/v1/history").await;
    replica.kill().await;
    let replica = Replica::lead(&server, "weir-truth", "cp").await;
    assert_eq!(replica.get("/v1/history").await, history, "a restart forgets nothing");
    let mut router = shop.router(&replica, "products-1").await;
    let after = router.sees("a snapshot", |s| s.sequence > 0).await;
    assert_eq!((after.revision, shop.weights(&after)), (base + 3, pairs(90, 10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_and_policies_of_the_api_are_resources_and_what_is_none_is_refused() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-routes", "cp").await;
    let shop = Shop::open(&server, "shop-routes").await;
    eventually("the service", async || {
        let path = format!("/v1/services/{}", shop.products());
        (replica.http("GET", &path, Value::Null).await.0 == 200).then_some(())
    })
    .await;
    let route = json!({
        "kind": "HTTP_ROUTE",
        "parentRefs": [{ "kind": "Service", "name": shop.products() }],
        "rules": [{
            "matches": [{ "pathType": "PATH_PREFIX", "path": "/v1" }],
            "backendRefs": [{ "service": shop.products(), "weight": 1 }],
        }],
    });
    let (status, answer) = replica.http("PUT", "/v1/routes/web.shop-routes", route.clone()).await;
    assert_eq!((status, &answer["unchanged"]), (200, &json!(false)), "{answer}");
    let object = shop.get("gateway.networking.k8s.io/v1", "HTTPRoute", "web").await.unwrap();
    assert_eq!(
        object["spec"]["rules"][0]["backendRefs"],
        json!([{ "name": "products", "port": 80, "weight": 1 }])
    );
    assert_eq!(object["spec"]["parentRefs"][0]["name"], "products", "{object}");
    let routes = replica.get("/v1/routes").await;
    let mut routes = routes["routes"].as_array().unwrap().iter();
    assert!(routes.any(|route| route["name"] == "web.shop-routes"), "{routes:?}");
    let (_, again) = replica.http("PUT", "/v1/routes/web.shop-routes", route.clone()).await;
    assert_eq!(again["unchanged"], true, "{again}");

    let policy = json!({
        "kind": "RateLimitPolicy",
        "name": "calm.shop-routes",
        "spec": {
            "targetRefs": [{ "kind": "Service", "name": shop.products() }],
            "rules": [{ "name": "all", "limit": { "requests": 5, "per": "1s" } }],
        },
    });
    let (status, answer) = replica.http("POST", "/v1/apply", json!({ "policies": [policy] })).await;
    assert_eq!(status, 200, "{answer}");
    let object = shop.get("weir.dev/v1alpha1", "RateLimitPolicy", "calm").await.unwrap();
    assert_eq!(object["spec"]["targetRefs"][0]["name"], "products", "{object}");
    let base = answer["revision"].as_u64().unwrap();

    let (status, answer) = replica.http("PUT", "/v1/routes/web", route).await;
    assert!(status == 400 && answer.to_string().contains("NAME.NAMESPACE"), "{answer}");
    let service = json!({
        "name": "lonely", "protocol": "PROTOCOL_HTTP1",
        "versions": [{ "version": "v1", "weight": 1 }],
    });
    let (status, answer) =
        replica.http("POST", "/v1/apply", json!({ "services": [service] })).await;
    assert!(status == 400 && answer.to_string().contains("kubectl"), "{answer}");

    let (status, answer) = replica.http("DELETE", "/v1/routes/web.shop-routes", Value::Null).await;
    assert_eq!((status, &answer["revision"]), (200, &json!(base + 1)), "{answer}");
    assert!(shop.get("gateway.networking.k8s.io/v1", "HTTPRoute", "web").await.is_none());
    assert_eq!(newest(&replica).await["action"], "delete-route");

    let service = format!("/v1/services/{}", shop.products());
    let shift = json!({ "weights": { "v1": 3, "v2": 1 } });
    let (status, answer) = replica.http("POST", &format!("{service}/shift"), shift).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = replica.http("POST", &format!("{service}/rollback"), json!({})).await;
    assert_eq!(status, 200, "the first shift can be undone: {answer}");
    assert_eq!(shop.split().await.unwrap()["spec"], traffic_split(1, 1)["spec"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_of_the_mesh_has_the_roots_to_trust() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-roots", "cp").await;
    let shop = Shop::open(&server, "shop-roots").await;
    let roots = replica.door().await.bundle.to_pem();
    let right = async || {
        let map = shop.get("v1", "ConfigMap", "weir-trust-bundle").await?;
        (map["data"]["ca.pem"] == roots.as_str()).then_some(())
    };
    eventually("the roots", &right).await;
    shop.apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "weir-trust-bundle" },
        "data": { "ca.pem": "someone else's" },
    }))
    .await;
    eventually("the roots again", &right).await;
    let of = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "shop-roots" },
    });
    server.api(&of).await.delete("weir-trust-bundle", &Default::default()).await.unwrap();
    eventually("new roots", &right).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_dies_changes_nothing_for_routers() {
    let Some(server) = Server::start().await else { return };
    let server = std::sync::Arc::new(server);
    let replica = Replica::lead(&server, "weir-outage", "cp").await;
    let shop = Shop::open(&server, "shop-outage").await;
    shop.apply(traffic_split(7, 3)).await;
    let mut router = shop.router(&replica, "products-1").await;
    let before = router.sees("the split", |s| shop.weights(s) == pairs(7, 3)).await;
    let told = eventually("its status", async || {
        let split = shop.split().await?;
        let told = &split["status"]["ancestors"][0]["conditions"][0]["type"];
        (*told == "Accepted").then_some(split)
    })
    .await;

    server.kill();
    server.up().await;
    shop.apply(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "later" },
        "spec": { "ports": [{ "name": "http", "port": 80 }] },
    }))
    .await;
    // Its lead ends when the API server is away for longer than 10 s.
    let replica = replica.or_restarted().await;
    if router.has_ended() {
        router = shop.router(&replica, "products-1").await;
    }
    let later = "later.shop-outage";
    let after = router.sees("what came later", |s| s.services.iter().any(|s| s.name == later));
    let after = after.await;
    assert_eq!(shop.weights(&after), pairs(7, 3));
    assert_eq!(after.revision, before.revision, "nothing was taken for gone");
    let split = shop.split().await.unwrap();
    let version = |split: &Value| split["metadata"]["resourceVersion"].clone();
    assert_eq!(version(&split), version(&told), "a status that is right is not written again");
}

/// In another version than the one that Weir knows best.
const TCP_ROUTE: (&str, &str, &str, &str, &str) =
    ("gateway.networking.k8s.io", "v1", "TCPRoute", "tcproutes", "Namespaced");

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_installed_later_is_followed_in_the_version_that_there_is() {
    let Some((server, _turn)) = shared().await else { return };
    let replica = Replica::lead(&server, "weir-later", "cp").await;
    let shop = Shop::open(&server, "shop-later").await;
    server.add(&TCP_ROUTE).await;
    let service = json!({ "name": "products", "port": 80 });
    let mut parent = service.clone();
    (parent["group"], parent["kind"]) = ("".into(), "Service".into());
    shop.apply(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute",
        "metadata": { "name": "db" },
        "spec": { "parentRefs": [parent], "rules": [{ "backendRefs": [service] }] },
    }))
    .await;
    let told = || async {
        let route = shop.get("gateway.networking.k8s.io/v1", "TCPRoute", "db").await?;
        route["status"]["parents"][0]["conditions"][0]["type"].as_str().map(str::to_owned)
    };
    // Kinds are looked for every 10 s.
    let found = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            if let Some(told) = told().await {
                return told;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    let log = || replica.log();
    assert_eq!(found.await.unwrap_or_else(|_| panic!("{}", log())), "Accepted");
}
