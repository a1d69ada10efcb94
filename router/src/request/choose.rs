//! Backend and version: what the request forces, what its chain of calls or its
//! session has, and else by weight.

use std::fmt::Write as _;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header, request};
use weir_mesh::model::{ForceVersion, Sticky};

use super::session::{self, Held};
use super::{audience, baggage};
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::table::{Action, Backend, Rare, Target, point};
use crate::worker::Worker;

/// The backend that a request goes to.
pub struct Picked<'a> {
    /// Of the rule.
    pub backend: &'a Target,
    /// An index into its service's versions, when something but weight chose it.
    version: Option<usize>,
    /// The request named the version itself.
    forced: bool,
    /// What chose it.
    held: Option<Held>,
    /// The chain of calls has versions.
    pinned: bool,
    rare: Option<&'a Rare>,
}

/// The version that a request goes to.
pub struct Choice {
    /// Index into the service's versions.
    pub version: usize,
    /// False when the route names the version: then no other may answer.
    pub may_fall_over: bool,
    cookie: Option<HeaderValue>,
    /// Few have one, and all carry a choice across an await.
    session: Option<Box<(HeaderName, HeaderValue)>>,
}

impl Choice {
    /// Of a version that was chosen by something else.
    #[must_use]
    pub fn of(version: usize, may_fall_over: bool) -> Self {
        Self { version, may_fall_over, cookie: None, session: None }
    }
}

/// The rule's backend for the next request with these headers.
///
/// # Errors
/// [`RouterError::InvalidBackend`] when it is the turn of one that cannot be used.
pub fn backend<'a>(
    worker: &Rc<Worker>,
    connected: &Connected,
    action: &'a Action,
    headers: &HeaderMap,
) -> Result<Picked<'a>, RouterError> {
    let rare = action.rare.as_deref();
    // The outside's own baggage says nothing of versions.
    let pinned =
        connected.side != Side::Gateway && has_choice(action) && baggage::is_pinned(headers);
    if (rare.is_some() || pinned)
        && let Some(picked) = wanted(action, headers, pinned)
    {
        return Ok(picked);
    }
    let index = match action.backends.len() {
        0 | 1 => 0,
        _ => worker.next_of(&action.splitter),
    };
    let invalid = |why: &str| RouterError::InvalidBackend(action.label.to_string(), why.to_owned());
    match action.backends.get(index) {
        Some(Backend::Service(backend)) => {
            Ok(Picked { backend, version: None, forced: false, held: None, pinned, rare })
        }
        Some(Backend::Invalid(why)) => Err(invalid(why)),
        None => Err(invalid("the rule has no backends")),
    }
}

/// What of a request decides its version, where its weight does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// It names one.
    Force,
    /// Its chain of calls has one.
    Pin,
    /// Its session has one.
    Session,
}

/// The version (an index) that a request asks for itself: what [`backend`] finds
/// before it divides by weight.
pub fn asked<'a>(
    connected: &Connected,
    action: &'a Action,
    headers: &HeaderMap,
) -> Option<(&'a Target, usize, By)> {
    let pinned =
        connected.side != Side::Gateway && has_choice(action) && baggage::is_pinned(headers);
    let picked = wanted(action, headers, pinned)?;
    let by = match (picked.forced, picked.held) {
        (true, _) => By::Force,
        (false, Some(_)) => By::Session,
        (false, None) => By::Pin,
    };
    Some((picked.backend, picked.version?, by))
}

/// Whether there is anything to pin.
fn has_choice(action: &Action) -> bool {
    match action.backends.as_slice() {
        [Backend::Service(one)] => one.version.is_none() && one.service.versions.len() > 1,
        all => all.len() > 1,
    }
}

