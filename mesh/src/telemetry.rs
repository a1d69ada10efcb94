//! What Weir tells about itself: traces, metrics and logs, in OpenTelemetry's
//! and Prometheus' terms.

pub mod log;
pub mod metrics;
pub mod trace;

pub use metrics::{DURATION_BOUNDS, quantile};
