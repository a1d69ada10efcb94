//! Choosing an instance.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use serde::Deserialize;

use super::read::Reader;
use crate::policy::value::DurationText;

const MAX_HASH_ON: usize = 8;

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LoadBalancerDocument {
    /// How an instance is chosen. Default: PeakEwma.
    r#type: MethodDocument,
    /// What of a request is hashed, for RingHash and Maglev: the first of these
    /// that the request has. A request with none of them goes anywhere.
    hash_on: Vec<HashOnDocument>,
    /// A new instance gets its share little by little. Default: at once.
    slow_start: Option<SlowStartDocument>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
pub(crate) enum MethodDocument {
    /// The quicker and less busy of two.
    #[default]
    PeakEwma,
    /// One after the other.
    RoundRobin,
    /// The one of two with fewer requests in flight.
    LeastRequest,
    /// Any.
    Random,
    /// By hash, on a ring.
    RingHash,
    /// By hash, in Maglev's table.
    Maglev,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct HashOnDocument {
    /// The value of this header.
    header: Option<String>,
    /// The value of this cookie.
    cookie: Option<String>,
    /// The value of this query parameter, as it is written.
    query_param: Option<String>,
    /// Use true: the IP address that the connection comes from.
    #[serde(rename = "sourceIP")]
    source_ip: Option<bool>,
    /// A claim of the bearer token, which is not verified for this. Only `sub`.
    claim: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SlowStartDocument {
    /// Until it has its full share. Default 30s.
    window: Option<DurationText>,
    /// What it begins with, percent of its share: 1 to 100. Default 10.
    min_weight_percent: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[cfg_attr(feature = "gateway-api", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ZoneAwarenessDocument {
    /// Instances of the router's own zone first. Default: false.
    prefer_local: bool,
    /// With fewer usable instances than this in the zone, all zones are used:
    /// 1 to 1000. Default 1.
    min_instances: Option<u32>,
    /// While fewer than this percent of the zone's instances can take requests,
    /// the missing share goes to other zones: 1 to 100. Default 70.
    spill_over_below_percent: Option<u32>,
}

/// How an instance is chosen among those that can take requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Of two at random, the one with less of latency (peak-sensitive moving
    /// average) times requests in flight.
    #[default]
    PeakEwma,
    /// One after the other.
    RoundRobin,
    /// Of two at random, the one with fewer requests in flight.
    LeastRequest,
    /// Any.
    Random,
    /// By hash, on a ring (Karger et al., 1997).
    RingHash,
    /// By hash, in the table of Maglev (Eisenbud et al., 2016).
    Maglev,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// A header's value.
    Header(HeaderName),
    /// A cookie's value.
    Cookie(Arc<str>),
    /// A query parameter's value, as it is written.
    QueryParam(Arc<str>),
    /// Where the connection comes from.
    SourceIp,
    /// The `sub` claim of the bearer token, not verified.
    Subject,
}

/// A new instance's share grows in a line from `min_weight` to all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowStart {
    /// Until it has its full share.
    pub window: Duration,
    /// Percent that it begins with: 1 to 100.
    pub min_weight: u32,
}

/// Instances of the router's own zone first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneAwareness {
    /// Fewest usable instances of a zone that is preferred.
    pub min_instances: u32,
    /// Percent of usable ones in the zone below which others help: 1 to 100.
    pub spill_over_below: u32,
}

/// How an instance is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadBalancer {
    /// Among those that can take requests.
    pub method: Method,
    /// The first that a request has; not empty when the method hashes.
    pub hash_on: Vec<HashOn>,
    /// For new instances.
    pub slow_start: Option<SlowStart>,
}

pub(super) fn read(
    document: Option<LoadBalancerDocument>,
    reader: &mut Reader<'_>,
) -> LoadBalancer {
    let document = document.unwrap_or_default();
    let method = match document.r#type {
        MethodDocument::PeakEwma => Method::PeakEwma,
        MethodDocument::RoundRobin => Method::RoundRobin,
        MethodDocument::LeastRequest => Method::LeastRequest,
        MethodDocument::Random => Method::Random,
        MethodDocument::RingHash => Method::RingHash,
        MethodDocument::Maglev => Method::Maglev,
    };
    let hashes = matches!(method, Method::RingHash | Method::Maglev);
    if hashes && document.hash_on.is_empty() {
        reader.bad("hashOn", "is empty; say what is hashed, such as [{header: x-user}]");
    } else if !hashes && !document.hash_on.is_empty() {
        reader.bad("hashOn", "is for the types RingHash and Maglev only");
    } else if document.hash_on.len() > MAX_HASH_ON {
        reader.bad("hashOn", format_args!("has more than {MAX_HASH_ON} entries"));
    }
    let hash_on = document.hash_on.iter().enumerate();
    let hash_on =
        hash_on.filter_map(|(i, h)| read_hash(h, &mut reader.at(&format!("hashOn[{i}]"))));
    LoadBalancer {
        method,
        hash_on: hash_on.collect(),
        slow_start: document.slow_start.map(|slow| {
            let mut reader = reader.at("slowStart");
            SlowStart {
                window: reader.time(
                    "window",
                    slow.window,
                    Duration::from_secs(30),
                    Duration::from_millis(100),
                ),
                min_weight: reader.number("minWeightPercent", slow.min_weight_percent, 10, 1, 100),
            }
        }),
    }
}

fn read_hash(document: &HashOnDocument, reader: &mut Reader<'_>) -> Option<HashOn> {
    let HashOnDocument { header, cookie, query_param, source_ip, claim } = document;
    let mut found = Vec::new();
    if let Some(name) = header {
        let name = reader.take("header", name.parse::<HeaderName>());
        found.push(name.map(HashOn::Header));
    }
    found.extend(cookie.as_ref().map(|name| Some(HashOn::Cookie(name.as_str().into()))));
    found.extend(query_param.as_ref().map(|name| Some(HashOn::QueryParam(name.as_str().into()))));
    found.extend(source_ip.filter(|wanted| *wanted).map(|_| Some(HashOn::SourceIp)));
    if let Some(claim) = claim {
        if claim != "sub" {
            reader.bad("claim", format_args!("{claim:?} is not supported; use sub"));
        }
        found.push(Some(HashOn::Subject));
    }
    match found.len() {
        1 => found.pop().flatten(),
        _ => {
            reader.bad("", "must have exactly one of header, cookie, queryParam, sourceIP, claim");
            None
        }
    }
}

pub(super) fn read_zones(
    document: &ZoneAwarenessDocument,
    reader: &mut Reader<'_>,
) -> Option<ZoneAwareness> {
    let below = document.spill_over_below_percent;
    let zones = ZoneAwareness {
        min_instances: reader.number("minInstances", document.min_instances, 1, 1, 1000),
        spill_over_below: reader.number("spillOverBelowPercent", below, 70, 1, 100),
    };
    document.prefer_local.then_some(zones)
}
