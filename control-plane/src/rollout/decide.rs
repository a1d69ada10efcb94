//! What a rollout does next. Pure: no clock, no input or output.

use std::time::Duration;

use weir_mesh::duration;
use weir_mesh::model::Service;
use weir_mesh::rollout::{During, Paused, Phase, Rollout, Step};

use super::live::{Judged, Verdict};

/// How far the routers are with the weights of this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// Every live router uses them.
    Done,
    /// Not yet, and why.
    Pending(String),
}

/// What the webhook of a gate has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Not yes, and what instead.
    Closed(String),
    /// Yes.
    Open,
}

/// What is known at a moment.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The service, if it is there.
    pub service: Option<&'a Service>,
    /// Whether a healthy instance runs the canary.
    pub canary_healthy: bool,
    /// Whether a healthy instance runs the fresh baseline; true without one.
    pub baseline_healthy: bool,
    /// How far the routers are.
    pub spread: Spread,
    /// That it has run.
    pub elapsed: Duration,
    /// In the step, with all that it needs.
    pub step_elapsed: Duration,
    /// Of a step that is a gate.
    pub gate: &'a Gate,
    /// What is known of the canary.
    pub judged: &'a Judged,
    /// Who changed the weights, if somebody else did.
    pub intruder: Option<&'a str>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// Nothing now.
    Stay {
        /// What it waits for.
        message: String,
        /// Whether the step has all that it needs, so that its time runs.
        ready: bool,
    },
    /// The first step.
    Begin,
    /// That step.
    Enter(usize),
    /// The canary has everything.
    Succeed,
    /// It is not good enough, or time is over.
    Fail(String),
    /// Somebody has to look.
    Pause(Paused, String),
}

fn wait(message: impl Into<String>) -> Move {
    Move::Stay { message: message.into(), ready: false }
}

/// What to do. It never goes forward on what is not known.
#[must_use]
pub fn decide(rollout: &Rollout, facts: &Facts<'_>) -> Move {
    let (spec, state) = (&rollout.spec, &rollout.state);
    let bad = state.begun && facts.judged.verdict == Verdict::RollBack;
    // Who waits for people is still watched: they are not asked to be faster than it.
    if bad && state.phase == Phase::Paused && state.paused == Some(Paused::Step) {
        return Move::Fail(facts.judged.message.clone());
    }
    if state.phase != Phase::Progressing {
        return wait(state.message.clone());
    }
    if let (true, Some(service)) = (state.begun, facts.service)
        && !rollout.intact(service)
    {
        let who = facts.intruder.unwrap_or("somebody else");
        let why = format!("{who} changed the weights of {}; resume sets them again", spec.service);
        return Move::Pause(Paused::Weights, why);
    }
    if bad {
        return Move::Fail(facts.judged.message.clone());
    }
    let next = within_deadline(rollout, facts);
    match &next {
        Move::Stay { message, .. } if facts.elapsed >= spec.deadline => {
            let deadline = duration::print(spec.deadline);
            Move::Fail(format!("the deadline of {deadline} has passed; it waited: {message}"))
        }
        _ => next,
    }
}

fn within_deadline(rollout: &Rollout, facts: &Facts<'_>) -> Move {
    let (spec, state) = (&rollout.spec, &rollout.state);
    let Some(service) = facts.service else {
        return wait(format!("service {} is not there", spec.service));
    };
    if !state.begun {
        if let Err(error) = spec.begin(service) {
            return wait(error.to_string());
        }
        return match missing(rollout, facts, 0) {
            Some(missing) => wait(missing),
            None => Move::Begin,
        };
    }
    let full = spec.full_step();
    if state.full && state.step < full {
        return match missing(rollout, facts, full) {
            Some(missing) => wait(missing),
            None => Move::Enter(full),
        };
    }
    if !state.passed {
        if let Spread::Pending(why) = &facts.spread {
            return wait(why.clone());
        }
        if let Some(missing) = missing(rollout, facts, state.step) {
            return wait(missing);
        }
        if let Some(stay) = step(rollout, facts) {
            return stay;
        }
    }
    let next = state.step + 1;
    if next >= spec.steps.len() {
        return Move::Succeed;
    }
    match missing(rollout, facts, next) {
        Some(missing) => wait(missing),
        None => Move::Enter(next),
    }
}

/// What a step needs to be done at all, and is not there.
fn missing(rollout: &Rollout, facts: &Facts<'_>, step: usize) -> Option<String> {
    let spec = &rollout.spec;
    if !facts.canary_healthy {
        return Some(format!("{} {} has no healthy instance", spec.service, spec.canary));
    }
    let weight = spec.weight_at(step).unwrap_or(0);
    if let Some(baseline) = &spec.baseline
        && !facts.baseline_healthy
        && (1..100).contains(&weight)
    {
        return Some(format!("{} {baseline} has no healthy instance", spec.service));
    }
    None
}

/// Why the step is not done yet; none: it is.
fn step(rollout: &Rollout, facts: &Facts<'_>) -> Option<Move> {
    let (spec, state) = (&rollout.spec, &rollout.state);
    let stay = |message: String| Some(Move::Stay { message, ready: true });
    let over = |time: &Duration| facts.step_elapsed >= *time;
    match spec.steps.get(state.step)? {
        Step::SetWeight(weight) => {
            let all = |a: &weir_mesh::rollout::AnalysisSpec| a.during == During::AllSteps;
            let waits = spec.analysis.as_ref().is_some_and(all) && (1..100).contains(weight);
            (waits && facts.judged.verdict != Verdict::Promote)
                .then(|| stay(facts.judged.message.clone()))?
        }
        Step::SetAudience(_) | Step::SetMirror(_) => None,
        Step::Pause(Some(time)) if over(time) => None,
        Step::Pause(Some(time)) => stay(format!("pauses for {}", duration::print(*time))),
        Step::Pause(None) => Some(Move::Pause(Paused::Step, until_resumed())),
        Step::Gate(_) => match facts.gate {
            Gate::Open => None,
            Gate::Closed(why) => stay(why.clone()),
        },
        Step::Analyze { duration: time, .. } => {
            if let Some(time) = time.filter(|time| !over(time)) {
                return stay(format!("is looked at for {}", duration::print(time)));
            }
            (facts.judged.verdict != Verdict::Promote)
                .then(|| stay(facts.judged.message.clone()))?
        }
    }
}

/// What is said at a pause that has no end.
pub(super) fn until_resumed() -> String {
    "waits until somebody resumes or aborts it".to_owned()
}

#[cfg(test)]
mod tests;
