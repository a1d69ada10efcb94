//! What every store promises, asked of each of them: the embedded one, a real Consul,
//! and a real Kubernetes API server.

#[path = "../../tests/it/consul/agent.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod agent;
mod consul;
mod embedded;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::sync::{Arc, Barrier};

use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use super::{Action, Commit, Edit, Idempotency, Object, ObjectKey, Revision, Store, StoreError};

/// A store that can be opened again and again.
trait Bench {
    /// Opens it; a store that only one may have open gives the same.
    fn open(&self) -> Arc<dyn Store>;
    /// Lets go of all that is open, and opens it anew.
    fn anew(&self) -> Result<Arc<dyn Store>, StoreError>;
    /// The same, with a store that a test still has.
    fn reopen(&self, old: Arc<dyn Store>) -> Result<Arc<dyn Store>, StoreError> {
        drop(old);
        self.anew()
    }
    /// Changes one byte of an entry behind its back.
    fn damage(&self, revision: Revision);
    /// Removes an entry behind its back.
    fn remove(&self, revision: Revision);
    /// Whether it keeps the desired state too, and descriptor sets.
    fn keeps_state(&self) -> bool {
        true
    }
}

fn service(name: &str, v1: i32, set: bytes::Bytes) -> Edit {
    let version = |version: &str, weight| pb::VersionWeight {
        version: version.into(),
        weight,
        ..Default::default()
    };
    let message = pb::Service {
        name: name.into(),
        protocol: pb::Protocol::Grpc.into(),
        versions: vec![version("v1", v1), version("v2", 1)],
        descriptor_set: set,
        ..Default::default()
    };
    let service = wire::service(&message, "").unwrap();
    let after = Some(Object::Service(Arc::new(service)));
    Edit { key: ObjectKey::Service(name.parse().unwrap()), after }
}

fn commit(base: Revision, reason: &str, edits: Vec<Edit>) -> Commit {
    Commit {
        base,
        nanos: 1_700_000_000_000_000_000 + u64::from(base),
        actor: "eve".into(),
        reason: reason.into(),
        action: Action::Shift,
        edits,
        idempotency: None,
    }
}

fn small(base: Revision, v1: i32) -> Commit {
    commit(base, "small", vec![service("products", v1, bytes::Bytes::new())])
}

/// Everything, one after the other, on stores that `make` makes.
fn all<B: Bench>(mut make: impl FnMut() -> B) {
    for test in [
        entries_are_numbered_chained_and_found,
        a_commit_on_an_old_state_is_refused,
        what_is_acknowledged_is_there_after_a_restart,
        of_concurrent_writers_exactly_one_wins,
        numbers_are_given_out_once,
        refusals_and_keys_are_kept,
        large_changes_are_kept_whole,
        damage_is_found,
        a_missing_entry_is_found,
    ] as [fn(&B); 9]
    {
        test(&make());
    }
}

