//! What people ask of a rollout, and the edits that each move makes.

use std::sync::Arc;
use std::time::Duration;

use weir_mesh::model::ServiceName;
use weir_mesh::rollout::{OnFailure, Paused, Phase, Rollout, Spec, State, Step, Told};

use super::decide::{Move, until_resumed};
use crate::control::{Author, ChangeError};
use crate::store::{Desired, Edit, Held, Object, ObjectKey};
use crate::text::unix_nanos;

/// Somebody asks for something, now.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// That it has run, and of that in its step, if somebody knows better than what
    /// is stored.
    pub times: Option<(Duration, Duration)>,
}

impl Act {
    /// Of somebody who asks now.
    #[must_use]
    pub fn new(actor: &str, reason: &str) -> Self {
        let now_ms = unix_nanos() / 1_000_000;
        Self { actor: actor.to_owned(), reason: reason.to_owned(), now_ms, times: None }
    }
}

/// Whose weights they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "rollout {rollout} manages the weights of {service}; pause or abort it first (weir rollout \
     pause {rollout}), or set force (--force), which pauses it"
)]
pub struct ManagedBy {
    /// The rollout.
    pub rollout: Arc<str>,
    /// Its service.
    pub service: ServiceName,
}

fn key(name: &Arc<str>) -> ObjectKey {
    ObjectKey::Rollout(name.clone())
}

fn rollout_edit(rollout: Rollout) -> Edit {
    Edit { key: key(&rollout.name), after: Some(Object::Rollout(Arc::new(rollout))) }
}

/// The rollout as it now is, and the service as that wants it.
fn edits(desired: &Desired, rollout: Rollout) -> Vec<Edit> {
    let service = desired.services.get(&rollout.spec.service);
    let shape = service.and_then(|held| {
        let wanted = rollout.shape(&held.value).ok()?;
        // What was only found in a catalogue stays so, unless it is to change.
        let same = wanted == *held.value;
        (!same).then(|| Edit {
            key: ObjectKey::Service(wanted.name.clone()),
            after: Some(Object::Service(Arc::new(wanted))),
        })
    });
    shape.into_iter().chain([rollout_edit(rollout)]).collect()
}

fn find<'a>(desired: &'a Desired, name: &str) -> Result<&'a Held<Rollout>, ChangeError> {
    desired.rollouts.get(name).ok_or_else(|| {
        let shown: String = name.chars().take(253).collect();
        ChangeError::NotFound(format!("no rollout {shown:?}"))
    })
}

/// One that is not at its end.
fn running(desired: &Desired, name: &str) -> Result<Rollout, ChangeError> {
    let rollout = (*find(desired, name)?.value).clone();
    if rollout.state.phase.is_final() {
        let phase = rollout.state.phase.as_str();
        return Err(ChangeError::Precondition(format!("rollout {name} is at its end: {phase}")));
    }
    Ok(rollout)
}

/// A new rollout, or a new run of one that is at its end.
///
/// # Errors
/// [`ChangeError::Precondition`]: it, or another one of its service, is not at its
/// end, or the service is not what it can start from.
pub fn start(
    desired: &Desired,
    name: &Arc<str>,
    spec: Arc<Spec>,
    act: &Act,
) -> Result<Vec<Edit>, ChangeError> {
    if let Some(held) = desired.rollouts.get(name)
        && held.value.owns()
    {
        let why = format!("rollout {name} is not at its end; abort it first, or give another name");
        return Err(ChangeError::Exists(why));
    }
    if let Some(held) = desired.rollouts.get(name)
        && held.value.spec.service != spec.service
    {
        let of = &held.value.spec.service;
        let why = format!("rollout {name} is one of {of}; delete it first, or give another name");
        return Err(ChangeError::Exists(why));
    }
    if let Some(other) = desired.rollout_of(&spec.service) {
        let (other, service) = (&other.value.name, &spec.service);
        let why = format!("rollout {other} of {service} is not at its end; abort it first");
        return Err(ChangeError::Exists(why));
    }
    begin_or_refuse(desired, &spec)?;
    let mut state = State::new(&act.actor, act.now_ms);
    state.message = "begins".to_owned();
    Ok(vec![rollout_edit(Rollout { name: name.clone(), spec, state })])
}

