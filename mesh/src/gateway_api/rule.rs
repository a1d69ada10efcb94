//! Rules of a route: backends, timeouts, retries, sessions.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::filter::{Place, filters};
use super::matches::{grpc_match, http_match};
use super::reader::{Object, near};
use super::{BackendReference, Backends, KnownServices, duration, namespace, port};
use crate::model::{
    BackendRef, RetryRule, RouteKind, RouteMatch, RouteRule, ServiceName, SessionKind,
    SessionPersistence, VersionName, Violations, Weight, answers, check_rule,
};

/// What references to backends are looked up in.
#[derive(Clone, Copy)]
pub(super) enum Services<'a> {
    /// A mesh without namespaces: what is not there is a mistake.
    Known(&'a KnownServices),
    /// A cluster, where it may come later.
    Cluster(&'a dyn Backends),
}

/// Where a reference leads: to a service or one of its versions, or nowhere.
pub(super) type Found = Result<(ServiceName, Option<VersionName>), String>;

/// Longest name of a session's cookie or header; GEP-1619's own limit.
const SESSION_NAME: usize = 128;

pub(super) fn rule(
    value: &Value,
    at: &str,
    kind: RouteKind,
    services: Services<'_>,
    bad: &mut Violations,
) -> Option<RouteRule> {
    // What is wrong with single fields shifts places: what must hold between
    // them is only looked at when there is nothing of the kind.
    let mut own = Violations::new();
    let rule = read(value, at, kind, services, &mut own);
    if own.is_empty()
        && let Some(rule) = &rule
    {
        check_rule(rule, kind, at, &mut own);
    }
    if let Err(invalid) = own.finish(Some(())) {
        bad.extend(invalid);
    }
    rule
}

fn read(
    value: &Value,
    at: &str,
    kind: RouteKind,
    services: Services<'_>,
    bad: &mut Violations,
) -> Option<RouteRule> {
    let object = Object::open(value, at, bad)?;
    object.check(&super::fields::RULE, &[], bad);
    let name = object.text("name", bad).unwrap_or_default();
    let mut matches = Vec::new();
    for (at, value) in object.list("matches", bad) {
        matches.extend(match kind {
            RouteKind::Http => http_match(value, &at, bad),
            RouteKind::Grpc => grpc_match(value, &at, bad),
        });
    }
    if matches.is_empty() {
        matches.push(RouteMatch::any());
    }
    let given = object.list("filters", bad).len();
    let filters = filters(&object, Place { kind, of_rule: true }, services, bad);
    // A mirror that leads nowhere is left out without being a mistake.
    let mistaken = filters.len() != given && matches!(services, Services::Known(_));
    let may_be_empty = mistaken || answers(&filters);
    let backends = backends(&object, kind, may_be_empty, services, bad);
    let (timeout, backend_timeout) = timeouts(&object, bad);
    let retry = object.object("retry", bad).map(|r| retry(&r, bad));
    let session = object.object("sessionPersistence", bad).map(|s| session(&s, bad));
    Some(RouteRule {
        name: name.into(),
        matches,
        filters,
        backends,
        timeout,
        backend_timeout,
        retry,
        session,
    })
}

fn time(object: &Object<'_>, field: &str, bad: &mut Violations) -> Option<Duration> {
    let text = object.text(field, bad)?;
    // 0 means none, as the Gateway API has it.
    bad.take(&object.path(field), duration::parse(text)).filter(|d| !d.is_zero())
}

fn timeouts(rule: &Object<'_>, bad: &mut Violations) -> (Option<Duration>, Option<Duration>) {
    let Some(timeouts) = rule.object("timeouts", bad) else { return (None, None) };
    timeouts.check(&super::fields::TIMEOUTS, &[], bad);
    (time(&timeouts, "request", bad), time(&timeouts, "backendRequest", bad))
}

fn retry(object: &Object<'_>, bad: &mut Violations) -> RetryRule {
    object.check(&super::fields::RETRY, &[], bad);
    let mut codes: Vec<u16> = Vec::new();
    for (at, value) in object.list("codes", bad) {
        match value.as_u64().and_then(|code| u16::try_from(code).ok()) {
            Some(code) if codes.contains(&code) => {
                bad.add(at, format_args!("{code} is here twice"));
            }
            Some(code) if (400..600).contains(&code) => codes.push(code),
            _ => bad.add(at, format_args!("{value} is not a status from 400 to 599")),
        }
    }
    let attempts = object.integer("attempts", bad).and_then(|attempts| {
        let number = u32::try_from(attempts).ok().filter(|n| *n <= 100);
        if number.is_none() {
            let why = format!("{attempts} is not from 0 to 100");
            bad.add(object.path("attempts"), why);
        }
        number
    });
    RetryRule { codes, attempts, backoff: time(object, "backoff", bad) }
}

fn session(object: &Object<'_>, bad: &mut Violations) -> SessionPersistence {
    object.check(&super::fields::SESSION, &[], bad);
    let name = object.text("sessionName", bad).filter(|name| !name.is_empty());
    if let Some(name) = name
        && (name.len() > SESSION_NAME || !is_token(name))
    {
        let why = format!("{name:?} is no name of a cookie or header (RFC 6265 §4.1.1)");
        bad.add(object.path("sessionName"), why);
    }
    let absolute_timeout = time(object, "absoluteTimeout", bad);
    let idle_timeout = time(object, "idleTimeout", bad);
    let header = one_of(object, "type", &["Cookie", "Header"], bad) == Some("Header");
    let cookie = object.object("cookieConfig", bad);
    let mut permanent = false;
    if let Some(cookie) = &cookie {
        cookie.check(&super::fields::COOKIE, &[], bad);
        let lifetime = one_of(cookie, "lifetimeType", &["Session", "Permanent"], bad);
        permanent = lifetime == Some("Permanent");
        if permanent && absolute_timeout.is_none() {
            let why = "is missing; a cookie of lifetimeType Permanent needs it";
            bad.add(object.path("absoluteTimeout"), why);
        }
        if header {
            bad.add(object.path("cookieConfig"), "does not belong to a session of type Header");
        }
    }
    let kind = match (header, permanent) {
        (true, _) => SessionKind::Header,
        (false, true) => SessionKind::PermanentCookie,
        (false, false) => SessionKind::Cookie,
    };
    SessionPersistence { name: name.map(Arc::from), kind, absolute_timeout, idle_timeout }
}

/// A token (RFC 9110 §5.6.2), as names of cookies and headers are.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field that holds one of a few words.
pub(super) fn one_of<'a>(
    object: &Object<'a>,
    field: &str,
    words: &[&'static str],
    bad: &mut Violations,
) -> Option<&'a str> {
    let given = object.text(field, bad)?;
    if words.contains(&given) {
        return Some(given);
    }
    let why = match near(given, words.iter().copied()) {
        Some(near) => format!("{given:?} is not known; did you mean {near}?"),
        None => format!("{given:?} is not known; use {}", words.join(" or ")),
    };
    bad.add(object.path(field), why);
    None
}

