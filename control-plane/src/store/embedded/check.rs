//! Every value of every table, against the history that they come from.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use redb::{ReadTransaction, ReadableTable as _};

use super::{
    BLOBS, CHANGED, FORMAT, HEAD, HEAD_REVISION, HISTORY, KNOWN_FORMAT, META, NEXT, NEXT_LEAST,
    NEXT_MOST, STATE,
};
use crate::store::record::{self, EntryRecord, Hash, StateRecord, sha256};
use crate::store::verify::{Chain, Replay};
use crate::store::{Revision, StoreError, Verified};

/// What the history says that the other tables hold.
#[derive(Default)]
struct Expected {
    replay: Replay<Vec<u8>>,
    changed: BTreeSet<(String, Revision)>,
    hashes: BTreeMap<Revision, Hash>,
}

/// Reads everything.
pub(super) fn verify(read: &ReadTransaction, kept: &[Hash]) -> Result<Verified, StoreError> {
    let mut chain = Chain::new(kept);
    let expected = history(read, &mut chain)?;
    meta(read, &expected.hashes, &mut chain)?;
    changed(read, &expected.changed, &mut chain)?;
    blobs(read, &mut chain)?;
    state(read, expected.replay, &mut chain)?;
    Ok(chain.end())
}

fn history(read: &ReadTransaction, chain: &mut Chain<'_>) -> Result<Expected, StoreError> {
    let blobs = |hash: &[u8]| super::blob(read, hash);
    let mut expected = Expected::default();
    let mut first = true;
    for item in read.open_table(HISTORY)?.iter()? {
        let (at, bytes) = item?;
        let (at, bytes) = (at.value(), bytes.value());
        if std::mem::take(&mut first) && at != 1 {
            chain.fault(at, "an entry is missing before it");
        }
        let hash = sha256(bytes);
        expected.hashes.insert(at, hash);
        let record = match EntryRecord::decode(bytes) {
            Ok(record) => record,
            Err(error) => {
                chain.fault(at, error.to_string());
                chain.follow(at, at, &[], hash);
                continue;
            }
        };
        chain.follow(at, record.revision, &record.previous, hash);
        if let Err(StoreError::Damaged { why, .. }) = record::entry(at, bytes, &blobs) {
            chain.fault(at, why);
        }
        expected.replay.record(&record, chain);
        let objects = record.changes.into_iter().map(|change| (change.object, at));
        expected.changed.extend(objects);
    }
    Ok(expected)
}

fn meta(
    read: &ReadTransaction,
    hashes: &BTreeMap<Revision, Hash>,
    chain: &mut Chain<'_>,
) -> Result<(), StoreError> {
    let table = read.open_table(META)?;
    let value = |name: &str| Ok::<_, StoreError>(table.get(name)?.map(|value| value.value()));
    if value(FORMAT)? != Some(KNOWN_FORMAT) {
        chain.fault(0, "the format is not noted");
    }
    let next = value(NEXT)?.unwrap_or(1);
    if next < value(NEXT_LEAST)?.unwrap_or(0) || next > NEXT_MOST {
        chain.fault(0, format!("{next} is not the next number that was not given out"));
    }
    let parts = HEAD.iter().map(|name| value(name)).collect::<Result<Vec<_>, _>>()?;
    let head = value(HEAD_REVISION)?;
    // Written before heads were noted.
    if head.is_none() && parts.iter().all(Option::is_none) {
        return Ok(());
    }
    let noted: Option<Vec<u8>> = parts
        .into_iter()
        .map(|part| part.map(u64::to_be_bytes))
        .collect::<Option<Vec<_>>>()
        .map(|parts| parts.concat());
    let head = head.and_then(|head| Revision::try_from(head).ok()).unwrap_or(0);
    match hashes.get(&head) {
        Some(hash) if noted.as_deref() == Some(hash) => {}
        Some(_) => chain.fault(head, "it is not the entry that was written"),
        None => chain.fault(head, "it was the newest entry, and is missing"),
    }
    Ok(())
}

fn changed(
    read: &ReadTransaction,
    expected: &BTreeSet<(String, Revision)>,
    chain: &mut Chain<'_>,
) -> Result<(), StoreError> {
    let mut missing: BTreeSet<_> = expected.iter().collect();
    for item in read.open_table(CHANGED)?.iter()? {
        let (key, _) = item?;
        let (object, revision) = key.value();
        if !missing.remove(&(object.to_owned(), revision)) {
            chain.fault(revision, format!("the index says that it changed {object:?}"));
        }
    }
    for (object, revision) in missing {
        chain.fault(*revision, format!("the index does not say that it changed {object:?}"));
    }
    Ok(())
}

fn blobs(read: &ReadTransaction, chain: &mut Chain<'_>) -> Result<(), StoreError> {
    for item in read.open_table(BLOBS)?.iter()? {
        let (hash, bytes) = item?;
        if sha256(bytes.value()) != hash.value() {
            chain.fault(0, "a descriptor set is not what was written");
        }
    }
    Ok(())
}

fn state(
    read: &ReadTransaction,
    replay: Replay<Vec<u8>>,
    chain: &mut Chain<'_>,
) -> Result<(), StoreError> {
    let mut missing = replay.there();
    for item in read.open_table(STATE)?.iter()? {
        let (key, bytes) = item?;
        let key = key.value();
        let Some((revision, object)) = missing.remove(key) else {
            chain.fault(0, format!("{key:?} is there, and no entry made it"));
            continue;
        };
        let record = StateRecord { revision, object: object.into() };
        if record.encode_to_vec() != bytes.value() {
            chain.fault(revision, format!("{key} is not what this entry made of it"));
        }
    }
    for (key, (revision, _)) in missing {
        chain.fault(revision, format!("{key} is missing, which this entry made"));
    }
    Ok(())
}
