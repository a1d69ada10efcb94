//! What a service is to look like at each point of a rollout. Pure.

use std::collections::BTreeMap;

use super::{Before, Phase, Rollout, Spec, State, Step};
use crate::model::{Audience, Service, Split, VersionMirror, VersionName, Weight};

/// Why a rollout cannot set a service's weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// Neither one version has all weight, nor is it said which one serves.
    #[error("no version but the canary {0} has weight; set stable to the one that serves now")]
    NoStable(VersionName),
    /// Its stable version is the canary.
    #[error("{0} serves already; name another version as canary")]
    Same(VersionName),
    /// A version that the plan does not know has weight.
    #[error(
        "version {0} has weight too, and would lose it; shift it to 0 first, or name it as stable"
    )]
    Other(VersionName),
    /// The result would be no split.
    #[error("the weights make no split: {0}")]
    Split(String),
    /// It has not begun.
    #[error("the rollout has not begun")]
    NotBegun,
}

impl Spec {
    /// What serves now, and what there is to return to.
    ///
    /// # Errors
    /// [`ShapeError`], when the service's weights are not what a rollout can start
    /// from.
    pub fn begin(&self, service: &Service) -> Result<(VersionName, Before), ShapeError> {
        let versions = service.split.versions();
        let known =
            |name: &VersionName| *name == self.canary || self.baseline.as_ref() == Some(name);
        let stable = match &self.stable {
            Some(stable) => stable.clone(),
            None => {
                let others =
                    versions.iter().filter(|(name, weight)| !known(name) && weight.get() > 0);
                let most = others.max_by_key(|(_, weight)| weight.get());
                let canary_serves = || match service.split.weight(self.canary.as_str()) {
                    Some(weight) if weight.get() > 0 => ShapeError::Same(self.canary.clone()),
                    _ => ShapeError::NoStable(self.canary.clone()),
                };
                most.ok_or_else(canary_serves)?.0.clone()
            }
        };
        let other = versions
            .iter()
            .find(|(name, weight)| weight.get() > 0 && *name != stable && !known(name));
        if let Some((other, _)) = other {
            return Err(ShapeError::Other(other.clone()));
        }
        let before = Before {
            weights: versions.to_vec(),
            audiences: service.audiences.clone(),
            mirror: service.mirror.clone(),
        };
        Ok((stable, before))
    }
}

impl Rollout {
    /// What its step is, for people.
    #[must_use]
    pub fn step_text(&self) -> String {
        let step = self.spec.steps.get(self.state.step);
        step.map(ToString::to_string).unwrap_or_default()
    }

    /// True while it owns the weights of its service.
    #[must_use]
    pub fn owns(&self) -> bool {
        !self.state.phase.is_final()
    }

    /// The service as this rollout wants it at this point.
    ///
    /// # Errors
    /// [`ShapeError`], when it has not begun or the weights make no split.
    pub fn shape(&self, service: &Service) -> Result<Service, ShapeError> {
        let (Some(stable), Some(before)) = (&self.state.stable, &self.state.before) else {
            return Err(ShapeError::NotBegun);
        };
        let (weights, audiences, mirror) = match self.state.phase {
            Phase::RolledBack | Phase::Aborted => {
                (before.weights.clone(), before.audiences.clone(), before.mirror.clone())
            }
            Phase::Succeeded => {
                (self.weights(stable, 100), before.audiences.clone(), before.mirror.clone())
            }
            Phase::Progressing | Phase::Paused => {
                let weights = match self.spec.weight_at(self.state.step) {
                    Some(weight) => self.weights(stable, weight),
                    None => before.weights.clone(),
                };
                (weights, self.audiences(before), self.mirror(before))
            }
        };
        let split = split(service, &weights, [stable, &self.spec.canary])?;
        Ok(Service { split, audiences, mirror, ..service.clone() })
    }

    /// Whether the service's weights are what this rollout made them; true before it
    /// begins.
    #[must_use]
    pub fn intact(&self, service: &Service) -> bool {
        match self.shape(service) {
            Ok(wanted) => in_use(&wanted.split) == in_use(&service.split),
            Err(_) => true,
        }
    }

    fn weights(&self, stable: &VersionName, canary: u32) -> Vec<(VersionName, Weight)> {
        let baseline = self.spec.baseline.as_ref().map(|name| (name, canary.min(100 - canary)));
        let rest = 100 - canary - baseline.map_or(0, |(_, weight)| weight);
        let weight = |weight: u32| Weight::try_from(i64::from(weight)).unwrap_or_default();
        let mut weights = vec![(stable.clone(), weight(rest))];
        weights.extend(baseline.map(|(name, part)| (name.clone(), weight(part))));
        weights.push((self.spec.canary.clone(), weight(canary)));
        weights
    }

    fn done(&self) -> impl Iterator<Item = &Step> {
        self.spec.steps.iter().take(self.state.step.saturating_add(1)).rev()
    }

    fn audiences(&self, before: &Before) -> Vec<Audience> {
        let by = self.done().find_map(|step| match step {
            Step::SetAudience(by) => Some(by.clone()),
            _ => None,
        });
        let own = by.map(|by| Audience { by, version: self.spec.canary.clone() });
        own.into_iter().chain(before.audiences.iter().cloned()).collect()
    }

    fn mirror(&self, before: &Before) -> Option<VersionMirror> {
        let percent = self.done().find_map(|step| match step {
            Step::SetMirror(percent) => Some(*percent),
            _ => None,
        });
        let version = self.spec.canary.clone();
        match percent {
            None => before.mirror.clone(),
            Some(0) => None,
            Some(percent) => Some(VersionMirror { version, per_million: percent * 10_000 }),
        }
    }
}

impl State {
    /// Moves to a step, whose time begins.
    pub fn enter(&mut self, step: usize) {
        self.step = step;
        self.begun = true;
        self.passed = false;
        self.step_elapsed = std::time::Duration::ZERO;
    }
}

/// A split with these weights. Versions stay in their order and new ones come last,
/// so that the sticky line's cuts before them stay; what is not named gets 0.
fn split(
    service: &Service,
    weights: &[(VersionName, Weight)],
    needed: [&VersionName; 2],
) -> Result<Split, ShapeError> {
    let old = &service.split;
    let given: BTreeMap<_, _> = weights.iter().map(|(name, weight)| (name, *weight)).collect();
    let weight = |name: &VersionName| given.get(name).copied().unwrap_or_default();
    let mut versions: Vec<(VersionName, Weight)> =
        old.versions().iter().map(|(name, _)| (name.clone(), weight(name))).collect();
    for name in weights.iter().map(|(name, _)| name).chain(needed) {
        if !versions.iter().any(|(other, _)| other == name) {
            versions.push((name.clone(), weight(name)));
        }
    }
    Split::new(versions, old.sticky.clone()).map_err(|e| ShapeError::Split(e.to_string()))
}

/// The versions that get requests, and their weights.
fn in_use(split: &Split) -> BTreeMap<&VersionName, Weight> {
    let versions = split.versions().iter().filter(|(_, weight)| weight.get() > 0);
    versions.map(|(name, weight)| (name, *weight)).collect()
}
