//! The verdict on a canary.

use serde::{Deserialize, Serialize};

use super::comparison::Comparison;
use super::histogram::{Bucket, Histogram};
use super::plan::{LatencyCheck, Metric, Plan};
use super::summary::Summary;
use super::table::Count;

/// A quantile needs this many requests beyond it before it is used as a threshold.
const BEYOND: f64 = 3.0;

/// Counts of the baseline's latency are halved when there are more than this many
/// beyond the highest quantile, so that the threshold follows what changes.
const REMEMBERED: f64 = 200.0;

/// What one version answered, as one router saw it between two reports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Requests that were answered, one way or another.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// How long they took.
    pub latency: Histogram,
}

/// One report of one router: the canary, and what it is compared with, over the
/// same time and from the same callers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// The version on trial.
    pub canary: Sample,
    /// The stable version, or a fresh instance of it.
    pub baseline: Sample,
}

/// What to do with a canary.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It is worse.
    RollBack {
        /// Where this was shown first and best.
        metric: Metric,
        /// The e-value: if the canary were no worse, evidence this strong would
        /// come up with probability 1/evidence at most.
        evidence: f64,
    },
    /// Every metric is less than its margin worse, if at all.
    Promote,
    /// Neither has been shown.
    NotEnough {
        /// About so many more requests of the canary are needed, if both sides go
        /// on alike. `None` if that cannot be told, or would never be enough.
        more: Option<u64>,
        /// Why, for people.
        why: String,
    },
}

/// What is known about a canary. It starts with nothing: also after a restart or
/// with a new leader, for evidence that is lost only costs time.
///
/// It is plain data: about 5 KB, however much was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    pub(super) plan: Plan,
    pub(super) success: Option<Comparison>,
    pub(super) latency: Vec<Latency>,
    /// The baseline's latency so far, the older the less.
    pub(super) past: Histogram,
    /// Requests of the canary in strata with both sides.
    pub(super) canary: u64,
    /// Requests of the baseline in them.
    pub(super) baseline: u64,
}

/// One quantile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Latency {
    pub check: LatencyCheck,
    pub comparison: Comparison,
}

impl Latency {
    /// The bucket at whose end the baseline's requests count as slow, and the one
    /// for the canary's. `None` as long as too little is known of the baseline.
    pub(super) fn thresholds(&self, past: &Histogram) -> Option<(Bucket, Bucket)> {
        if (past.total() as f64) < self.needed() {
            return None;
        }
        let slow = past.quantile(self.check.quantile)?;
        Some((slow, slow.slower(Bucket::steps(self.check.tolerance))))
    }

    /// Requests of the baseline that it takes to know a threshold.
    pub(super) fn needed(&self) -> f64 {
        (BEYOND / (1.0 - self.check.quantile)).ceil()
    }
}

