//! The steps of a request after its rule is found, in the order of
//! [`crate::request::handler`].

use http::{Request, Version, request};
use weir_mesh::identity::SpiffeId;

use super::audience::{Claims, Known};
use super::doing::{self, Doing};
use super::tell::{Answer, Explanation, Redirected};
use super::upstream::{self, Ended};
use super::verdict::Verdict;
use super::{Asking, Caller, Compiled, act};
use crate::auth;
use crate::connection::Connected;
use crate::error::RouterError;
use crate::request::{canonical, headers};
use crate::table::{Action, Backend, Target};
use crate::upstream::Reach;
use weir_mesh::policy::filter::{AbortWith, Share};

impl Compiled {
    /// What a rule does with a request that it takes.
    pub(super) fn act(
        &self,
        told: &mut Explanation,
        connected: &Connected,
        asking: &Asking,
        request: &Request<()>,
        action: &Action,
    ) {
        let rule = self.rule(action);
        told.label = action.label.to_string();
        told.does = Doing::of(&self.table, connected, action, rule, request);
        let (mut parts, ()) = request.clone().into_parts();
        parts.version = Version::HTTP_2;
        headers::forwarded(&mut parts, connected);
        let claims = asking.claims.as_ref();
        let asked = auth::told::outgoing(&self.table, connected, action, &mut parts, claims);
        let are_verified = asked.as_ref().is_some_and(|asked| asked.tokens.is_some());
        let claims = match claims {
            Some(claims) if are_verified => Claims::Are(claims),
            None if are_verified => Claims::Unknown,
            _ => Claims::No,
        };
        let known = Known { headers: &parts.headers, claims };
        told.backends = act::backends(action, rule, &self.snapshot, known);
        if let Some(asked) = asked {
            let at = if asking.caller == Caller::Gateway { "gateway" } else { "caller" };
            told.verdicts.push(Verdict::of(at, &asked));
            told.answer = asked.refusal.as_ref().map(Answer::of);
        }
        if told.answer.is_none() {
            told.answer = fault(action);
        }
        if told.answer.is_none() {
            self.sent_on(told, connected, asking, request, action, (parts, claims));
        }
    }

    /// What CORS answers.
    pub(super) fn preflight(
        &self,
        told: &mut Explanation,
        connected: &Connected,
        request: &Request<()>,
        action: Option<&Action>,
    ) {
        told.preflight = true;
        match action {
            Some(action) => {
                told.label = action.label.to_string();
                let rule = self.rule(action);
                told.does = Doing::of(&self.table, connected, action, rule, request);
            }
            None => {
                told.does.cors = doing::of_mesh(&self.table, connected, request.headers());
            }
        }
    }

