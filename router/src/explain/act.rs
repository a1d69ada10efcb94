//! What a rule does with a request that it takes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Request, request};
use weir_mesh::model::{Protocol, Snapshot, Sticky};

use super::tell::{
    Answer, BackendTold, Explanation, InstanceTold, StickyTold, Upstream, VersionTold,
};
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::adapt::is_grpc;
use crate::request::call::grpc_timeout;
use crate::request::{choose, headers, json};
use crate::table::{Action, Backend, ServiceEntry};
use crate::upstream::Reach;

/// The time that a request has in all, if it is bounded.
pub fn timeout(action: &Action, request: &Request<()>) -> Option<u64> {
    let asked = grpc_timeout(request.headers());
    let least = asked.into_iter().chain(action.timeout).min();
    least.map(|least: Duration| u64::try_from(least.as_millis()).unwrap_or(u64::MAX))
}

/// Services and versions of a rule with their weights, in one line.
pub fn summary(action: &Action) -> String {
    let mut text = String::new();
    let weights = action.splitter.weights();
    for (backend, weight) in action.backends.iter().zip(weights) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let service = &backend.service;
        let _ = match backend.version {
            Some(version) => write!(text, "{}-{}", service.name, service.versions[version].name),
            None => write!(text, "{}", service.name),
        };
        if action.backends.len() > 1 {
            let _ = write!(text, "={weight}");
        }
        if backend.version.is_none() && service.versions.len() > 1 {
            let versions: Vec<_> =
                service.versions.iter().map(|v| format!("{}={}", v.name, v.weight)).collect();
            let _ = write!(text, " ({})", versions.join(" "));
        }
    }
    text
}

/// The backends of a rule, as a request with these headers meets them.
pub fn backends(action: &Action, snapshot: &Snapshot, headers: &HeaderMap) -> Vec<BackendTold> {
    let weights = action.splitter.weights();
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let backends = action.backends.iter().zip(weights);
    backends.map(|(backend, weight)| told(backend, *weight, total, snapshot, headers)).collect()
}

fn told(
    backend: &Backend,
    weight: u32,
    total: u64,
    snapshot: &Snapshot,
    headers: &HeaderMap,
) -> BackendTold {
    let service = &backend.service;
    let sticky = backend.version.is_none().then_some(service.sticky.as_ref()).flatten();
    let place = sticky.and_then(|sticky| choose::key(sticky, headers));
    let fixed = match (backend.version, place) {
        (Some(version), _) => Some(version),
        (None, Some(place)) => Some(service.splitter.sticky(place)),
        (None, None) if service.versions.len() == 1 => Some(0),
        (None, None) => None,
    };
    let name = |version: usize| service.versions[version].name.to_string();
    BackendTold {
        service: service.name.to_string(),
        version: backend.version.map(name),
        weight,
        share_percent: percent(weight, total),
        sticky: sticky.map(|by| StickyTold {
            by: match by {
                Sticky::Header(name) => format!("header {name}"),
                Sticky::Cookie(name) => format!("cookie {name}"),
                Sticky::User => "user (sub of the bearer token)".to_owned(),
            },
            known: place.is_some(),
        }),
        gets: fixed.map(name),
        versions: versions(service, fixed, backend.version, snapshot),
    }
}

fn versions(
    service: &ServiceEntry,
    fixed: Option<usize>,
    named: Option<usize>,
    snapshot: &Snapshot,
) -> Vec<VersionTold> {
    let total: u64 = service.versions.iter().map(|version| u64::from(version.weight)).sum();
    let zone = |id: &str| {
        let found = snapshot.instances.iter().find(|instance| &*instance.id == id);
        found.map(|instance| instance.zone.to_string()).unwrap_or_default()
    };
    let told = |(i, version): (usize, &crate::table::VersionEntry)| VersionTold {
        version: version.name.to_string(),
        weight: version.weight,
        share_percent: match fixed {
            Some(fixed) if fixed == i => 100.0,
            Some(_) => 0.0,
            None => percent(version.weight, total),
        },
        instances: version
            .endpoints
            .iter()
            .map(|endpoint| InstanceTold {
                id: endpoint.id.to_string(),
                address: endpoint.address.to_string(),
                by: match endpoint.reach {
                    Reach::Mesh => "mTLS",
                    _ => "plain",
                },
                zone: zone(&endpoint.id),
                healthy: endpoint.healthy,
            })
            .collect(),
    };
    let all = service.versions.iter().enumerate();
    all.filter(|(i, _)| named.is_none_or(|named| named == *i)).map(told).collect()
}

fn percent(weight: u32, total: u64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let exact = f64::from(weight) * 100.0 / total as f64;
    (exact * 100.0).round() / 100.0
}

/// The request as it is sent on. Steps and their order are those of
/// [`crate::request::handler`].
pub fn upstream(
    told: &mut Explanation,
    connected: &Connected,
    action: &Action,
    mut parts: request::Parts,
) {
    let before = parts.headers.clone();
    headers::forwarded(&mut parts, connected);
    headers::modify(&mut parts.headers, &action.request_headers);
    let mut notes = Vec::new();
    let services = action.backends.iter().map(|backend| &backend.service);
    for service in services.filter(|service| service.protocol == Protocol::Grpc) {
        if connected.side == Side::Gateway && !is_grpc(&parts.headers) {
            match transcoded(service, &mut parts) {
                Ok(note) => notes.push(note),
                Err(error) => {
                    told.answer = Some(Answer::of(&error));
                    return;
                }
            }
            break;
        }
    }
    let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    told.upstream = Some(Upstream {
        method: parts.method.to_string(),
        authority,
        path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        headers: list(&parts.headers),
        added: names(&parts.headers, |name| !same(&before, &parts.headers, name)),
        removed: names(&before, |name| !parts.headers.contains_key(name)),
        notes,
    });
}

/// JSON that becomes gRPC, as far as that can be told without a body.
fn transcoded(service: &ServiceEntry, parts: &mut request::Parts) -> Result<String, RouterError> {
    let Some(transcoder) = &service.transcoder else {
        return Err(RouterError::Unsupported(
            "this service speaks gRPC and has no descriptorSet to map JSON by",
        ));
    };
    let call = json::find(transcoder, parts)?;
    let (method, template) = (&parts.method, call.template());
    let note = format!("JSON becomes gRPC: {method} {template} is {}", call.grpc_path());
    json::become_grpc(&call, parts);
    Ok(note)
}

fn same(before: &HeaderMap, after: &HeaderMap, name: &HeaderName) -> bool {
    before.get_all(name).iter().eq(after.get_all(name).iter())
}

fn names(headers: &HeaderMap, wanted: impl Fn(&HeaderName) -> bool) -> Vec<String> {
    let names: BTreeSet<_> =
        headers.keys().filter(|name| wanted(name)).map(HeaderName::as_str).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Names and values; values that are secrets are not told.
fn list(headers: &HeaderMap) -> Vec<(String, String)> {
    const SECRET: [HeaderName; 3] =
        [http::header::AUTHORIZATION, http::header::COOKIE, http::header::PROXY_AUTHORIZATION];
    let one = |(name, value): (&HeaderName, &http::HeaderValue)| {
        let text = match SECRET.contains(name) {
            true => "(not shown)".to_owned(),
            false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        };
        (name.to_string(), text)
    };
    headers.iter().map(one).collect()
}
