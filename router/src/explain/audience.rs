//! Audiences and mirrors of services, as a request meets them.

use http::HeaderMap;
use serde_json::{Map, Value};

use super::act::filtered;
use super::tell::{AudienceTold, OwnMirrorTold};
use crate::table::{Action, AudienceEntry, ServiceEntry, Target, Who};

/// What a request is known by where its version is chosen.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// As it has them there.
    pub headers: &'a HeaderMap,
    /// Of its token.
    pub claims: Claims<'a>,
}

/// The claims of its token.
#[derive(Clone, Copy)]
pub enum Claims<'a> {
    /// It has none, or none that are verified there.
    No,
    /// Nobody has told them.
    Unknown,
    /// These.
    Are(&'a Map<String, Value>),
}

/// Whether an audience takes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One that gets this version (an index).
    By(usize),
    /// That hinges on claims.
    Maybe,
    /// None does.
    No,
}

/// The first audience of a backend that takes a request.
pub fn audience(action: &Action, target: &Target, known: Known<'_>) -> Taken {
    if target.service.audiences.is_empty() {
        return Taken::No;
    }
    let headers = filtered(action, target, known.headers);
    let known = Known { headers: &headers, ..known };
    for audience in &target.service.audiences {
        match takes(audience, known) {
            Some(true) => return Taken::By(audience.version),
            None => return Taken::Maybe,
            Some(false) => {}
        }
    }
    Taken::No
}

/// None: it hinges on claims.
fn takes(audience: &AudienceEntry, known: Known<'_>) -> Option<bool> {
    match (&audience.by, known.claims) {
        (Who::Claim(_), Claims::Unknown) => None,
        (_, Claims::Are(claims)) => Some(audience.has(known.headers, Some(claims))),
        _ => Some(audience.has(known.headers, None)),
    }
}

/// All of a backend; those of a backend that names a version are not asked.
pub fn told(action: &Action, target: &Target, known: Known<'_>) -> Vec<AudienceTold> {
    if target.version.is_some() || target.service.audiences.is_empty() {
        return Vec::new();
    }
    let headers = filtered(action, target, known.headers);
    let known = Known { headers: &headers, ..known };
    let one = |audience: &AudienceEntry| AudienceTold {
        who: audience.by.to_string(),
        version: target.service.versions[audience.version].name.to_string(),
        takes: takes(audience, known),
    };
    target.service.audiences.iter().map(one).collect()
}

/// Where copies of a service's requests go.
pub fn mirror(service: &ServiceEntry) -> Option<OwnMirrorTold> {
    let mirror = service.mirror.as_ref()?;
    Some(OwnMirrorTold {
        version: service.versions[mirror.version].name.to_string(),
        percent: f64::from(mirror.per_million()) / 10_000.0,
    })
}
