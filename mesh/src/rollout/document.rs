//! The document's form: what serde reads and whose JSON Schema is generated.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::analysis::AnalysisDocument;
use super::webhook::WebhookDocument;
use crate::policy::value::DurationText;

/// The spec of a Rollout.
#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutDocument {
    /// Whose weights are changed.
    pub(super) service: String,
    /// Canary: more and more. BlueGreen: nothing, then all. It only says what the
    /// steps are that are not given. Default: Canary.
    pub(super) strategy: Option<StrategyDocument>,
    /// The version that serves now. Default: the one that has all weight.
    pub(super) stable: Option<String>,
    /// The version that is to serve.
    pub(super) canary: String,
    /// A version with a fresh instance of what serves now: it gets the canary's
    /// weight, and the canary is compared with it. Default: compare with stable.
    pub(super) baseline: Option<String>,
    /// What is done, in order; setWeight 100 follows if it is not there. Default:
    /// setWeight 5, 10, 25, 50, 100 with analysis; of BlueGreen: a pause until it is
    /// resumed, then setWeight 100.
    #[schemars(length(min = 1, max = 64))]
    pub(super) steps: Option<Vec<StepDocument>>,
    /// How the canary is judged. Default: not at all if there are steps, else with
    /// the defaults of each field.
    pub(super) analysis: Option<AnalysisDocument>,
    /// That it may run, without the time in which it is paused: 1s to 168h. Default
    /// 1h.
    pub(super) deadline: Option<DurationText>,
    /// What to do when the canary is not good enough, or time is over. Default:
    /// RollBack.
    pub(super) on_failure: Option<OnFailureDocument>,
    /// Who is told how it ended.
    pub(super) write_back: Option<WriteBackDocument>,
}

/// How big the steps are.
#[derive(Debug, Clone, Copy, Deserialize, schemars::JsonSchema)]
pub(crate) enum StrategyDocument {
    Canary,
    BlueGreen,
}

/// What to do when the canary is not good enough, or time is over.
#[derive(Debug, Clone, Copy, Deserialize, schemars::JsonSchema)]
pub(crate) enum OnFailureDocument {
    RollBack,
    Pause,
}

/// One of these fields.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct StepDocument {
    /// Percent of requests that go to the canary: 0 to 100.
    #[schemars(range(max = 100))]
    pub(super) set_weight: Option<u32>,
    /// Requests that go to the canary whatever the weights.
    pub(super) set_audience: Option<AudienceDocument>,
    /// Percent of requests that are copied to the canary, whose answers nobody
    /// sees: 0 to 100.
    #[schemars(range(max = 100))]
    pub(super) set_mirror: Option<u32>,
    /// Waits.
    pub(super) pause: Option<PauseDocument>,
    /// Waits until a webhook says yes.
    pub(super) gate: Option<GateDocument>,
    /// Waits for the analysis' verdict.
    pub(super) analyze: Option<AnalyzeDocument>,
}

/// One of these fields.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AudienceDocument {
    /// Requests that have all of these headers with exactly these values.
    pub(super) headers: Option<BTreeMap<String, String>>,
    /// Requests whose verified token has this claim.
    pub(super) claim: Option<ClaimDocument>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClaimDocument {
    /// The claim; dots go into objects: `realm.roles`.
    pub(super) name: String,
    /// It is one of these, or a list that has one of them.
    pub(super) values: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PauseDocument {
    /// So long. Default: until somebody resumes it.
    pub(super) duration: Option<DurationText>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct GateDocument {
    /// It is asked by POST until it answers 2xx.
    pub(super) webhook: WebhookDocument,
}

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AnalyzeDocument {
    /// At least so long.
    pub(super) duration: Option<DurationText>,
    /// At least so many requests of the canary during this step. Default: the
    /// analysis' own.
    pub(super) min_requests: Option<u64>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WriteBackDocument {
    /// It is told by POST, again and again until it answers 2xx: at least once.
    pub(super) webhook: WebhookDocument,
    /// Of which ends. Default: Succeeded.
    #[schemars(length(min = 1, max = 3))]
    pub(super) phases: Option<Vec<EndDocument>>,
}

/// How a rollout ends.
#[derive(Debug, Clone, Copy, Deserialize, schemars::JsonSchema)]
pub(crate) enum EndDocument {
    Succeeded,
    RolledBack,
    Aborted,
}
