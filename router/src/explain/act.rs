//! Where a rule sends a request that it takes.

use std::fmt::Write as _;

use http::HeaderMap;
use weir_mesh::model::{RouteRule, Snapshot, Sticky};

use super::audience::{self, Known, Taken, audience};
use super::tell::{BackendTold, GetsTold, InstanceTold, StickyTold, VersionTold};
use crate::connection::Connected;
use crate::request::choose::{self, By};
use crate::request::headers;
use crate::table::{Action, Backend, ServiceEntry, Target, VersionEntry};
use crate::upstream::Reach;

/// Services and versions of a rule with their weights, in one line.
pub fn summary(action: &Action) -> String {
    let mut text = String::new();
    let weights = action.splitter.weights();
    for (backend, weight) in action.backends.iter().zip(weights) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let versions = match backend {
            Backend::Service(target) => {
                text.push_str(&name(target));
                if target.version.is_none() { target.service.versions.as_slice() } else { &[] }
            }
            Backend::Invalid(_) => {
                text.push_str("(invalid)");
                &[]
            }
        };
        if action.backends.len() > 1 {
            let _ = write!(text, "={weight}");
        }
        if versions.len() > 1 {
            let versions: Vec<_> =
                versions.iter().map(|v| format!("{}={}", v.name, v.weight)).collect();
            let _ = write!(text, " ({})", versions.join(" "));
        }
    }
    text
}

/// `service` or `service-version`.
pub fn name(target: &Target) -> String {
    let service = &target.service;
    match target.version {
        Some(version) => format!("{}-{}", service.name, service.versions[version].name),
        None => service.name.to_string(),
    }
}

/// The backend that a request goes to, as far as its weight does not decide: the
/// one that it asks for, or the only one that gets anything.
pub fn destination<'a>(
    connected: &Connected,
    action: &'a Action,
    known: Known<'_>,
) -> Option<(&'a Target, Option<(usize, &'static str)>)> {
    if let Some((target, version, by)) = choose::asked(connected, action, known.headers) {
        let asked = match by {
            By::Force => Some((version, "forced")),
            By::Pin => Some((version, "pinned")),
            By::Session if target.version.is_some() => Some((version, "session")),
            By::Session => match audience(action, target, known) {
                Taken::By(version) => Some((version, "audience")),
                Taken::Maybe => None,
                Taken::No => Some((version, "session")),
            },
        };
        return Some((target, asked));
    }
    let weights = action.splitter.weights();
    let mut some = action.backends.iter().zip(weights).filter(|(_, weight)| **weight > 0);
    match (some.next(), some.next()) {
        (Some((Backend::Service(target), _)), None) => Some((target, fixed(action, target, known))),
        _ => None,
    }
}

/// The version of a backend that a request gets, and why, where that is no
/// matter of turns.
fn fixed(action: &Action, target: &Target, known: Known<'_>) -> Option<(usize, &'static str)> {
    let service = &target.service;
    if let Some(version) = target.version {
        return Some((version, "named"));
    }
    match audience(action, target, known) {
        Taken::By(version) => return Some((version, "audience")),
        Taken::Maybe => return None,
        Taken::No => {}
    }
    match place(action, target, known.headers) {
        Some(place) => Some((service.splitter.sticky(place), "sticky")),
        None => (service.versions.len() == 1).then_some((0, "only")),
    }
}

/// The place of whoever sends it on the line that is divided.
fn place(action: &Action, target: &Target, headers: &HeaderMap) -> Option<u64> {
    let sticky = target.service.sticky.as_ref()?;
    choose::key(sticky, &filtered(action, target, headers))
}

/// Headers as versions are chosen by: filters may have changed them.
pub(super) fn filtered(action: &Action, target: &Target, headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for filters in [action.filters.as_deref(), target.filters.as_deref()].into_iter().flatten() {
        headers::modify(&mut headers, &filters.request_headers);
    }
    headers
}

/// The version that a request gets, if that is known.
pub fn gets(target: &Target, version: Option<(usize, &'static str)>) -> Option<GetsTold> {
    let (version, by) = version?;
    Some(GetsTold {
        service: target.service.name.to_string(),
        version: target.service.versions[version].name.to_string(),
        by,
    })
}

/// The backends of a rule, as a request with these headers meets them.
pub fn backends(
    action: &Action,
    rule: Option<&RouteRule>,
    snapshot: &Snapshot,
    known: Known<'_>,
) -> Vec<BackendTold> {
    let weights = action.splitter.weights();
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let backends = action.backends.iter().zip(weights).enumerate();
    backends
        .map(|(i, (backend, weight))| {
            let share = (*weight, percent(*weight, total));
            match backend {
                Backend::Service(target) => told(action, target, share, snapshot, known),
                Backend::Invalid(why) => {
                    let written = rule.and_then(|rule| rule.backends.get(i));
                    BackendTold {
                        service: written.map(|b| b.service.to_string()).unwrap_or_default(),
                        version: written.and_then(|b| b.version.as_ref()).map(ToString::to_string),
                        invalid: Some(why.to_string()),
                        weight: share.0,
                        share_percent: share.1,
                        sticky: None,
                        gets: None,
                        versions: Vec::new(),
                        audiences: Vec::new(),
                        mirror: None,
                    }
                }
            }
        })
        .collect()
}

fn told(
    action: &Action,
    target: &Target,
    (weight, share_percent): (u32, f64),
    snapshot: &Snapshot,
    known: Known<'_>,
) -> BackendTold {
    let service = &target.service;
    let sticky = target.version.is_none().then_some(service.sticky.as_ref()).flatten();
    let fixed = fixed(action, target, known).map(|(version, _)| version);
    let name = |version: usize| service.versions[version].name.to_string();
    BackendTold {
        service: service.name.to_string(),
        version: target.version.map(name),
        invalid: None,
        weight,
        share_percent,
        sticky: sticky.map(|by| StickyTold {
            by: match by {
                Sticky::Header(name) => format!("header {name}"),
                Sticky::Cookie(name) => format!("cookie {name}"),
                Sticky::User => "user (sub of the bearer token)".to_owned(),
            },
            known: place(action, target, known.headers).is_some(),
        }),
        audiences: audience::told(action, target, known),
        mirror: audience::mirror(service),
        gets: fixed.map(name),
        versions: versions(service, fixed, target.version, snapshot),
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
    let told = |(i, version): (usize, &VersionEntry)| VersionTold {
        version: version.name.to_string(),
        weight: version.weight,
        share_percent: match fixed {
            Some(fixed) if fixed == i => 100.0,
            Some(_) => 0.0,
            None => percent(version.weight, total),
        },
        panic: is_panic(service, version),
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

/// Whether so few instances are healthy that all of them get requests, as
/// [`crate::upstream::Asked::pick`] has it.
fn is_panic(service: &ServiceEntry, version: &VersionEntry) -> bool {
    let (all, healthy) = (&version.endpoints, |e: &&crate::table::Endpoint| e.healthy);
    let healthy = all.iter().filter(healthy).count();
    let threshold = service.traffic.policy.panic_threshold as usize;
    !all.is_empty() && (healthy == 0 || healthy * 100 < all.len() * threshold)
}

fn percent(weight: u32, total: u64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let exact = f64::from(weight) * 100.0 / total as f64;
    (exact * 100.0).round() / 100.0
}
