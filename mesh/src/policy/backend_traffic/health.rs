//! Which instances are left out: by what they answer, and by asking them.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use serde::Deserialize;

use super::read::Reader;
use crate::policy::value::DurationText;

const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct OutlierDetectionDocument {
    /// Failures one after the other after which an instance is left out: HTTP
    /// 5xx, a gRPC status that is the server's fault, no answer in time, a
    /// connection that breaks. 0 to 1000; 0: not by this. Default 5.
    consecutive_errors: Option<u32>,
    /// Leaves out instances that fail much more often than the others. Default: off.
    success_rate: Option<SuccessRateDocument>,
    /// How often success rates are compared. Default 10s.
    interval: Option<DurationText>,
    /// How long the first time; each further time takes once more of it. Default 30s.
    base_ejection_time: Option<DurationText>,
    /// How long at most. Default 5m.
    max_ejection_time: Option<DurationText>,
    /// How many of the service's instances may be left out at once, rounded
    /// down: 0 to 100. Default 50.
    max_ejection_percent: Option<u32>,
    /// An instance that comes back gets its share little by little, over this
    /// time. Default: at once.
    return_slow: Option<DurationText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SuccessRateDocument {
    /// Instances with fewer requests in an interval are not judged: 1 to
    /// 1000000. Default 50.
    min_requests: Option<u32>,
    /// Left out when its success rate is more than this many thousandths of a
    /// standard deviation below the mean of all: 100 to 10000. Default 1900.
    stdev_factor: Option<u32>,
    /// Left out as well when its success rate is below this percent: 0 to 100.
    /// Default 0: only by comparison.
    threshold_percent: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HealthCheckDocument {
    /// What is asked.
    r#type: ProbeDocument,
    /// Between two checks of an instance; each is up to a tenth early or late.
    /// Default 10s.
    #[serde(default)]
    interval: Option<DurationText>,
    /// For one check. Default 1s.
    #[serde(default)]
    timeout: Option<DurationText>,
    /// Good checks in a row that bring an instance back: 1 to 100. Default 2.
    #[serde(default)]
    healthy_threshold: Option<u32>,
    /// Bad checks in a row that take an instance out: 1 to 100. Default 3. The
    /// first check of all decides alone.
    #[serde(default)]
    unhealthy_threshold: Option<u32>,
    /// For HTTP: what is asked for. Default `/`.
    #[serde(default)]
    path: Option<String>,
    /// For HTTP: statuses that are good: 100 to 599. Default: 200 to 299.
    #[serde(default)]
    expected_statuses: Vec<u32>,
    /// For GRPC: the service that is asked about. Default: empty, the server as
    /// a whole.
    #[serde(default)]
    grpc_service: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
pub(crate) enum ProbeDocument {
    /// `grpc.health.v1.Health/Check` (gRPC Health Checking Protocol).
    #[serde(rename = "GRPC")]
    Grpc,
    /// GET.
    #[serde(rename = "HTTP")]
    Http,
    /// A connection. Of an instance with a router it tells of the router only.
    #[serde(rename = "TCP")]
    Tcp,
}

/// Leaves out instances that answer badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures in a row; 0: not by this.
    pub consecutive_errors: u32,
    /// By comparison.
    pub success_rate: Option<SuccessRate>,
    /// How often success rates are compared.
    pub interval: Duration,
    /// How long the first time; each further time takes once more of it.
    pub base_ejection_time: Duration,
    /// How long at most; not below the base.
    pub max_ejection_time: Duration,
    /// Percent of the instances, rounded down.
    pub max_ejection_percent: u32,
    /// Over which an instance that comes back gets its share; zero: at once.
    pub return_slow: Duration,
}

/// Leaves out instances that fail much more often than the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Instances with fewer requests in an interval are not judged.
    pub min_requests: u32,
    /// Thousandths of a standard deviation below the mean.
    pub stdev_factor: u32,
    /// Percent below which it is left out without comparison.
    pub threshold: u32,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// `grpc.health.v1.Health/Check` for this service; empty: the whole server.
    Grpc(Arc<str>),
    /// GET of a path, and the statuses that are good; empty: 200 to 299.
    Http(PathAndQuery, Vec<u16>),
    /// A connection.
    Tcp,
}

/// Asks instances how they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Good checks in a row that bring an instance back.
    pub healthy_threshold: u32,
    /// Bad checks in a row that take it out.
    pub unhealthy_threshold: u32,
}

