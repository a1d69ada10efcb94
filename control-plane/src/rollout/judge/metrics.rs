//! One metric of what routers report, in words and numbers for people.

use weir_mesh::analysis::{Histogram, Metric, MetricSummary};

use crate::rollout::live::{JudgedMetric, Verdict};

/// `success-rate`, `latency-p99`, `latency-p99.9`.
pub(super) fn name(metric: Metric) -> String {
    match metric {
        Metric::SuccessRate => "success-rate".to_owned(),
        // Quantiles have few digits.
        Metric::Latency(q) => format!("latency-p{}", (q * 1e6).round() / 1e4),
    }
}

pub(super) fn judged(
    summary: &MetricSummary,
    canary: &Histogram,
    baseline: &Histogram,
) -> JudgedMetric {
    let verdict = match (summary.worse.reached(), summary.good_enough.reached()) {
        (true, _) => Verdict::RollBack,
        (false, true) => Verdict::Promote,
        (false, false) => Verdict::NotEnough,
    };
    let (canary, baseline, told) = match summary.metric {
        Metric::SuccessRate => {
            let good = |rate: Option<f64>| 1.0 - rate.unwrap_or(0.0);
            let (canary, baseline) = (good(summary.canary.rate()), good(summary.baseline.rate()));
            let percent = |share: f64| format!("{:.2} %", share * 100.0);
            (canary, baseline, format!("{} against {}", percent(canary), percent(baseline)))
        }
        Metric::Latency(q) => {
            let seconds = |of: &Histogram| of.quantile(q).map_or(0.0, |b| b.upper_seconds());
            let (canary, baseline) = (seconds(canary), seconds(baseline));
            (canary, baseline, format!("{} against {}", shown(canary), shown(baseline)))
        }
    };
    let (evidence, limit) = (summary.worse.e_value, summary.worse.needed);
    let message = match verdict {
        Verdict::RollBack => {
            format!("{told}; evidence that it is worse: {evidence:.3e}, {limit:.0} is enough")
        }
        _ => told,
    };
    let name = name(summary.metric);
    JudgedMetric { name, verdict, canary, baseline, evidence, limit, message }
}

/// Seconds, to two digits or so.
fn shown(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}
