//! How far a rollout has come, and how that is written as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{Audience, VersionMirror, VersionName, Weight};

use super::before::{self, BeforeDocument};

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Phase {
    /// It does its steps.
    Progressing,
    /// It is stopped, and can be resumed.
    Paused,
    /// The canary has everything.
    Succeeded,
    /// Weights are as before: the canary was not good enough, or time was over.
    RolledBack,
    /// Likewise, because somebody asked for it.
    Aborted,
}

impl Phase {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Progressing => "Progressing",
            Self::Paused => "Paused",
            Self::Succeeded => "Succeeded",
            Self::RolledBack => "RolledBack",
            Self::Aborted => "Aborted",
        }
    }

    /// True when nothing more happens.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack | Self::Aborted)
    }
}

/// Why it is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Paused {
    /// The step is a pause.
    Step,
    /// Somebody asked for it.
    Asked,
    /// The canary was not good enough, or time was over.
    Failure,
    /// Somebody else changed the weights.
    Weights,
}

/// Whether somebody outside knows how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Not yet.
    Pending,
    /// It answered that it does.
    Done,
    /// It was asked often enough; why that did not work.
    GivenUp(String),
}

/// What the service had before: to return to.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// In the service's order.
    pub weights: Vec<(VersionName, Weight)>,
    /// All.
    pub audiences: Vec<Audience>,
    /// If there was one.
    pub mirror: Option<VersionMirror>,
}

/// How far a rollout has come. It is stored at each transition, with the weights
/// that belong to it.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// Where it is.
    pub phase: Phase,
    /// Why it is paused, when it is.
    pub paused: Option<Paused>,
    /// The step it is at, from 0; their number at the end.
    pub step: usize,
    /// False: it waits for what it needs to begin, and nothing has changed yet.
    pub begun: bool,
    /// The step need not wait for anything any more.
    pub passed: bool,
    /// No step between need be done.
    pub full: bool,
    /// What it waits for, or why it is where it is.
    pub message: String,
    /// Who started it.
    pub actor: String,
    /// Milliseconds since the Unix epoch; only shown.
    pub started_ms: u64,
    /// Likewise; none while it runs.
    pub ended_ms: Option<u64>,
    /// That it ran until its last transition, without the time in which it was
    /// paused; to the millisecond.
    pub elapsed: Duration,
    /// Of that, in this step.
    pub step_elapsed: Duration,
    /// What served when it began.
    pub stable: Option<VersionName>,
    /// What the service had when it began.
    pub before: Option<Before>,
    /// None: nobody is to be told.
    pub write_back: Option<Told>,
}

/// A stored state that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the state of a rollout cannot be read: {0}")]
pub struct StateError(pub(super) String);

/// The state as JSON: also the status of the custom resource.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateDocument {
    /// Where it is.
    phase: Phase,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    paused: Option<Paused>,
    /// The step it is at, from 0.
    step: u32,
    /// What that step is.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    step_text: String,
    /// Whether it has changed anything yet.
    #[serde(default)]
    begun: bool,
    /// Whether the step need not wait for anything any more.
    #[serde(default)]
    passed: bool,
    /// Whether no step between need be done.
    #[serde(default)]
    full: bool,
    /// What it waits for, or why it is where it is.
    #[serde(default)]
    message: String,
    /// Who started it.
    #[serde(default)]
    actor: String,
    /// Milliseconds since the Unix epoch.
    #[serde(default)]
    started_ms: u64,
    /// Milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ended_ms: Option<u64>,
    /// That it ran until its last transition, in milliseconds.
    #[serde(default)]
    elapsed_ms: u64,
    /// Of that, in this step.
    #[serde(default)]
    step_elapsed_ms: u64,
    /// What served when it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stable: Option<String>,
    /// What the service had when it began.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    before: Option<BeforeDocument>,
    /// Whether the webhook of writeBack was told the end: Pending, Done or GivenUp.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    write_back: Option<ToldState>,
    /// Why not.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    write_back_error: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, schemars::JsonSchema)]
enum ToldState {
    Pending,
    Done,
    GivenUp,
}

impl State {
    /// Of one that somebody has just asked for.
    #[must_use]
    pub fn new(actor: &str, now_ms: u64) -> Self {
        Self {
            phase: Phase::Progressing,
            paused: None,
            step: 0,
            begun: false,
            passed: false,
            full: false,
            message: String::new(),
            actor: actor.to_owned(),
            started_ms: now_ms,
            ended_ms: None,
            elapsed: Duration::ZERO,
            step_elapsed: Duration::ZERO,
            stable: None,
            before: None,
            write_back: None,
        }
    }

    /// As JSON. `step_text` is what its step is, for people.
    #[must_use]
    pub fn to_json(&self, step_text: &str) -> Value {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let document = StateDocument {
            phase: self.phase,
            paused: self.paused,
            step: u32::try_from(self.step).unwrap_or(u32::MAX),
            step_text: step_text.to_owned(),
            begun: self.begun,
            passed: self.passed,
            full: self.full,
            message: self.message.clone(),
            actor: self.actor.clone(),
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            elapsed_ms: ms(self.elapsed),
            step_elapsed_ms: ms(self.step_elapsed),
            stable: self.stable.as_ref().map(ToString::to_string),
            before: self.before.as_ref().map(before::write),
            write_back: self.write_back.as_ref().map(|told| match told {
                Told::Pending => ToldState::Pending,
                Told::Done => ToldState::Done,
                Told::GivenUp(_) => ToldState::GivenUp,
            }),
            write_back_error: match &self.write_back {
                Some(Told::GivenUp(why)) => why.clone(),
                _ => String::new(),
            },
        };
        serde_json::to_value(document).unwrap_or_default()
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn from_json(value: &Value) -> Result<Self, StateError> {
        let document = StateDocument::deserialize(value);
        let document = document.map_err(|error| StateError(error.to_string()))?;
        let stable = document.stable.map(|name| name.parse::<VersionName>()).transpose();
        Ok(Self {
            phase: document.phase,
            paused: document.paused,
            step: document.step as usize,
            begun: document.begun,
            passed: document.passed,
            full: document.full,
            message: document.message,
            actor: document.actor,
            started_ms: document.started_ms,
            ended_ms: document.ended_ms,
            elapsed: Duration::from_millis(document.elapsed_ms),
            step_elapsed: Duration::from_millis(document.step_elapsed_ms),
            stable: stable.map_err(|error| StateError(error.to_string()))?,
            before: document.before.as_ref().map(before::read).transpose()?,
            write_back: document.write_back.map(|told| match told {
                ToldState::Pending => Told::Pending,
                ToldState::Done => Told::Done,
                ToldState::GivenUp => Told::GivenUp(document.write_back_error.clone()),
            }),
        })
    }
}

/// The JSON Schema (draft 2020-12) of [`State::to_json`].
#[must_use]
pub fn state_schema() -> schemars::Schema {
    schemars::schema_for!(StateDocument)
}
