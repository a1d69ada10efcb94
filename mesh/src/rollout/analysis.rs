//! How a canary is judged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::read::Reader;
use super::webhook::{self, Headers, Url, Webhook, WebhookDocument};
use crate::analysis::{Draft, LatencyCheck, Plan, SuccessCheck};
use crate::policy::value::DurationText;

/// Most outside sources of each kind.
const MAX_SOURCES: usize = 16;
/// How often an outside source is asked unless the document says otherwise.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AnalysisDocument {
    /// Which steps wait for the verdict. AllSteps: each setWeight below 100 and each
    /// analyze. AnalyzeSteps: only each analyze. With both, what is clearly bad is
    /// rolled back at any step. Off: nothing is judged, and nothing is rolled back for
    /// what it answers. Default: AllSteps.
    during: Option<DuringDocument>,
    /// Most probability of rolling back a canary that is no worse: above 0, at most
    /// 0.5. Default 0.05.
    false_rollback: Option<f64>,
    /// Most probability of promoting a canary that is worse by a margin: above 0, at
    /// most 0.5. Default 0.05.
    false_promote: Option<f64>,
    /// Fewest requests of the canary at each such step. Default 50.
    min_requests: Option<u64>,
    /// Requests that do not fail. Default: with the defaults of its fields.
    success_rate: Option<SuccessRateDocument>,
    /// Latency, one entry for each quantile. Default: 0.99; an empty list: none.
    #[schemars(length(max = 8))]
    latency: Option<Vec<LatencyDocument>>,
    /// Queries to Prometheus.
    #[schemars(length(max = 16))]
    prometheus: Vec<PrometheusDocument>,
    /// Webhooks that answer with a number.
    #[schemars(length(max = 16))]
    webhooks: Vec<MetricHookDocument>,
}

#[derive(Debug, Clone, Copy, Deserialize, schemars::JsonSchema)]
pub(crate) enum DuringDocument {
    AllSteps,
    AnalyzeSteps,
    Off,
}

#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SuccessRateDocument {
    /// Promoted when its share of failures is shown to be less than the other's plus
    /// this: 0.000001 to below 0.5. Default 0.01.
    margin: Option<f64>,
    /// Its odds of a failure may be this many times the other's before it is rolled
    /// back: 1 to 100. Default 1.
    tolerance: Option<f64>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LatencyDocument {
    /// Which: 0.5 to 0.999.
    quantile: f64,
    /// It may be slower by this share before it is rolled back: 0 to 100. Default
    /// 0.2.
    tolerance: Option<f64>,
    /// Promoted when its share of slow requests is shown to be less than the other's
    /// plus this: 0.000001 to below 0.5. Default: as far again from 1 as the quantile
    /// is, 0.01 of 0.99.
    margin: Option<f64>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PrometheusDocument {
    /// For people.
    name: String,
    /// Its URL, without `/api/v1/query`.
    address: String,
    /// PromQL, whose answer is one number: a scalar, or a vector of one.
    query: String,
    /// The number must not be below this.
    min: Option<f64>,
    /// The number must not be above this.
    max: Option<f64>,
    /// How often it is asked: 1s to 1h. Default 10s.
    interval: Option<DurationText>,
    /// So many answers may be out of bounds; one more fails the rollout. 0 to 1000.
    /// Default 0.
    failure_limit: Option<u32>,
    /// So many must be within bounds at each step. 1 to 1000. Default 1.
    passes: Option<u32>,
    /// How long an answer may take: 100ms to 1m. Default 10s.
    timeout: Option<DurationText>,
    /// Sent with each query. They are kept in the history as they are written here.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MetricHookDocument {
    /// For people.
    name: String,
    /// It is asked by POST and answers `{"value": 0.4}`, or with bounds left out just
    /// 2xx for good and 4xx for bad.
    webhook: WebhookDocument,
    /// The number must not be below this.
    min: Option<f64>,
    /// The number must not be above this.
    max: Option<f64>,
    /// How often it is asked: 1s to 1h. Default 10s.
    interval: Option<DurationText>,
    /// So many answers may be bad; one more fails the rollout. 0 to 1000. Default 0.
    failure_limit: Option<u32>,
    /// So many must be good at each step. 1 to 1000. Default 1.
    passes: Option<u32>,
}

/// Which steps wait for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// Each setWeight below 100, and each analyze.
    AllSteps,
    /// Each analyze.
    AnalyzeSteps,
}

