//! Deltas, and coming back.

use prost::Message as _;
use serde_json::Value;
use weir_mesh::wire::digest::digest;
use weir_proto::weir::mesh::v1 as pb;
use weir_proto::weir::mesh::v1::watch_request::Message as In;
use weir_proto::weir::mesh::v1::watch_response::Message as Out;

use crate::world::{App, Client, GATEWAY, World, eventually, instance};

/// What makes `after` of `before`.
fn delta(before: &pb::Snapshot, after: &pb::Snapshot) -> pb::Delta {
    let find = |of: &pb::Snapshot, id: &str| of.instances.iter().find(|i| i.id == id).cloned();
    let changed = after.instances.iter().filter(|i| find(before, &i.id).as_ref() != Some(*i));
    let gone = before.instances.iter().filter(|i| find(after, &i.id).is_none());
    pb::Delta {
        base_digest: digest(&mut before.clone()).to_vec(),
        digest: digest(&mut after.clone()).to_vec(),
        sequence: after.sequence,
        revision: after.revision,
        instances: changed.cloned().collect(),
        gone: gone.map(|instance| instance.id.clone()).collect(),
        services: after.services.iter().filter(|s| !before.services.contains(s)).cloned().collect(),
        ..Default::default()
    }
}

/// Sends a delta, and waits for the answer to it.
async fn answer(world: &World, delta: &pb::Delta) -> In {
    world.plane.say(GATEWAY, Out::Delta(delta.encode_to_vec().into())).await;
    eventually("the delta is answered", || async {
        world.plane.heard(GATEWAY).into_iter().rev().find(|said| match said {
            In::Applied(applied) => applied.sequence == delta.sequence,
            In::Refused(refused) => refused.sequence == delta.sequence,
            _ => false,
        })
    })
    .await
}

fn instances(config: &Value) -> Vec<String> {
    let services = config["services"].as_array().unwrap();
    let web = services.iter().find(|service| service["name"] == "web").unwrap();
    let versions = web["versions"].as_array().unwrap().iter();
    let ids = versions.flat_map(|version| version["instances"].as_array().unwrap().clone());
    ids.map(|instance| instance["instance"].as_str().unwrap().to_owned()).collect()
}

/// Hellos of the gateway.
fn hellos(world: &World) -> Vec<pb::Hello> {
    let heard = world.plane.heard(GATEWAY).into_iter();
    heard.filter_map(|said| if let In::Hello(hello) = said { Some(hello) } else { None }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_is_applied_and_one_for_another_base_is_refused() {
    let world = World::start(200).await;
    let new = App::start("new", 200);
    let before = world.plane.snapshot();
    let mut after = before.clone();
    (after.sequence, after.revision) = (100, 9);
    after.instances = vec![instance("a-new-one", "v1", new.address), after.instances[1].clone()];
    let made = delta(&before, &after);
    assert!(matches!(answer(&world, &made).await, In::Applied(_)));
    let config = world.gateway.config();
    assert_eq!((&config["sequence"], &config["revision"]), (&100.into(), &9.into()));
    assert_eq!(instances(&config), ["a-new-one", "web-v2"]);
    let mut client = Client::new(world.gateway.at("gateway"));
    assert_eq!(client.version("web", "/", &[]), "new");

    // Only numbers.
    let mut same = after.clone();
    (same.sequence, same.revision) = (101, 10);
    let renumbered = delta(&after, &same);
    assert!(renumbered.instances.is_empty() && renumbered.gone.is_empty());
    assert!(matches!(answer(&world, &renumbered).await, In::Applied(_)));
    let config = world.gateway.config();
    assert_eq!((&config["sequence"], &config["revision"]), (&101.into(), &10.into()));
    assert_eq!(client.version("web", "/", &[]), "new");
    let told = eventually("requests are told by the newer revision", || async {
        let told = world.reported(GATEWAY, "v1");
        (told.len() == 2).then_some(told)
    })
    .await;
    assert_eq!(told, [(9, 1, 0), (10, 1, 0)]);

    // A shift.
    let mut shifted = same.clone();
    (shifted.sequence, shifted.revision) = (102, 11);
    let web = shifted.services.iter_mut().find(|service| service.name == "web").unwrap();
    (web.versions[0].weight, web.versions[1].weight) = (0, 1);
    let shift = delta(&same, &shifted);
    assert_eq!((shift.services.len(), shift.instances.len()), (1, 0));
    assert!(matches!(answer(&world, &shift).await, In::Applied(_)));
    assert_eq!(client.version("web", "/", &[]), "v2");

    // About what it no longer has, and one that lies about what it makes.
    let stale = pb::Delta { sequence: 103, ..made };
    let In::Refused(refused) = answer(&world, &stale).await else { panic!("applied") };
    assert!(refused.reason.contains("another base"), "{}", refused.reason);
    let mut lie = delta(&shifted, &before);
    (lie.sequence, lie.digest) = (104, vec![7; 32]);
    let In::Refused(refused) = answer(&world, &lie).await else { panic!("applied") };
    assert!(refused.reason.contains("another snapshot"), "{}", refused.reason);
    assert_eq!(world.gateway.config()["sequence"], 102);
    assert_eq!(client.version("web", "/", &[]), "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_says_what_it_has_and_never_left() {
    let mut world = World::start(200).await;
    world.plane.be_quiet();
    let mut client = Client::new(world.gateway.at("gateway"));
    let before = world.plane.snapshot();
    let mut after = before.clone();
    (after.sequence, after.revision) = (100, 9);
    after.instances.reverse();
    after.instances[0].zone = "z".into();
    assert!(matches!(answer(&world, &delta(&before, &after)).await, In::Applied(_)));
    world.plane.say(GATEWAY, Out::Reconnect(pb::Reconnect { after_ms: 50 })).await;
    let back = eventually("it is back", || {
        assert_eq!(client.version("web", "/", &[]), "v1", "it serves meanwhile");
        let back = hellos(&world).get(1).cloned();
        async move { back }
    })
    .await;
    assert_eq!((back.sequence, back.revision), (100, 9));
    assert_eq!(back.digest, digest(&mut after.clone()));
    assert!(!world.plane.heard(GATEWAY).iter().any(|said| matches!(said, In::Leave(_))));

    // And after a crash, by what it has on disk: with the numbers of the last delta.
    let mut same = after.clone();
    (same.sequence, same.revision) = (101, 10);
    assert!(matches!(answer(&world, &delta(&after, &same)).await, In::Applied(_)));
    let file = world.gateway.state("snapshot.pb");
    eventually("it is on disk", || async {
        let kept = pb::Snapshot::decode(std::fs::read(&file).ok()?.as_slice()).ok()?;
        (kept.sequence == 101).then_some(())
    })
    .await;
    world.gateway.kill_and_restart().await;
    let again = eventually("it is back", || async { hellos(&world).get(2).cloned() }).await;
    assert_eq!((again.sequence, again.revision), (101, 10));
    assert_eq!(again.digest, back.digest);
    assert_eq!(Client::new(world.gateway.at("gateway")).version("web", "/", &[]), "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_without_a_snapshot_has_no_digest() {
    let world = World::start(200).await;
    let first = hellos(&world).remove(0);
    assert_eq!((first.sequence, first.revision, first.digest.len()), (0, 0, 0));
}
