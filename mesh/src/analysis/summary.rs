//! What is known about a canary, in figures.

use serde::Serialize;

use super::logs::exp_capped;
use super::plan::Metric;
use super::table::Count;
use super::verdict::Analysis;

/// What is known about a canary.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Requests of the canary in reports with both sides.
    pub canary_requests: u64,
    /// Requests of the baseline in them.
    pub baseline_requests: u64,
    /// Each metric of the plan, in its order.
    pub metrics: Vec<MetricSummary>,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricSummary {
    /// Which.
    pub metric: Metric,
    /// The canary's requests that were compared, and the bad ones among them.
    pub canary: Count,
    /// The baseline's.
    pub baseline: Count,
    /// Above what a request counts as slow from now on; of latency, if known.
    pub slow: Option<Slow>,
    /// Reports that could not be compared: one side without requests, or more of
    /// them than can be.
    pub left_out: u64,
    /// Evidence that the canary is worse.
    pub worse: Evidence,
    /// Evidence that it is good enough.
    pub good_enough: Evidence,
    /// About how many more requests of the canary until it is good enough; `None`
    /// if that cannot be told, or would never be enough.
    pub more: Option<u64>,
}

/// Above what a request counts as slow, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Slow {
    /// One of the baseline: the baseline's quantile.
    pub baseline_seconds: f64,
    /// One of the canary: that with the tolerance.
    pub canary_seconds: f64,
}

/// An e-value and what it must reach. E-values are 1 at the start and, if what
/// they speak against is true, stay below N with probability 1 - 1/N.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The e-value; finite.
    pub e_value: f64,
    /// What it must be.
    pub needed: f64,
}

impl Evidence {
    /// True when it is enough.
    #[must_use]
    pub fn reached(&self) -> bool {
        self.e_value >= self.needed
    }
}

impl Summary {
    pub(super) fn of(analysis: &Analysis) -> Self {
        let slow = analysis.success.iter().map(|_| None).chain(analysis.latency.iter().map(|l| {
            l.thresholds(&analysis.past).map(|(slow, tolerated)| Slow {
                baseline_seconds: slow.upper_seconds(),
                canary_seconds: tolerated.upper_seconds(),
            })
        }));
        let (worse, good) = (analysis.worse_needs(), analysis.good_needs());
        let evidence = |value: f64, needed: f64| Evidence {
            e_value: exp_capped(value),
            needed: exp_capped(needed),
        };
        let metrics =
            analysis.metrics().zip(slow).map(|((metric, comparison), slow)| MetricSummary {
                metric,
                canary: comparison.canary,
                baseline: comparison.baseline,
                slow,
                left_out: comparison.left_out,
                worse: evidence(comparison.worse(), worse),
                good_enough: evidence(comparison.good(), good),
                more: comparison.missing(good),
            });
        Self {
            canary_requests: analysis.canary,
            baseline_requests: analysis.baseline,
            metrics: metrics.collect(),
        }
    }
}
