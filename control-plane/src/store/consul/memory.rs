//! The entries as they are known, and what they come to.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::damaged;
use crate::store::record::{EntryRecord, Hash, sha256};
use crate::store::{Revision, StoreError};

/// Every entry, and the newest state.
#[derive(Default)]
pub(super) struct Memory {
    entries: BTreeMap<Revision, Bytes>,
    /// By object: as it is, and since when.
    state: BTreeMap<String, (Revision, Bytes)>,
    /// Which revisions changed which object.
    changed: BTreeSet<(String, Revision)>,
    head: (Revision, Hash),
}

impl Memory {
    /// The newest revision, and its entry's hash.
    pub fn head(&self) -> (Revision, Hash) {
        self.head
    }

    /// Adds the next entry, if it is that.
    pub fn add(&mut self, revision: Revision, bytes: Bytes) -> Result<(), StoreError> {
        let (now, previous) = self.head;
        let record = EntryRecord::decode(bytes.clone());
        let record = record.map_err(|error| damaged(revision, error.to_string()))?;
        if revision != now + 1 || record.revision != revision {
            return Err(damaged(revision, "an entry is missing before it"));
        }
        if record.previous != previous {
            return Err(damaged(revision, "the entry before it has been altered"));
        }
        for change in record.changes {
            self.changed.insert((change.object.clone(), revision));
            match change.after {
                Some(after) => drop(self.state.insert(change.object, (revision, after))),
                None => drop(self.state.remove(&change.object)),
            }
        }
        self.head = (revision, sha256(&bytes));
        self.entries.insert(revision, bytes);
        Ok(())
    }

    /// The hash of an entry.
    pub fn hash(&self, revision: Revision) -> Option<Hash> {
        self.entries.get(&revision).map(|bytes| sha256(bytes))
    }

    /// An object as it is.
    pub fn object(&self, name: &str) -> Option<Bytes> {
        self.state.get(name).map(|(_, bytes)| bytes.clone())
    }

    /// The newest revision, and every object with when it last changed.
    pub fn objects(&self) -> (Revision, Vec<(String, Revision, Bytes)>) {
        let one =
            |(name, (at, bytes)): (&String, &(Revision, Bytes))| (name.clone(), *at, bytes.clone());
        (self.head.0, self.state.iter().map(one).collect())
    }

    /// Entries up to a revision, the newest first: all, or those of one object.
    pub fn newest(&self, of: Option<&str>, upto: Revision, limit: usize) -> Vec<(Revision, Bytes)> {
        let entry = |revision: Revision| {
            let bytes = self.entries.get(&revision)?;
            Some((revision, bytes.clone()))
        };
        match of {
            None => {
                let all = self.entries.range(..=upto).rev().take(limit);
                all.map(|(revision, bytes)| (*revision, bytes.clone())).collect()
            }
            Some(of) => {
                let range = (of.to_owned(), 0)..=(of.to_owned(), upto);
                let found = self.changed.range(range).rev().take(limit);
                found.filter_map(|(_, revision)| entry(*revision)).collect()
            }
        }
    }
}
