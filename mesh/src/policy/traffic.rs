//! The parts of a [`BackendTraffic`](super::BackendTraffic).

pub use super::backend_traffic::{
    AdaptiveConcurrency, Backoff, Failover, HashOn, HealthCheck, Hedging, Limits, LoadBalancer,
    Method, OutlierDetection, Probe, Retry, RetryConstraint, SlowStart, SuccessRate, ZoneAwareness,
};