pub(super) fn read_outlier(
    document: &OutlierDetectionDocument,
    reader: &mut Reader<'_>,
) -> OutlierDetection {
    let base = reader.time("baseEjectionTime", document.base_ejection_time, 30 * SECOND, SHORT);
    let percent = document.max_ejection_percent;
    let consecutive = document.consecutive_errors;
    OutlierDetection {
        consecutive_errors: reader.number("consecutiveErrors", consecutive, 5, 0, 1000),
        success_rate: document.success_rate.as_ref().map(|rate| {
            let mut reader = reader.at("successRate");
            SuccessRate {
                min_requests: reader.number("minRequests", rate.min_requests, 50, 1, 1_000_000),
                stdev_factor: reader.number("stdevFactor", rate.stdev_factor, 1900, 100, 10_000),
                threshold: reader.number("thresholdPercent", rate.threshold_percent, 0, 0, 100),
            }
        }),
        interval: reader.time("interval", document.interval, 10 * SECOND, 10 * SHORT),
        base_ejection_time: base,
        max_ejection_time: reader.time(
            "maxEjectionTime",
            document.max_ejection_time,
            base.max(300 * SECOND),
            base,
        ),
        max_ejection_percent: reader.number("maxEjectionPercent", percent, 50, 0, 100),
        return_slow: reader.time(
            "returnSlow",
            document.return_slow,
            Duration::ZERO,
            Duration::ZERO,
        ),
    }
}

pub(super) fn read_check(document: HealthCheckDocument, reader: &mut Reader<'_>) -> HealthCheck {
    let kind = document.r#type;
    if !matches!(kind, ProbeDocument::Http) {
        if document.path.is_some() {
            reader.bad("path", "is for the type HTTP only");
        }
        if !document.expected_statuses.is_empty() {
            reader.bad("expectedStatuses", "is for the type HTTP only");
        }
    }
    if !matches!(kind, ProbeDocument::Grpc) && document.grpc_service.is_some() {
        reader.bad("grpcService", "is for the type GRPC only");
    }
    let probe = match kind {
        ProbeDocument::Tcp => Probe::Tcp,
        ProbeDocument::Grpc => Probe::Grpc(document.grpc_service.unwrap_or_default().into()),
        ProbeDocument::Http => http(document.path, &document.expected_statuses, reader),
    };
    let (good, ill) = (document.healthy_threshold, document.unhealthy_threshold);
    HealthCheck {
        probe,
        interval: reader.time("interval", document.interval, 10 * SECOND, 10 * SHORT),
        timeout: reader.time("timeout", document.timeout, SECOND, SHORT),
        healthy_threshold: reader.number("healthyThreshold", good, 2, 1, 100),
        unhealthy_threshold: reader.number("unhealthyThreshold", ill, 3, 1, 100),
    }
}

fn http(path: Option<String>, statuses: &[u32], reader: &mut Reader<'_>) -> Probe {
    let path = path.unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') {
        reader.bad("path", format_args!("{path:?} does not begin with /"));
    }
    let path = reader.take("path", path.parse::<PathAndQuery>());
    let mut good = Vec::new();
    for (i, status) in statuses.iter().enumerate() {
        let status = reader.number(&format!("expectedStatuses[{i}]"), Some(*status), 200, 100, 599);
        good.extend(u16::try_from(status));
    }
    Probe::Http(path.unwrap_or_else(|| PathAndQuery::from_static("/")), good)
}
