//! Whether a canary is worse than what serves now, from counts alone. Pure: no
//! input or output, no clock, no randomness.

mod histogram;
#[cfg(test)]
mod tests;

pub use histogram::{BUCKETS, Bucket, Histogram, HistogramError};
