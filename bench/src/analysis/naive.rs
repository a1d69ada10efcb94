//! A fixed threshold on the canary alone, looked at once a minute, with the
//! values of the example in Flagger's documentation ("How it works").

use fastrand::Rng;
use serde::Serialize;

use super::scenario::{ROUTERS, Scenario};
use super::tally::{Run, Verdict};
use super::traffic::binomial;

/// What the threshold is, and how often it must fail or pass.
#[derive(Serialize)]
pub struct Limits {
    /// Least success rate of the canary over a minute.
    success_rate: f64,
    /// Seconds between looks.
    interval: u32,
    /// So many failed looks, and it is rolled back.
    failed: u32,
    /// So many good looks, and it is promoted.
    passed: u32,
}

/// `interval: 1m`, `threshold: 10`, `maxWeight: 50` by `stepWeight: 5`.
pub const LIMITS: Limits = Limits { success_rate: 0.99, interval: 60, failed: 10, passed: 10 };

/// One rollout. The split is the scenario's: the comparison is of the judgement.
pub fn rollout(scenario: &Scenario, seed: u64) -> Run {
    let mut rng = Rng::with_seed(!seed);
    let (mut failed, mut passed, mut requests) = (0, 0, 0);
    // Each look brings one of the counts closer to its limit.
    for minute in 1..LIMITS.failed + LIMITS.passed {
        let seconds = minute * LIMITS.interval;
        let (count, failures) = look(scenario, &mut rng, seconds - LIMITS.interval);
        requests += count;
        // Without requests the look fails.
        let allowed = (1.0 - LIMITS.success_rate) * count as f64;
        if count == 0 || failures as f64 > allowed {
            failed += 1;
        } else {
            passed += 1;
        }
        let verdict = match (failed >= LIMITS.failed, passed >= LIMITS.passed) {
            (true, _) => Verdict::RolledBack,
            (_, true) => Verdict::Promoted,
            _ => continue,
        };
        return Run { verdict, seconds, canary_requests: requests };
    }
    Run { verdict: Verdict::Undecided, seconds: 0, canary_requests: requests }
}

/// The canary's requests and failures of a minute.
fn look(scenario: &Scenario, rng: &mut Rng, from: u32) -> (u64, u64) {
    let (mut count, mut failures) = (0, 0);
    for router in 0..ROUTERS {
        for second in from..from + LIMITS.interval {
            let due = scenario.per_router() * scenario.share(router, second);
            let requests = (due + rng.f64()).floor() as u64;
            count += requests;
            let failing = scenario.canary_failing(router, second);
            failures += scenario.clump * binomial(rng, requests / scenario.clump, failing);
        }
    }
    (count, failures)
}
