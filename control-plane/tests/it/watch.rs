use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Code;
use weir_proto::weir::mesh::v1::watch_request::Message;
use weir_proto::weir::mesh::v1::{Health, Leave};

use crate::plane::{Plane, eventually};
use crate::router::{Door, Manner, Router, hello, versions};

const SHIFT: &str = "/v1/services/products/shift";

#[tokio::test(flavor = "multi_thread")]
async fn each_router_gets_what_it_needs_and_every_change() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let mut products =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    let mut gateway = Router::connect(&door, hello("g", "gateway", "", 0), Manner::Applies).await;
    let seen = gateway.sees("its neighbour", |s| s.instances.len() == 1).await;
    assert_eq!(seen.trust_domain, "weir.local");
    assert_eq!(seen.trust_bundle.len(), 1);
    assert_eq!((seen.revision, seen.routes.len(), seen.services.len()), (1, 1, 2));
    weir_mesh::wire::snapshot(&seen).unwrap();

    let body = json!({"weights": {"v1": 3, "v2": 1}, "allowEmpty": true, "wait": true});
    let answer = plane.post(SHIFT, body).await;
    assert_eq!(
        (&answer["converged"]["routers"], &answer["converged"]["applied"]),
        (&json!(2), &json!(2))
    );
    for router in [&mut products, &mut gateway] {
        let seen = router.sees("the shift", |s| s.revision == 2).await;
        assert_eq!(versions(&seen, "products"), [("v1".into(), 3), ("v2".into(), 1)]);
    }
    let routers = plane.get("/v1/routers").await["routers"].clone();
    let gateway = &routers[0];
    assert_eq!((&gateway["router"], &gateway["role"]), (&json!("g"), &json!("gateway")));
    assert_eq!((&gateway["live"], &gateway["lag"]), (&json!(true), &json!("0")), "{routers}");
    assert_eq!((&gateway["appliedRevision"], &gateway["applyMicros"]), (&json!(2), &json!(7)));
    let products = &routers[1];
    assert_eq!(
        (&products["version"], &products["adminAddress"]),
        (&json!("v1"), &json!("127.0.0.1:9"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_applied_a_change_is_named_with_why() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let first = hello("refuses", "products", "v1", 1001);
    let mut refuses = Router::connect(&door, first, Manner::RefusesChanges).await;
    refuses.sees("something", |s| s.sequence > 0).await;
    let second = hello("applies", "users", "v1", 1002);
    let mut applies = Router::connect(&door, second, Manner::Applies).await;
    applies.sees("both", |s| s.instances.len() == 2).await;

    let shift = |weight: u32, seconds: u32| json!({"weights": {"v1": weight, "v2": 1}, "allowEmpty": true, "wait": true, "waitSeconds": seconds});
    let started = Instant::now();
    let answer = plane.post(SHIFT, shift(5, 60)).await["converged"].clone();
    assert!(started.elapsed() < Duration::from_secs(30), "a refusal is final");
    assert_eq!((&answer["routers"], &answer["applied"]), (&json!(2), &json!(1)), "{answer}");
    let pending = json!([{"router": "refuses", "reason": "refused: routes[0]: no"}]);
    assert_eq!(answer["pending"], pending);
    let routers = plane.get("/v1/routers").await["routers"].clone();
    assert_eq!(routers[1]["refused"], "routes[0]: no", "{routers}");
    assert!(routers[1]["lag"].as_str().unwrap().parse::<u64>().unwrap() > 0);

    let third = hello("silent", "users", "v1", 1003);
    let mut silent = Router::connect(&door, third, Manner::Silent).await;
    silent.sees("something", |s| s.sequence > 0).await;
    let answer = plane.post(SHIFT, shift(6, 1)).await["converged"].clone();
    assert_eq!((&answer["routers"], &answer["applied"]), (&json!(3), &json!(1)), "{answer}");
    assert_eq!(answer["pending"][1]["router"], "silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_leaving_reach_the_others() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let products =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    let mut gateway = Router::connect(&door, hello("g", "gateway", "", 0), Manner::Applies).await;
    gateway.sees("it healthy", |s| s.instances.iter().any(|i| i.healthy)).await;
    products.send(Message::Health(Health { healthy: false, certificate_not_after: 42 })).await;
    gateway.sees("it unhealthy", |s| s.instances.iter().any(|i| !i.healthy)).await;
    let service = plane.get("/v1/services").await["services"][0].clone();
    assert_eq!((&service["instances"], &service["healthyInstances"]), (&json!(1), &json!(0)));
    let router = plane.get("/v1/routers").await["routers"][1].clone();
    assert_eq!(router["certificateNotAfter"], "42");
    let started = Instant::now();
    products.send(Message::Leave(Leave {})).await;
    gateway.sees("it gone", |s| s.instances.is_empty()).await;
    assert!(started.elapsed() < Duration::from_secs(3), "at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_is_killed_has_a_grace_to_come_back() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let mut gateway = Router::connect(&door, hello("g", "gateway", "", 0), Manner::Applies).await;
    let products = hello("p1", "products", "v1", 1001);
    let killed = Router::connect(&door, products.clone(), Manner::Applies).await;
    gateway.sees("it", |s| s.instances.len() == 1).await;
    killed.kill();
    let gone = eventually("it is not live", async || {
        let routers = plane.get("/v1/routers").await["routers"].clone();
        (routers[1]["live"] == false).then_some(Instant::now())
    })
    .await;
    assert_eq!(gateway.snapshot.borrow().instances.len(), 1, "it may come back");
    let back = Router::connect(&door, products, Manner::Applies).await;
    eventually("it is live again", async || {
        let routers = plane.get("/v1/routers").await["routers"].clone();
        (routers[1]["live"] == true).then_some(())
    })
    .await;
    back.kill();
    gateway.sees("it gone", |s| s.instances.is_empty()).await;
    assert!(gone.elapsed() >= Duration::from_secs(5), "not before its grace is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_stream_of_the_same_router_replaces_the_older() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let products = hello("p1", "products", "v1", 1001);
    let mut old = Router::connect(&door, products.clone(), Manner::Applies).await;
    old.sees("something", |s| s.sequence > 0).await;
    let mut new = Router::connect(&door, products, Manner::Applies).await;
    assert_eq!(old.end().await.code(), Code::Aborted);
    new.sees("itself", |s| s.instances.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_runs_the_newest_snapshot_is_not_sent_it_again() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let gateway = hello("g", "gateway", "", 0);
    let mut first = Router::connect(&door, gateway.clone(), Manner::Applies).await;
    let sequence = first.sees("something", |s| s.revision == 1).await.sequence;
    let again = weir_proto::weir::mesh::v1::Hello { sequence, ..gateway };
    let second = Router::connect(&door, again, Manner::Silent).await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    eventually("it counts as applied", async || {
        let router = plane.get("/v1/routers").await["routers"][0].clone();
        (router["live"] == true && router["lag"] == "0").then_some(())
    })
    .await;
    assert_eq!(second.snapshot.borrow().sequence, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_runs_what_no_store_has_any_more_is_sent_what_there_is() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    // As after a copy of the store was brought back: all numbers are lower again.
    let ahead = weir_proto::weir::mesh::v1::Hello {
        sequence: 1_000_000,
        revision: 1000,
        digest: vec![7; 32],
        deltas: true,
        ..hello("p1", "products", "v1", 1001)
    };
    let mut products = Router::connect(&door, ahead, Manner::Applies).await;
    products.sees("what there is", |s| s.revision == 1).await;
    let body = json!({"weights": {"v1": 3, "v2": 1}, "allowEmpty": true, "wait": true});
    let answer = plane.post(SHIFT, body).await;
    let converged = &answer["converged"];
    assert_eq!((&converged["routers"], &converged["applied"]), (&json!(1), &json!(1)), "{answer}");
    products.sees("the shift", |s| s.revision == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_hellos_are_refused() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let svid = door.svid("products").await;
    let good = || hello("p1", "products", "v1", 1001);
    let wrong = |change: fn(&mut weir_proto::weir::mesh::v1::Hello)| {
        let mut hello = good();
        change(&mut hello);
        hello
    };
    let cases = [
        (hello("u1", "users", "v1", 1001), Code::PermissionDenied, "not service users"),
        (hello("g", "gateway", "", 0), Code::PermissionDenied, "not service gateway"),
        (wrong(|h| h.router_id.clear()), Code::InvalidArgument, "hello.routerId"),
        (wrong(|h| h.role = 0), Code::InvalidArgument, "hello.role"),
        (wrong(|h| h.role = 2), Code::InvalidArgument, "hello.instance: a gateway"),
        (
            wrong(|h| h.instance.as_mut().unwrap().service = "users".into()),
            Code::InvalidArgument,
            "hello.instance.service",
        ),
        (
            wrong(|h| h.instance.as_mut().unwrap().address = "0.0.0.0:1".into()),
            Code::InvalidArgument,
            "hello.instance.address",
        ),
        (
            wrong(|h| h.instance.as_mut().unwrap().address = "products:80".into()),
            Code::InvalidArgument,
            "hello.instance.address",
        ),
        (
            wrong(|h| h.instance.as_mut().unwrap().plain = true),
            Code::InvalidArgument,
            "hello.instance.plain",
        ),
        (wrong(|h| h.admin_address = "x".into()), Code::InvalidArgument, "hello.adminAddress"),
    ];
    for (hello, code, expected) in cases {
        let status = Router::with(&door, &svid, hello, Manner::Applies).await.end().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(expected), "{expected}: {status}");
    }
    assert!(plane.get("/v1/routers").await["routers"].as_array().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_instances_history_and_the_order_of_snapshots() {
    let plane = Plane::start().await;
    plane.seed().await;
    let door = Door::of(&plane);
    let mut products =
        Router::connect(&door, hello("p1", "products", "v1", 1001), Manner::Applies).await;
    let before = products.sees("itself", |s| s.instances.len() == 1).await.sequence;
    let plane = plane.restart().await;
    assert_eq!(products.end().await.code(), Code::Unavailable);
    assert_eq!(plane.get("/v1/instances").await["instances"][0]["id"], "p1-app", "at once");
    assert_eq!(plane.get("/v1/history").await["entries"].as_array().unwrap().len(), 1);
    let mut gateway = Router::connect(&door, hello("g", "gateway", "", 0), Manner::Applies).await;
    let seen = gateway.sees("it", |s| s.instances.len() == 1).await;
    assert!(seen.sequence > before, "{} after {before}", seen.sequence);
    let body = json!({"weights": {"v1": 9}, "wait": true, "waitSeconds": 1});
    let answer = plane.post(SHIFT, body).await["converged"].clone();
    assert_eq!(answer["pending"][0]["router"], "p1", "it is expected back: {answer}");
    let lag = plane.get("/v1/routers").await["routers"][1]["lag"].clone();
    assert!(lag.as_str().unwrap().parse::<u64>().unwrap() < 100, "{lag}");
}
