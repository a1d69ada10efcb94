//! Verdicts counted.

use serde::Serialize;

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Back to the baseline.
    RolledBack,
    /// All traffic to the canary.
    Promoted,
    /// Neither within the limit.
    Undecided,
}

/// One rollout.
pub struct Run {
    pub verdict: Verdict,
    pub seconds: u32,
    pub canary_requests: u64,
}

/// Many of them.
pub struct Tally {
    wrong_is: Verdict,
    rolled_back: u64,
    promoted: u64,
    undecided: u64,
    seconds: Vec<u64>,
    requests: Vec<u64>,
}

/// What they came to.
#[derive(Serialize)]
pub struct Outcome {
    rolled_back: u64,
    promoted: u64,
    undecided: u64,
    wrong: Rate,
    /// To the verdict, over all runs; no figure where that run had none.
    seconds: Quantiles,
    canary_requests: Quantiles,
}

/// A share with its 95 % interval (Wilson 1927).
#[derive(Serialize)]
struct Rate {
    rate: f64,
    low: f64,
    high: f64,
}

#[derive(Serialize)]
struct Quantiles {
    median: Option<u64>,
    p95: Option<u64>,
}

impl Tally {
    pub fn new(wrong_is: Verdict) -> Self {
        let (seconds, requests) = (Vec::new(), Vec::new());
        Self { wrong_is, rolled_back: 0, promoted: 0, undecided: 0, seconds, requests }
    }

    pub fn add(&mut self, run: Run) {
        match run.verdict {
            Verdict::RolledBack => self.rolled_back += 1,
            Verdict::Promoted => self.promoted += 1,
            Verdict::Undecided => self.undecided += 1,
        }
        if run.verdict != Verdict::Undecided {
            self.seconds.push(u64::from(run.seconds));
            self.requests.push(run.canary_requests);
        }
    }

    pub fn outcome(mut self) -> Outcome {
        let all = self.rolled_back + self.promoted + self.undecided;
        let wrong = match self.wrong_is {
            Verdict::RolledBack => self.rolled_back,
            Verdict::Promoted => self.promoted,
            Verdict::Undecided => self.undecided,
        };
        Outcome {
            rolled_back: self.rolled_back,
            promoted: self.promoted,
            undecided: self.undecided,
            wrong: wilson(wrong, all),
            seconds: quantiles(&mut self.seconds, all),
            canary_requests: quantiles(&mut self.requests, all),
        }
    }
}

/// Of `all` runs, of which those without a value come last.
fn quantiles(values: &mut [u64], all: u64) -> Quantiles {
    values.sort_unstable();
    let at = |q: f64| {
        let rank = (q * all as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).copied()
    };
    Quantiles { median: at(0.5), p95: at(0.95) }
}

fn wilson(hits: u64, all: u64) -> Rate {
    const Z: f64 = 1.959_963_984_540_054;
    let n = (all as f64).max(1.0);
    let rate = hits as f64 / n;
    let middle = (rate + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    // Rounding leaves a trace of what should be nothing.
    let low = if hits == 0 { 0.0 } else { (middle - half).max(0.0) };
    Rate { rate, low, high: (middle + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(verdict: Verdict, seconds: u32) -> Run {
        Run { verdict, seconds, canary_requests: u64::from(seconds) * 10 }
    }

    #[test]
    fn runs_without_a_verdict_are_the_longest() {
        let mut tally = Tally::new(Verdict::Promoted);
        for seconds in 1..=90 {
            tally.add(run(Verdict::RolledBack, seconds));
        }
        for _ in 0..10 {
            tally.add(run(Verdict::Undecided, 1000));
        }
        let outcome = tally.outcome();
        assert_eq!(outcome.seconds.median, Some(50));
        assert_eq!(outcome.seconds.p95, None);
        assert_eq!(outcome.canary_requests.median, Some(500));
        assert_eq!((outcome.rolled_back, outcome.undecided), (90, 10));
    }

    #[test]
    fn an_interval_is_wilsons() {
        let none = wilson(0, 10_000);
        assert_eq!((none.rate, none.low), (0.0, 0.0));
        assert!((none.high - 0.000_384).abs() < 1e-6);
        let some = wilson(50, 10_000);
        assert!((some.low - 0.003_795).abs() < 1e-5 && (some.high - 0.006_585).abs() < 1e-5);
    }
}