/// How a canary is judged.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisSpec {
    /// Which steps wait for the verdict.
    pub during: During,
    /// By what routers report. Its `min_requests` are wanted at each step that waits.
    pub plan: Plan,
    /// Queries to Prometheus.
    pub prometheus: Vec<PrometheusQuery>,
    /// Webhooks that judge.
    pub webhooks: Vec<MetricHook>,
}

/// What a number must be, how often it is asked for, and how often it may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Not below this.
    pub min: Option<f64>,
    /// Not above this.
    pub max: Option<f64>,
    /// How often it is asked for.
    pub interval: Duration,
    /// So many failures are no harm.
    pub failure_limit: u32,
    /// So many must be good at each step.
    pub passes: u32,
}

/// A query to Prometheus (its HTTP API, instant queries).
#[derive(Debug, Clone, PartialEq)]
pub struct PrometheusQuery {
    /// For people.
    pub name: String,
    /// Without `/api/v1/query`.
    pub address: Url,
    /// PromQL.
    pub query: String,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Sent with it.
    pub headers: Headers,
    /// What the answer must be.
    pub bounds: Bounds,
}

/// A webhook that judges.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricHook {
    /// For people.
    pub name: String,
    /// Who is asked.
    pub webhook: Webhook,
    /// What the answer must be.
    pub bounds: Bounds,
}

/// None when it is off, or after noting why it is wrong.
pub(super) fn read(document: &AnalysisDocument, reader: &mut Reader<'_>) -> Option<AnalysisSpec> {
    let rate = |sent: Option<f64>| sent.unwrap_or(0.05);
    let (alpha, beta) = (rate(document.false_rollback), rate(document.false_promote));
    for (field, value) in [("falseRollback", alpha), ("falsePromote", beta)] {
        if !(value > 0.0 && value <= 0.5) {
            reader.bad(field, format_args!("{value} is not above 0 and at most 0.5"));
        }
    }
    let min_requests = document.min_requests.unwrap_or(50);
    if !(1..=1_000_000_000).contains(&min_requests) {
        reader.bad("minRequests", format_args!("{min_requests} is not 1 to 1000000000"));
    }
    let success = document.success_rate.clone().unwrap_or_default();
    let success = {
        let mut at = reader.at("successRate");
        let tolerance = at.real("tolerance", success.tolerance.unwrap_or(1.0), 1.0, 100.0);
        let margin = margin(success.margin.unwrap_or(0.01), &mut at);
        Some(SuccessCheck { tolerance_ratio: tolerance, margin })
    };
    let latency = latency(document.latency.as_deref(), reader);
    let prometheus = prometheus(&document.prometheus, reader);
    let webhooks = hooks(&document.webhooks, reader);
    let during = match document.during {
        None | Some(DuringDocument::AllSteps) => During::AllSteps,
        Some(DuringDocument::AnalyzeSteps) => During::AnalyzeSteps,
        Some(DuringDocument::Off) => return None,
    };
    // It checks the same bounds, and names the fields by its own names.
    let plan = reader.take("", Plan::new(Draft { alpha, beta, min_requests, success, latency }))?;
    Some(AnalysisSpec { during, plan, prometheus, webhooks })
}

fn margin(value: f64, reader: &mut Reader<'_>) -> f64 {
    if !(1e-6..0.5).contains(&value) {
        reader.bad("margin", format_args!("{value} is not at least 0.000001 and below 0.5"));
    }
    value
}

