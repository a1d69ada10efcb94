//! From objects to what is desired, recorded and published. Both the watches
//! (`engine/keep.rs`) and the control-plane API go through here, so that what is in
//! Kubernetes is what counts.

mod keep;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;
use weir_mesh::model::{Addresses, Service, ServiceName, Split};

use super::cluster::Cluster;
use super::mirror::Mirror;
use super::objects::{Kind, Objects};
use super::translate::{Settings, Translated, translate};
use crate::control::{Asked, Author, Control};
use crate::replica::Replica;
use crate::store::{
    Action, ClusterStore, Commit, Desired, Edit, Entry, Idempotency, Object, ObjectKey, Revision,
    StoreError,
};
use crate::text;

/// Objects in one entry of the history: a ConfigMap holds 1 MiB.
const MAX_EDITS: usize = 400;

/// Works out what is desired.
pub struct Engine {
    pub(super) cluster: Cluster,
    pub(super) mirror: Arc<Mirror>,
    pub(super) store: Arc<ClusterStore>,
    pub(super) replica: Arc<Replica>,
    settings: Settings,
    /// The newest; for what writes status and trust.
    pub(super) newest: watch::Sender<Arc<Translated>>,
}

impl Engine {
    /// Does nothing yet.
    #[must_use]
    pub fn new(
        cluster: Cluster,
        mirror: Arc<Mirror>,
        store: Arc<ClusterStore>,
        replica: Arc<Replica>,
        settings: Settings,
    ) -> Self {
        let newest = watch::Sender::new(Arc::default());
        Self { cluster, mirror, store, replica, settings, newest }
    }

    /// What objects come to now, recorded. A change that cannot be recorded is told
    /// by the error; it is published nevertheless. `before` is what was desired. Blocks.
    pub(super) fn work(
        &self,
        asked: Option<Asked>,
        before: &Desired,
    ) -> (Translated, Result<Option<Entry>, StoreError>) {
        let (mut made, kept) = self.look();
        let recorded = self.record(&kept, asked, before);
        made.desired.revision = self.store.revision();
        self.number(&mut made.desired, &kept);
        (made, recorded)
    }

    /// What objects come to now, by a replica that does not lead, and which of them are
    /// not as the history has them.
    ///
    /// Objects and entries come by watches of their own, in any order. A revision must
    /// mean the same on every replica, so the number is the newest of which everything
    /// is seen: never the one of an entry whose objects are still to come.
    pub(super) fn watch_on(&self, before: Revision) -> (Translated, Vec<ObjectKey>) {
        let (mut made, kept) = self.look();
        let unlike: Vec<_> = self.unrecorded(&kept).into_iter().map(|edit| edit.key).collect();
        made.desired.revision = self.store.seen_without(&unlike).max(before);
        self.number(&mut made.desired, &kept);
        (made, unlike)
    }

    /// What objects come to now, and what of it is not as it was recorded.
    pub(super) fn differences(&self) -> (Translated, Vec<Edit>) {
        let (made, kept) = self.look();
        let edits = self.unrecorded(&kept);
        (made, edits)
    }

    fn look(&self) -> (Translated, Vec<(ObjectKey, Object)>) {
        self.mirror.read(|objects| {
            let made = translate(objects, &self.settings);
            let kept = configuration(objects, &made.desired);
            (made, kept)
        })
    }

    /// What is not as it was recorded.
    fn unrecorded(&self, kept: &[(ObjectKey, Object)]) -> Vec<Edit> {
        let changed =
            kept.iter().filter(|(key, object)| self.store.recorded(key, object).is_none());
        let edit = |(key, object): &(ObjectKey, Object)| Edit {
            key: key.clone(),
            after: Some(object.clone()),
        };
        let mut edits: Vec<_> = changed.map(edit).collect();
        let there: BTreeSet<_> = kept.iter().map(|(key, _)| key).collect();
        let gone = self.store.keys().into_iter().filter(|key| !there.contains(key));
        edits.extend(gone.map(|key| Edit { key, after: None }));
        edits
    }

