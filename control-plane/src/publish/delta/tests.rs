use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use weir_mesh::wire::digest::{Digest, digest, patch};
use weir_proto::weir::mesh::v1 as pb;

use super::{STEPS, Trail};

/// Ports of instances and weights of services, by id, and all the rest.
type State = (BTreeMap<u8, u16>, BTreeMap<u8, i32>, u8);

fn message(state: &State, sequence: u64) -> pb::Snapshot {
    let instance = |(id, port): (&u8, &u16)| pb::Instance {
        id: format!("i{id}"),
        address: format!("10.0.0.1:{port}"),
        ..Default::default()
    };
    let service = |(id, weight): (&u8, &i32)| pb::Service {
        name: format!("s{id:03}"),
        versions: vec![pb::VersionWeight { weight: *weight, ..Default::default() }],
        ..Default::default()
    };
    // Large, so that every delta is worth it.
    let large =
        pb::Instance { id: "large".into(), zone: "z".repeat(100_000), ..Default::default() };
    pb::Snapshot {
        sequence,
        revision: 1,
        trust_domain: state.2.to_string(),
        services: state.1.iter().map(service).collect(),
        instances: state.0.iter().map(instance).chain([large]).collect(),
        ..Default::default()
    }
}

fn small() -> impl Strategy<Value = State> {
    let instances = proptest::collection::btree_map(0..12_u8, 0..3_u16, 0..12);
    let services = proptest::collection::btree_map(0..5_u8, 0..3_i32, 0..5);
    (instances, services, 0..2_u8)
}

proptest! {
    /// A router that has any of the snapshots comes to the newest by one delta, and what
    /// it makes of it is what the whole says.
    #[test]
    fn each_base_leads_to_the_newest(states in proptest::collection::vec(small(), 1..12)) {
        let mut trail = Trail::default();
        let mut had: Vec<pb::Snapshot> = Vec::new();
        for (i, state) in states.iter().enumerate() {
            let sequence = i as u64 + 1;
            let (bytes, deltas) = trail.go_on(message(state, sequence));
            let whole = pb::Snapshot::decode(bytes).unwrap();
            for base in &had {
                let mut have = base.clone();
                let base: Digest = digest(&mut have);
                let delta = pb::Delta::decode(deltas.from(&base).unwrap()).unwrap();
                prop_assert_eq!(patch(&mut have, &base, delta), Ok(deltas.digest()));
                let _ = digest(&mut have);
                prop_assert_eq!(&have, &whole);
            }
            prop_assert!(deltas.from(&[9; 32]).is_none());
            had.push(whole);
        }
    }
}

#[test]
fn the_same_content_needs_new_numbers_alone() {
    let mut trail = Trail::default();
    let state = (BTreeMap::from([(1, 1)]), BTreeMap::new(), 0);
    let (_, first) = trail.go_on(message(&state, 1));
    let (_, second) = trail.go_on(message(&state, 2));
    assert_eq!(first.digest(), second.digest());
    let delta = pb::Delta::decode(second.from(&first.digest()).unwrap()).unwrap();
    assert_eq!((delta.sequence, delta.instances.len(), delta.rest), (2, 0, None));
}

#[test]
fn what_is_too_long_ago_is_forgotten() {
    let mut trail = Trail::default();
    let state = |port| (BTreeMap::from([(1, port)]), BTreeMap::new(), 0);
    let (_, first) = trail.go_on(message(&state(0), 1));
    let mut last = None;
    for i in 1..=STEPS as u16 {
        last = Some(trail.go_on(message(&state(i), u64::from(i) + 1)).1);
    }
    assert!(last.unwrap().from(&first.digest()).is_some());
    let (_, beyond) = trail.go_on(message(&state(9999), 9999));
    assert!(beyond.from(&first.digest()).is_none());
    assert!(trail.steps.len() <= STEPS);
}
