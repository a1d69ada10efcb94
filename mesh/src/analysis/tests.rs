mod evalues;
mod histogram;
mod plan;
mod threshold;
mod verdict;

use super::{Draft, LatencyCheck, Plan, Sample, Stratum, SuccessCheck};

/// Success with a margin of 1 %, and p90 of latency.
fn draft() -> Draft {
    Draft {
        alpha: 0.01,
        beta: 0.05,
        min_requests: 50,
        success: Some(SuccessCheck { tolerance_ratio: 1.0, margin: 0.01 }),
        latency: vec![LatencyCheck { quantile: 0.9, tolerance: 0.09, margin: 0.05 }],
    }
}

fn only_success() -> Plan {
    Plan::new(Draft { latency: vec![], ..draft() }).unwrap()
}

fn sample(requests: u64, failures: u64) -> Sample {
    Sample { requests, failures, ..Sample::default() }
}

fn stratum(canary: (u64, u64), baseline: (u64, u64)) -> Stratum {
    Stratum { canary: sample(canary.0, canary.1), baseline: sample(baseline.0, baseline.1) }
}