pub(super) fn backends(
    rule: &Object<'_>,
    kind: RouteKind,
    may_be_empty: bool,
    services: Services<'_>,
    bad: &mut Violations,
) -> Vec<BackendRef> {
    let refs = rule.list("backendRefs", bad);
    let lenient = matches!(services, Services::Cluster(_));
    if refs.is_empty() {
        match (may_be_empty, lenient) {
            (true, _) => return Vec::new(),
            (false, true) => return vec![BackendRef::nowhere("the rule has no backendRefs")],
            (false, false) => {
                bad.add(rule.path("backendRefs"), "is empty; name at least one backend");
                return Vec::new();
            }
        }
    }
    let mut weights = Vec::new();
    let mut backends = Vec::new();
    for (at, value) in &refs {
        let Some(object) = Object::open(value, at, bad) else { continue };
        object.check(&super::fields::BACKEND_REF, &[], bad);
        let target = target(&object, services, bad);
        let weight = match object.get("weight") {
            None => Some(1),
            Some(_) => object.integer("weight", bad),
        };
        let weight = weight.and_then(|w| bad.take(&object.path("weight"), Weight::try_from(w)));
        weights.extend(weight);
        let filters = filters(&object, Place { kind, of_rule: false }, services, bad);
        backends.extend(target.zip(weight).map(|(target, weight)| match target {
            Ok((service, version)) => {
                BackendRef { filters, ..BackendRef::new(service, version, weight) }
            }
            Err(why) => BackendRef { weight, ..BackendRef::nowhere(&why) },
        }));
    }
    if lenient && !backends.is_empty() && backends.iter().all(|b| b.weight.get() == 0) {
        return vec![BackendRef::nowhere("all weights of the rule's backendRefs are 0")];
    }
    if weights.len() == refs.len() && weights.iter().all(|weight| weight.get() == 0) {
        bad.add(rule.path("backendRefs"), "all weights are 0; at least one must be above 0");
    }
    backends
}

/// What a reference to a backend names. None only after noting why.
pub(super) fn target(
    object: &Object<'_>,
    services: Services<'_>,
    bad: &mut Violations,
) -> Option<Found> {
    match services {
        Services::Known(services) => {
            only(object, "group", &["", "core"], bad);
            only(object, "kind", &["Service"], bad);
            namespace(object, bad);
            port(object, bad);
            let name = object.required("name", bad)?;
            bad.take(&object.path("name"), services.resolve(name)).map(Ok)
        }
        Services::Cluster(backends) => {
            let group = object.text("group", bad).unwrap_or_default();
            let kind = object.text("kind", bad).unwrap_or("Service");
            let namespace = object.text("namespace", bad);
            port(object, bad);
            let port = object.integer("port", bad).and_then(|port| u16::try_from(port).ok());
            let name = object.required("name", bad)?;
            Some(backends.find(BackendReference { group, kind, namespace, name, port }))
        }
    }
}

fn only(object: &Object<'_>, field: &str, allowed: &[&str], bad: &mut Violations) {
    if let Some(given) = object.text(field, bad)
        && !allowed.contains(&given)
    {
        let why = format!("{given:?} is not supported yet; use {:?}", allowed[0]);
        bad.add(object.path(field), why);
    }
}
