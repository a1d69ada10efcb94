//! The store of a cluster: history in ConfigMaps, beside the resources that are the
//! desired state.
//!
//! Each entry is an immutable ConfigMap `weir-history-0000000042`, which can be made
//! once: who makes it has made that revision. `weir-state` says what each object was
//! when it was last recorded (by SHA-256), and which numbers are given out; what it
//! lacks after a crash is worked out from the entries.

mod follow;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::record::{self, ChangeRecord, EntryRecord, Hash, sha256};
use super::{Commit, Desired, Entry, Object, ObjectKey, Revision, Store, StoreError};
use crate::kubernetes::cluster::{Cluster, ClusterError};
use crate::text::hex;

const LABEL: &str = "weir.dev/history";
const PREFIX: &str = "weir-history-";
const STATE: &str = "weir-state";
/// Key of an entry's bytes.
const ENTRY: &str = "entry";
/// Key of the first number that was not given out.
const NEXT: &str = "next";
/// Key of what is recorded, as JSON.
const RECORDED: &str = "recorded";
/// How often somebody else may change `weir-state` while we do.
const ATTEMPTS: u32 = 10;

impl From<ClusterError> for StoreError {
    fn from(error: ClusterError) -> Self {
        Self::Cluster(error.to_string())
    }
}

/// An object when it was last recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Recorded {
    revision: Revision,
    sha256: String,
}

/// What `weir-state` says of objects.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// Entries after this one are not in it.
    revision: Revision,
    /// By [`ObjectKey`].
    objects: BTreeMap<String, Recorded>,
}

struct Inner {
    /// The newest entries.
    entries: BTreeMap<Revision, Bytes>,
    head: (Revision, Hash),
    state: State,
}

/// The store of a cluster. One process writes to it at a time, the leader; the others
/// follow it.
pub struct ClusterStore {
    cluster: Cluster,
    keep: usize,
    /// With it goes the history: Kubernetes deletes what belongs to what is gone.
    owner: Option<OwnerReference>,
    inner: Mutex<Inner>,
    /// The newest revision.
    heads: watch::Sender<Revision>,
}

fn name(revision: Revision) -> String {
    format!("{PREFIX}{revision:010}")
}

fn digest(object: &Object) -> String {
    short(&record::encode(object).0)
}

/// Half of a SHA-256, enough to see a change by: all of them are in one ConfigMap.
fn short(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..16])
}

/// Descriptor sets are not kept here: services are Kubernetes' own.
fn no_blob(_: &[u8]) -> Result<Option<Bytes>, StoreError> {
    Ok(None)
}

impl ClusterStore {
    /// Reads history and checks its chain. `keep` is how many entries stay. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: damaged, or the API server failed.
    pub fn open(cluster: Cluster, keep: usize) -> Result<Self, StoreError> {
        let inner = read(&cluster)?;
        let owner = owner(&cluster)?;
        let heads = watch::Sender::new(inner.head.0);
        Ok(Self { cluster, keep, owner, inner: Mutex::new(inner), heads })
    }

    fn metadata(&self, name: &str) -> ObjectMeta {
        let labels = [("app.kubernetes.io/part-of".to_owned(), "weir".to_owned())];
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.into()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..Default::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change of it is one assignment or insertion after the other, which
        // cannot panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.lock().head.0
    }

    /// In which revision an object was recorded as it is; none: it is different.
    #[must_use]
    pub fn recorded(&self, key: &ObjectKey, object: &Object) -> Option<Revision> {
        let inner = self.lock();
        let recorded = inner.state.objects.get(&key.to_string())?;
        (recorded.sha256 == digest(object)).then_some(recorded.revision)
    }