    fn sent_on(
        &self,
        told: &mut Explanation,
        connected: &Connected,
        asking: &Asking,
        request: &Request<()>,
        action: &Action,
        (parts, claims): (request::Parts, Claims<'_>),
    ) {
        let ended = |told: &mut Explanation, why: Ended| match why {
            Ended::Redirect(status, location) => {
                told.redirect = Some(Redirected { status, location });
            }
            Ended::Answer(answer) => told.answer = Some(answer),
        };
        if let Err(why) = upstream::redirect(action.filters.as_deref(), &parts) {
            return ended(told, why);
        }
        let known = Known { headers: &parts.headers, claims };
        let destination = act::destination(connected, action, known);
        told.gets = destination.and_then(|(target, version)| act::gets(target, version));
        let target = destination.map(|(target, _)| target).or_else(|| heaviest(action));
        let Some(target) = target else {
            if let Some(why) = invalid(action) {
                told.answer = Some(Answer::of(&why));
            }
            return;
        };
        let version = destination.and_then(|(_, version)| Some(version?.0));
        let before = request.headers();
        match upstream::of(connected, action, target, version, before, parts.clone()) {
            Ok((upstream, _)) => told.upstream = Some(upstream),
            Err(why) => ended(told, why),
        }
        for (i, target) in services(action, target).into_iter().enumerate() {
            let there = upstream::of(connected, action, target, None, before, parts.clone());
            if let Ok((_, there)) = there {
                self.at_service(told, asking, connected, (target, i == 0), there);
            }
        }
    }

    /// What the router of a service says of a request: its limits, and who may.
    fn at_service(
        &self,
        told: &mut Explanation,
        asking: &Asking,
        connected: &Connected,
        (target, is_chosen): (&Target, bool),
        mut parts: request::Parts,
    ) {
        let service = &target.service;
        let slashes = self.table.options.escaped_slashes;
        if let Ok(Some(uri)) = canonical::of(&parts.uri, false, slashes) {
            parts.uri = uri;
        }
        let endpoints = || service.versions.iter().flat_map(|version| &version.endpoints);
        let has_router =
            endpoints().next().is_none() || endpoints().any(|e| e.reach == Reach::Mesh);
        let request = Request::from_parts(parts.clone(), ());
        if has_router && let Some(limits) = self.table.inbound_limits.get(&service.name) {
            let limits = limits.iter().map(|l| doing::limit(l, service.name.as_str(), &request));
            told.does.limits.extend(limits);
        }
        let Some(guards) = &self.table.guards else { return };
        if !guards.asks_of(service.name.as_str()) {
            return;
        }
        let identity = match asking.caller {
            Caller::Gateway => {
                let own = SpiffeId::of_service(&self.snapshot.trust_domain, "gateway");
                own.map(|id| id.to_string()).unwrap_or_default()
            }
            Caller::Service(_) => connected.peer.to_string(),
        };
        let name = service.name.as_str();
        let asked = auth::told::incoming(guards, name, &identity, &parts, asking.claims.as_ref());
        if let Some(error) = asked.refusal.as_ref().filter(|_| asked.claims.is_empty())
            && let Some(upstream) = &mut told.upstream
            && is_chosen
        {
            upstream.notes.push(format!("refused there: {error}"));
        }
        told.verdicts.push(Verdict::of(name, &asked));
    }
}

/// The answer of a filter that answers every request.
fn fault(action: &Action) -> Option<Answer> {
    let faults =
        action.extensions.iter().filter_map(|entry| Some((entry, entry.filter.fault.as_ref()?)));
    for (entry, fault) in faults {
        let Some(abort) = fault.abort.as_ref().filter(|abort| abort.share == Share::ALL) else {
            continue;
        };
        let (status, grpc) = match abort.with {
            AbortWith::Http(status) => (status, crate::request::extension::grpc_of(status)),
            AbortWith::Grpc(code) => (weir_mesh::transcode::http_status(code.into()), code),
        };
        let error = RouterError::Injected { filter: entry.name.clone(), status, grpc };
        return Some(Answer::of(&error));
    }
    let direct = action.extensions.iter().find_map(|entry| {
        let direct = entry.filter.direct_response.as_ref()?;
        Some((&entry.name, direct.status))
    });
    direct.map(|(name, status)| Answer {
        status: status.as_u16(),
        grpc_status: crate::request::extension::grpc_of(status),
        flag: "",
        error: format!("HTTPRouteFilter {name} answers itself"),
    })
}

/// The backend that gets most; of those alike, the first.
fn heaviest(action: &Action) -> Option<&Target> {
    let weights = action.splitter.weights();
    let mut most: Option<(u32, &Target)> = None;
    for (backend, weight) in action.backends.iter().zip(weights) {
        if let Backend::Service(target) = backend
            && *weight > most.map_or(0, |(weight, _)| weight)
        {
            most = Some((*weight, target));
        }
    }
    most.map(|(_, target)| target)
}

/// A backend of each service, the chosen one first.
fn services<'a>(action: &'a Action, chosen: &'a Target) -> Vec<&'a Target> {
    let mut found: Vec<&Target> = vec![chosen];
    for backend in &action.backends {
        if let Backend::Service(target) = backend
            && !found.iter().any(|other| other.service.name == target.service.name)
        {
            found.push(target);
        }
    }
    found
}

/// Why no backend can be used.
fn invalid(action: &Action) -> Option<RouterError> {
    let why = action.backends.iter().find_map(|backend| match backend {
        Backend::Invalid(why) => Some(why.to_string()),
        Backend::Service(_) => None,
    });
    let why = why.unwrap_or_else(|| "the rule has no backends".to_owned());
    Some(RouterError::InvalidBackend(action.label.to_string(), why))
}