/// Whether it could begin as things are, its instances left out.
fn begin_or_refuse(desired: &Desired, spec: &Spec) -> Result<(), ChangeError> {
    let service = desired.services.get(&spec.service);
    let service = service.ok_or_else(|| {
        ChangeError::NotFound(format!("no service {}; apply it first", spec.service))
    })?;
    let begun = spec.begin(&service.value);
    begun.map(drop).map_err(|error| ChangeError::Precondition(error.to_string()))
}

/// Stops it where it is.
///
/// # Errors
/// [`ChangeError`]: it is not there, or at its end.
pub fn pause(desired: &Desired, name: &str, act: &Act) -> Result<Vec<Edit>, ChangeError> {
    let rollout = running(desired, name)?;
    if rollout.state.phase == Phase::Paused {
        return Ok(Vec::new());
    }
    let message = format!("paused by {}{}", act.actor, because(&act.reason));
    Ok(vec![paused(rollout, Paused::Asked, message, act.times)])
}

/// Stops it, because somebody changes its weights by force. None: it stands still as
/// it is.
#[must_use]
pub fn pause_for(rollout: &Rollout, author: &Author) -> Option<Edit> {
    let state = &rollout.state;
    if state.phase != Phase::Progressing && state.paused != Some(Paused::Step) {
        return None;
    }
    let (actor, reason) = (&author.actor, because(&author.reason));
    let message = format!("{actor} changed the weights by force{reason}");
    Some(paused(rollout.clone(), Paused::Weights, message, None))
}

