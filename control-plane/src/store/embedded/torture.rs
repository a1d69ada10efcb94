//! The store on a disk that fails in every way that disks do, at every operation.
//!
//! The law: whatever was acknowledged is there when the store is opened again; what was
//! not is there whole or not at all; and the history verifies.

mod disk;
mod flips;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use weir_mesh::wire;
use weir_proto::weir::mesh::v1 as pb;

use self::disk::{Disk, Failing, Op, image};
use super::*;
use crate::store::{Action, Object};

/// A shift of `products`; descriptor sets make some of them large.
fn shift(store: &Embedded, weight: i32, descriptor: usize) -> Result<Entry, StoreError> {
    let message = pb::Service {
        name: "products".into(),
        protocol: pb::Protocol::Http1.into(),
        versions: vec![pb::VersionWeight { version: "v1".into(), weight, ..Default::default() }],
        descriptor_set: vec![b'd'; descriptor].into(),
        ..Default::default()
    };
    let service = wire::service(&message, "").unwrap();
    let key = ObjectKey::Service(service.name.clone());
    let after = Some(Object::Service(Arc::new(service)));
    change(store, Edit { key, after })
}

fn change(store: &Embedded, edit: Edit) -> Result<Entry, StoreError> {
    let base = store.load()?.revision;
    store.commit(&Commit {
        base,
        nanos: 1_700_000_000_000_000_000 + u64::from(base),
        actor: "ann".into(),
        reason: "because".into(),
        action: Action::Shift,
        edits: vec![edit],
        idempotency: Some(crate::store::Idempotency {
            key: format!("key-{base}"),
            request: [7; 32],
        }),
    })
}

/// What was acknowledged.
#[derive(Default)]
struct Told {
    /// How many operations the disk had done then.
    at: BTreeMap<usize, Revision>,
    /// What each revision is.
    states: Vec<Desired>,
    /// Where reserved numbers end, and when that was told.
    reserved: BTreeMap<usize, u64>,
}

impl Told {
    fn newest(&self, operations: usize) -> Revision {
        self.at.range(..=operations).next_back().map_or(0, |(_, revision)| *revision)
    }

    fn reserved(&self, operations: usize) -> u64 {
        self.reserved.range(..=operations).next_back().map_or(1, |(_, end)| *end)
    }
}

/// Changes of every kind, as far as the disk allows. `note` hears of what was
/// acknowledged.
fn story(
    store: &Embedded,
    mut note: impl FnMut(Option<Entry>, Option<Range<u64>>),
) -> Result<(), StoreError> {
    note(Some(shift(store, 1, 0)?), None);
    note(None, Some(store.reserve(100)?));
    note(Some(shift(store, 2, 3000)?), None);
    note(Some(shift(store, 3, 3000)?), None);
    let key = ObjectKey::Service("products".parse().unwrap());
    note(Some(change(store, Edit { key, after: None })?), None);
    note(None, Some(store.reserve(100)?));
    note(Some(shift(store, 4, 20_000)?), None);
    Ok(())
}

/// Operations that make the file; it gets its name after them.
fn making() -> usize {
    let disk = Disk::default();
    drop(Embedded::on(disk.clone()).unwrap());
    disk.operations()
}

/// The story on a disk without faults.
fn recorded() -> (Vec<Op>, Told) {
    let disk = Disk::default();
    drop(Embedded::on(disk.clone()).unwrap());
    let store = Embedded::on(disk.clone()).unwrap();
    let mut told = Told { states: vec![Desired::default()], ..Told::default() };
    story(&store, |entry, reserved| {
        let now = disk.operations();
        if let Some(entry) = entry {
            told.at.insert(now, entry.revision);
            told.states.push(store.load().unwrap());
        }
        if let Some(range) = reserved {
            told.reserved.insert(now, range.end);
        }
    })
    .unwrap();
    // Only what it did while it was in use: the end may be one without a goodbye.
    (disk.log(), told)
}

/// Opens what is left after an end at `operations`, holds it to the law, and goes on.
fn check(left: Disk, told: &Told, operations: usize, how: &dyn std::fmt::Display) {
    let (store, state) = opened(left, told, operations, how);
    assert!(store.reserve(1).unwrap().start >= told.reserved(operations), "{how}");
    let next = shift(&store, 99, 10).unwrap_or_else(|error| panic!("{how}: {error}"));
    assert_eq!(next.revision, state.revision + 1, "{how}");
    assert_eq!(store.verify(&[]).unwrap().faults, [], "{how}");
}

fn opened(
    left: Disk,
    told: &Told,
    operations: usize,
    how: &dyn std::fmt::Display,
) -> (Embedded, Desired) {
    let store = Embedded::on(left).unwrap_or_else(|error| panic!("{how}: {error}"));
    let verified = store.verify(&[]).unwrap();
    assert_eq!(verified.faults, [], "{how}");
    let acknowledged = told.newest(operations);
    let state = store.load().unwrap();
    assert!(
        state.revision == acknowledged || state.revision == acknowledged + 1,
        "{how}: revision {} is there, {acknowledged} was acknowledged",
        state.revision
    );
    assert_eq!(state, told.states[state.revision as usize], "{how}");
    assert_eq!(verified.newest, state.revision, "{how}");
    (store, state)
}

