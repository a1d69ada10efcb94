//! The history as other replicas make it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event, watcher};
use prost::Message as _;
use tokio::sync::watch;

use super::{ClusterStore, ENTRY, EntryRecord, Inner, LABEL, PREFIX, decode, read};
use crate::kubernetes::cluster::chain;
use crate::store::record::sha256;
use crate::store::{ObjectKey, Revision, StoreError};

/// After the watch broke.
const RETRY: Duration = Duration::from_millis(500);

/// Entries by revision, in the order of the chain.
type Entries = BTreeMap<Revision, Bytes>;

impl ClusterStore {
    /// Follows the newest revision, whoever made it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.heads.subscribe()
    }

    /// Takes in what other replicas record. Never returns.
    pub async fn keep_up(self: &Arc<Self>) {
        let config = watcher::Config::default().labels(LABEL);
        let mut events = watcher(self.cluster.config_maps(), config).boxed();
        let mut listing = Entries::new();
        let mut told = String::new();
        while let Some(event) = events.next().await {
            let entries = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    continue;
                }
                Ok(Event::InitApply(map)) => {
                    listing.extend(entry(map));
                    continue;
                }
                Ok(Event::InitDone) => std::mem::take(&mut listing),
                Ok(Event::Apply(map)) => entry(map).into_iter().collect(),
                // The oldest: who leads decides how many stay.
                Ok(Event::Delete(_)) => continue,
                Err(error) => {
                    let text = chain(&error);
                    if text != told {
                        tracing::warn!(
                            error = text,
                            "the watch of the history broke; trying again"
                        );
                        told = text;
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            told.clear();
            let own = self.clone();
            // Whoever holds the lock may be waiting for the API server.
            let taken = tokio::task::spawn_blocking(move || own.take(entries)).await;
            if let Ok(Err(error)) = taken {
                tracing::error!(%error, "the history cannot be followed");
            }
        }
    }

    /// Reads what is there now. Blocks.
    ///
    /// # Errors
    /// As [`ClusterStore::open`].
    pub fn reread(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let there = read(&self.cluster)?;
        if there.head.0 >= inner.head.0 {
            self.heads.send_replace(there.head.0);
            *inner = there;
        }
        Ok(())
    }

    /// Takes in entries that follow what is here. Blocks.
    fn take(&self, entries: Entries) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for (revision, bytes) in entries {
            if revision <= inner.head.0 {
                continue;
            }
            let record = decode(revision, &bytes)?;
            if revision != inner.head.0 + 1 || record.previous != inner.head.1 {
                // So much happened while the watch was broken that entries between are gone.
                drop(inner);
                return self.reread();
            }
            self.take_in(&mut inner, revision, bytes, &record);
        }
        Ok(())
    }

    /// Takes in the next entry, by somebody else.
    pub(super) fn take_in(
        &self,
        inner: &mut Inner,
        at: Revision,
        bytes: Bytes,
        record: &EntryRecord,
    ) {
        inner.head = (at, sha256(&bytes));
        inner.state.follow(record);
        inner.entries.insert(at, bytes);
        while inner.entries.len() > self.keep.max(1) {
            inner.entries.pop_first();
        }
        self.heads.send_replace(at);
    }

    /// The newest revision that is not newer than this one and changed something.
    #[must_use]
    pub fn changed_by(&self, revision: Revision) -> Revision {
        let inner = self.lock();
        let changes = |(_, bytes): &(&Revision, &Bytes)| {
            // What cannot be read is told where it is read.
            EntryRecord::decode((*bytes).clone()).is_ok_and(|record| !record.changes.is_empty())
        };
        let mut entries = inner.entries.range(..=revision).rev();
        let found = entries.find(changes).map(|(&revision, _)| revision);
        // Of what is older than all that is kept, nobody knows better.
        let oldest = inner.entries.first_key_value().map(|(&oldest, _)| oldest);
        found.or(oldest.filter(|oldest| *oldest > 1)).unwrap_or(0)
    }

    /// The newest revision of which all is seen by who has not seen the last changes of
    /// these objects: the one before the first of them.
    #[must_use]
    pub fn seen_without(&self, unseen: &[ObjectKey]) -> Revision {
        let inner = self.lock();
        let mut unseen: BTreeSet<_> = unseen.iter().map(ToString::to_string).collect();
        let mut seen = inner.head.0;
        for (&revision, bytes) in inner.entries.iter().rev() {
            if unseen.is_empty() {
                break;
            }
            let Ok(record) = decode(revision, bytes) else { continue };
            for change in &record.changes {
                if unseen.remove(&change.object) {
                    seen = revision - 1;
                }
            }
        }
        seen
    }
}

fn entry(map: ConfigMap) -> Option<(Revision, Bytes)> {
    let revision = map.metadata.name.as_deref()?.strip_prefix(PREFIX)?.parse().ok()?;
    let bytes = map.binary_data?.remove(ENTRY)?;
    Some((revision, Bytes::from(bytes.0)))
}
