//! One stratum of one metric as a two-by-two table.

use serde::{Deserialize, Serialize};

/// Most requests of both sides that one stratum may have, 67 million; what is
/// more is not what one router saw between two reports, and is not believed.
pub const MAX_STRATUM: u64 = 1 << 26;

/// Requests of one side, and how many of them were bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All of them.
    pub requests: u64,
    /// Those that were bad; at most all.
    pub bad: u64,
}

impl Count {
    /// More bad ones than requests are as many as requests.
    pub(super) fn new(requests: u64, bad: u64) -> Self {
        Self { requests, bad: bad.min(requests) }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bad = self.bad.saturating_add(other.bad).min(self.requests);
    }

    /// The share that was bad, 0.0 to 1.0; `None` without requests.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.bad as f64 / self.requests as f64)
    }
}

/// Both sides of a stratum that can be compared: some requests each, and no more
/// than [`MAX_STRATUM`] together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    pub canary: Count,
    pub baseline: Count,
}

impl Table {
    pub(super) fn new(canary: Count, baseline: Count) -> Option<Self> {
        let sum = canary.requests.saturating_add(baseline.requests);
        let fits = canary.requests > 0 && baseline.requests > 0 && sum <= MAX_STRATUM;
        fits.then_some(Self { canary, baseline })
    }

    /// Bad ones of both sides.
    pub(super) fn bad(&self) -> u64 {
        self.canary.bad + self.baseline.bad
    }
}