fn entries_are_numbered_chained_and_found(bench: &impl Bench) {
    let store = bench.open();
    assert_eq!(store.load().unwrap().revision, 0);
    assert!(store.history(None, 10).unwrap().is_empty());
    let first = store.commit(&small(0, 1)).unwrap();
    let other = service("users", 5, bytes::Bytes::new());
    let second = store.commit(&commit(1, "other", vec![other.clone()])).unwrap();
    let third = store.commit(&small(2, 2)).unwrap();
    assert_eq!([first.revision, second.revision, third.revision], [1, 2, 3]);
    assert_eq!(first.previous, [0; 32]);
    assert_eq!((second.previous, third.previous), (first.hash, second.hash));
    let products = small(0, 1).edits[0].key.clone();
    assert_eq!(first.changes[0].before, None);
    assert_eq!(third.changes[0].before, first.changes[0].after);
    assert_eq!(third.changes[0].after, small(0, 2).edits[0].after);
    let history = store.history(None, 10).unwrap();
    assert_eq!(history, [third.clone(), second.clone(), first.clone()]);
    assert_eq!(store.history(None, 2).unwrap().len(), 2);
    let of = store.history(Some(&products), 10).unwrap();
    assert_eq!(of, [third.clone(), first.clone()]);
    assert_eq!(store.last_change(&products, 2).unwrap(), Some(first.clone()));
    assert_eq!(store.last_change(&products, 9).unwrap(), Some(third));
    assert_eq!(store.last_change(&products, 0).unwrap(), None);
    if bench.keeps_state() {
        let desired = store.load().unwrap();
        assert_eq!(desired.revision, 3);
        assert_eq!(desired.get(&products), small(0, 2).edits[0].after);
        assert_eq!(desired.get(&other.key), other.after);
        assert_eq!(desired.services["users"].revision, 2);
    }
    let gone = Edit { key: other.key.clone(), after: None };
    let removed = store.commit(&commit(3, "gone", vec![gone])).unwrap();
    assert_eq!((&removed.changes[0].before, &removed.changes[0].after), (&other.after, &None));
    assert_eq!(store.load().unwrap().get(&other.key), None);
}

fn a_commit_on_an_old_state_is_refused(bench: &impl Bench) {
    let store = bench.open();
    store.commit(&small(0, 1)).unwrap();
    for base in [0, 2, 7] {
        let error = store.commit(&small(base, 9)).unwrap_err();
        let conflict = matches!(error, StoreError::Conflict { base: b, now: 1 } if b == base);
        assert!(conflict, "{error}");
    }
    // Another one that has it open was faster.
    let (one, two) = (bench.open(), bench.open());
    one.commit(&small(1, 2)).unwrap();
    let error = two.commit(&small(1, 3)).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { now: 2, .. }), "{error}");
    assert_eq!(two.refresh().unwrap(), 2);
    assert_eq!(two.commit(&small(2, 3)).unwrap().revision, 3);
    assert_eq!(two.history(None, 10).unwrap().len(), 3);
}

fn what_is_acknowledged_is_there_after_a_restart(bench: &impl Bench) {
    let store = bench.open();
    for base in 0..25 {
        store.commit(&small(base, i32::try_from(base).unwrap() + 1)).unwrap();
    }
    let before = (store.history(None, 100).unwrap(), store.load().unwrap());
    let store = bench.reopen(store).unwrap();
    assert_eq!((store.history(None, 100).unwrap(), store.load().unwrap()), before);
    assert_eq!(store.commit(&small(25, 99)).unwrap().previous, before.0[0].hash);
}