fn latency(sent: Option<&[LatencyDocument]>, reader: &mut Reader<'_>) -> Vec<LatencyCheck> {
    let Some(sent) = sent else {
        return vec![LatencyCheck { quantile: 0.99, tolerance: 0.2, margin: 0.01 }];
    };
    let mut checks: Vec<LatencyCheck> = Vec::with_capacity(sent.len());
    for (i, one) in sent.iter().enumerate() {
        let mut at = reader.at(&format!("latency[{i}]"));
        let quantile = at.real("quantile", one.quantile, 0.5, 0.999);
        if checks.iter().any(|other| other.quantile == quantile) {
            at.bad("quantile", format_args!("{quantile} is there twice"));
        }
        let tolerance = at.real("tolerance", one.tolerance.unwrap_or(0.2), 0.0, 100.0);
        // 1 - 0.99 is a hair above 0.01.
        let as_far = ((1.0 - quantile) * 1e6).round() / 1e6;
        let margin = margin(one.margin.unwrap_or(as_far.min(0.49)), &mut at);
        checks.push(LatencyCheck { quantile, tolerance, margin });
    }
    checks
}

fn prometheus(sent: &[PrometheusDocument], reader: &mut Reader<'_>) -> Vec<PrometheusQuery> {
    let mut read = Vec::with_capacity(sent.len());
    check_count("prometheus", sent.len(), reader);
    for (i, one) in sent.iter().enumerate() {
        let mut at = reader.at(&format!("prometheus[{i}]"));
        if one.query.trim().is_empty() {
            at.bad("query", "is empty; write PromQL");
        }
        if one.min.is_none() && one.max.is_none() {
            at.bad("", "has no bounds; set min, or max, or both");
        }
        let address = at.take("address", Url::parse(&one.address));
        let bounds =
            bounds((one.min, one.max), one.interval, (one.failure_limit, one.passes), &mut at);
        let timeout = webhook::timeout(one.timeout, &mut at);
        let headers = webhook::headers(&one.headers, &mut at);
        if let (Some(address), Some(headers)) = (address, headers) {
            let (name, query) = (one.name.clone(), one.query.clone());
            read.push(PrometheusQuery { name, address, query, timeout, headers, bounds });
        }
    }
    read
}

fn hooks(sent: &[MetricHookDocument], reader: &mut Reader<'_>) -> Vec<MetricHook> {
    let mut read = Vec::with_capacity(sent.len());
    check_count("webhooks", sent.len(), reader);
    for (i, one) in sent.iter().enumerate() {
        let mut at = reader.at(&format!("webhooks[{i}]"));
        let webhook = webhook::read(&one.webhook, &mut at.at("webhook"));
        let bounds =
            bounds((one.min, one.max), one.interval, (one.failure_limit, one.passes), &mut at);
        read.extend(webhook.map(|webhook| MetricHook { name: one.name.clone(), webhook, bounds }));
    }
    read
}

fn check_count(field: &str, count: usize, reader: &mut Reader<'_>) {
    if count > MAX_SOURCES {
        reader.bad(field, format_args!("has {count} entries; at most {MAX_SOURCES}"));
    }
}

fn bounds(
    (min, max): (Option<f64>, Option<f64>),
    interval: Option<DurationText>,
    (failure_limit, passes): (Option<u32>, Option<u32>),
    reader: &mut Reader<'_>,
) -> Bounds {
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        reader.bad("min", format_args!("{min} is above max, which is {max}"));
    }
    let second = Duration::from_secs(1);
    let interval = reader.time("interval", interval, INTERVAL, (second, 3600 * second));
    let failure_limit = reader.number("failureLimit", failure_limit.unwrap_or(0), 0, 1000);
    let passes = reader.number("passes", passes.unwrap_or(1), 1, 1000);
    Bounds { min, max, interval, failure_limit, passes }
}
