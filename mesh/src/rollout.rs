//! Rollouts (`kind: Rollout` of weir.dev/v1alpha1): plans of shifts, with gates and
//! analysis between them.
//!
//! A spec travels as it was written, as JSON, as policies do. [`Spec`] is what the
//! rest of Weir sees, in which nothing invalid can be said; [`State`] is how far a
//! rollout has come. Both together are one object of the desired state, so that a
//! step's weights and the step itself can be stored as one change.

mod analysis;
mod before;
mod document;
mod read;
mod schema;
mod shape;
mod state;
#[cfg(test)]
mod tests;
mod webhook;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

pub use analysis::{AnalysisSpec, Bounds, During, MetricHook, PrometheusQuery};
pub use document::RolloutDocument;
pub use schema::{KIND, parse_rollout, read_rollout, schema, spec_schema, to_document};
pub use shape::ShapeError;
pub use state::{Before, Paused, Phase, State, StateError, Told, state_schema};
pub use webhook::{Headers, Url, Webhook};

use crate::duration;
use crate::model::{AudienceBy, ServiceName, VersionName};

/// Most steps of a rollout.
pub const MAX_STEPS: usize = 64;

/// A rollout: its plan, and how far it has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// A DNS subdomain name (RFC 1123).
    pub name: Arc<str>,
    /// The plan.
    pub spec: Arc<Spec>,
    /// How far it is.
    pub state: State,
}

/// Who is told how a rollout ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBack {
    /// Where.
    pub webhook: Webhook,
    /// Of which ends; never empty.
    pub on: Vec<Phase>,
}

/// What to do when the canary is not good enough, or time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// The service gets its split from before the rollout.
    RollBack,
    /// Weights stay, and somebody decides.
    Pause,
}

/// How big the steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// More and more.
    Canary,
    /// Nothing, then all.
    BlueGreen,
}

/// What is done at once.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// This share of requests goes to the canary, in percent: 0 to 100.
    SetWeight(u32),
    /// These requests go to the canary, whatever the weights. Until another such
    /// step, or the end.
    SetAudience(AudienceBy),
    /// This share of the others' requests is copied to the canary, in percent: 0
    /// to 100. Until another such step, or the end.
    SetMirror(u32),
    /// Waits so long; none: until somebody resumes it.
    Pause(Option<Duration>),
    /// Waits until somebody else says yes.
    Gate(Webhook),
    /// Waits for the verdict.
    Analyze {
        /// At least so long.
        duration: Option<Duration>,
        /// At least so many requests of the canary during this step.
        min_requests: Option<u64>,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetWeight(weight) => write!(f, "setWeight {weight}"),
            Self::SetAudience(AudienceBy::Headers(headers)) => {
                f.write_str("setAudience by headers")?;
                headers.iter().try_for_each(|(name, _)| write!(f, " {name}"))
            }
            Self::SetAudience(AudienceBy::Claim { path, .. }) => {
                write!(f, "setAudience by claim {}", path.join("."))
            }
            Self::SetMirror(percent) => write!(f, "setMirror {percent}"),
            Self::Pause(Some(time)) => write!(f, "pause {}", duration::print(*time)),
            Self::Pause(None) => f.write_str("pause until resumed"),
            Self::Gate(hook) => write!(f, "gate {}", hook.url.place()),
            Self::Analyze { .. } => f.write_str("analyze"),
        }
    }
}

/// A plan.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Whose weights it changes.
    pub service: ServiceName,
    /// How big the steps are.
    pub strategy: Strategy,
    /// What serves now; none: the version that has all weight when it begins.
    pub stable: Option<VersionName>,
    /// What is to serve. Not `stable`.
    pub canary: VersionName,
    /// A fresh instance of what serves now, to compare with: it gets the canary's
    /// weight. Neither `stable` nor `canary`.
    pub baseline: Option<VersionName>,
    /// 1 to [`MAX_STEPS`]; some step gives the canary everything, and none gives it
    /// less after that.
    pub steps: Vec<Step>,
    /// How the canary is judged; none: not at all.
    pub analysis: Option<AnalysisSpec>,
    /// That it may run, without the time in which it is paused.
    pub deadline: Duration,
    /// What to do when the canary is not good enough, or time is over.
    pub on_failure: OnFailure,
    /// Who is told how it ended.
    pub write_back: Option<WriteBack>,
    /// As it was written.
    document: Arc<Value>,
}

impl PartialEq for Spec {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

impl Spec {
    /// As it was written.
    #[must_use]
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// Percent of requests that the canary gets at a step; none: nobody has set it
    /// yet, so weights are as before.
    #[must_use]
    pub fn weight_at(&self, step: usize) -> Option<u32> {
        let mut done = self.steps.iter().take(step.saturating_add(1)).rev();
        done.find_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            _ => None,
        })
    }

    /// Whether it has the control plane ask URLs that it names.
    #[must_use]
    pub fn asks_outside(&self) -> bool {
        let gate = |step: &Step| matches!(step, Step::Gate(_));
        let sources = |a: &AnalysisSpec| !a.prometheus.is_empty() || !a.webhooks.is_empty();
        self.write_back.is_some()
            || self.steps.iter().any(gate)
            || self.analysis.as_ref().is_some_and(sources)
    }

    /// The first step that gives the canary everything.
    #[must_use]
    pub fn full_step(&self) -> usize {
        let full = |step: &Step| matches!(step, Step::SetWeight(100));
        self.steps.iter().position(full).unwrap_or(self.steps.len().saturating_sub(1))
    }

    /// With what the canary is compared: the fresh baseline if there is one.
    #[must_use]
    pub fn compared_with<'a>(&'a self, stable: &'a VersionName) -> &'a VersionName {
        self.baseline.as_ref().unwrap_or(stable)
    }
}