impl Analysis {
    /// Starts without any knowledge.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let parts = plan.parts();
        let success =
            parts.success.map(|check| Comparison::new(check.tolerance_ratio, check.margin));
        let latency = parts.latency.iter();
        let latency = latency
            .map(|check| Latency { check: *check, comparison: Comparison::new(1.0, check.margin) });
        let latency = latency.collect();
        Self { plan, success, latency, past: Histogram::new(), canary: 0, baseline: 0 }
    }

    /// Takes a report into account. Strata in which either side had no requests
    /// say nothing about a difference, and only tell how fast the baseline is.
    pub fn observe(&mut self, stratum: &Stratum) {
        let Stratum { canary, baseline } = stratum;
        if canary.requests > 0 && baseline.requests > 0 {
            self.canary = self.canary.saturating_add(canary.requests);
            self.baseline = self.baseline.saturating_add(baseline.requests);
        }
        if let Some(comparison) = &mut self.success {
            comparison.observe(
                Count::new(canary.requests, canary.failures),
                Count::new(baseline.requests, baseline.failures),
            );
        }
        // Thresholds come from what was before: a threshold that had seen the
        // requests it divides would not be fair to them.
        for latency in &mut self.latency {
            if let Some((slow, tolerated)) = latency.thresholds(&self.past) {
                latency
                    .comparison
                    .observe(slower(&canary.latency, tolerated), slower(&baseline.latency, slow));
            }
        }
        self.remember(&baseline.latency);
    }

    fn remember(&mut self, latency: &Histogram) {
        let highest = self.latency.iter().map(|latency| latency.check.quantile);
        let Some(highest) = highest.max_by(f64::total_cmp) else { return };
        self.past.merge(latency);
        let most = REMEMBERED / (1.0 - highest);
        // One round for each bit of a count at most.
        for _ in 0..u64::BITS {
            if self.past.total() as f64 <= most {
                break;
            }
            self.past.halve();
        }
    }

    /// ln of the e-value that a rollback takes: alpha is divided among the metrics,
    /// for each of them may be the one that errs.
    pub(super) fn worse_needs(&self) -> f64 {
        (self.plan.metrics() as f64 / self.plan.parts().alpha).ln()
    }

    /// ln of the e-value that each metric needs for a promotion. Beta is not
    /// divided: all must pass, so a bad canary must be lucky in the very metric in
    /// which it is bad (an intersection-union test).
    pub(super) fn good_needs(&self) -> f64 {
        -self.plan.parts().beta.ln()
    }

    pub(super) fn metrics(&self) -> impl Iterator<Item = (Metric, &Comparison)> {
        let success = self.success.iter().map(|comparison| (Metric::SuccessRate, comparison));
        success
            .chain(self.latency.iter().map(|l| (Metric::Latency(l.check.quantile), &l.comparison)))
    }

    /// What to do, by all that was observed. A rollback stays one, whatever comes.
    #[must_use]
    pub fn verdict(&self) -> Decision {
        let worst = self.metrics().max_by(|(_, a), (_, b)| a.worse().total_cmp(&b.worse()));
        if let Some((metric, comparison)) = worst
            && comparison.worse() >= self.worse_needs()
        {
            let evidence = super::logs::exp_capped(comparison.worse());
            return Decision::RollBack { metric, evidence };
        }
        let open = self.open();
        match open.iter().max_by_key(|(more, _)| more.unwrap_or(u64::MAX)) {
            None => Decision::Promote,
            Some((more, why)) => Decision::NotEnough { more: *more, why: why.clone() },
        }
    }

    /// What is missing for a promotion: requests and why.
    fn open(&self) -> Vec<(Option<u64>, String)> {
        let mut open = Vec::new();
        let least = self.plan.parts().min_requests.max(1);
        for (side, have) in [("canary", self.canary), ("baseline", self.baseline)] {
            if have == 0 {
                let why = format!("no requests of the {side} beside the other side's yet");
                open.push((Some(least.max(self.first_guess())), why));
            } else if have < least {
                let missing = least.saturating_sub(have);
                let per = if side == "canary" { 1.0 } else { self.per_canary() };
                let why = format!("{have} requests of the {side}; at least {least} are wanted");
                open.push((Some((missing as f64 / per).ceil() as u64), why));
            }
        }
        if self.canary > 0 && self.baseline > 0 {
            open.extend(self.open_metrics());
        }
        open
    }

    fn open_metrics(&self) -> impl Iterator<Item = (Option<u64>, String)> {
        let goal = self.good_needs();
        let unknown = self.latency.iter().filter_map(move |latency| {
            if latency.thresholds(&self.past).is_some() {
                return None;
            }
            let missing = latency.needed() - self.past.total() as f64;
            let first = latency.comparison.missing(goal).unwrap_or(0);
            let more = (missing / self.per_canary()).ceil() as u64;
            let metric = Metric::Latency(latency.check.quantile);
            let why = format!("{metric}: too few requests of the baseline to know its quantile");
            Some((Some(more.saturating_add(first)), why))
        });
        let open = self.metrics().filter(move |(_, comparison)| comparison.good() < goal);
        unknown.chain(open.map(move |(metric, comparison)| {
            let more = comparison.missing(goal);
            let why = match more {
                Some(_) => format!("{metric}: not yet shown to be within its margin"),
                None => format!("{metric}: worse by its margin or more so far"),
            };
            (more, why)
        }))
    }

    /// Requests of the baseline for each of the canary's; never 0.
    fn per_canary(&self) -> f64 {
        (self.baseline.max(1) as f64 / self.canary.max(1) as f64).max(f64::MIN_POSITIVE)
    }

    /// What it takes if nothing is ever bad.
    fn first_guess(&self) -> u64 {
        let goal = self.good_needs();
        self.metrics().filter_map(|(_, comparison)| comparison.missing(goal)).max().unwrap_or(0)
    }

    /// What is known, for tables and the API.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }
}

/// How many took longer than the end of `bucket`.
fn slower(latency: &Histogram, bucket: Bucket) -> Count {
    Count::new(latency.total(), latency.count_above(bucket))
}
