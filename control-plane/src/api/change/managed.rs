//! Weights that somebody else manages, where many objects are set at once.

use std::sync::Arc;

use weir_mesh::model::{Service, Split, VersionName};
use weir_mesh::rollout::Spec;
use weir_proto::weir::control::v1 as pb;

use crate::control::Author;
use crate::rollout;
use crate::store::{Desired, Edit, Object};

/// Whether somebody else than the author manages a service's weights.
fn of_others(desired: &Desired, service: &Service, author: &Author) -> Option<String> {
    desired.manager(&service.name).filter(|manager| *manager != author.actor)
}

/// Leaves weights, audiences and mirrors that others manage as they are. By force they
/// are set, and a rollout that manages them is paused.
pub(super) fn keep(desired: &Desired, edits: &mut Vec<Edit>, author: &Author, force: bool) {
    let mut paused = Vec::new();
    for edit in edits.iter_mut() {
        let Some(Object::Service(sent)) = &edit.after else { continue };
        let Some(held) = desired.services.get(&sent.name) else { continue };
        if of_others(desired, sent, author).is_none() {
            continue;
        }
        if !force {
            edit.after = Some(Object::Service(Arc::new(kept(&held.value, sent))));
        } else if let Some(running) = desired.rollout_of(&sent.name)
            && moved(&held.value, sent)
        {
            paused.extend(rollout::pause_for(&running.value, author));
        }
    }
    edits.extend(paused);
}

/// What is sent, with the weights that are there. Versions that are new get none.
fn kept(there: &Service, sent: &Service) -> Service {
    let old = &there.split;
    let new = sent.split.versions().iter().filter(|(v, _)| old.weight(v.as_str()).is_none());
    let new = new.map(|(version, _): &(VersionName, _)| (version.clone(), Default::default()));
    let versions = old.versions().iter().cloned().chain(new).collect();
    // More versions of weight 0 break no rule of a split that was good.
    let split = Split::new(versions, sent.split.sticky.clone()).unwrap_or_else(|_| old.clone());
    let (audiences, mirror) = (there.audiences.clone(), there.mirror.clone());
    Service { split, audiences, mirror, ..sent.clone() }
}

/// Whether weights, audiences or mirror are sent that are others than there are.
fn moved(there: &Service, sent: &Service) -> bool {
    let all = there.split.versions().iter().chain(sent.split.versions());
    let weight =
        |split: &Split, version: &VersionName| split.weight(version.as_str()).unwrap_or_default();
    let mut versions = all.map(|(version, _)| version);
    versions.any(|version| weight(&there.split, version) != weight(&sent.split, version))
        || there.audiences != sent.audiences
        || there.mirror != sent.mirror
}

/// What was sent that may be managed by others, for warnings.
pub(super) struct Sent {
    services: Vec<Arc<Service>>,
    rollouts: Vec<(Arc<str>, Arc<Spec>)>,
    author: Author,
}

impl Sent {
    pub fn new(
        services: &[Arc<Service>],
        rollouts: &[(Arc<str>, Arc<Spec>)],
        force: bool,
        author: &Author,
    ) -> Self {
        let services = if force { Vec::new() } else { services.to_vec() };
        Self { services, rollouts: rollouts.to_vec(), author: author.clone() }
    }

    /// What was left as it was in `desired`, and by whom it is managed.
    pub fn warnings(&self, desired: &Desired) -> Vec<pb::Warning> {
        let mut warnings = Vec::new();
        for (i, sent) in self.services.iter().enumerate() {
            let Some(held) = desired.services.get(&sent.name) else { continue };
            let Some(manager) = of_others(desired, sent, &self.author) else { continue };
            if moved(&held.value, sent) {
                let name = match desired.rollout_of(&sent.name) {
                    Some(_) => "ManagedByRollout",
                    None => "ManagedByOther",
                };
                let description = format!("{manager} manages the weights: they stay as they are");
                let field = format!("services[{i}].versions");
                warnings.push(pb::Warning { name: name.to_owned(), field, description });
            }
        }
        for (i, (name, spec)) in self.rollouts.iter().enumerate() {
            let held = desired.rollouts.get(name);
            if held.is_some_and(|held| held.value.owns() && held.value.spec != *spec) {
                warnings.push(pb::Warning {
                    name: "RolloutRuns".to_owned(),
                    field: format!("rollouts[{i}].spec"),
                    description: format!(
                        "rollout {name} is not at its end, and goes on as it was started; abort \
                         it first to start this one"
                    ),
                });
            }
        }
        warnings
    }
}
