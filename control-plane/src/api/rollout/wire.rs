//! Rollouts as the API writes them.

use std::time::Duration;

use weir_mesh::policy::value;
use weir_mesh::rollout::{Phase, Rollout, Told};
use weir_proto::weir::control::v1 as pb;
use weir_proto::weir::control::v1::analysis;

use crate::rollout::{Judged, JudgedMetric, Live, Verdict};
use crate::store::Revision;
use crate::text::rfc3339;

fn phase(phase: Phase) -> pb::rollout_status::Phase {
    match phase {
        Phase::Progressing => pb::rollout_status::Phase::Progressing,
        Phase::Paused => pb::rollout_status::Phase::Paused,
        Phase::Succeeded => pb::rollout_status::Phase::Succeeded,
        Phase::RolledBack => pb::rollout_status::Phase::RolledBack,
        Phase::Aborted => pb::rollout_status::Phase::Aborted,
    }
}

/// Whether nothing more happens.
pub(super) fn is_final(phase: pb::rollout_status::Phase) -> bool {
    use pb::rollout_status::Phase as P;
    matches!(phase, P::Succeeded | P::RolledBack | P::Aborted)
}

/// The whole of it: as it was written, as it is stored, and what is known beside.
pub(super) fn rollout(rollout: &Rollout, revision: Revision, live: Option<Live>) -> pb::Rollout {
    pb::Rollout {
        name: rollout.name.to_string(),
        spec: Some(value::to_struct(rollout.spec.document())),
        status: Some(status(rollout, live)),
        revision,
    }
}

fn status(rollout: &Rollout, live: Option<Live>) -> pb::RolloutStatus {
    let (spec, state) = (&rollout.spec, &rollout.state);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let time = |ms: u64| rfc3339(ms.saturating_mul(1_000_000));
    let text = |version: Option<&str>| version.unwrap_or_default().to_owned();
    let progressing = state.phase == Phase::Progressing;
    let message = live.as_ref().filter(|_| progressing).map(|live| live.message.clone());
    let (elapsed, step_elapsed) = match &live {
        Some(live) => (live.elapsed, live.step_elapsed),
        None => (state.elapsed, state.step_elapsed),
    };
    pb::RolloutStatus {
        phase: phase(state.phase).into(),
        step: count(state.step),
        steps: count(spec.steps.len()),
        step_text: if state.begun { rollout.step_text() } else { String::new() },
        message: message.unwrap_or_else(|| state.message.clone()),
        service: spec.service.to_string(),
        stable: text(state.stable.as_ref().or(spec.stable.as_ref()).map(|v| v.as_str())),
        canary: spec.canary.to_string(),
        baseline: text(spec.baseline.as_ref().map(|v| v.as_str())),
        weight: weight(rollout),
        elapsed_ms: ms(elapsed),
        step_elapsed_ms: ms(step_elapsed),
        start_time: time(state.started_ms),
        end_time: state.ended_ms.map(time).unwrap_or_default(),
        actor: state.actor.clone(),
        write_back: match &state.write_back {
            None => String::new(),
            Some(Told::Pending) => {
                let why = live.as_ref().map(|live| live.message.as_str()).unwrap_or_default();
                format!("pending{}{why}", if why.is_empty() { "" } else { ": " })
            }
            Some(Told::Done) => "done".to_owned(),
            Some(Told::GivenUp(why)) => format!("given up: {why}"),
        },
        analysis: live.and_then(|live| analysis(live.judged)),
    }
}

/// Percent of requests that the canary gets.
fn weight(rollout: &Rollout) -> f64 {
    let (spec, state) = (&rollout.spec, &rollout.state);
    let set = match state.phase {
        Phase::Succeeded => Some(100),
        Phase::Progressing | Phase::Paused if state.begun => spec.weight_at(state.step),
        _ => None,
    };
    let before = || {
        let weights = &state.before.as_ref()?.weights;
        let sum: u64 = weights.iter().map(|(_, weight)| u64::from(weight.get())).sum();
        let own = weights.iter().find(|(version, _)| *version == spec.canary)?.1;
        Some(f64::from(own.get()) * 100.0 / sum as f64)
    };
    set.map_or_else(|| before().unwrap_or(0.0), f64::from)
}

fn verdict(verdict: Verdict) -> analysis::Verdict {
    match verdict {
        Verdict::None => analysis::Verdict::Unspecified,
        Verdict::NotEnough => analysis::Verdict::NotEnoughData,
        Verdict::Promote => analysis::Verdict::Promote,
        Verdict::RollBack => analysis::Verdict::RollBack,
    }
}

fn analysis(judged: Judged) -> Option<pb::Analysis> {
    if judged.verdict == Verdict::None {
        return None;
    }
    let metric = |metric: JudgedMetric| pb::Metric {
        name: metric.name,
        verdict: verdict(metric.verdict).into(),
        canary: metric.canary,
        baseline: metric.baseline,
        evidence: metric.evidence,
        limit: metric.limit,
        message: metric.message,
    };
    Some(pb::Analysis {
        verdict: verdict(judged.verdict).into(),
        message: judged.message,
        more_requests: judged.more.unwrap_or(0),
        metrics: judged.metrics.into_iter().map(metric).collect(),
        canary_requests: judged.canary_requests,
        baseline_requests: judged.baseline_requests,
    })
}