    /// Everything that is recorded.
    #[must_use]
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.lock().state.objects.keys().filter_map(|key| key.parse().ok()).collect()
    }

    /// The same as [`Store::commit`]; `before` says what an object was that is not
    /// recorded.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_after(
        &self,
        commit: &Commit,
        before: &dyn Fn(&ObjectKey) -> Option<Object>,
    ) -> Result<Entry, StoreError> {
        let mut inner = self.lock();
        let (now, previous) = inner.head;
        if now != commit.base {
            return Err(StoreError::Conflict { base: commit.base, now });
        }
        let revision = now + 1;
        let mut changes = Vec::with_capacity(commit.edits.len());
        for edit in &commit.edits {
            let object = edit.key.to_string();
            let known = last_after(&inner, &object, now)?;
            let before =
                known.or_else(|| before(&edit.key).map(|object| record::encode(&object).0));
            let after = edit.after.as_ref().map(|object| record::encode(object).0);
            changes.push(ChangeRecord { object, before, after });
        }
        let record = EntryRecord::new(commit, revision, changes, &previous);
        let bytes = Bytes::from(record.encode_to_vec());
        let api = self.cluster.config_maps();
        let map = map(self.metadata(&name(revision)), &record, &bytes);
        let made = self.cluster.wait(&name(revision), api.create(&PostParams::default(), &map));
        match made {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {
                // Ours, if only the answer was lost; else another leader's, to go on from.
                if !self.adopt(&mut inner, revision, &bytes)? {
                    return Err(StoreError::Conflict { base: now, now: revision });
                }
            }
            Err(error) => return Err(error.into()),
        }
        inner.head = (revision, sha256(&bytes));
        inner.state.follow(&record);
        inner.entries.insert(revision, bytes.clone());
        self.heads.send_replace(revision);
        // The entry is durable; the rest can be worked out from it, but not from one
        // that is pruned.
        match self.save(&inner.state) {
            Ok(()) => self.prune(&mut inner.entries),
            Err(error) => tracing::warn!(%error, "{STATE} is behind; the next change writes it"),
        }
        record::entry(revision, &bytes, &no_blob)
    }

    /// Looks at an entry that is there already. True: it is `ours`. Another one is
    /// taken in, so that the next commit goes on from it.
    fn adopt(&self, inner: &mut Inner, at: Revision, ours: &Bytes) -> Result<bool, StoreError> {
        let api = self.cluster.config_maps();
        let there = self.cluster.wait(&name(at), api.get_opt(&name(at)))?;
        let bytes = there.and_then(|map| map.binary_data?.remove(ENTRY));
        let Some(bytes) = bytes.map(|bytes| Bytes::from(bytes.0)) else { return Ok(false) };
        if bytes == *ours {
            return Ok(true);
        }
        let record = decode(at, &bytes)?;
        if record.previous == inner.head.1 {
            self.take_in(inner, at, bytes, &record);
        }
        Ok(false)
    }

    /// Changes `weir-state`, however often somebody else does.
    fn update(&self, change: impl Fn(&mut BTreeMap<String, String>)) -> Result<(), StoreError> {
        let api = self.cluster.config_maps();
        let params = PostParams { field_manager: Some("weir".into()), ..Default::default() };
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let done = match self.cluster.wait(STATE, api.get_opt(STATE))? {
                Some(mut map) => {
                    change(map.data.get_or_insert_default());
                    self.cluster.wait(STATE, api.replace(STATE, &params, &map))
                }
                None => {
                    let mut map =
                        ConfigMap { metadata: self.metadata(STATE), ..Default::default() };
                    change(map.data.get_or_insert_default());
                    self.cluster.wait(STATE, api.create(&params, &map))
                }
            };
            match done {
                Ok(_) => return Ok(()),
                Err(error) if error.is_conflict() => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(|| StoreError::Cluster(STATE.to_owned()), Into::into))
    }

    /// Forgets the oldest entries.
    fn prune(&self, entries: &mut BTreeMap<Revision, Bytes>) {
        let api = self.cluster.config_maps();
        while entries.len() > self.keep.max(1) {
            let Some((&revision, _)) = entries.first_key_value() else { return };
            let name = name(revision);
            match self.cluster.wait(&name, api.delete(&name, &DeleteParams::default())) {
                Err(error) if !error.is_not_found() => {
                    // The next change tries again.
                    tracing::warn!(%error, "an old entry of the history stays");
                    return;
                }
                _ => drop(entries.remove(&revision)),
            }
        }
    }

    fn save(&self, state: &State) -> Result<(), StoreError> {
        let text = serde_json::to_string(state).map_err(|e| StoreError::Task(e.to_string()))?;
        self.update(|data| {
            let held = data.get(RECORDED).and_then(|text| serde_json::from_str::<State>(text).ok());
            // One that led before may be slow: what the next one wrote is newer.
            if held.is_none_or(|held| held.revision < state.revision) {
                data.insert(RECORDED.to_owned(), text.clone());
            }
        })
    }

    fn entry(inner: &Inner, revision: Revision) -> Result<Option<Entry>, StoreError> {
        let Some(bytes) = inner.entries.get(&revision) else { return Ok(None) };
        record::entry(revision, bytes, &no_blob).map(Some)
    }
}

impl State {
    fn follow(&mut self, record: &EntryRecord) {
        for change in &record.changes {
            match &change.after {
                Some(bytes) => {
                    let sha256 = short(bytes);
                    let recorded = Recorded { revision: record.revision, sha256 };
                    self.objects.insert(change.object.clone(), recorded);
                }
                None => drop(self.objects.remove(&change.object)),
            }
        }
        self.revision = record.revision;
    }
}

fn decode(revision: Revision, bytes: &Bytes) -> Result<EntryRecord, StoreError> {
    let damaged = |why: String| StoreError::Damaged { revision, why };
    let record = EntryRecord::decode(bytes.clone()).map_err(|e| damaged(e.to_string()))?;
    if record.revision == revision {
        Ok(record)
    } else {
        Err(damaged(format!("the ConfigMap {} holds revision {}", name(revision), record.revision)))
    }
}