    fn record(
        &self,
        kept: &[(ObjectKey, Object)],
        asked: Option<Asked>,
        before: &Desired,
    ) -> Result<Option<Entry>, StoreError> {
        let edits = self.unrecorded(kept);
        if edits.is_empty() {
            return Ok(None);
        }
        let Asked { author, action, idempotency } = asked.unwrap_or_else(|| Asked {
            author: self.observed(&edits),
            action: Action::Observe,
            idempotency: self.request(&edits),
        });
        // The first split that somebody sets follows the one that nobody set.
        let before = |key: &ObjectKey| match key {
            ObjectKey::Service(name) => {
                let held = before.services.get(name)?;
                Some(Object::Service(Arc::new(bare(&held.value, held.value.split.clone()))))
            }
            _ => None,
        };
        let mut newest = None;
        // A cluster that is full already comes in parts, each of which must fit.
        let last = edits.chunks(MAX_EDITS).len() - 1;
        for (i, part) in edits.chunks(MAX_EDITS).enumerate() {
            let commit = Commit {
                base: self.store.revision(),
                nanos: text::unix_nanos(),
                actor: author.actor.clone(),
                reason: author.reason.clone(),
                action,
                edits: part.to_vec(),
                // With it all of the request is there.
                idempotency: idempotency.clone().filter(|_| i == last),
            };
            let entry = self.store.commit_after(&commit, &before)?;
            let action = action.as_str();
            tracing::info!(revision = entry.revision, action, actor = entry.actor, "changed");
            newest = Some(entry);
        }
        Ok(newest)
    }

    /// Who made a change that was only seen: field managers of the objects.
    fn observed(&self, edits: &[Edit]) -> Author {
        let mut actors = BTreeSet::new();
        let mut reasons = BTreeSet::new();
        for edit in edits {
            if let (ObjectKey::Rollout(name), Some(Object::Rollout(rollout))) =
                (&edit.key, &edit.after)
                && rollout.state.begun
            {
                // Nobody but a leader writes its status.
                actors.insert(format!("rollout/{name}"));
                continue;
            }
            for (kind, namespace, name) in places(&edit.key) {
                let manager = self.mirror.manager(kind, &namespace, &name);
                if manager == super::cluster::FIELD_MANAGER {
                    // Written by this API, and the process ended before it was recorded.
                    let annotation = |name_of: &str| {
                        self.mirror.read(|objects| {
                            let object = objects.get(kind, &namespace, &name)?;
                            let text = object["metadata"]["annotations"][name_of].as_str()?;
                            Some(text.to_owned())
                        })
                    };
                    actors.extend(annotation(super::resources::ACTOR));
                    reasons.extend(annotation(super::resources::REASON));
                } else if !manager.is_empty() {
                    actors.insert(manager);
                }
            }
        }
        let join = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>().join(", ");
        if actors.is_empty() {
            // A deleted object does not say who deleted it.
            actors.insert("kubernetes".to_owned());
        }
        Author { actor: join(actors), reason: join(reasons) }
    }

    /// The request that one object was written for, by a process that ended before it
    /// was recorded.
    fn request(&self, edits: &[Edit]) -> Option<Idempotency> {
        let places: BTreeSet<_> = edits.iter().flat_map(|edit| places(&edit.key)).collect();
        let mut places = places.into_iter();
        let ((kind, namespace, name), None) = (places.next()?, places.next()) else { return None };
        if self.mirror.manager(kind, &namespace, &name) != super::cluster::FIELD_MANAGER {
            return None;
        }
        self.mirror.read(|objects| {
            let object = objects.get(kind, &namespace, &name)?;
            let text = object["metadata"]["annotations"][super::resources::REQUEST].as_str()?;
            let (key, sha256) = text.split_once(' ')?;
            let mut request = [0; 32];
            for (byte, digits) in request.iter_mut().zip(sha256.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
            }
            (sha256.len() == 64).then(|| Idempotency { key: key.to_owned(), request })
        })
    }

    /// Says in which revision each object last changed.
    fn number(&self, desired: &mut Desired, kept: &[(ObjectKey, Object)]) {
        desired.newest_change = self.store.changed_by(desired.revision);
        for (key, object) in kept {
            let revision = self.store.recorded(key, object).unwrap_or(desired.revision);
            match key {
                ObjectKey::Service(name) => {
                    if let Some(held) = desired.services.get_mut(name) {
                        held.revision = revision;
                    }
                }
                ObjectKey::Route(name) => {
                    if let Some(held) = desired.routes.get_mut(name) {
                        held.revision = revision;
                    }
                }
                ObjectKey::TcpRoute(name) => {
                    if let Some(held) = desired.tcp_routes.get_mut(name) {
                        held.revision = revision;
                    }
                }
                ObjectKey::Policy(kind, name) => {
                    if let Some(held) = desired.policies.get_mut(&(*kind, name.clone())) {
                        held.revision = revision;
                    }
                }
                ObjectKey::Rollout(name) => {
                    if let Some(held) = desired.rollouts.get_mut(name) {
                        held.revision = revision;
                    }
                }
                ObjectKey::Options => {}
            }
        }
    }

