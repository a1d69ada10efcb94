//! Estimates from buckets.

use super::DURATION_BOUNDS;

/// Estimates the `q`-quantile (0.0 to 1.0) in seconds of durations counted in
/// `buckets` by [`DURATION_BOUNDS`] (not cumulative, the last one unbounded),
/// as Prometheus' `histogram_quantile` does: linear within a bucket.
///
/// 0.0 when nothing was counted; the last bound when the quantile is above it.
#[must_use]
pub fn quantile(buckets: &[u64], q: f64) -> f64 {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let rank = q.clamp(0.0, 1.0) * total as f64;
    let (mut below, mut lower) = (0.0, 0.0);
    for (&count, &upper) in buckets.iter().zip(&DURATION_BOUNDS) {
        let count = count as f64;
        if count > 0.0 && below + count >= rank {
            return lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0);
        }
        below += count;
        lower = upper;
    }
    lower
}