/// What is there now, its chain checked. Blocks.
fn read(cluster: &Cluster) -> Result<Inner, StoreError> {
    let api = cluster.config_maps();
    let list = ListParams::default().labels(LABEL);
    let maps = cluster.wait("history", api.list(&list))?;
    let mut entries = BTreeMap::new();
    for map in maps {
        let own = map.metadata.name.as_deref().unwrap_or_default();
        let revision = own.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
        let bytes = map.binary_data.and_then(|mut data| data.remove(ENTRY));
        if let (Some(revision), Some(bytes)) = (revision, bytes) {
            entries.insert(revision, Bytes::from(bytes.0));
        }
    }
    let mut head = (0, [0; 32]);
    for (&revision, bytes) in &entries {
        let record = decode(revision, bytes)?;
        // The oldest that is kept has nothing before it to compare with.
        if head.0 != 0 && (head.0 + 1 != revision || record.previous != head.1) {
            let why = format!(
                "it does not follow revision {}; the ConfigMaps {PREFIX}* were changed by \
                 hand: delete those before {} to go on without them",
                head.0,
                name(revision)
            );
            return Err(StoreError::Damaged { revision, why });
        }
        head = (revision, sha256(bytes));
    }
    let found = cluster.wait(STATE, api.get_opt(STATE))?;
    let text = found.and_then(|map| map.data).and_then(|mut data| data.remove(RECORDED));
    let mut state: State = match text.as_deref() {
        Some(text) => serde_json::from_str(text).map_err(|error| StoreError::Damaged {
            revision: head.0,
            why: format!("ConfigMap {STATE}: {error}"),
        })?,
        None => State::default(),
    };
    for (&revision, bytes) in entries.range(state.revision.saturating_add(1)..) {
        state.follow(&decode(revision, bytes)?);
    }
    Ok(Inner { entries, head, state })
}

/// The authority's Secret: who deletes that ends the mesh. Uninstalling does.
fn owner(cluster: &Cluster) -> Result<Option<OwnerReference>, StoreError> {
    let found = cluster.wait("Secret weir-ca", cluster.secrets().get_metadata_opt("weir-ca"))?;
    Ok(found.and_then(|secret| secret.metadata.uid).map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: "weir-ca".to_owned(),
        uid,
        ..Default::default()
    }))
}

/// What the newest entry that changed an object made of it.
fn last_after(inner: &Inner, key: &str, revision: Revision) -> Result<Option<Bytes>, StoreError> {
    for (&revision, bytes) in inner.entries.range(..=revision).rev() {
        let change = decode(revision, bytes)?.changes.into_iter().find(|c| c.object == key);
        if let Some(change) = change {
            return Ok(change.after);
        }
    }
    Ok(None)
}

impl Store for ClusterStore {
    /// The revision alone: objects are read from Kubernetes.
    fn load(&self) -> Result<Desired, StoreError> {
        Ok(Desired { revision: self.revision(), ..Desired::default() })
    }

    fn commit(&self, commit: &Commit) -> Result<Entry, StoreError> {
        self.commit_after(commit, &|_| None)
    }

    fn history(&self, of: Option<&ObjectKey>, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let inner = self.lock();
        let key = of.map(ToString::to_string);
        let mut found = Vec::new();
        for (&revision, bytes) in inner.entries.iter().rev() {
            if found.len() == limit {
                break;
            }
            let record = decode(revision, bytes)?;
            if key.as_ref().is_none_or(|key| record.changes.iter().any(|c| c.object == *key)) {
                found.push(record::entry(revision, bytes, &no_blob)?);
            }
        }
        Ok(found)
    }

    fn last_change(&self, of: &ObjectKey, revision: Revision) -> Result<Option<Entry>, StoreError> {
        let inner = self.lock();
        let key = of.to_string();
        for (&revision, bytes) in inner.entries.range(..=revision).rev() {
            if decode(revision, bytes)?.changes.iter().any(|change| change.object == key) {
                return Self::entry(&inner, revision);
            }
        }
        Ok(None)
    }

    fn has_state(&self) -> bool {
        false
    }

    fn refresh(&self) -> Result<Revision, StoreError> {
        self.reread()?;
        Ok(self.revision())
    }

    fn reserve(&self, count: u64) -> Result<Range<u64>, StoreError> {
        let range = std::cell::Cell::new(0..0);
        self.update(|data| {
            let start = data.get(NEXT).and_then(|text| text.parse().ok()).unwrap_or(1u64);
            let end = start.saturating_add(count);
            data.insert(NEXT.to_owned(), end.to_string());
            range.set(start..end);
        })?;
        Ok(range.into_inner())
    }
}

fn map(mut metadata: ObjectMeta, record: &EntryRecord, bytes: &Bytes) -> ConfigMap {
    metadata.labels.get_or_insert_default().insert(LABEL.to_owned(), String::new());
    // For people: `kubectl get configmap -o yaml`. The entry itself is what counts.
    let objects: Vec<_> = record.changes.iter().map(|change| change.object.as_str()).collect();
    let data = [
        ("action", record.action.clone()),
        ("actor", record.actor.clone()),
        ("reason", record.reason.clone()),
        ("objects", objects.join("\n")),
    ];
    let data = data.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ConfigMap {
        metadata,
        immutable: Some(true),
        data: Some(data),
        binary_data: Some([(ENTRY.to_owned(), ByteString(bytes.to_vec()))].into()),
    }
}