/// What a request asks for itself: a forced version wins over what its chain of
/// calls has, and that over its session.
fn wanted<'a>(action: &'a Action, headers: &HeaderMap, pinned: bool) -> Option<Picked<'a>> {
    let rare = action.rare.as_deref();
    let pick = |(backend, version), forced, held| Picked {
        backend,
        version: Some(version),
        forced,
        held,
        pinned,
        rare,
    };
    let force = rare.and_then(|rare| rare.force.as_ref()).and_then(|force| match force {
        ForceVersion::Header(name) => headers.get(name)?.to_str().ok(),
        ForceVersion::Cookie(name) => cookie(headers, name),
    });
    if let Some(name) = force
        && let Some(found) =
            versions(action).find(|(_, b, v)| b.service.versions[*v].name.as_str() == name)
    {
        return Some(pick((found.1, found.2), true, None));
    }
    if pinned {
        let found = versions(action).find(|(_, backend, version)| {
            let entry = &backend.service.versions[*version];
            entry.is_up()
                && baggage::version(headers, &backend.service.name)
                    .is_some_and(|name| name == entry.name.as_str())
        });
        if let Some((_, backend, version)) = found {
            return Some(pick((backend, version), false, None));
        }
    }
    let held = session::find(rare?.session.as_ref()?, headers)?;
    let found = versions(action).find(|(weight, backend, version)| {
        let entry = &backend.service.versions[*version];
        // Of a backend that is the service, the version's own weight counts too.
        let gets = *weight > 0 && (backend.version.is_some() || entry.weight > 0);
        gets && entry.is_up() && session::id(&backend.service, *version) == held.id
    });
    found.map(|(_, backend, version)| pick((backend, version), false, Some(held)))
}

/// Every version that a rule can send to, with the weight of its backend; those
/// that the rule names come first.
fn versions(action: &Action) -> impl Iterator<Item = (u32, &Target, usize)> {
    let targets = || {
        let pairs = action.backends.iter().zip(action.splitter.weights());
        pairs.filter_map(|(backend, weight)| match backend {
            Backend::Service(target) => Some((*weight, target)),
            Backend::Invalid(_) => None,
        })
    };
    let named = targets().filter_map(|(weight, t)| Some((weight, t, t.version?)));
    let split = targets().filter(|(_, t)| t.version.is_none());
    named.chain(split.flat_map(|(weight, t)| {
        (0..t.service.versions.len()).map(move |version| (weight, t, version))
    }))
}

/// The version for a request. Where its chain of calls is pinned, its headers tell
/// the next ones.
pub fn version(
    worker: &Rc<Worker>,
    connected: &Connected,
    picked: &Picked<'_>,
    parts: &mut request::Parts,
) -> Choice {
    let service = &picked.backend.service;
    let audience = by_audience(picked, parts);
    let mut choice = match audience {
        Some(version) => Choice::of(version, true),
        None => by_weight(worker, picked, &parts.headers),
    };
    // What an audience gets is not the client's to keep; a seat that it has is.
    if let Some(session) = picked.rare.and_then(|rare| rare.session.as_ref())
        && !picked.forced
        && (audience.is_none() || picked.held.is_some())
    {
        let id = session::id(service, choice.version);
        choice.session = session::renew(session, picked.held, id).map(Box::new);
    }
    let begins = connected.side == Side::Gateway && picked.rare.is_some_and(|rare| rare.pin);
    if begins || picked.pinned {
        let version = service.versions[choice.version].name.as_str();
        baggage::carry(&mut parts.headers, &service.name, version);
    }
    choice
}

/// The version of the audience that a request is of: where neither the request nor
/// its chain of calls nor the route names another.
fn by_audience(picked: &Picked<'_>, parts: &request::Parts) -> Option<usize> {
    let is_named = picked.version.is_some() && picked.held.is_none();
    if is_named || picked.backend.version.is_some() {
        return None;
    }
    audience::version(&picked.backend.service, parts)
}

fn by_weight(worker: &Rc<Worker>, picked: &Picked<'_>, headers: &HeaderMap) -> Choice {
    let backend = picked.backend;
    let service = &backend.service;
    let choice =
        |version, may_fall_over| Choice { version, may_fall_over, cookie: None, session: None };
    if let Some(version) = picked.version {
        return choice(version, !picked.forced && backend.version.is_none());
    }
    if let Some(version) = backend.version {
        return choice(version, false);
    }
    let sticky = service.sticky.as_ref();
    let (place, cookie) = match sticky.map(|sticky| (sticky, key(sticky, headers))) {
        None => (None, None),
        Some((_, Some(place))) => (Some(place), None),
        Some((Sticky::Cookie(name), None)) => {
            let value = format!("{:016x}", fastrand::u64(..));
            (Some(point(value.as_bytes())), set_cookie(name, &value))
        }
        Some((_, None)) => (None, None),
    };
    let version = match place {
        Some(place) => service.splitter.sticky(place),
        None if service.versions.len() == 1 => 0,
        None => worker.next_of(&service.splitter),
    };
    Choice { cookie, ..choice(version, true) }
}