    /// Shows what was worked out. Only while nobody else writes.
    pub(super) fn publish(&self, control: &Control, made: Translated) {
        let made = Arc::new(made);
        control.desired.send_if_modified(|desired| {
            let changed = **desired != made.desired;
            if changed {
                *desired = Arc::new(made.desired.clone());
            }
            changed
        });
        control.registry.discover(made.instances.clone());
        self.newest.send_replace(made);
    }
}

/// Where an object of the history is, or could be, in Kubernetes. GRPCRoutes and
/// TLSRoutes have names of their own, so that they are none of an HTTPRoute.
pub(super) fn places(key: &ObjectKey) -> Vec<(Kind, String, String)> {
    let place = |kind: Kind, name: &str| {
        let (name, namespace) = name.rsplit_once('.')?;
        Some((kind, namespace.to_owned(), name.to_owned()))
    };
    let either = |name: &str, suffix: &str, with: Kind, without: Kind| {
        let short = name.strip_suffix(suffix).and_then(|name| place(with, name));
        short.into_iter().chain(place(without, name)).collect()
    };
    match key {
        ObjectKey::Service(name) => place(Kind::TrafficSplit, name.base()).into_iter().collect(),
        ObjectKey::Route(name) => either(name, ".grpc", Kind::GRPCRoute, Kind::HTTPRoute),
        ObjectKey::TcpRoute(name) => either(name, ".tls", Kind::TLSRoute, Kind::TCPRoute),
        ObjectKey::Policy(kind, name) => {
            let found = Kind::ALL.iter().find(|known| known.as_str() == kind.as_str());
            found.and_then(|kind| place(*kind, name)).into_iter().collect()
        }
        ObjectKey::Rollout(name) => place(Kind::Rollout, name).into_iter().collect(),
        ObjectKey::Options => Vec::new(),
    }
}

/// What history is kept of: splits that somebody set, routes, rollouts and policies. Numbers of
/// pods change all the time, and nobody asked for that here.
fn configuration(objects: &Objects, desired: &Desired) -> Vec<(ObjectKey, Object)> {
    let mut kept = Vec::new();
    for (name, held) in &desired.services {
        if let Some(split) = set_split(objects, name, &held.value.split) {
            let service = Object::Service(Arc::new(bare(&held.value, split)));
            kept.push((ObjectKey::Service(name.clone()), service));
        }
    }
    for (name, held) in &desired.routes {
        kept.push((ObjectKey::Route(name.clone()), Object::Route(held.value.clone())));
    }
    for (name, held) in &desired.tcp_routes {
        kept.push((ObjectKey::TcpRoute(name.clone()), Object::TcpRoute(held.value.clone())));
    }
    for (name, held) in &desired.rollouts {
        kept.push((ObjectKey::Rollout(name.clone()), Object::Rollout(held.value.clone())));
    }
    for ((kind, name), held) in &desired.policies {
        let key = ObjectKey::Policy(*kind, name.clone());
        kept.push((key, Object::Policy(held.value.clone())));
    }
    kept
}

/// Of a service only what somebody set.
fn bare(service: &Service, split: Split) -> Service {
    Service {
        split,
        addresses: Addresses::default(),
        virtual_addresses: Vec::new(),
        descriptor_set: Bytes::new(),
        ..service.clone()
    }
}

/// The versions of a split that its TrafficSplit names: versions that only run have
/// weight 0 and come and go.
fn set_split(objects: &Objects, name: &ServiceName, split: &Split) -> Option<Split> {
    let object = objects.get(Kind::TrafficSplit, name.namespace()?, name.label())?;
    let sent = object["spec"]["versions"].as_array()?;
    let named: BTreeSet<_> = sent.iter().filter_map(|version| version["name"].as_str()).collect();
    // One that cannot be followed sets nothing: its object's status says so.
    let followed = sent.iter().all(|version| {
        let weight = version["name"].as_str().and_then(|name| split.weight(name));
        weight.map(|weight| u64::from(weight.get())) == version["weight"].as_u64()
    });
    let versions = split.versions().iter().filter(|(name, _)| named.contains(name.as_str()));
    if !followed {
        return None;
    }
    Split::new(versions.cloned().collect(), split.sticky.clone()).ok()
}
