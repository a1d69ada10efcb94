//! What was heard of the API server's objects. Stays as it is while the API server
//! does not answer.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::cluster::{FIELD_MANAGER, api_version};
use super::objects::{Kind, Objects};
use super::strip::strip;

/// How long an object that we wrote is kept when a list does not have it: the list may
/// be older.
const FRESH: Duration = Duration::from_secs(10);

type Key = (Kind, String, String);

#[derive(Default)]
struct Inner {
    objects: Objects,
    /// Who changed an object last, of kinds that history is kept of.
    managers: BTreeMap<Key, String>,
    /// Listed in full at least once, or known not to exist.
    listed: BTreeSet<Kind>,
    /// In which version the server has a kind.
    versions: BTreeMap<Kind, String>,
    /// Namespaces of a kind that is not watched in all, and which are not listed yet.
    awaited: BTreeMap<Kind, BTreeSet<String>>,
    /// Objects that we deleted and whose last events may still come, by uid.
    deleted: HashSet<String>,
    written: BTreeMap<Key, Instant>,
}

/// Objects, and who changed them.
#[derive(Default)]
pub struct Mirror {
    inner: Mutex<Inner>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

impl Mirror {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every method leaves whole objects behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Follows changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Looks at the objects. Nothing changes meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Objects) -> T) -> T {
        look(&self.lock().objects)
    }

    /// The field manager that changed an object last; empty when nobody is known.
    #[must_use]
    pub fn manager(&self, kind: Kind, namespace: &str, name: &str) -> String {
        let key = (kind, namespace.to_owned(), name.to_owned());
        self.lock().managers.get(&key).cloned().unwrap_or_default()
    }

    /// In which version the server has a kind, if it has it.
    #[must_use]
    pub fn version(&self, kind: Kind) -> Option<String> {
        self.lock().versions.get(&kind).cloned()
    }

    /// Kinds that have not been listed yet.
    #[must_use]
    pub fn missing(&self) -> Vec<Kind> {
        let inner = self.lock();
        Kind::ALL.iter().copied().filter(|kind| !inner.listed.contains(kind)).collect()
    }

    /// The server has a kind in this version.
    pub fn serves(&self, kind: Kind, version: &str) {
        self.lock().versions.insert(kind, version.to_owned());
    }

    /// A kind is watched in these namespaces alone.
    pub fn limit(&self, kind: Kind, namespaces: &[String]) {
        self.lock().awaited.insert(kind, namespaces.iter().cloned().collect());
    }

    /// The server does not have a kind.
    pub fn absent(&self, kind: Kind) {
        let mut inner = self.lock();
        inner.versions.remove(&kind);
        let new = inner.listed.insert(kind);
        let gone = inner.keys(kind);
        for (namespace, name) in &gone {
            inner.remove(kind, namespace, name);
        }
        drop(inner);
        if new || !gone.is_empty() {
            self.changed();
        }
    }

    /// One object is there, or is different.
    pub fn apply(&self, kind: Kind, object: DynamicObject) {
        if self.lock().put(kind, object) {
            self.changed();
        }
    }

    /// One object that this process wrote: a list that was asked for earlier does not
    /// take it away.
    pub fn wrote(&self, kind: Kind, object: DynamicObject) {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let key = (kind, namespace, object.metadata.name.clone().unwrap_or_default());
        self.lock().written.insert(key, Instant::now());
        self.apply(kind, object);
    }

    /// One object that this process deleted: what is heard of it later is old.
    pub fn deleted(&self, kind: Kind, namespace: &str, name: &str) {
        let mut inner = self.lock();
        let uid = inner
            .objects
            .get(kind, namespace, name)
            .and_then(|object| object["metadata"]["uid"].as_str().map(str::to_owned));
        inner.deleted.extend(uid);
        inner.remove(kind, namespace, name);
        drop(inner);
        self.changed();
    }

    /// One object is gone.
    pub fn delete(&self, kind: Kind, object: &DynamicObject) {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        let mut inner = self.lock();
        if let Some(uid) = &metadata.uid {
            inner.deleted.remove(uid);
        }
        let same =
            |held: &Value| metadata.uid.as_deref().is_none_or(|uid| held["metadata"]["uid"] == uid);
        // Another of the same name may have been made since.
        if inner.objects.get(kind, namespace, name).is_some_and(|held| same(held)) {
            inner.remove(kind, namespace, name);
            drop(inner);
            self.changed();
        }
    }

    /// All objects of a kind, in one namespace or, when that is empty, in all: those
    /// that are not here are gone.
    pub fn replace(&self, kind: Kind, of: &str, objects: Vec<DynamicObject>) {
        let mut inner = self.lock();
        let mut changed = inner.listed(kind, of);
        let in_question = |(namespace, _): &(String, String)| of.is_empty() || namespace == of;
        let mut gone: BTreeSet<_> = inner.keys(kind).into_iter().filter(in_question).collect();
        for object in objects {
            let namespace = object.metadata.namespace.clone().unwrap_or_default();
            gone.remove(&(namespace, object.metadata.name.clone().unwrap_or_default()));
            changed |= inner.put(kind, object);
        }
        inner.written.retain(|_, at| at.elapsed() < FRESH);
        for (namespace, name) in gone {
            if !inner.written.contains_key(&(kind, namespace.clone(), name.clone())) {
                inner.remove(kind, &namespace, &name);
                changed = true;
            }
        }
        drop(inner);
        if changed {
            self.changed();
        }
    }
}

