//! One metric over all strata.

use serde::{Deserialize, Serialize};

use super::margin::Margin;
use super::regression::Regression;
use super::table::{Count, Table};

/// Both questions about one metric: is the canary worse, is it good enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Comparison {
    pub canary: Count,
    pub baseline: Count,
    /// Strata that could not be compared.
    pub left_out: u64,
    regression: Regression,
    margin: Margin,
}

impl Comparison {
    pub(super) fn new(tolerated_ratio: f64, margin: f64) -> Self {
        Self {
            canary: Count::default(),
            baseline: Count::default(),
            left_out: 0,
            regression: Regression::new(tolerated_ratio),
            margin: Margin::new(margin),
        }
    }

    pub(super) fn observe(&mut self, canary: Count, baseline: Count) {
        let Some(table) = Table::new(canary, baseline) else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        self.canary.add(canary);
        self.baseline.add(baseline);
        self.regression.observe(&table);
        self.margin.observe(&table);
    }

    /// ln of the greatest e-value against "no worse".
    pub(super) fn worse(&self) -> f64 {
        self.regression.peak()
    }

    /// The same, now.
    #[cfg(test)]
    pub(super) fn worse_now(&self) -> f64 {
        self.regression.ln_e()
    }

    /// ln of the e-value against "worse by the margin", now.
    pub(super) fn good(&self) -> f64 {
        self.margin.ln_e()
    }

    /// Requests of the baseline for each of the canary's.
    pub(super) fn ratio(&self) -> f64 {
        if self.canary.requests == 0 {
            return 1.0;
        }
        self.baseline.requests as f64 / self.canary.requests as f64
    }

    /// About how many more requests the canary needs to be shown to be good
    /// enough, if both sides go on alike, as bad as they were together. `None` if
    /// that would not be enough, or if the canary was worse by the margin so far.
    pub(super) fn missing(&self, goal: f64) -> Option<u64> {
        if let (Some(canary), Some(baseline)) = (self.canary.rate(), self.baseline.rate())
            && canary - baseline >= self.margin.margin()
            && self.canary.requests as f64 * self.margin.margin() >= 1.0
        {
            return None;
        }
        let mut both = self.canary;
        both.add(self.baseline);
        self.margin.missing(goal, both.rate().unwrap_or(0.0), self.ratio())
    }
}
