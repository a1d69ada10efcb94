//! Evidence that the canary is good enough.

use serde::{Deserialize, Serialize};

use super::logs::ln_sum_exp;
use super::table::Table;

/// The baseline's shares of bad requests for which the tests are tuned, as multiples
/// of the margin, and the weight of each in the mixture. Most weight has the one
/// that is almost 0: who never fails should not wait for tests of those who do.
const GRID: [(f64, f64); 7] = [
    (1.0 / 30.0, 0.40),
    (0.1, 0.15),
    (1.0 / 3.0, 0.13),
    (1.0, 0.10),
    (3.0, 0.08),
    (10.0, 0.07),
    (30.0, 0.07),
];

/// The largest share of bad requests that a test is tuned for.
const MOST: f64 = 0.49;

/// An e-process against "the canary's share of bad requests is at least the
/// baseline's plus `margin`".
///
/// For any tilts a, b >= 0 the number exp(-a x + b y), with x bad ones of n at the
/// canary and y bad ones of m at the baseline, has the expectation
/// (1 - p A)^n (1 + q B)^m with A = 1 - e^-a and B = e^b - 1, p and q the
/// shares in truth. Divided by the largest value this takes where p >= q + margin it
/// is an e-value: the likelihood ratio of two pairs of shares in exponential
/// form, as in Turner, Ly and Grünwald 2024, "Generic E-variables for exact
/// sequential k-sample tests that allow for optional stopping". The logarithm is
/// concave in (p, q), so the maximum is where p = q + margin at a q in closed
/// form, and requests within a stratum need not be alike: means count. For the same
/// reason the product over strata is valid when the difference is at least the margin
/// on average over requests, as long as the split is the same; when the split
/// changes, for each part. A mixture over [`GRID`] is an e-process again
/// (the method of mixtures: Robbins 1970), and Ville's inequality holds for it.
///
/// If nobody fails, it takes about (ln(1/beta) + 0.9) / margin requests of the canary,
/// however few the baseline had: that is the order of what is possible at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Margin {
    margin: f64,
    /// ln of the e-value for each of [`GRID`] that is at most [`MOST`].
    log_e: Vec<f64>,
}

impl Margin {
    /// `margin` is more than 0 and less than 0.5.
    pub(super) fn new(margin: f64) -> Self {
        Self { margin, log_e: vec![0.0; grid(margin).count()] }
    }

    /// Takes a stratum into account. Its order among others does not matter.
    pub(super) fn observe(&mut self, table: &Table) {
        let (canary, baseline) = (table.canary, table.baseline);
        let sizes = Sizes { canary: canary.requests as f64, baseline: baseline.requests as f64 };
        for (log_e, (low, _)) in self.log_e.iter_mut().zip(grid(self.margin)) {
            let tilt = Tilt::new(low, self.margin, sizes);
            *log_e += tilt.growth(canary.bad as f64, baseline.bad as f64);
        }
    }

    /// The margin.
    pub(super) fn margin(&self) -> f64 {
        self.margin
    }

    /// ln of the e-value now.
    pub(super) fn ln_e(&self) -> f64 {
        let each = self.log_e.iter().zip(grid(self.margin));
        ln_sum_exp(each.map(|(log_e, (_, weight))| log_e + weight.ln()))
    }

    /// About how many more requests the canary needs until ln of the e-value is
    /// `goal`, if from now on `share` of both sides' requests are bad, and the
    /// baseline has `ratio` requests for each of the canary's. `None` if that
    /// would not be enough, ever.
    pub(super) fn missing(&self, goal: f64, share: f64, ratio: f64) -> Option<u64> {
        let sizes = Sizes { canary: 1.0, baseline: ratio };
        let each = self.log_e.iter().zip(grid(self.margin)).filter_map(|(log_e, (low, weight))| {
            let growth = Tilt::new(low, self.margin, sizes).growth(share, share * ratio);
            (growth > 1e-12).then(|| (goal - weight.ln() - log_e).max(0.0) / growth)
        });
        each.min_by(f64::total_cmp).map(|requests| requests.ceil() as u64)
    }
}

/// The shares that tests are tuned for, and their weights, which add up to 1.
fn grid(margin: f64) -> impl Iterator<Item = (f64, f64)> + Clone {
    let fits = move |entry: &(f64, f64)| entry.0 * margin <= MOST;
    let sum: f64 = GRID.iter().copied().filter(fits).map(|(_, weight)| weight).sum();
    GRID.iter().copied().filter(fits).map(move |(times, weight)| (times * margin, weight / sum))
}

/// Requests of both sides, or how they relate.
#[derive(Clone, Copy)]
struct Sizes {
    canary: f64,
    baseline: f64,
}

/// A and B of the e-value, and ln of the largest expectation.
struct Tilt {
    a: f64,
    b: f64,
    most: f64,
}

impl Tilt {
    /// Tuned so that (low, low + margin) is the pair of shares in the hypothesis that
    /// explains best what both sides with one share in between would show: `share`
    /// is where the two pulls are equal. Any other choice would be valid as well, if
    /// made without a look at who was bad, but would find less.
    fn new(low: f64, margin: f64, sizes: Sizes) -> Self {
        let high = low + margin;
        let pull_low = sizes.baseline / (low * (1.0 - low));
        let pull_high = sizes.canary / (high * (1.0 - high));
        let share = (pull_low * low + pull_high * high) / (pull_low + pull_high);
        let a_factor = 1.0 - share * (1.0 - high) / (high * (1.0 - share));
        let b_factor = share * (1.0 - low) / (low * (1.0 - share)) - 1.0;
        let (a_factor, b_factor) = (a_factor.clamp(1e-9, 1.0 - 1e-9), b_factor.clamp(0.0, 1e9));
        Self {
            a: -(-a_factor).ln_1p(),
            b: b_factor.ln_1p(),
            most: Self::most(a_factor, b_factor, margin, sizes),
        }
    }

    /// The maximum over q of n ln(1 - (q + margin) A) + m ln(1 + q B).
    fn most(a: f64, b: f64, margin: f64, sizes: Sizes) -> f64 {
        let up = sizes.baseline * b * (1.0 - margin * a) - sizes.canary * a;
        let down = a * b * (sizes.canary + sizes.baseline);
        let at = if down > 0.0 { (up / down).clamp(0.0, 1.0 - margin) } else { 0.0 };
        sizes.canary * (-(at + margin) * a).ln_1p() + sizes.baseline * (at * b).ln_1p()
    }

    /// ln of the e-value for these bad requests.
    fn growth(&self, canary: f64, baseline: f64) -> f64 {
        self.b * baseline - self.a * canary - self.most
    }
}
