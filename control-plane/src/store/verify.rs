//! Whether a history is what was written: a chain from end to end, whose entries lead
//! to the state that there is.

use std::collections::BTreeMap;

use super::record::{EntryRecord, Hash};
use super::{Entry, Object, ObjectKey, Revision, Store, StoreError};
use crate::text::hex;

/// Faults that are listed; one is enough to believe nothing.
const MAX_FAULTS: usize = 100;

/// What a history was found to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Entries that were read.
    pub entries: u32,
    /// The oldest that is kept; 0: there is none.
    pub first: Revision,
    /// The newest; 0: there is none.
    pub newest: Revision,
    /// SHA-256 of the newest entry.
    pub hash: Hash,
    /// What is wrong; empty: nothing.
    pub faults: Vec<Fault>,
}

/// One thing that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where; 0: not in one entry.
    pub revision: Revision,
    /// What.
    pub why: String,
}

impl Verified {
    /// Notes a fault.
    pub fn fault(&mut self, revision: Revision, why: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault { revision, why: why.into() });
        }
    }
}

/// Follows entries, the oldest first.
pub(super) struct Chain<'a> {
    verified: Verified,
    /// Hashes that somebody kept, until they are met.
    kept: Vec<&'a Hash>,
}

impl<'a> Chain<'a> {
    pub fn new(kept: &'a [Hash]) -> Self {
        Self { verified: Verified::default(), kept: kept.iter().collect() }
    }

    /// Notes a fault.
    pub fn fault(&mut self, revision: Revision, why: impl Into<String>) {
        self.verified.fault(revision, why);
    }

    /// The next entry, which was found under `at`.
    pub fn follow(&mut self, at: Revision, revision: Revision, previous: &[u8], hash: Hash) {
        let Verified { entries, first, newest, hash: head, .. } = &mut self.verified;
        let (before, last) = (*newest, *head);
        (*entries, *newest, *head) = (*entries + 1, at, hash);
        if before == 0 {
            *first = at;
        }
        self.kept.retain(|kept| **kept != hash);
        if revision != at {
            self.fault(at, format!("it says that it is revision {revision}"));
        }
        if before != 0 && before + 1 != at {
            self.fault(at, "an entry is missing before it");
        } else if (before != 0 || at == 1) && previous != last {
            self.fault(at, "the entry before it has been altered");
        }
    }

    /// All have been followed.
    pub fn end(mut self) -> Verified {
        for kept in std::mem::take(&mut self.kept) {
            let why = format!("no entry has the hash {}, which was kept", hex(kept));
            self.fault(0, why);
        }
        self.verified
    }
}

/// What objects are by a history that is replayed: the revision of the last change, and
/// what that made of it.
pub(super) struct Replay<T> {
    objects: BTreeMap<String, (Revision, Option<T>)>,
}

impl<T> Default for Replay<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new() }
    }
}

impl<T: PartialEq> Replay<T> {
    /// One change. False: what was before is not what the last one made. `whole`: the
    /// history begins at the beginning.
    pub fn change(
        &mut self,
        key: String,
        revision: Revision,
        before: Option<&T>,
        after: Option<T>,
        whole: bool,
    ) -> bool {
        let known = self.objects.get(&key).map(|(_, object)| object.as_ref());
        let follows = match known {
            Some(known) => known == before,
            None => !whole || before.is_none(),
        };
        self.objects.insert(key, (revision, after));
        follows
    }

    /// What is there at the end.
    pub fn there(self) -> BTreeMap<String, (Revision, T)> {
        let there = self.objects.into_iter();
        there.filter_map(|(key, (at, object))| object.map(|object| (key, (at, object)))).collect()
    }
}

impl Replay<Vec<u8>> {
    /// All changes of an entry, by their bytes.
    pub fn record(&mut self, record: &EntryRecord, chain: &mut Chain<'_>) {
        for change in &record.changes {
            let before = change.before.as_ref().map(|bytes| bytes.to_vec());
            let after = change.after.as_ref().map(|bytes| bytes.to_vec());
            let key = change.object.clone();
            if !self.change(key, record.revision, before.as_ref(), after, true) {
                let why = format!("{} was something else before it", change.object);
                chain.fault(record.revision, why);
            }
        }
    }
}

/// Verifies any store by what it tells: the chain, and that the entries lead to the
/// newest state, where the store has it.
pub(super) fn verify(store: &(impl Store + ?Sized), kept: &[Hash]) -> Result<Verified, StoreError> {
    let mut entries = store.history(None, usize::MAX)?;
    entries.reverse();
    let desired = store.load()?;
    let whole = entries.first().is_none_or(|entry| entry.revision == 1);
    let (mut chain, mut replay) = (Chain::new(kept), Replay::default());
    for Entry { revision, previous, hash, changes, .. } in entries {
        chain.follow(revision, revision, &previous, hash);
        for change in changes {
            let key = change.key.to_string();
            let changed =
                replay.change(key.clone(), revision, change.before.as_ref(), change.after, whole);
            // A store of a cluster learns only later what somebody else has changed.
            if !changed && store.has_state() {
                chain.fault(revision, format!("{key} was something else before it"));
            }
        }
    }
    let mut verified = chain.end();
    // A commit may have come in between: then the state is newer than what was read.
    if store.has_state() && desired.revision == verified.newest {
        compare(&replay.there(), &desired.objects(), whole, &mut verified);
    }
    Ok(verified)
}

fn compare(
    replayed: &BTreeMap<String, (Revision, Object)>,
    there: &BTreeMap<ObjectKey, Object>,
    whole: bool,
    verified: &mut Verified,
) {
    let there: BTreeMap<_, _> = there.iter().map(|(key, at)| (key.to_string(), at)).collect();
    for (key, (revision, object)) in replayed {
        if there.get(key) != Some(&object) {
            verified.fault(*revision, format!("{key} is not what this entry made of it"));
        }
    }
    let options = ObjectKey::Options.to_string();
    for key in there.keys().filter(|key| whole && !replayed.contains_key(*key) && **key != options)
    {
        verified.fault(0, format!("{key} is there, and no entry made it"));
    }
}