impl Inner {
    /// True: the kind is known in full from now on.
    fn listed(&mut self, kind: Kind, of: &str) -> bool {
        if let Some(awaited) = self.awaited.get_mut(&kind) {
            awaited.remove(of);
            if !awaited.is_empty() {
                return false;
            }
        }
        self.listed.insert(kind)
    }

    fn keys(&self, kind: Kind) -> Vec<(String, String)> {
        let keys = self.objects.all(kind);
        keys.map(|(namespace, name, _)| (namespace.to_owned(), name.to_owned())).collect()
    }

    fn remove(&mut self, kind: Kind, namespace: &str, name: &str) {
        self.objects.remove(kind, namespace, name);
        self.managers.remove(&(kind, namespace.to_owned(), name.to_owned()));
    }

    /// True: it is different from what was known.
    fn put(&mut self, kind: Kind, mut object: DynamicObject) -> bool {
        let metadata = &object.metadata;
        if metadata.uid.as_ref().is_some_and(|uid| self.deleted.contains(uid)) {
            return false;
        }
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let name = metadata.name.clone().unwrap_or_default();
        let manager = newest_manager(&object);
        object.metadata.managed_fields = None;
        let Ok(mut object) = serde_json::to_value(object) else { return false };
        let (group, version, _) = kind.resource();
        object["apiVersion"] = api_version(group, version).into();
        object["kind"] = kind.as_str().into();
        strip(kind, &mut object);
        if let Some(held) = self.objects.get(kind, &namespace, &name) {
            if older(&object, held) {
                return false;
            }
            if same(&object, held) {
                // Its version is what status is written against.
                self.objects.put(kind, object);
                return false;
            }
        }
        if let Some(manager) = manager.filter(|_| is_configuration(kind)) {
            self.managers.insert((kind, namespace, name), manager);
        }
        self.objects.put(kind, object);
        true
    }
}

/// Whether changes of a kind are changes of what people desire.
#[must_use]
pub fn is_configuration(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::Namespace
            | Kind::Node
            | Kind::Pod
            | Kind::Service
            | Kind::Secret
            | Kind::EndpointSlice
    )
}

/// Who wrote anything but the status last.
fn newest_manager(object: &DynamicObject) -> Option<String> {
    let entries = object.metadata.managed_fields.as_ref()?.iter();
    let entries = entries.filter(|entry| entry.subresource.as_deref().unwrap_or("").is_empty());
    // Times are whole seconds. What this API writes it records itself, so among equals
    // it was somebody else.
    let newest = entries.max_by_key(|entry| {
        let ours = entry.manager.as_deref() == Some(FIELD_MANAGER);
        (entry.time.as_ref().map(|time| time.0), !ours)
    })?;
    newest.manager.clone()
}

const VERSION: &str = "resourceVersion";

fn resource_version(object: &Value) -> Option<u64> {
    object["metadata"][VERSION].as_str()?.parse().ok()
}

/// Whether a watch is behind what this process wrote. Versions of one object are
/// numbers that grow.
fn older(new: &Value, held: &Value) -> bool {
    new["metadata"]["uid"] == held["metadata"]["uid"]
        && resource_version(new).zip(resource_version(held)).is_some_and(|(new, held)| new < held)
}

/// Whether they differ in nothing but their version.
fn same(new: &Value, held: &Value) -> bool {
    all_but(new, held, "metadata", |new, held| all_but(new, held, VERSION, |_, _| true))
}

/// Whether all fields are the same, and one of them as `same` says.
fn all_but(new: &Value, held: &Value, but: &str, same: fn(&Value, &Value) -> bool) -> bool {
    let (Some(new), Some(held)) = (new.as_object(), held.as_object()) else { return new == held };
    new.len() == held.len()
        && new.iter().all(|(name, value)| match held.get(name) {
            Some(held) if name == but => same(value, held),
            other => other == Some(value),
        })
}

#[cfg(test)]
mod tests;
