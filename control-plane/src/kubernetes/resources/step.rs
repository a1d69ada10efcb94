//! One write to the API server, made only to what is known to be there.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use serde_json::Value;
use weir_mesh::model::Service;

use super::{ACTOR, REASON, Step, Write, refusal};
use crate::control::{Author, ChangeError};
use crate::kubernetes::cluster::{ClusterError, FIELD_MANAGER, api_version};
use crate::kubernetes::engine::Engine;
use crate::kubernetes::objects::Kind;
use crate::store::{Desired, Edit, ObjectKey, StoreError};

/// A status that is written meanwhile makes another version of the same object.
const ATTEMPTS: usize = 3;

/// Objects as they were known at one moment; what is missing was not there.
pub(super) type Seen = BTreeMap<(Kind, String, String), Arc<Value>>;

impl Engine {
    /// What steps write to, as it is known now.
    pub(super) fn seen(&self, steps: &[Step]) -> Seen {
        let place = |step: &Step| (step.kind, step.namespace.clone(), step.name.clone());
        let held = |step: &Step| {
            let held = self.mirror.read(|o| o.get(step.kind, &step.namespace, &step.name).cloned());
            Some((place(step), held?))
        };
        steps.iter().filter_map(held).collect()
    }

    /// With `force`, fields that somebody else set become ours; else that is refused.
    /// Made against what was `seen`; none: what is known now.
    pub(super) fn step(
        &self,
        step: &Step,
        author: &Author,
        (dry_run, force): (bool, bool),
        seen: Option<&Seen>,
    ) -> Result<(), ChangeError> {
        let what = step.what();
        let version = self.mirror.version(step.kind).ok_or_else(|| {
            ChangeError::Precondition(format!(
                "the cluster has no {}; install its CRD",
                step.kind.as_str()
            ))
        })?;
        // It may have been lost since the change was worked out.
        if !dry_run && !self.replica.leads() {
            return Err(StoreError::NotLeading.into());
        }
        let api = self.cluster.objects(step.kind, &version, &step.namespace);
        let place = (step.kind, step.namespace.clone(), step.name.clone());
        let held = match seen {
            Some(seen) => seen.get(&place).cloned(),
            None => self.seen(std::slice::from_ref(step)).remove(&place),
        };
        match &step.write {
            Write::Apply(document) => {
                let mut document = document.clone();
                let (group, ..) = step.kind.resource();
                document["apiVersion"] = api_version(group, &version).into();
                document["kind"] = step.kind.as_str().into();
                let annotations = &mut document["metadata"]["annotations"];
                annotations[ACTOR] = author.actor.as_str().into();
                annotations[REASON] = author.reason.as_str().into();
                self.apply_document((step, held), &api, &document, dry_run, force)
            }
            Write::Status(status) => self.write_status(step, status, &version, dry_run),
            Write::Delete => {
                let deleted = self.against((step, held), &api, |seen| {
                    let preconditions = seen.map(|version| Preconditions {
                        resource_version: Some(version.to_owned()),
                        uid: None,
                    });
                    let params = DeleteParams { dry_run, preconditions, ..Default::default() };
                    self.cluster.wait(&what, api.delete(&step.name, &params)).map(drop)
                });
                match deleted {
                    Err(error) if !error.is_not_found() => return Err(refusal(error)),
                    _ if dry_run => {}
                    _ => self.mirror.deleted(step.kind, &step.namespace, &step.name),
                }
                Ok(())
            }
        }
    }