impl Choice {
    /// Adds what the client is known by from now on.
    pub fn set_cookie<B>(self, response: &mut Response<B>) {
        if let Some(cookie) = self.cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        if let Some(session) = self.session {
            let (name, value) = *session;
            match name == header::SET_COOKIE {
                true => drop(response.headers_mut().append(name, value)),
                false => drop(response.headers_mut().insert(name, value)),
            }
        }
    }
}

/// The place on the line of whoever sent this, if they can be told apart.
pub fn key(sticky: &Sticky, headers: &HeaderMap) -> Option<u64> {
    match sticky {
        Sticky::Header(name) => headers.get(name).map(|value| point(value.as_bytes())),
        Sticky::Cookie(name) => cookie(headers, name).map(|value| point(value.as_bytes())),
        Sticky::User => subject(headers).map(|subject| point(subject.as_bytes())),
    }
}

/// The value of a cookie (RFC 6265).
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    // HTTP/2 may send one header for each cookie (RFC 9113 §8.2.3).
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn set_cookie(name: &str, value: &str) -> Option<HeaderValue> {
    let mut text = String::with_capacity(name.len() + 64);
    write!(text, "{name}={value}; Path=/; HttpOnly; SameSite=Lax").ok()?;
    text.parse().ok()
}

/// The `sub` claim of the bearer token (RFC 7519 §4.1.2), not verified.
pub(super) fn subject(headers: &HeaderMap) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        sub: String,
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice::<Claims>(&payload).ok().map(|claims| claims.sub)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_mesh::wire;
    use weir_proto::weir::mesh::v1 as pb;

    use super::*;
    use crate::table::{Builder, Table};

    /// A service of versions with these weights, and a rule for everything with
    /// `backends` and sessions.
    fn table(weights: &[i32], backends: Vec<pb::BackendRef>) -> Table {
        let message = message(weights, backends);
        Builder::default().build(&wire::snapshot(&message).unwrap()).unwrap()
    }

    fn message(weights: &[i32], backends: Vec<pb::BackendRef>) -> pb::Snapshot {
        let names = (1..).map(|n| format!("v{n}"));
        let versions = names.clone().zip(weights).map(|(version, weight)| pb::VersionWeight {
            version,
            weight: *weight,
            addresses: vec![],
        });
        let instances = names.zip(weights).map(|(version, _)| pb::Instance {
            id: format!("web-{version}"),
            service: "web".into(),
            version,
            address: "127.0.0.1:9".into(),
            healthy: true,
            ..Default::default()
        });
        let session = pb::SessionPersistence { session_name: "s".into(), ..Default::default() };
        let route = pb::Route {
            name: "web".into(),
            parent_refs: vec![pb::ParentRef {
                kind: "Gateway".into(),
                name: "gateway".into(),
                ..Default::default()
            }],
            rules: vec![pb::RouteRule {
                backend_refs: backends,
                session_persistence: Some(session),
                ..Default::default()
            }],
            force_version: Some(pb::ForceVersion {
                by: Some(pb::force_version::By::Header("x-want".into())),
            }),
            ..Default::default()
        };
        pb::Snapshot {
            trust_domain: "weir.local".into(),
            services: vec![pb::Service {
                name: "web".into(),
                protocol: pb::Protocol::Http1.into(),
                versions: versions.collect(),
                ..Default::default()
            }],
            instances: instances.collect(),
            routes: vec![route],
            ..Default::default()
        }
    }

    fn backend_ref(version: &str, weight: i32) -> pb::BackendRef {
        let version = version.into();
        pb::BackendRef { service: "web".into(), version, weight, ..Default::default() }
    }

    fn action(table: &Table) -> &Action {
        let query = crate::table::Query {
            host: "x",
            path: "/",
            query: None,
            method: &http::Method::GET,
            headers: &HeaderMap::new(),
        };
        table.gateway.find(&query).unwrap()
    }

    /// What a client of the version holds.
    fn seat(table: &Table, version: usize) -> HeaderMap {
        let action = action(table);
        let session = action.rare.as_ref().unwrap().session.as_ref().unwrap();
        let id = session::id(&table.services["web"].service, version);
        let (_, cookie) = session::renew(session, None, id).unwrap();
        let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    fn chosen(table: &Table, headers: &HeaderMap, pinned: bool) -> Option<usize> {
        wanted(action(table), headers, pinned)?.version
    }

    #[test]
    fn no_session_leads_where_no_requests_go() {
        let named = || vec![backend_ref("v1", 1), backend_ref("v2", 0)];
        let table = table(&[1, 1, 1], named());
        assert_eq!(chosen(&table, &seat(&table, 0), false), Some(0));
        assert_eq!(chosen(&table, &seat(&table, 1), false), None, "its backend has weight 0");
        assert_eq!(chosen(&table, &seat(&table, 2), false), None, "it is not of the rule");
        let table = self::table(&[1, 0], vec![backend_ref("", 1)]);
        assert_eq!(chosen(&table, &seat(&table, 1), false), None, "it has weight 0");
    }

    #[test]
    fn forced_goes_before_pinned_and_that_before_a_session() {
        let table = table(&[1, 1, 0], vec![backend_ref("", 1)]);
        let mut headers = seat(&table, 0);
        assert_eq!(chosen(&table, &headers, false), Some(0));
        headers.insert(baggage::BAGGAGE, HeaderValue::from_static("weir.version=web:v2"));
        assert_eq!(chosen(&table, &headers, false), Some(0), "at the gateway it says nothing");
        assert_eq!(chosen(&table, &headers, true), Some(1));
        headers.insert("x-want", HeaderValue::from_static("v3"));
        assert_eq!(chosen(&table, &headers, true), Some(2));
        headers.insert("x-want", HeaderValue::from_static("v9"));
        assert_eq!(chosen(&table, &headers, true), Some(1), "there is no v9");
    }

    proptest! {
        #[test]
        fn a_session_stays_while_its_version_gets_anything(
            steps in prop::collection::vec(prop::collection::vec(0..100i32, 3), 1..10),
            version in 0..3usize, by_name in any::<bool>(),
        ) {
            for weights in steps {
                if weights.iter().all(|weight| *weight == 0) {
                    continue;
                }
                let backends = || match by_name {
                    true => (1..).zip(&weights).map(|(n, w)| backend_ref(&format!("v{n}"), *w)).collect(),
                    false => vec![backend_ref("", 1)],
                };
                let table = match by_name {
                    true => table(&[1, 1, 1], backends()),
                    false => table(&weights, backends()),
                };
                let found = chosen(&table, &seat(&table, version), false);
                prop_assert_eq!(found, (weights[version] > 0).then_some(version));
            }
        }
    }

    #[test]
    fn a_user_is_the_subject_of_the_token() {
        let mut headers = HeaderMap::new();
        assert_eq!(subject(&headers), None);
        let token =
            format!("Bearer e30.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"sub":"u-7","exp":1}"#));
        headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        assert_eq!(subject(&headers).unwrap(), "u-7");
        headers.insert(header::AUTHORIZATION, "Bearer opaque".parse().unwrap());
        assert_eq!(subject(&headers), None);
    }

    #[test]
    fn a_cookie_is_found_among_others_and_in_several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "a=1; weir=xyz".parse().unwrap());
        headers.append(header::COOKIE, "b=2".parse().unwrap());
        assert_eq!(cookie(&headers, "weir"), Some("xyz"));
        assert_eq!(cookie(&headers, "b"), Some("2"));
        assert_eq!(cookie(&headers, "c"), None);
    }

    #[test]
    fn an_audience_goes_before_a_session_and_after_what_is_named() {
        let mut message = message(&[1, 0, 0], vec![backend_ref("", 1)]);
        let headers = [("x-beta".to_owned(), "yes".to_owned())].into();
        let by = pb::audience::By::Headers(pb::HeaderAudience { headers });
        message.services[0].audiences = vec![pb::Audience { by: Some(by), version: "v3".into() }];
        let table = Builder::default().build(&wire::snapshot(&message).unwrap()).unwrap();
        let chosen = |headers: &HeaderMap| {
            let action = action(&table);
            let picked = wanted(action, headers, false).unwrap_or_else(|| {
                let Some(Backend::Service(backend)) = action.backends.first() else {
                    panic!("no backend")
                };
                let (version, forced, held, pinned, rare) = (None, false, None, false, None);
                Picked { backend, version, forced, held, pinned, rare }
            });
            let mut request = http::Request::builder();
            request.headers_mut().unwrap().clone_from(headers);
            by_audience(&picked, &request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(chosen(&HeaderMap::new()), None);
        let mut headers = seat(&table, 0);
        assert_eq!(chosen(&headers), None);
        headers.insert("x-beta", HeaderValue::from_static("yes"));
        assert_eq!(chosen(&headers), Some(2));
        headers.insert("x-want", HeaderValue::from_static("v2"));
        assert_eq!(chosen(&headers), None, "the request names another");
    }
}
