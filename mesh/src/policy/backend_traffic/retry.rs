//! Trying again.

use std::time::Duration;

use serde::Deserialize;

use super::read::Reader;
use crate::model::RetryRule;
use crate::policy::value::DurationText;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RetryConstraintDocument {
    /// How many retries and hedges for how many requests.
    budget: Option<BudgetDocument>,
    /// How many besides, for services with few requests.
    min_retry_rate: Option<RateDocument>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct BudgetDocument {
    /// Percent of the interval's requests: 0 to 100. Default 20.
    percent: Option<u32>,
    /// How far back requests count. Default 10s.
    interval: Option<DurationText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RateDocument {
    /// How many in an interval: 0 to 1000000. Default 10.
    count: Option<u32>,
    /// The interval. Default 1s.
    interval: Option<DurationText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RetryDocument {
    /// Tries after the first: 0 to 10. Default 2.
    attempts: Option<u32>,
    /// Answers after which requests that may be sent twice (GET, HEAD, OPTIONS,
    /// TRACE, PUT, DELETE) are tried again: 400 to 599. Default 502, 503, 504.
    status_codes: Option<Vec<u32>>,
    /// gRPC statuses after which calls are tried again, when nothing else of
    /// the answer has come, by name. Default UNAVAILABLE.
    grpc_statuses: Option<Vec<GrpcStatusDocument>>,
    /// Pauses between tries.
    backoff: Option<BackoffDocument>,
    /// For one try; only requests that may be sent twice are tried again after
    /// it. Default: what is left for the whole request.
    per_try_timeout: Option<DurationText>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum GrpcStatusDocument {
    /// 1.
    Cancelled,
    /// 2.
    Unknown,
    /// 4.
    DeadlineExceeded,
    /// 8.
    ResourceExhausted,
    /// 10.
    Aborted,
    /// 13.
    Internal,
    /// 14.
    Unavailable,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct BackoffDocument {
    /// The longest pause before the first retry; doubles for each further one.
    /// The pause is anything from nothing to that (full jitter). Default 25ms.
    base: Option<DurationText>,
    /// The longest pause of all. Default 250ms.
    max: Option<DurationText>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct HedgingDocument {
    /// How long the first instance has before another is asked as well. Default 100ms.
    delay: Option<DurationText>,
    /// Instances that are asked in all: 2 to 4. Default 2.
    max_attempts: Option<u32>,
}

/// How many retries and hedges there may be at a service (GEP-3388): `percent`
/// of the requests of the last `interval`, and `count` in each `per` besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryConstraint {
    /// 0 to 100.
    pub percent: u32,
    /// How far back requests count.
    pub interval: Duration,
    /// So many besides ...
    pub count: u32,
    /// ... in each interval of this length.
    pub per: Duration,
}

impl Default for RetryConstraint {
    fn default() -> Self {
        Self { percent: 20, interval: 10 * SECOND, count: 10, per: SECOND }
    }
}

/// Pauses between tries, with full jitter: each is `least`, and anything from
/// nothing to `base`, twice that, and so on, at most `max`, on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Of each; routes have one (GEP-1731), policies none.
    pub least: Duration,
    /// Before the first retry.
    pub base: Duration,
    /// Of all; not below the base.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { least: Duration::ZERO, base: 25 * MS, max: 250 * MS }
    }
}

/// When requests are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub attempts: u32,
    /// HTTP statuses, for requests that may be sent twice.
    pub status_codes: Vec<u16>,
    /// gRPC statuses, before anything else of an answer.
    pub grpc_statuses: Vec<u8>,
    /// Pauses.
    pub backoff: Backoff,
    /// For one try.
    pub per_try_timeout: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            status_codes: vec![502, 503, 504],
            grpc_statuses: vec![code(GrpcStatusDocument::Unavailable)],
            backoff: Backoff::default(),
            per_try_timeout: None,
        }
    }
}

impl Retry {
    /// With what a route says for itself in place of it.
    #[must_use]
    pub fn of_route(mut self, rule: &RetryRule) -> Self {
        self.attempts = rule.attempts.unwrap_or(self.attempts);
        if !rule.codes.is_empty() {
            self.status_codes.clone_from(&rule.codes);
        }
        if let Some(least) = rule.backoff {
            self.backoff = Backoff { least, base: least, max: least.saturating_mul(10) };
        }
        self
    }
}

/// Asks a second instance when the first is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedging {
    /// How long an instance has before another is asked as well.
    pub delay: Duration,
    /// Instances that are asked in all.
    pub max_attempts: u32,
}

pub(super) fn read_constraint(
    document: Option<RetryConstraintDocument>,
    reader: &mut Reader<'_>,
) -> RetryConstraint {
    let document = document.unwrap_or_default();
    let budget = document.budget.unwrap_or_default();
    let rate = document.min_retry_rate.unwrap_or_default();
    let mut at = reader.at("budget");
    let percent = at.number("percent", budget.percent, 20, 0, 100);
    let interval = at.time("interval", budget.interval, 10 * SECOND, 100 * MS);
    let mut at = reader.at("minRetryRate");
    let count = at.number("count", rate.count, 10, 0, 1_000_000);
    let per = at.time("interval", rate.interval, SECOND, 100 * MS);
    RetryConstraint { percent, interval, count, per }
}

pub(super) fn read(document: RetryDocument, reader: &mut Reader<'_>) -> Retry {
    let codes = document.status_codes.unwrap_or_else(|| vec![502, 503, 504]);
    let mut status_codes = Vec::new();
    for (i, code) in codes.into_iter().enumerate() {
        let code = reader.number(&format!("statusCodes[{i}]"), Some(code), 503, 400, 599);
        status_codes.extend(u16::try_from(code));
    }
    let grpc = document.grpc_statuses.unwrap_or_else(|| vec![GrpcStatusDocument::Unavailable]);
    let attempts = reader.number("attempts", document.attempts, 2, 0, 10);
    let timeout = document.per_try_timeout;
    let per_try_timeout = timeout.map(|_| reader.time("perTryTimeout", timeout, SECOND, MS));
    let backoff = document.backoff.unwrap_or_default();
    let mut at = reader.at("backoff");
    let base = at.time("base", backoff.base, Backoff::default().base, MS);
    let max = at.time("max", backoff.max, Backoff::default().max.max(base), base);
    Retry {
        attempts,
        status_codes,
        grpc_statuses: grpc.into_iter().map(code).collect(),
        backoff: Backoff { least: Duration::ZERO, base, max },
        per_try_timeout,
    }
}

fn code(status: GrpcStatusDocument) -> u8 {
    match status {
        GrpcStatusDocument::Cancelled => 1,
        GrpcStatusDocument::Unknown => 2,
        GrpcStatusDocument::DeadlineExceeded => 4,
        GrpcStatusDocument::ResourceExhausted => 8,
        GrpcStatusDocument::Aborted => 10,
        GrpcStatusDocument::Internal => 13,
        GrpcStatusDocument::Unavailable => 14,
    }
}

pub(super) fn read_hedging(document: &HedgingDocument, reader: &mut Reader<'_>) -> Hedging {
    Hedging {
        delay: reader.time("delay", document.delay, 100 * MS, MS),
        max_attempts: reader.number("maxAttempts", document.max_attempts, 2, 2, 4),
    }
}
