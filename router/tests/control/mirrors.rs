//! Copies of a service's requests to one of its versions.

use weir_proto::weir::mesh::v1 as pb;

use crate::world::{CALLER, Client, GATEWAY, World, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_copied_exactly_and_only_the_version_pays_for_its_answers() {
    let world = World::start(500).await;
    let headers = [("x-beta".to_owned(), "yes".to_owned())].into();
    let by = pb::audience::By::Headers(pb::HeaderAudience { headers });
    let audience = pb::Audience { by: Some(by), version: "v2".into() };
    world
        .publish(7, |snapshot| {
            let web = &mut snapshot.services[0];
            web.mirror = Some(pb::VersionMirror { version: "v2".into(), per_million: 250_000 });
            web.audiences = vec![audience];
        })
        .await;
    let doors = [(GATEWAY, world.gateway.at("gateway")), (CALLER, world.caller.at("outbound"))];
    for (router, at) in doors {
        let mut client = Client::new(at);
        for i in 0..40 {
            let path = format!("/{router}/{i}");
            assert_eq!(client.version("web", &path, &[]), "v1", "{router}");
        }
        // They go to v2 already.
        for i in 0..8 {
            let reply = client.get("web", &format!("/{router}-own/{i}"), &[("x-beta", "yes")]);
            assert_eq!((reply.status, &*reply.body), (500, "v2"));
        }
        let reported = eventually("all are reported", || async {
            let [v1, v2] = ["v1", "v2"].map(|version| world.reported(router, version));
            let sum = |of: &[(u32, u64, u64)]| of.iter().map(|of| of.1).sum::<u64>();
            (sum(&v1) == 40 && sum(&v2) >= 8 + 9).then_some((v1, v2))
        })
        .await;
        let copies = world.v2.seen(&format!("/{router}/"));
        assert!((9..=11).contains(&copies), "{copies} of 40");
        assert_eq!(world.v2.seen(&format!("/{router}-own/")), 8, "not twice");
        assert_eq!(world.v1.seen(&format!("/{router}")), 40);
        let all = 8 + copies as u64;
        assert_eq!(reported, (vec![(7, 40, 0)], vec![(7, all, all)]), "{router}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_mirror_copies_every_request() {
    let world = World::start(200).await;
    world
        .publish(2, |snapshot| {
            let mirror = pb::VersionMirror { version: "v2".into(), per_million: 1_000_000 };
            snapshot.services[0].mirror = Some(mirror);
        })
        .await;
    let mut client = Client::new(world.gateway.at("gateway"));
    for i in 0..10 {
        assert_eq!(client.version("web", &format!("/{i}"), &[]), "v1");
    }
    eventually("all copies are there", || async { (world.v2.seen("/") == 10).then_some(()) }).await;
}
