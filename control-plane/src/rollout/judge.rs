//! What is known of a canary: what routers report, and what others say.

use weir_mesh::rollout::{AnalysisSpec, Bounds, Rollout, Spec, Step};

use super::feed::Edges;
use super::live::{Judged, JudgedMetric, Verdict};
use super::sources::{Heard, Said};
use crate::store::Revision;

/// What a source outside of the mesh has said.
struct Source {
    name: String,
    bounds: Bounds,
    failed: u32,
    /// In this step.
    passed: u32,
    last: Option<f64>,
    trouble: Option<String>,
}

/// Collects all of it. It begins with nothing: also after a restart.
pub struct Judge {
    spec: Option<AnalysisSpec>,
    sources: Vec<Source>,
    /// Requests to the canary that this step's weights decided.
    in_step: u64,
    /// So many of them are needed.
    needed: u64,
}

impl Judge {
    /// Nothing is known yet.
    pub fn new(spec: &Spec) -> Self {
        let spec = spec.analysis.clone();
        let prometheus = spec.iter().flat_map(|a| &a.prometheus).map(|q| (&q.name, q.bounds));
        let hooks = spec.iter().flat_map(|a| &a.webhooks).map(|h| (&h.name, h.bounds));
        let source = |(name, bounds): (&String, Bounds)| Source {
            name: name.clone(),
            bounds,
            failed: 0,
            passed: 0,
            last: None,
            trouble: None,
        };
        let sources = prometheus.chain(hooks).map(source).collect();
        let needed = spec.as_ref().map_or(0, |spec| spec.min_requests);
        Self { spec, sources, in_step: 0, needed }
    }

    /// A step begins, or its weights were set again.
    pub fn step(&mut self, rollout: &Rollout) {
        self.in_step = 0;
        self.needed = self.spec.as_ref().map_or(0, |spec| spec.min_requests);
        if let Some(Step::Analyze { min_requests: Some(min), .. }) =
            rollout.spec.steps.get(rollout.state.step)
        {
            self.needed = *min;
        }
        self.sources.iter_mut().for_each(|source| source.passed = 0);
    }

    /// What one router has reported. What older weights decided is left out.
    pub fn hear(&mut self, edges: &Edges, rollout: &Rollout, weights: Revision) {
        let canary = rollout.spec.canary.as_str();
        for edge in edges.iter().filter(|edge| edge.revision >= weights) {
            if edge.version == canary {
                self.in_step = self.in_step.saturating_add(edge.requests);
            }
        }
    }

    /// What a source has said.
    pub fn source(&mut self, said: Said) {
        let Some(source) = self.sources.get_mut(said.source) else { return };
        match said.value {
            Ok(Heard::Good(value)) => {
                source.passed = source.passed.saturating_add(1);
                (source.last, source.trouble) = (value, None);
            }
            Ok(Heard::Bad(value)) => {
                source.failed = source.failed.saturating_add(1);
                (source.last, source.trouble) = (value, None);
            }
            Err(why) => source.trouble = Some(why),
        }
    }

    /// What follows from all of it.
    pub fn judged(&self) -> Judged {
        if self.spec.is_none() {
            return Judged::default();
        }
        let mut judged = Judged { verdict: Verdict::Promote, ..Judged::default() };
        for source in &self.sources {
            let metric = source.judged();
            merge(&mut judged, &metric);
            judged.metrics.push(metric);
        }
        if self.in_step < self.needed && judged.verdict == Verdict::Promote {
            judged.verdict = Verdict::NotEnough;
            judged.message = format!(
                "not enough data: {} requests of the canary in this step; {} are needed",
                self.in_step, self.needed
            );
        }
        judged
    }
}

/// The worst verdict counts, and its words.
fn merge(judged: &mut Judged, metric: &JudgedMetric) {
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

impl Source {
    fn judged(&self) -> JudgedMetric {
        let Bounds { min, max, failure_limit, passes, .. } = self.bounds;
        let (verdict, message) = if self.failed > failure_limit {
            let bounds = match (min, max) {
                (Some(min), Some(max)) => format!("not {min} to {max}"),
                (Some(min), None) => format!("below {min}"),
                (None, Some(max)) => format!("above {max}"),
                (None, None) => "bad".to_owned(),
            };
            let value = self.last.map_or(String::new(), |value| format!("{value} is "));
            (Verdict::RollBack, format!("{value}{bounds}, {} times in all", self.failed))
        } else if self.passed >= passes {
            (Verdict::Promote, format!("good {} times", self.passed))
        } else {
            let trouble = self.trouble.as_deref().unwrap_or("no answer yet");
            (Verdict::NotEnough, format!("not enough data: {trouble}"))
        };
        JudgedMetric {
            name: self.name.clone(),
            verdict,
            canary: self.last.unwrap_or_default(),
            limit: max.or(min).unwrap_or_default(),
            message,
            ..JudgedMetric::default()
        }
    }
}
