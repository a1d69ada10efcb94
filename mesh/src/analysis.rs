//! Whether a canary is worse than what serves now, from counts alone. Pure: no
//! input or output, no clock, no randomness.
//!
//! Routers report, for each version, requests, failures and a [`Histogram`] of
//! latency. One report of one router is a [`Stratum`]: canary and baseline from
//! the same callers in the same seconds. Only within a stratum is anything
//! compared, so that neither the hour nor the caller can fool the comparison. Two
//! e-processes are kept for each metric, one against "the canary is no worse"
//! and one against "it is worse by a margin"; whichever grows too large to be
//! chance decides. Both may be looked at after every report without losing their
//! error rates.
//!
//! ```
//! use weir_mesh::analysis::{Analysis, Decision, Draft, Plan, Sample, Stratum, SuccessCheck};
//!
//! let plan = Plan::new(Draft {
//!     alpha: 0.01,
//!     beta: 0.01,
//!     min_requests: 100,
//!     success: Some(SuccessCheck { tolerance_ratio: 1.0, margin: 0.01 }),
//!     latency: vec![],
//! })?;
//! let mut analysis = Analysis::new(plan);
//! let sample = |requests, failures| Sample { requests, failures, ..Sample::default() };
//! analysis.observe(&Stratum { canary: sample(50, 10), baseline: sample(450, 1) });
//! assert!(matches!(analysis.verdict(), Decision::RollBack { .. }));
//! # Ok::<(), weir_mesh::model::Invalid>(())
//! ```

mod comparison;
mod histogram;
mod logs;
mod margin;
mod plan;
mod regression;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod threshold;
mod verdict;

pub use histogram::{BUCKETS, Bucket, Histogram, HistogramError};
pub use plan::{Draft, LatencyCheck, Metric, Plan, SuccessCheck};
pub use summary::{Evidence, MetricSummary, Slow, Summary};
pub use table::{Count, MAX_STRATUM};
pub use threshold::{Judgement, Threshold, ThresholdDecision};
pub use verdict::{Analysis, Decision, Sample, Stratum};
