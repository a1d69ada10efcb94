//! What a router reports of its edges.

use weir_mesh::analysis::Histogram;

use crate::world::{Client, GATEWAY, World, eventually};

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
