//! Rollouts as objects: the plan in the spec, how far it has come in the status.
//!
//! A step is two writes, which Kubernetes cannot make at once: the status first, then
//! the weights. When a leader dies between them, the next one finds a status that is
//! not in the history, and writes the weights that belong to it ([`Engine::mend`]).

use std::sync::Arc;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use weir_mesh::model::Service;
use weir_mesh::rollout::{Paused, Phase, Rollout};

use super::{Step, Write, refusal, traffic_split};
use crate::control::{Author, ChangeError};
use crate::kubernetes::cluster::FIELD_MANAGER;
use crate::kubernetes::engine::{Engine, places};
use crate::kubernetes::objects::Kind;
use crate::kubernetes::status::without;
use crate::kubernetes::translate::rollouts::{PLAN, qualified};
use crate::store::{Desired, Edit, Object, ObjectKey, Store as _};

/// Annotation of a Rollout: `true` takes the weights from whoever set them.
const FORCE: &str = "weir.dev/force";

impl Engine {
    /// The writes that make an object of a rollout.
    pub(super) fn rollout(
        &self,
        rollout: &Rollout,
        namespace: &str,
        name: &str,
    ) -> [Option<Step>; 2] {
        let held = self.mirror.read(|o| o.get(Kind::Rollout, namespace, name).cloned());
        let plan = rollout.spec.document();
        // A spec that was changed while this plan runs is to stay, for the next one.
        let is = |held: &Value| qualified(held, namespace) == *plan;
        let there = held.is_some_and(|held| is(&held["spec"]) || is(&held["status"][PLAN]));
        let step = |write| Step {
            kind: Kind::Rollout,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            write,
        };
        let document = json!({
            "metadata": { "name": name, "namespace": namespace },
            "spec": plan,
        });
        let spec = (!there).then(|| step(Write::Apply(document)));
        [spec, Some(step(Write::Status(status(rollout))))]
    }

    /// Whether a rollout among these may take fields that somebody else set.
    pub(super) fn may_take(&self, edits: &[Edit]) -> bool {
        let says = |(kind, namespace, name): (Kind, String, String)| {
            let held = self.mirror.read(|objects| objects.get(kind, &namespace, &name).cloned());
            held.is_some_and(|held| held["metadata"]["annotations"][FORCE] == "true")
        };
        let rollouts = edits.iter().filter(|edit| matches!(edit.key, ObjectKey::Rollout(_)));
        rollouts.flat_map(|edit| places(&edit.key)).any(says)
    }

    /// Writes a status over the one that is known; a conflict when there is another.
    pub(super) fn write_status(
        &self,
        step: &Step,
        status: &Value,
        version: &str,
        dry_run: bool,
    ) -> Result<(), ChangeError> {
        let Step { kind, namespace, name, .. } = step;
        let held = self.mirror.read(|objects| objects.get(*kind, namespace, name).cloned());
        let Some(held) = held else {
            // It is made by the write before this one.
            return match dry_run {
                true => Ok(()),
                false => Err(ChangeError::Aborted(format!("{} is gone", step.what()))),
            };
        };
        let mut status = status.clone();
        status["conditions"] = held["status"]["conditions"].clone();
        status["observedGeneration"] = held["metadata"]["generation"].clone();
        let patch = json!({
            "metadata": { "resourceVersion": held["metadata"]["resourceVersion"] },
            "status": without(status, &held["status"]),
        });
        let api = self.cluster.objects(*kind, version, namespace);
        let params = PatchParams {
            dry_run,
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..Default::default()
        };
        let patch = Patch::Merge(&patch);
        let what = format!("status of {}", step.what());
        let written = api.patch_status(name, &params, &patch);
        let written = self.cluster.wait(&what, written).map_err(refusal)?;
        if !dry_run {
            self.mirror.wrote(*kind, written);
        }
        Ok(())
    }

    /// Finishes what was begun and is not in the history: weights of a status that a
    /// leader wrote before it died, and weights of before a rollout that was deleted
    /// while it ran. Only the leader does. Blocks.
    pub(in crate::kubernetes) fn mend(&self) {
        let (made, edits) = self.differences();
        for edit in &edits {
            let ObjectKey::Rollout(name) = &edit.key else { continue };
            let found = match &edit.after {
                Some(Object::Rollout(rollout)) => Some((rollout.clone(), "the step it is at")),
                _ => self.deleted_while_running(&edit.key).map(|rollout| {
                    (Arc::new(rollout), "it was deleted while it ran: weights are as before")
                }),
            };
            let Some((rollout, why)) = found else { continue };
            if let Some(wanted) = unmade(&rollout, &made.desired) {
                let author = Author { actor: format!("rollout/{name}"), reason: why.to_owned() };
                match self.weights(&wanted, &author) {
                    Ok(()) => tracing::info!(rollout = %name, why, "weights written"),
                    Err(error) => {
                        tracing::warn!(rollout = %name, %error, "weights are not written");
                    }
                }
            }
        }
    }

    /// What it was when it was last recorded, as one that is aborted.
    fn deleted_while_running(&self, key: &ObjectKey) -> Option<Rollout> {
        let entry = match self.store.last_change(key, self.store.revision()) {
            Ok(entry) => entry?,
            Err(error) => {
                tracing::error!(%error, "what a deleted rollout was cannot be read");
                return None;
            }
        };
        let change = entry.changes.into_iter().find(|change| change.key == *key)?;
        let Some(Object::Rollout(rollout)) = change.after else { return None };
        let mut rollout = (*rollout).clone();
        let running = rollout.owns() && rollout.state.begun;
        rollout.state.phase = Phase::Aborted;
        running.then_some(rollout)
    }

    fn weights(&self, wanted: &Service, author: &Author) -> Result<(), ChangeError> {
        let key = ObjectKey::Service(wanted.name.clone());
        for (kind, namespace, name) in places(&key) {
            let mut document = traffic_split(wanted);
            document["metadata"] = json!({ "name": name, "namespace": namespace });
            let step = Step { kind, namespace, name, write: Write::Apply(document) };
            // It was written before, or is as it was before the rollout.
            self.step(&step, author, (false, false), None)?;
        }
        Ok(())
    }
}

/// The service as a rollout wants it, when it is otherwise.
fn unmade(rollout: &Rollout, desired: &Desired) -> Option<Service> {
    // Then somebody else's weights are to stay.
    if rollout.state.paused == Some(Paused::Weights) {
        return None;
    }
    let service = &desired.services.get(&rollout.spec.service)?.value;
    let wanted = rollout.shape(service).ok()?;
    let same = rollout.intact(service)
        && wanted.audiences == service.audiences
        && wanted.mirror == service.mirror;
    (!same).then_some(wanted)
}

/// As [`crate::kubernetes::translate`] reads it.
fn status(rollout: &Rollout) -> Value {
    let state = &rollout.state;
    let steps = rollout.spec.steps.len();
    let mut status = state.to_json(&rollout.step_text());
    let weight = match state.phase {
        Phase::Succeeded => 100,
        Phase::RolledBack | Phase::Aborted => 0,
        _ if !state.begun => 0,
        _ => rollout.spec.weight_at(state.step).unwrap_or(0),
    };
    status[PLAN] = rollout.spec.document().clone();
    status["weight"] = weight.into();
    status["progress"] = format!("{}/{steps}", (state.step + 1).min(steps)).into();
    status
}
