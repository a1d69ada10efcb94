//! How much may be under way.

use std::time::Duration;

use serde::Deserialize;

use super::read::Reader;
use crate::policy::value::DurationText;

const MOST: u32 = 1_000_000;

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LimitsDocument {
    /// Connections of one router to all instances of the service: 1 to 1000000.
    /// Default: no limit.
    max_connections: Option<u32>,
    /// Requests of one router that are in flight at the service, from their
    /// sending to the end of their answers: 1 to 1000000. Default: no limit.
    max_requests: Option<u32>,
    /// Requests that may wait for one of these to end: 0 to 1000000. Default 0:
    /// a request over the limit is refused at once.
    max_pending: Option<u32>,
    /// How long one waits at most. Default 1s.
    pending_timeout: Option<DurationText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AdaptiveConcurrencyDocument {
    /// Never below: 1 to 1000000. Default 5.
    min_limit: Option<u32>,
    /// To begin with: 1 to 1000000. Default 20.
    initial_limit: Option<u32>,
    /// Never above: 1 to 1000000. Default 1000.
    max_limit: Option<u32>,
    /// How often the limit is found anew. Default 1s.
    window: Option<DurationText>,
    /// How far latency may be above what it was in the long run before the
    /// limit shrinks, percent: 100 to 1000. Default 150.
    tolerance_percent: Option<u32>,
}

/// How much of one router may be under way at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections to all instances.
    pub max_connections: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests that may wait.
    pub max_pending: u32,
    /// How long one waits at most.
    pub pending_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            max_requests: None,
            max_pending: 0,
            pending_timeout: Duration::from_secs(1),
        }
    }
}

/// A limit of requests in flight that follows latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// Never below; at least 1.
    pub min_limit: u32,
    /// To begin with; between the others.
    pub initial_limit: u32,
    /// Never above.
    pub max_limit: u32,
    /// How often it is found anew.
    pub window: Duration,
    /// Percent of the long run's latency that is no reason to shrink.
    pub tolerance: u32,
}

pub(super) fn read(document: Option<LimitsDocument>, reader: &mut Reader<'_>) -> Limits {
    let Some(document) = document else { return Limits::default() };
    let mut some =
        |field: &str, sent: Option<u32>| sent.map(|_| reader.number(field, sent, 1, 1, MOST));
    let max_connections = some("maxConnections", document.max_connections);
    let max_requests = some("maxRequests", document.max_requests);
    Limits {
        max_connections,
        max_requests,
        max_pending: reader.number("maxPending", document.max_pending, 0, 0, MOST),
        pending_timeout: reader.time(
            "pendingTimeout",
            document.pending_timeout,
            Duration::from_secs(1),
            Duration::from_millis(1),
        ),
    }
}

pub(super) fn read_adaptive(
    document: &AdaptiveConcurrencyDocument,
    reader: &mut Reader<'_>,
) -> AdaptiveConcurrency {
    let min = reader.number("minLimit", document.min_limit, 5, 1, MOST);
    let max = reader.number("maxLimit", document.max_limit, min.max(1000), min, MOST);
    AdaptiveConcurrency {
        min_limit: min,
        initial_limit: reader.number(
            "initialLimit",
            document.initial_limit,
            20.clamp(min, max.max(min)),
            min,
            max,
        ),
        max_limit: max,
        window: reader.time(
            "window",
            document.window,
            Duration::from_secs(1),
            Duration::from_millis(10),
        ),
        tolerance: reader.number("tolerancePercent", document.tolerance_percent, 150, 100, 1000),
    }
}
