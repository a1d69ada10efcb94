//! Judgements of others, one an interval.

use serde::{Deserialize, Serialize};

/// What a source outside the mesh (a query, a webhook) said about an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Judgement {
    /// Good.
    Pass,
    /// Bad.
    Fail,
    /// It did not answer, or had no data. Never counts as good.
    Unknown,
}

/// What judgements come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThresholdDecision {
    /// More of them failed than may.
    RollBack,
    /// Enough have passed.
    Promote,
    /// So many passes are missing.
    NotEnough {
        /// Passes, not requests.
        more: u64,
    },
}

/// Counts judgements against limits. No error rates can be stated for it: they
/// depend on what the source calls a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    /// This many may fail; one more is a rollback.
    failure_limit: u64,
    /// This many must pass; at least 1.
    passes_wanted: u64,
    passed: u64,
    failed: u64,
    unknown: u64,
}

impl Threshold {
    /// `failure_limit` intervals may fail, `passes_wanted` must pass (at least 1 is
    /// taken: without a judgement nothing is promoted).
    #[must_use]
    pub fn new(failure_limit: u64, passes_wanted: u64) -> Self {
        let passes_wanted = passes_wanted.max(1);
        Self { failure_limit, passes_wanted, passed: 0, failed: 0, unknown: 0 }
    }

    /// Takes a judgement into account.
    pub fn observe(&mut self, judgement: Judgement) {
        let count = match judgement {
            Judgement::Pass => &mut self.passed,
            Judgement::Fail => &mut self.failed,
            Judgement::Unknown => &mut self.unknown,
        };
        *count = count.saturating_add(1);
    }

    /// What they come to. A rollback stays one.
    #[must_use]
    pub fn verdict(&self) -> ThresholdDecision {
        if self.failed > self.failure_limit {
            ThresholdDecision::RollBack
        } else if self.passed >= self.passes_wanted {
            ThresholdDecision::Promote
        } else {
            ThresholdDecision::NotEnough { more: self.passes_wanted - self.passed }
        }
    }

    /// How many passed, failed and were unknown.
    #[must_use]
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.passed, self.failed, self.unknown)
    }
}
