//! Evidence that the canary is worse.

use serde::{Deserialize, Serialize};

use super::logs::{ln_choose, ln_factorial, ln_sum_exp};
use super::table::Table;

/// How much worse the canary may be, as factors on the tolerated odds ratio:
/// what is between two of them is found almost as fast.
const GRID: [f64; 8] = [1.3, 1.7, 2.5, 4.0, 8.0, 20.0, 100.0, 1000.0];

/// Terms that one normaliser may take. The largest table that is believed needs
/// about 30,000; a cut is bounded like every other tail.
const MAX_TERMS: usize = 1 << 17;

/// Terms smaller than this, of a sum that is at least 1, go into the tail's bound.
const NEGLIGIBLE: f64 = 1e-14;

/// An e-process against "the odds of a bad request at the canary are at most
/// `tolerated` times those at the baseline, in every stratum".
///
/// Given the totals of a stratum, how many of its bad requests are the canary's
/// has Fisher's noncentral hypergeometric distribution, whose one parameter is the
/// odds ratio: whatever the rates are, and however they drift from stratum to
/// stratum, they cancel. For a ratio above the tolerated one the likelihood
/// ratio is an e-value against all smaller ratios, since likelihood ratios of
/// this family rise with the count. E-values of strata multiply, and a mixture over
/// [`GRID`] is one again; by Ville's inequality it exceeds 1/alpha at *any* time
/// with probability at most alpha, so that one may look after every report
/// (Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe
/// anytime-valid inference").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Regression {
    /// ln of the tolerated odds ratio; 0 or more.
    tolerated: f64,
    /// ln of the e-value for each of [`GRID`].
    log_e: Vec<f64>,
    /// The greatest that the mixture ever was, as ln.
    peak: f64,
}

impl Regression {
    pub(super) fn new(tolerated: f64) -> Self {
        Self { tolerated: tolerated.max(1.0).ln(), log_e: vec![0.0; GRID.len()], peak: 0.0 }
    }

    /// Takes a stratum into account. Its order among others does not matter.
    pub(super) fn observe(&mut self, table: &Table) {
        let family = Family::new(table);
        if family.low == family.high {
            // The totals alone say how many: nothing to learn.
            return;
        }
        let below = family.ln_sum(self.tolerated).lower;
        let count = table.canary.bad as f64;
        for (log_e, factor) in self.log_e.iter_mut().zip(GRID) {
            let step = factor.ln();
            let above = family.ln_sum(self.tolerated + step).upper;
            *log_e += count * step + below - above - family.rounding;
        }
        self.peak = self.peak.max(self.ln_e());
    }

    /// ln of the e-value now.
    pub(super) fn ln_e(&self) -> f64 {
        let each = self.log_e.iter().copied();
        ln_sum_exp(each) - (self.log_e.len().max(1) as f64).ln()
    }

    /// ln of the greatest e-value so far: what was shown once stays shown.
    pub(super) fn peak(&self) -> f64 {
        self.peak
    }
}

/// The distributions of the canary's bad count, given the totals of a stratum.
struct Family {
    canary: u64,
    baseline: u64,
    bad: u64,
    /// The least and the greatest count that the totals allow.
    low: u64,
    high: u64,
    /// More than what rounding can do to a logarithm here.
    rounding: f64,
}

/// A logarithm that is known to lie between two numbers.
struct Bounds {
    lower: f64,
    upper: f64,
}

impl Family {
    fn new(table: &Table) -> Self {
        let (canary, baseline) = (table.canary.requests, table.baseline.requests);
        let bad = table.bad();
        Self {
            canary,
            baseline,
            bad,
            low: bad.saturating_sub(baseline),
            high: bad.min(canary),
            rounding: 1e-12 + 64.0 * f64::EPSILON * ln_factorial(canary + baseline),
        }
    }

    /// The weight of count `j + 1` over that of `j`, for odds ratio 1; falls with `j`.
    #[inline]
    fn ratio(&self, j: u64) -> f64 {
        let up = (self.canary - j) as f64 * (self.bad - j) as f64;
        let down = (j + 1) as f64 * (self.baseline + j + 1 - self.bad) as f64;
        up / down
    }

    /// The count with the greatest weight.
    fn mode(&self, psi: f64) -> u64 {
        let (mut low, mut high) = (self.low, self.high);
        while low < high {
            let middle = low + (high - low) / 2;
            if psi * self.ratio(middle) >= 1.0 {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// ln of the sum of all weights at an odds ratio, given as ln. Weights fall on
    /// both sides of the mode, ever faster, so what is left out is less than a
    /// geometric series.
    fn ln_sum(&self, ln_psi: f64) -> Bounds {
        let psi = ln_psi.exp();
        let mode = self.mode(psi);
        let upwards = (mode..self.high).map(|j| psi * self.ratio(j));
        let downwards = (self.low..mode).rev().map(|j| 1.0 / (psi * self.ratio(j)));
        let (up, up_tail) = sum_falling(upwards);
        let (down, down_tail) = sum_falling(downwards);
        let sum = 1.0 + up + down;
        let top = ln_choose(self.canary, mode)
            + ln_choose(self.baseline, self.bad - mode)
            + mode as f64 * ln_psi;
        Bounds { lower: top + sum.ln(), upper: top + (sum + up_tail + down_tail).ln() }
    }
}

/// Sums r1 + r1 r2 + r1 r2 r3 + ... for falling ratios of at most 1, and bounds
/// what it left out.
fn sum_falling(ratios: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut ratios = ratios.peekable();
    let (mut term, mut sum) = (1.0, 0.0);
    for _ in 0..MAX_TERMS {
        let Some(ratio) = ratios.next() else { return (sum, 0.0) };
        term *= ratio;
        sum += term;
        if term < NEGLIGIBLE {
            break;
        }
    }
    let tail = match ratios.peek() {
        Some(next) if *next < 1.0 => term * next / (1.0 - next),
        // Ratios of 1 end long before the cut; if not, nothing is known.
        Some(_) => f64::MAX,
        None => 0.0,
    };
    (sum, tail)
}
