use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message as _;
use weir_proto::weir::mesh::v1 as pb;

use crate::wire::digest::{DeltaError, digest, patch, renumbered};

/// Where instances are, by id.
type Members = BTreeMap<u8, u16>;

fn instance((id, port): (&u8, &u16)) -> pb::Instance {
    pb::Instance {
        id: format!("web-{id}"),
        address: format!("127.0.0.1:{port}"),
        ..Default::default()
    }
}

fn snapshot(members: &Members, sequence: u64, revision: u32) -> pb::Snapshot {
    let headers = (0..9).map(|i| (format!("x-{i}"), i.to_string())).collect();
    let by = pb::audience::By::Headers(pb::HeaderAudience { headers });
    let service = pb::Service {
        name: "web".into(),
        audiences: vec![pb::Audience { by: Some(by), version: "v1".into() }],
        ..Default::default()
    };
    let instances = members.iter().map(instance).collect();
    pb::Snapshot { sequence, revision, services: vec![service], instances, ..Default::default() }
}

fn delta(before: &Members, after: &Members) -> pb::Delta {
    let changed = after.iter().filter(|(id, port)| before.get(id) != Some(port));
    let gone = before.keys().filter(|id| !after.contains_key(id));
    pb::Delta {
        base_digest: digest(&mut snapshot(before, 1, 1)).to_vec(),
        digest: digest(&mut snapshot(after, 2, 1)).to_vec(),
        sequence: 2,
        revision: 1,
        instances: changed.map(instance).collect(),
        gone: gone.map(|id| format!("web-{id}")).collect(),
        ..Default::default()
    }
}

proptest! {
    #[test]
    fn a_delta_makes_what_the_whole_snapshot_says(
        before: Members,
        after: Members,
        order: u64,
    ) {
        let mut have = snapshot(&before, 1, 1);
        fastrand::Rng::with_seed(order).shuffle(&mut have.instances);
        let base = digest(&mut have.clone());
        let made = patch(&mut have, &base, delta(&before, &after)).unwrap();
        // In the order of ids, which is not that of the numbers in them.
        let mut whole = snapshot(&after, 2, 1);
        prop_assert_eq!(made, digest(&mut whole));
        let _ = digest(&mut have);
        prop_assert_eq!(have, whole);
    }

    #[test]
    fn numbers_and_order_make_no_other_digest(members: Members, seed: u64, numbers: (u64, u32)) {
        let mut other = snapshot(&members, numbers.0, numbers.1);
        fastrand::Rng::with_seed(seed).shuffle(&mut other.instances);
        prop_assert_eq!(digest(&mut other), digest(&mut snapshot(&members, 1, 1)));
        prop_assert_eq!((other.sequence, other.revision), numbers);
    }
}

#[test]
fn a_delta_for_another_base_or_with_another_result_is_refused() {
    let (before, after) = (Members::from([(1, 1)]), Members::from([(1, 2)]));
    let base = digest(&mut snapshot(&before, 1, 1));
    let other = digest(&mut snapshot(&after, 1, 1));
    let refused = patch(&mut snapshot(&after, 1, 1), &other, delta(&before, &after));
    assert_eq!(refused, Err(DeltaError::Base));
    let mut wrong = delta(&before, &after);
    wrong.gone.push("web-1".into());
    wrong.instances.clear();
    let refused = patch(&mut snapshot(&before, 1, 1), &base, wrong);
    assert_eq!(refused, Err(DeltaError::Result));
}

#[test]
fn an_empty_delta_only_renumbers() {
    let members = Members::from([(1, 1), (2, 2)]);
    let mut have = snapshot(&members, 1, 1);
    let base = digest(&mut have);
    let mut empty = delta(&members, &members);
    (empty.sequence, empty.revision) = (7, 3);
    assert_eq!(patch(&mut have, &base, empty), Ok(base));
    assert_eq!(have, snapshot(&members, 7, 3));
    let bytes = snapshot(&members, 1, 1).encode_to_vec().into();
    assert_eq!(pb::Snapshot::decode(renumbered(&bytes, 7, 3)), Ok(have));
}

#[test]
fn services_and_all_the_rest_change_by_deltas_too() {
    let service = |name: &str, weight| pb::Service {
        name: name.into(),
        versions: vec![pb::VersionWeight { weight, ..Default::default() }],
        ..Default::default()
    };
    let before = pb::Snapshot {
        services: vec![service("a", 1), service("b", 1), service("c", 1)],
        trust_domain: "weir.local".into(),
        ..snapshot(&Members::from([(1, 1)]), 1, 1)
    };
    let rest = pb::Snapshot { trust_domain: "other".into(), ..Default::default() };
    let after = pb::Snapshot {
        sequence: 2,
        services: vec![service("aa", 1), service("b", 2), service("c", 1)],
        instances: before.instances.clone(),
        revision: 5,
        ..rest.clone()
    };
    let base = digest(&mut before.clone());
    let delta = pb::Delta {
        base_digest: base.to_vec(),
        digest: digest(&mut after.clone()).to_vec(),
        sequence: 2,
        revision: 5,
        services: vec![service("b", 2), service("aa", 1)],
        gone_services: vec!["a".into()],
        rest: Some(rest),
        ..Default::default()
    };
    let mut have = before;
    patch(&mut have, &base, delta).unwrap();
    assert_eq!(have, after);
}