    fn apply_document(
        &self,
        (step, held): (&Step, Option<Arc<Value>>),
        api: &Api<DynamicObject>,
        document: &Value,
        dry_run: bool,
        force: bool,
    ) -> Result<(), ChangeError> {
        let what = step.what();
        // What the document says is ours from now on; all other fields stay whose they are.
        let params = PatchParams { dry_run, force, ..PatchParams::apply(FIELD_MANAGER) };
        let mut is_new = false;
        let written = self.against((step, held), api, |seen| {
            is_new = seen.is_none();
            let mut document = document.clone();
            if let Some(version) = seen {
                document["metadata"]["resourceVersion"] = version.into();
            }
            self.cluster.wait(&what, api.patch(&step.name, &params, &Patch::Apply(&document)))
        });
        let written = written.map_err(|error| match error {
            // Trying again would not help.
            ClusterError::Answer { code: 409, message, .. } if is_foreign(&message) => {
                ChangeError::Precondition(format!(
                    "{what} is somebody else's: {message}; leave these fields out there, or let \
                     the rollout take them by the annotation weir.dev/force: \"true\""
                ))
            }
            error if error.is_not_found() && !is_new => {
                ChangeError::Aborted(format!("{what} was deleted meanwhile; try again"))
            }
            other => refusal(other),
        })?;
        let there = written.metadata.resource_version.as_deref().is_some_and(|v| !v.is_empty());
        // What would be made has no version: somebody made it, and we have not heard yet.
        if dry_run && is_new && there {
            return Err(ChangeError::Aborted(format!("{what} was made meanwhile; try again")));
        }
        if !dry_run {
            self.mirror.wrote(step.kind, written);
        }
        Ok(())
    }

    /// Writes against the version that was heard of; none: there is no such object. One
    /// that differs from it in its status alone is written as it is now.
    fn against<T>(
        &self,
        (step, held): (&Step, Option<Arc<Value>>),
        api: &Api<DynamicObject>,
        mut write: impl FnMut(Option<&str>) -> Result<T, ClusterError>,
    ) -> Result<T, ClusterError> {
        let Some(held) = held else { return write(None) };
        let mut version = held["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        for _ in 1..ATTEMPTS {
            let conflict = match write(version.as_deref()) {
                Err(error @ ClusterError::Answer { code: 409, .. }) => error,
                other => return other,
            };
            let Ok(found) = self.cluster.wait(&step.what(), api.get(&step.name)) else {
                return Err(conflict);
            };
            let same = found.metadata.uid.as_deref() == held["metadata"]["uid"].as_str()
                && found.data["spec"] == held["spec"];
            if !same || found.metadata.resource_version == version {
                return Err(conflict);
            }
            version = found.metadata.resource_version;
        }
        write(version.as_deref())
    }

    /// Refuses to write what was worked out before somebody else changed it: the change
    /// is heard of, and not shown yet.
    pub(super) fn check_unchanged(
        &self,
        planned: &Desired,
        edits: &[Edit],
    ) -> Result<(), ChangeError> {
        let (now, _) = self.differences();
        match edits.iter().find(|edit| !is_same(&edit.key, planned, &now.desired)) {
            None => Ok(()),
            Some(edit) => Err(ChangeError::Aborted(format!(
                "{} was changed meanwhile; read it again and retry",
                edit.key
            ))),
        }
    }
}

/// Whether a conflict is about who owns fields, not about which version there is.
fn is_foreign(message: &str) -> bool {
    message.starts_with("Apply failed with")
}

fn is_same(key: &ObjectKey, planned: &Desired, now: &Desired) -> bool {
    match key {
        ObjectKey::Service(name) => {
            let of = |desired: &Desired| desired.services.get(name).map(|held| held.value.clone());
            match (of(planned), of(now)) {
                (Some(planned), Some(now)) => is_divided_the_same(&planned, &now),
                (planned, now) => planned.is_none() == now.is_none(),
            }
        }
        ObjectKey::Route(name) => {
            let of = |desired: &Desired| desired.routes.get(name).map(|held| held.value.clone());
            of(planned) == of(now)
        }
        ObjectKey::TcpRoute(name) => {
            let of = |desired: &Desired| desired.tcp_routes.get(name).map(|h| h.value.clone());
            of(planned) == of(now)
        }
        ObjectKey::Policy(kind, name) => {
            let place = (*kind, name.clone());
            let of = |desired: &Desired| desired.policies.get(&place).map(|h| h.value.clone());
            of(planned) == of(now)
        }
        // Its status is written against a version, and by nobody but a leader.
        ObjectKey::Rollout(_) | ObjectKey::Options => true,
    }
}

/// Versions that only run come and go with their pods, and get nothing.
fn is_divided_the_same(one: &Service, other: &Service) -> bool {
    let weights = |service: &Service| {
        let all = service.split.versions().iter();
        all.filter(|(_, weight)| weight.get() > 0).cloned().collect::<Vec<_>>()
    };
    weights(one) == weights(other)
        && one.split.sticky == other.split.sticky
        && one.audiences == other.audiences
        && one.mirror == other.mirror
        && one.managed_by == other.managed_by
}
