//! BackendTrafficPolicy: how instances of a service are chosen, limited and kept out.

mod balancer;
mod health;
mod limits;
mod read;
mod retry;
#[cfg(test)]
mod tests;

use serde::Deserialize;

use super::{Kind, TargetKind};
use crate::model::{ServiceName, VersionName, Violations};
pub use balancer::{HashOn, LoadBalancer, Method, SlowStart, ZoneAwareness};
pub use health::{HealthCheck, OutlierDetection, Probe, SuccessRate};
pub use limits::{AdaptiveConcurrency, Limits};
use read::Reader;
pub use retry::{Backoff, Hedging, Retry, RetryConstraint};

/// The spec of a BackendTrafficPolicy.
#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BackendTrafficDocument {
    /// How an instance is chosen. Default: PeakEwma.
    load_balancer: Option<balancer::LoadBalancerDocument>,
    /// Instances near the router first. Default: off.
    zone_awareness: Option<balancer::ZoneAwarenessDocument>,
    /// Where requests go while no instance of the service can take them, in
    /// this order.
    failover: Vec<FailoverDocument>,
    /// While fewer than this percent of the instances can take requests, all of
    /// them get requests, so that the last good ones are not overrun. 0 to 100.
    /// Default 0: only when there is none left.
    panic_threshold_percent: Option<u32>,
    /// Keeps instances out that answer badly. Default: off; an instance that
    /// cannot be reached is always left out for a while.
    outlier_detection: Option<health::OutlierDetectionDocument>,
    /// Asks instances how they are. Default: off.
    health_check: Option<health::HealthCheckDocument>,
    /// How much of one router may be under way at the service. Default: no
    /// limit but those of connections.
    limits: Option<limits::LimitsDocument>,
    /// Finds a limit of requests in flight by latency. Default: off.
    adaptive_concurrency: Option<limits::AdaptiveConcurrencyDocument>,
    /// Bounds what retries and hedges add (GEP-3388). Default: 20 % and 10 in 1s.
    retry_constraint: Option<retry::RetryConstraintDocument>,
    /// For requests whose route says nothing of retries. Default: only requests
    /// that were not sent, or may be sent twice, are tried again, when they
    /// got no answer.
    retry: Option<retry::RetryDocument>,
    /// Asks a second instance when the first is slow. Default: off.
    hedging: Option<retry::HedgingDocument>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FailoverDocument {
    /// The service.
    service: String,
    /// One version of it; left out: by its own weights.
    #[serde(default)]
    version: Option<String>,
}

/// Where requests go instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// The service.
    pub service: ServiceName,
    /// One version of it; none: by its own weights.
    pub version: Option<VersionName>,
}

/// How instances of a service are chosen, limited and kept out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BackendTraffic {
    /// How an instance is chosen.
    pub load_balancer: LoadBalancer,
    /// Instances near the router first.
    pub zone_awareness: Option<ZoneAwareness>,
    /// Where requests go while no instance can take them, in order.
    pub failover: Vec<Failover>,
    /// Percent of usable instances below which all are used: 0 to 100.
    pub panic_threshold: u32,
    /// Keeps instances out that answer badly.
    pub outlier_detection: Option<OutlierDetection>,
    /// Asks instances how they are.
    pub health_check: Option<HealthCheck>,
    /// How much may be under way.
    pub limits: Limits,
    /// Finds a limit of requests in flight by latency.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Bounds retries and hedges together.
    pub retry_constraint: RetryConstraint,
    /// For requests whose route says nothing of retries.
    pub retry: Option<Retry>,
    /// Asks a second instance when the first is slow.
    pub hedging: Option<Hedging>,
}

impl Kind for BackendTraffic {
    type Document = BackendTrafficDocument;

    const TARGETS: &'static [TargetKind] = &[TargetKind::Service];

    const ONE_PER_TARGET: bool = true;

    fn read(document: BackendTrafficDocument, at: &str, bad: &mut Violations) -> Option<Self> {
        let mut reader = Reader::new(at, bad);
        let panic = document.panic_threshold_percent;
        Some(Self {
            load_balancer: balancer::read(document.load_balancer, &mut reader.at("loadBalancer")),
            zone_awareness: document
                .zone_awareness
                .and_then(|z| balancer::read_zones(&z, &mut reader.at("zoneAwareness"))),
            failover: failover(&document.failover, &mut reader.at("failover")),
            panic_threshold: reader.number("panicThresholdPercent", panic, 0, 0, 100),
            outlier_detection: document
                .outlier_detection
                .map(|o| health::read_outlier(&o, &mut reader.at("outlierDetection"))),
            health_check: document
                .health_check
                .map(|h| health::read_check(h, &mut reader.at("healthCheck"))),
            limits: limits::read(document.limits, &mut reader.at("limits")),
            adaptive_concurrency: document
                .adaptive_concurrency
                .map(|a| limits::read_adaptive(&a, &mut reader.at("adaptiveConcurrency"))),
            retry_constraint: retry::read_constraint(
                document.retry_constraint,
                &mut reader.at("retryConstraint"),
            ),
            retry: document.retry.map(|r| retry::read(r, &mut reader.at("retry"))),
            hedging: document.hedging.map(|h| retry::read_hedging(&h, &mut reader.at("hedging"))),
        })
    }
}

fn failover(list: &[FailoverDocument], reader: &mut Reader<'_>) -> Vec<Failover> {
    let mut found = Vec::new();
    for (i, one) in list.iter().enumerate() {
        let service = reader.take(&format!("[{i}].service"), one.service.parse());
        let version = one.version.as_ref();
        let version = version.map(|v| reader.take(&format!("[{i}].version"), v.parse()));
        if let Some(service) = service {
            found.push(Failover { service, version: version.flatten() });
        }
    }
    found
}