fn of_concurrent_writers_exactly_one_wins(bench: &impl Bench) {
    const WRITERS: usize = 4;
    let first = bench.open();
    for round in 0..5 {
        let barrier = Barrier::new(WRITERS);
        let handle = tokio::runtime::Handle::current();
        let won: usize = std::thread::scope(|scope| {
            let writer = |i: usize| {
                let (store, barrier, handle) = (bench.open(), &barrier, handle.clone());
                scope.spawn(move || {
                    let _runtime = handle.enter();
                    let weight = i32::try_from(round * 10).unwrap() + i32::try_from(i).unwrap();
                    barrier.wait();
                    match store.commit(&small(round, weight + 1)) {
                        Ok(entry) => usize::from(entry.revision == round + 1),
                        Err(StoreError::Conflict { .. }) => 0,
                        Err(error) => panic!("{error}"),
                    }
                })
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        first.refresh().unwrap();
    }
    let store = bench.reopen(first).unwrap();
    let history = store.history(None, 100).unwrap();
    assert_eq!(history.len(), 5);
    assert!(history.windows(2).all(|pair| pair[0].previous == pair[1].hash));
}

fn numbers_are_given_out_once(bench: &impl Bench) {
    let mut ranges = Vec::new();
    let handle = tokio::runtime::Handle::current();
    std::thread::scope(|scope| {
        let take = || {
            let (store, handle) = (bench.open(), handle.clone());
            scope.spawn(move || {
                let _runtime = handle.enter();
                (1..=3).map(|n| store.reserve(n * 10).unwrap()).collect::<Vec<_>>()
            })
        };
        let takers: Vec<_> = (0..3).map(|_| take()).collect();
        for taker in takers {
            let own = taker.join().unwrap();
            assert!(own.windows(2).all(|pair| pair[0].end <= pair[1].start), "{own:?}");
            ranges.extend(own);
        }
    });
    ranges.sort_by_key(|range| range.start);
    assert!(ranges[0].start > 0);
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{ranges:?}");
    let last = ranges.last().unwrap().end;
    let store = bench.reopen(bench.open()).unwrap();
    assert!(store.reserve(1).unwrap().start >= last);
}

fn refusals_and_keys_are_kept(bench: &impl Bench) {
    let store = bench.open();
    let refused = Commit { action: Action::Refused, ..commit(0, "no", Vec::new()) };
    assert_eq!(store.commit(&refused).unwrap().changes, []);
    let idempotency = Some(Idempotency { key: "k1".into(), request: [7; 32] });
    let keyed = Commit { idempotency: idempotency.clone(), ..small(1, 1) };
    store.commit(&keyed).unwrap();
    assert_eq!(store.newest_change().unwrap(), 2);
    let store = bench.reopen(store).unwrap();
    let history = store.history(None, 10).unwrap();
    assert_eq!((history[0].idempotency.clone(), history[1].action), (idempotency, Action::Refused));
    assert_eq!(store.load().unwrap().revision, 2);
}

fn large_changes_are_kept_whole(bench: &impl Bench) {
    let store = bench.open();
    let count = if bench.keeps_state() { 9000 } else { 2000 };
    let name = |i: i32| format!("a-service-with-quite-a-long-name-{i}");
    let many: Vec<_> = (0..count).map(|i| service(&name(i), 1, bytes::Bytes::new())).collect();
    let made = store.commit(&commit(0, "many", many)).unwrap();
    assert_eq!(made.changes.len(), usize::try_from(count).unwrap());
    if bench.keeps_state() {
        let set: Vec<u8> = (0..1_500_000_u32).map(|i| (i % 251) as u8).collect();
        let edit = service("large", 1, set.into());
        store.commit(&commit(1, "large", vec![edit.clone()])).unwrap();
        store.commit(&small(2, 1)).unwrap();
        let store = bench.reopen(store).unwrap();
        let desired = store.load().unwrap();
        assert_eq!(desired.services.len(), usize::try_from(count).unwrap() + 2);
        assert_eq!(desired.get(&edit.key), edit.after);
        assert_eq!(store.history(None, 3).unwrap()[2], made);
    } else {
        assert_eq!(bench.reopen(store).unwrap().history(None, 1).unwrap()[0], made);
    }
}

fn damage_is_found(bench: &impl Bench) {
    let store = bench.open();
    for base in 0..3 {
        store.commit(&small(base, i32::try_from(base).unwrap() + 1)).unwrap();
    }
    let kept = store.history(None, 3).unwrap()[0].hash;
    let whole = store.verify(&[kept]).unwrap();
    assert_eq!((whole.faults, whole.newest, whole.hash), (Vec::new(), 3, kept));
    drop(store);
    bench.damage(2);
    let error = bench.anew().err().expect("damage is found");
    assert!(matches!(error, StoreError::Damaged { revision: 2 | 3, .. }), "{error}");
}

fn a_missing_entry_is_found(bench: &impl Bench) {
    let store = bench.open();
    for base in 0..3 {
        store.commit(&small(base, i32::try_from(base).unwrap() + 1)).unwrap();
    }
    drop(store);
    bench.remove(2);
    let error = bench.anew().err().expect("damage is found");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}
