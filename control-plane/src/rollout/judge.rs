//! What is known of a canary: what routers report, and what others say.

mod metrics;
mod source;

use tokio::time::Instant;
use weir_mesh::analysis::{Analysis, Decision, Histogram, Sample, Stratum};
use weir_mesh::model::VersionName;
use weir_mesh::rollout::{AnalysisSpec, Rollout, Spec, Step};
use weir_proto::weir::mesh::v1 as pb;

use self::source::Source;
use super::feed::Edges;
use super::live::{Judged, JudgedMetric, Verdict};
use super::sources::{Heard, Said};
use crate::store::Revision;

/// Collects all of it. It begins with nothing: also after a restart.
pub struct Judge {
    routers: Option<Routers>,
    sources: Vec<Source>,
    /// Requests to the canary that this step's weights decided.
    in_step: u64,
    /// So many of them are needed.
    needed: u64,
    /// Since when the step's weights are everywhere.
    ready: Option<Instant>,
}

/// What routers report.
struct Routers {
    spec: AnalysisSpec,
    analysis: Analysis,
    /// Only shown.
    canary: Histogram,
    baseline: Histogram,
}

impl Judge {
    /// Nothing is known yet.
    pub fn new(spec: &Spec) -> Self {
        let routers = spec.analysis.clone().map(|spec| Routers {
            analysis: Analysis::new(spec.plan.clone()),
            canary: Histogram::new(),
            baseline: Histogram::new(),
            spec,
        });
        let sources = spec.analysis.iter().flat_map(Source::all).collect();
        let mut judge = Self { routers, sources, in_step: 0, needed: 0, ready: None };
        judge.needed = judge.least();
        judge
    }

    fn least(&self) -> u64 {
        self.routers.as_ref().map_or(0, |routers| routers.spec.plan.parts().min_requests)
    }

    /// A step begins, or its weights were set again.
    pub fn step(&mut self, rollout: &Rollout) {
        self.in_step = 0;
        self.ready = None;
        self.needed = match rollout.spec.steps.get(rollout.state.step) {
            Some(Step::Analyze { min_requests: Some(min), .. }) => *min,
            _ => self.least(),
        };
        self.sources.iter_mut().for_each(Source::step);
    }

    /// What one router has reported of some time. What older weights decided is left
    /// out.
    pub fn hear(&mut self, edges: &Edges, rollout: &Rollout, weights: Revision) {
        let Some(routers) = &mut self.routers else { return };
        let Some(stable) = &rollout.state.stable else { return };
        let sample = |version: &VersionName| sample(edges, version, weights);
        let canary = sample(&rollout.spec.canary);
        let baseline = sample(rollout.spec.compared_with(stable));
        if canary.requests == 0 && baseline.requests == 0 {
            return;
        }
        self.in_step = self.in_step.saturating_add(canary.requests);
        routers.canary.merge(&canary.latency);
        routers.baseline.merge(&baseline.latency);
        routers.analysis.observe(&Stratum { canary, baseline });
    }

    /// Whether the step's weights are everywhere, now.
    pub fn ready(&mut self, ready: bool, now: Instant) {
        self.ready = ready.then(|| self.ready.unwrap_or(now));
    }

    /// What a source outside of the mesh has said. A good word on what was before this
    /// step is none on the step.
    pub fn source(&mut self, said: Said) {
        let early = self.ready.is_none_or(|ready| said.asked < ready);
        if early && matches!(said.value, Ok(Heard::Good(_))) {
            return;
        }
        if let Some(source) = self.sources.get_mut(said.source) {
            source.hear(said.value);
        }
    }

    /// What follows from all of it.
    pub fn judged(&self) -> Judged {
        let Some(routers) = &self.routers else { return Judged::default() };
        let mut judged = routers.judged();
        for source in &self.sources {
            let metric = source.judged();
            worst(&mut judged, &metric);
            judged.metrics.push(metric);
        }
        if self.in_step < self.needed && judged.verdict == Verdict::Promote {
            judged.verdict = Verdict::NotEnough;
            judged.more = Some(self.needed - self.in_step);
            judged.message = format!(
                "not enough data: {} requests of the canary in this step; {} are needed",
                self.in_step, self.needed
            );
        }
        judged
    }
}

/// What a report says of a version, as far as these weights or newer ones decided it.
fn sample(edges: &[pb::Edge], version: &VersionName, weights: Revision) -> Sample {
    let mut sample = Sample::default();
    let of = |edge: &&pb::Edge| edge.version == version.as_str() && edge.revision >= weights;
    for edge in edges.iter().filter(of) {
        sample.requests = sample.requests.saturating_add(edge.requests);
        sample.failures = sample.failures.saturating_add(edge.failures.min(edge.requests));
        if let Some(Ok(latency)) = edge.latency.as_ref().map(Histogram::try_from) {
            sample.latency.merge(&latency);
        }
    }
    sample
}

/// The worst verdict counts, and its words.
fn worst(judged: &mut Judged, metric: &JudgedMetric) {
    let rank = |verdict: Verdict| match verdict {
        Verdict::RollBack => 3,
        Verdict::NotEnough => 2,
        Verdict::Promote => 1,
        Verdict::None => 0,
    };
    if rank(metric.verdict) > rank(judged.verdict) {
        judged.verdict = metric.verdict;
        judged.message = format!("{}: {}", metric.name, metric.message);
    }
}

impl Routers {
    fn judged(&self) -> Judged {
        let summary = self.analysis.summary();
        let metrics: Vec<JudgedMetric> = summary
            .metrics
            .iter()
            .map(|metric| metrics::judged(metric, &self.canary, &self.baseline))
            .collect();
        let (verdict, message, more) = match self.analysis.verdict() {
            Decision::Promote => (Verdict::Promote, "the canary is good enough".to_owned(), None),
            Decision::NotEnough { more, why } => {
                let about = more.map_or(String::new(), |more| {
                    format!("; about {more} requests of the canary more are needed")
                });
                (Verdict::NotEnough, format!("not enough data: {why}{about}"), more)
            }
            Decision::RollBack { metric, .. } => {
                let name = metrics::name(metric);
                let told = metrics.iter().find(|metric| metric.name == name);
                let told = told.map(|metric| metric.message.clone()).unwrap_or_default();
                (Verdict::RollBack, format!("{name}: {told}"), None)
            }
        };
        Judged {
            verdict,
            message,
            more,
            metrics,
            canary_requests: summary.canary_requests,
            baseline_requests: summary.baseline_requests,
        }
    }
}

#[cfg(test)]
mod tests;
