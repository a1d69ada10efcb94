//! Counters, gauges and histograms that cost one atomic addition each.
//!
//! Handles are bound to their labels ahead, off the hot path. Names and units
//! are OpenTelemetry's; [`Registry::render`] writes them as Prometheus does.
//!
//! ```
//! use weir_mesh::telemetry::metrics::Registry;
//!
//! let registry = Registry::new();
//! let requests = registry.counter(
//!     "weir.router.requests",
//!     "Requests that came in.",
//!     "{request}",
//!     &[("service", "products")],
//! );
//! requests.inc();
//! assert!(registry.render().contains("weir_router_requests_total{service=\"products\"} 1\n"));
//! ```

mod instrument;
mod name;
mod quantile;
mod registry;

#[cfg(test)]
mod tests;

pub use instrument::{Counter, Gauge, Histogram};
pub use quantile::quantile;
pub use registry::{CONTENT_TYPE, Registry};

/// Upper bounds, in seconds, of the buckets that durations are counted in. A
/// last bucket takes what is longer, so there are 18.
pub const DURATION_BOUNDS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];