/// The power goes at every operation; of what was not synced yet, any part is lost.
#[test]
fn power_cuts_at_every_operation() {
    let (log, told) = recorded();
    let made = making();
    let mut synced = made;
    let mut tried = 0;
    for cut in made..=log.len() {
        if matches!(log[cut - 1], Op::Sync) {
            synced = cut;
        }
        let (durable, pending) = (&log[..synced], &log[synced..cut]);
        let mut subsets = vec![vec![false; pending.len()], vec![true; pending.len()]];
        let mut random = fastrand(cut as u64 + 1);
        for i in 0..pending.len() {
            let mut without = vec![true; pending.len()];
            without[i] = false;
            subsets.push(without);
            subsets.push(pending.iter().map(|_| random() & 1 == 1).collect());
        }
        subsets.dedup();
        for kept in subsets {
            let how = format!("cut at {cut} of {}, kept {kept:?}", log.len());
            let pending = pending.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(op, _)| op);
            // In another order as well: disks write as they like.
            let mut ops: Vec<_> = pending.collect();
            if cut % 2 == 1 {
                shuffle(&mut ops, &mut random);
            }
            check(image(durable.iter().chain(ops)), &told, cut, &how);
            tried += 1;
        }
    }
    println!("{tried} power cuts, {} operations", log.len());
}

/// One write is torn: short ones, among them those of the file's header, at every byte,
/// pages at every 29th; with `WEIR_TORTURE` in the environment at every one as well,
/// which takes minutes.
#[test]
fn torn_writes() {
    let stride = if std::env::var_os("WEIR_TORTURE").is_some() { 1 } else { 29 };
    let (log, told) = recorded();
    let mut tried = 0;
    // Of a shift and a removal; the others would only add a large descriptor set, one
    // run of a letter.
    let ends: Vec<_> = told.at.keys().copied().collect();
    let (begin, end) = (ends[1], ends[3]);
    for (at, op) in log.iter().enumerate() {
        let Op::Write { offset, data } = op else { continue };
        if at < begin || at >= end {
            continue;
        }
        let before = image(log[..at].iter());
        let until_sync = log[at..].iter().position(|op| matches!(op, Op::Sync));
        let until_sync = at + until_sync.unwrap_or(log.len() - at);
        let step = if data.len() <= 512 { 1 } else { stride };
        for length in (0..data.len()).step_by(step) {
            // Nothing is torn where the same was there before.
            if step == 1
                && length > 0
                && before.byte(offset + length as u64 - 1) == Some(data[length - 1])
            {
                continue;
            }
            let torn = Op::Write { offset: *offset, data: data[..length].into() };
            let how = format!("write {at} of {} bytes is torn at {length}", data.len());
            let left = image(log[..at].iter().chain([&torn]));
            opened(left, &told, at, &how);
            // All other writes of the time came through.
            let how = format!("{how}, all others are there");
            let others = &log[at + 1..until_sync];
            opened(image(log[..at].iter().chain([&torn]).chain(others)), &told, at, &how);
            tried += 2;
        }
    }
    println!("{tried} torn writes");
}

/// The disk is full, or a sync fails, at every operation; once, or from then on.
#[test]
fn every_operation_fails_once_or_for_good() {
    let (log, whole) = recorded();
    let mut tried = 0;
    for (at, op) in log.iter().enumerate().skip(making()) {
        for for_good in [false, true] {
            let kind = match op {
                Op::Sync => io::ErrorKind::Other,
                _ => io::ErrorKind::StorageFull,
            };
            let how = format!("operation {at} fails ({kind:?}), for good: {for_good}");
            let disk = Disk::failing(Failing { at, kind, for_good });
            let (mut told, mut failed) =
                (Told { states: whole.states.clone(), ..Told::default() }, None);
            drop(Embedded::on(disk.clone()).unwrap());
            match Embedded::on(disk.clone()) {
                Err(error) => failed = Some(error),
                Ok(store) => {
                    let done = story(&store, |entry, reserved| {
                        let now = disk.operations();
                        if let Some(entry) = entry {
                            told.at.insert(now, entry.revision);
                        }
                        if let Some(range) = reserved {
                            told.reserved.insert(now, range.end);
                        }
                    });
                    if let Err(error) = done {
                        let text = error.to_string();
                        assert!(text.contains("restart"), "{how}: {text}");
                        // It does not go on as if nothing had happened.
                        let again = shift(&store, 50, 0).map(|entry| entry.revision);
                        assert!(again.is_err(), "{how}: {again:?} after {text}");
                        failed = Some(error);
                    }
                }
            }
            assert!(failed.is_some() || disk.survived(), "{how}: nobody heard of it");
            // The process ends: what it wrote is there, as far as the disk took it.
            let end = disk.log();
            check(image(end.iter()), &told, end.len(), &how);
            // And when the power goes too, what was not synced is lost.
            let synced = end.iter().rposition(|op| matches!(op, Op::Sync)).map_or(0, |at| at + 1);
            let how = format!("{how}, then the power goes");
            check(image(end[..synced].iter()), &told, end.len(), &how);
            tried += 2;
        }
    }
    println!("{tried} failures, {} operations", log.len());
}

/// A small generator, so that a failure is the same again.
fn fastrand(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn shuffle<T>(items: &mut [T], random: &mut impl FnMut() -> u64) {
    for i in (1..items.len()).rev() {
        let j = (random() % (i as u64 + 1)) as usize;
        items.swap(i, j);
    }
}
