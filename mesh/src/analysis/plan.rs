//! What is to be shown, and how surely.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::histogram::Bucket;
use crate::model::{Invalid, Violations};

/// Most latency checks of a plan: each takes its part of alpha.
const MAX_LATENCY: usize = 8;

/// What a canary must show before it is promoted, and how much evidence it takes
/// to promote it or to roll it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Draft", into = "Draft")]
pub struct Plan(Draft);

/// The parts of a [`Plan`], before they are checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// Most probability of rolling back a canary that is no worse in any metric,
    /// at any time, over all metrics; more than 0, at most 0.5.
    pub alpha: f64,
    /// Most probability of promoting a canary of which a metric is worse by its
    /// margin or more; more than 0, at most 0.5.
    pub beta: f64,
    /// Fewest requests of the canary, and of the baseline, before a promotion. A
    /// rollback does not wait for them.
    pub min_requests: u64,
    /// Failures.
    pub success: Option<SuccessCheck>,
    /// Latency, one check for each quantile.
    #[serde(default)]
    pub latency: Vec<LatencyCheck>,
}

/// When failures speak against a canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SuccessCheck {
    /// The canary's odds of a failure may be this many times the baseline's (for
    /// rare failures: its failure rate) before it is rolled back; 1 to 100.
    pub tolerance_ratio: f64,
    /// The canary is promoted when its failure rate is shown to be less than the
    /// baseline's plus this; more than 0, less than 0.5.
    pub margin: f64,
}

/// When latency speaks against a canary.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LatencyCheck {
    /// Which quantile; 0.5 to 0.999.
    pub quantile: f64,
    /// The canary may be slower by this factor minus 1: 0.1 is 10 %. Rounded up to
    /// buckets of 9.05 %; 0 to 100.
    pub tolerance: f64,
    /// The canary is promoted when the share of its requests that are slower than
    /// the tolerated is shown to be less than the share of the baseline's that
    /// are slower than the quantile (about 1 - quantile) plus this; more than 0,
    /// less than 0.5.
    pub margin: f64,
}

impl LatencyCheck {
    /// The tolerance that is used: rounded up to whole buckets.
    #[must_use]
    pub fn effective_tolerance(&self) -> f64 {
        (f64::from(Bucket::steps(self.tolerance)) / 8.0).exp2() - 1.0
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    /// Requests that did not fail.
    SuccessRate,
    /// This quantile of latency.
    Latency(f64),
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SuccessRate => f.write_str("success rate"),
            // Quantiles have few digits; so has the name.
            Self::Latency(q) => write!(f, "p{} latency", (q * 1e6).round() / 1e4),
        }
    }
}

impl Plan {
    /// Checks a draft.
    ///
    /// # Errors
    /// Every field that cannot be accepted.
    pub fn new(draft: Draft) -> Result<Self, Invalid> {
        let mut bad = Violations::new();
        within(&mut bad, "alpha", draft.alpha, (0.0, 0.5));
        within(&mut bad, "beta", draft.beta, (0.0, 0.5));
        if draft.success.is_none() && draft.latency.is_empty() {
            bad.add("", "nothing to compare; give `success`, or `latency`, or both");
        }
        if let Some(check) = draft.success {
            check_tolerance(
                &mut bad,
                "success.toleranceRatio",
                check.tolerance_ratio,
                (1.0, 100.0),
            );
            check_margin(&mut bad, "success.margin", check.margin);
        }
        if draft.latency.len() > MAX_LATENCY {
            bad.add("latency", format!("{} checks; at most {MAX_LATENCY}", draft.latency.len()));
        }
        for (i, check) in draft.latency.iter().enumerate() {
            let at = |field| format!("latency[{i}].{field}");
            if !(0.5..=0.999).contains(&check.quantile) {
                bad.add(at("quantile"), format!("{} is not in 0.5 to 0.999", check.quantile));
            }
            if draft.latency.iter().take(i).any(|other| other.quantile == check.quantile) {
                bad.add(at("quantile"), format!("{} is checked twice", check.quantile));
            }
            check_tolerance(&mut bad, &at("tolerance"), check.tolerance, (0.0, 100.0));
            check_margin(&mut bad, &at("margin"), check.margin);
        }
        bad.finish(Some(Self(draft)))
    }

    /// Its parts.
    #[must_use]
    pub fn parts(&self) -> &Draft {
        &self.0
    }

    /// How many metrics there are.
    pub(super) fn metrics(&self) -> usize {
        usize::from(self.0.success.is_some()) + self.0.latency.len()
    }
}

impl TryFrom<Draft> for Plan {
    type Error = Invalid;

    fn try_from(draft: Draft) -> Result<Self, Invalid> {
        Self::new(draft)
    }
}

impl From<Plan> for Draft {
    fn from(plan: Plan) -> Self {
        plan.0
    }
}

/// More than the first, at most the second.
fn within(bad: &mut Violations, field: &str, value: f64, (low, high): (f64, f64)) {
    if !(value > low && value <= high) {
        bad.add(field, format!("{value} is not more than {low} and at most {high}"));
    }
}

fn check_tolerance(bad: &mut Violations, field: &str, value: f64, (low, high): (f64, f64)) {
    if !(low..=high).contains(&value) {
        bad.add(field, format!("{value} is not in {low} to {high}"));
    }
}

/// Smaller margins than a millionth would take more requests than anyone has.
fn check_margin(bad: &mut Violations, field: &str, value: f64) {
    if !(1e-6..0.5).contains(&value) {
        bad.add(field, format!("{value} is not at least 0.000001 and less than 0.5"));
    }
}
