//! What a router reports of its edges.

use serde_json::json;
use weir_mesh::analysis::Histogram;
use weir_mesh::policy::value::to_struct;

use weir_proto::weir::mesh::v1 as pb;

use crate::world::{Client, GATEWAY, HANGS_UP, World, eventually, instance};

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_told_by_the_revision_that_decided_with_their_latency() {
    let world = World::start(200).await;
    let mut client = Client::new(world.gateway.at("gateway"));
    for revision in [3_u32, 4, 5] {
        world
            .publish(revision, |snapshot| {
                snapshot.services[0].versions[1].weight = i32::from(revision == 4);
            })
            .await;
        for _ in 0..10 {
            client.version("web", "/", &[]);
        }
    }
    let (v1, v2) = eventually("all are reported", || async {
        let [v1, v2] = ["v1", "v2"].map(|version| world.reported(GATEWAY, version));
        let sum = v1.iter().chain(&v2).map(|of| of.1).sum::<u64>();
        (sum == 30).then_some((v1, v2))
    })
    .await;
    assert_eq!(v1, [(3, 10, 0), (4, 5, 0), (5, 10, 0)]);
    assert_eq!(v2, [(4, 5, 0)]);
    for edge in world.edges(GATEWAY) {
        let latency = Histogram::try_from(edge.latency.as_ref().unwrap()).unwrap();
        assert_eq!(latency.total(), edge.requests, "{edge:?}");
        assert_eq!(edge.buckets.iter().sum::<u64>(), edge.requests, "{edge:?}");
    }
}

/// Sends requests, which all succeed, until v2's program has hung up three times.
async fn hang_up(world: &World) -> u64 {
    let mut client = Client::new(world.gateway.at("gateway"));
    let mut sent = 0;
    eventually("v2 hangs up", || {
        assert_eq!(client.version("web", "/", &[]), "v1");
        sent += 1;
        let done = world.v2.seen("/") >= 3;
        async move { done.then_some(()) }
    })
    .await;
    sent
}

async fn reported_in_all(world: &World, sent: u64) {
    let sum = |version| world.reported(GATEWAY, version).iter().map(|of| of.1 - of.2).sum::<u64>();
    eventually("all good ones are reported", || async {
        (sum("v1") + sum("v2") >= sent).then_some(())
    })
    .await;
}

/// The rules of requests that have a policy are others' work in the router.
fn retries() -> pb::Policy {
    let target = json!({"kind": "Service", "name": "web"});
    pb::Policy {
        kind: "BackendTrafficPolicy".into(),
        name: "web".into(),
        spec: Some(to_struct(&json!({"targetRefs": [target], "retry": {"attempts": 2}}))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_hangs_up_has_failures_when_another_stands_in() {
    for policy in [false, true] {
        let world = World::start(HANGS_UP).await;
        world
            .publish(3, |snapshot| {
                snapshot.services[0].versions[1].weight = 1;
                if policy {
                    snapshot.policies = vec![retries()];
                }
            })
            .await;
        let sent = hang_up(&world).await;
        reported_in_all(&world, sent).await;
        let hung_up = world.v2.seen("/") as u64;
        assert_eq!(world.reported(GATEWAY, "v2"), [(3, hung_up, hung_up)], "policy: {policy}");
        assert_eq!(world.reported(GATEWAY, "v1"), [(3, sent, 0)], "policy: {policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_at_the_same_version_is_one_request_that_failed() {
    let world = World::start(HANGS_UP).await;
    world
        .publish(3, |snapshot| {
            snapshot.instances.push(instance("web-v1-bad", "v1", world.v2.address));
        })
        .await;
    let sent = hang_up(&world).await;
    let hung_up = world.v2.seen("/") as u64;
    let reported = eventually("all are reported", || async {
        let reported = world.reported(GATEWAY, "v1");
        (reported.iter().map(|of| of.1).sum::<u64>() >= sent).then_some(reported)
    })
    .await;
    assert_eq!(reported, [(3, sent, hung_up)]);
}
