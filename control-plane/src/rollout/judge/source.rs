//! What a source outside of the mesh has said.

use weir_mesh::rollout::{AnalysisSpec, Bounds};

use crate::rollout::live::{JudgedMetric, Verdict};
use crate::rollout::sources::Heard;

pub(super) struct Source {
    name: String,
    bounds: Bounds,
    /// In all.
    failed: u32,
    /// In this step.
    passed: u32,
    last: Option<f64>,
    /// Why there was no answer last.
    trouble: Option<String>,
}

impl Source {
    /// Those of an analysis, Prometheus first.
    pub fn all(spec: &AnalysisSpec) -> impl Iterator<Item = Self> {
        let queries = spec.prometheus.iter().map(|query| (&query.name, query.bounds));
        let hooks = spec.webhooks.iter().map(|hook| (&hook.name, hook.bounds));
        queries.chain(hooks).map(|(name, bounds)| Self {
            name: name.clone(),
            bounds,
            failed: 0,
            passed: 0,
            last: None,
            trouble: None,
        })
    }

    pub fn step(&mut self) {
        self.passed = 0;
    }

    pub fn hear(&mut self, value: Result<Heard, String>) {
        match value {
            Ok(Heard::Good(value)) => {
                self.passed = self.passed.saturating_add(1);
                (self.last, self.trouble) = (value, None);
            }
            Ok(Heard::Bad(value)) => {
                self.failed = self.failed.saturating_add(1);
                (self.last, self.trouble) = (value, None);
            }
            Err(why) => self.trouble = Some(why),
        }
    }

    pub fn judged(&self) -> JudgedMetric {
        let Bounds { min, max, failure_limit, passes, .. } = self.bounds;
        let (verdict, message) = if self.failed > failure_limit {
            let bounds = match (min, max) {
                (Some(min), Some(max)) => format!("not {min} to {max}"),
                (Some(min), None) => format!("below {min}"),
                (None, Some(max)) => format!("above {max}"),
                (None, None) => "bad".to_owned(),
            };
            let value = self.last.map_or(String::new(), |value| format!("{value} is "));
            let failed = self.failed;
            (
                Verdict::RollBack,
                format!("{value}{bounds}; {failed} failures, {failure_limit} may be"),
            )
        } else if self.passed >= passes && self.trouble.is_none() {
            (Verdict::Promote, format!("good {} times", self.passed))
        } else {
            let trouble = match (&self.trouble, self.last) {
                (Some(trouble), _) => trouble.clone(),
                (None, None) => "no answer yet".to_owned(),
                (None, Some(last)) => format!("{last} now; good {} of {passes} times", self.passed),
            };
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