fn paused(
    mut rollout: Rollout,
    why: Paused,
    message: String,
    times: Option<(Duration, Duration)>,
) -> Edit {
    set_times(&mut rollout.state, times);
    rollout.state.phase = Phase::Paused;
    rollout.state.paused = Some(why);
    rollout.state.message = message;
    rollout_edit(rollout)
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

fn set_times(state: &mut State, times: Option<(Duration, Duration)>) {
    if let Some((elapsed, step)) = times {
        (state.elapsed, state.step_elapsed) = (elapsed, step);
    }
}

/// Goes on.
///
/// # Errors
/// [`ChangeError`]: it is not there, or not paused.
pub fn resume(desired: &Desired, name: &str, act: &Act) -> Result<Vec<Edit>, ChangeError> {
    let mut rollout = running(desired, name)?;
    let state = &mut rollout.state;
    if state.phase != Phase::Paused {
        return Err(ChangeError::Precondition(format!("rollout {name} is not paused")));
    }
    match state.paused {
        Some(Paused::Step) => state.passed = true,
        // What failed is looked at anew, in a new time.
        Some(Paused::Failure) => (state.elapsed, state.step_elapsed) = Default::default(),
        Some(Paused::Weights) => state.step_elapsed = Duration::ZERO,
        Some(Paused::Asked) | None => {}
    }
    progress(state, format!("resumed by {}", act.actor));
    Ok(edits(desired, rollout))
}

fn progress(state: &mut State, message: String) {
    state.phase = Phase::Progressing;
    state.paused = None;
    state.message = message;
}

/// Passes the step that it is at; `full`: all up to the one that gives the canary
/// everything.
///
/// # Errors
/// [`ChangeError`]: it is not there, or at its end.
pub fn promote(
    desired: &Desired,
    name: &str,
    full: bool,
    act: &Act,
) -> Result<Vec<Edit>, ChangeError> {
    let mut rollout = running(desired, name)?;
    let state = &mut rollout.state;
    set_times(state, act.times);
    if state.paused == Some(Paused::Failure) {
        state.elapsed = Duration::ZERO;
    }
    state.passed = state.begun;
    state.full |= full;
    progress(state, format!("promoted by {}", act.actor));
    Ok(edits(desired, rollout))
}

/// Ends it; weights are as before.
///
/// # Errors
/// [`ChangeError`]: it is not there, or at its end.
pub fn abort(desired: &Desired, name: &str, act: &Act) -> Result<Vec<Edit>, ChangeError> {
    let mut rollout = running(desired, name)?;
    set_times(&mut rollout.state, act.times);
    let message = format!("aborted by {}{}", act.actor, because(&act.reason));
    end(&mut rollout, Phase::Aborted, message, act.now_ms);
    Ok(edits(desired, rollout))
}

fn end(rollout: &mut Rollout, phase: Phase, message: String, now_ms: u64) {
    let told = rollout.spec.write_back.as_ref().filter(|told| told.on.contains(&phase));
    let state = &mut rollout.state;
    state.write_back = told.map(|_| Told::Pending);
    state.phase = phase;
    state.paused = None;
    state.message = message;
    state.ended_ms = Some(now_ms);
}

/// Forgets one that is at its end.
///
/// # Errors
/// [`ChangeError`]: it is not there, or not at its end.
pub fn deletable(desired: &Desired, name: &str) -> Result<Vec<Edit>, ChangeError> {
    let held = find(desired, name)?;
    if held.value.owns() {
        let why = format!("rollout {name} is not at its end; abort it first");
        return Err(ChangeError::Precondition(why));
    }
    Ok(vec![Edit { key: key(&held.value.name), after: None }])
}

/// The edits of a move, and what the history is told of it. None: there is nothing to
/// change.
///
/// # Errors
/// [`ChangeError::Precondition`]: it cannot begin.
pub fn edits_of(
    desired: &Desired,
    rollout: &Rollout,
    next: &Move,
    act: &Act,
) -> Result<Option<(Vec<Edit>, String)>, ChangeError> {
    let mut rollout = rollout.clone();
    set_times(&mut rollout.state, act.times);
    let reason = match next {
        Move::Stay { .. } => return Ok(None),
        Move::Begin => {
            let service = desired.services.get(&rollout.spec.service);
            let begun = service.map(|held| rollout.spec.begin(&held.value));
            let (stable, before) = begun
                .ok_or_else(|| ChangeError::Precondition("its service is gone".to_owned()))?
                .map_err(|error| ChangeError::Precondition(error.to_string()))?;
            (rollout.state.stable, rollout.state.before) = (Some(stable), Some(before));
            enter(&mut rollout, 0)
        }
        Move::Enter(step) => enter(&mut rollout, *step),
        Move::Succeed => {
            rollout.state.step = rollout.spec.steps.len();
            let message = format!("{} has everything", rollout.spec.canary);
            end(&mut rollout, Phase::Succeeded, message.clone(), act.now_ms);
            message
        }
        Move::Fail(why) => match rollout.spec.on_failure {
            OnFailure::RollBack => {
                end(&mut rollout, Phase::RolledBack, why.clone(), act.now_ms);
                why.clone()
            }
            OnFailure::Pause => {
                return Ok(Some((
                    vec![paused(rollout, Paused::Failure, why.clone(), None)],
                    why.clone(),
                )));
            }
        },
        Move::Pause(cause, why) => {
            return Ok(Some((vec![paused(rollout, *cause, why.clone(), None)], why.clone())));
        }
    };
    Ok(Some((edits(desired, rollout), reason)))
}

fn enter(rollout: &mut Rollout, step: usize) -> String {
    rollout.state.enter(step);
    rollout.state.message = String::new();
    if let Some(Step::Pause(None)) = rollout.spec.steps.get(step) {
        rollout.state.phase = Phase::Paused;
        rollout.state.paused = Some(Paused::Step);
        rollout.state.message = until_resumed();
    }
    format!("step {} of {}: {}", step + 1, rollout.spec.steps.len(), rollout.step_text())
}
