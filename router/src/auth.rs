//! Who may: tokens, policies, and those who are asked about them.
//!
//! Policies are compiled into [`Guards`] with the table. [`outgoing`] guards what
//! enters by the gateway, and routes of the mesh; [`incoming`] guards a service,
//! at its own router. [`decide()`] is the decision itself, a pure function.
//!
//! A mesh without such policies has no guards: its requests are asked nothing.

mod active;
mod claims;
mod decide;
mod denial;
mod external;
mod guard;
mod keys;
mod rpc;
#[cfg(test)]
mod tests;
mod token;
pub mod told;

use std::borrow::Cow;
use std::rc::Rc;

use http::request;
use weir_mesh::policy::authorization::Mode;
use weir_mesh::transcode::Found;

pub use claims::VerifiedClaims;
pub use decide::{Decision, Finding, Scope, Subject, Why, claim_fits, decide};
pub use denial::{Denial, Unauthenticated};
pub use guard::{Guard, Guards, Memory};

use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::adapt::is_grpc;
use crate::request::call::Call;
use crate::request::target;
use crate::request::{filters, grpc_web};
use crate::table::{Action, Backend, ServiceEntry, Table};
use crate::worker::Worker;

/// Where a request is asked about.
struct Place<'a> {
    scope: Scope<'a>,
    guards: &'a Guards,
    connected: &'a Connected,
    /// Who sends it: a SPIFFE id, or empty.
    identity: &'a str,
    /// The service that is asked for, as far as it is known.
    service: &'a str,
    /// The gRPC methods that a JSON request may stand for.
    mapped: Vec<String>,
    /// A router asks this for its own policies: it has no token.
    asks_for_policy: bool,
}

/// The guards that a request must pass before it is sent on, if there are any.
pub fn concerned<'a>(
    table: &'a Table,
    connected: &Connected,
    action: Option<&Action>,
) -> Option<&'a Guards> {
    let guards = table.guards.as_deref()?;
    let guarded = action.is_some_and(|action| action.guard.is_some());
    (guarded || (connected.side == Side::Gateway && guards.ask_at_gateway())).then_some(guards)
}

/// Asks about a request that enters by the gateway, or takes a route of the mesh.
/// The headers that policies set are set: after `headers::forwarded`, or what
/// `Connection` names could take them away again.
///
/// # Errors
/// [`RouterError::Unauthenticated`], [`RouterError::Denied`].
pub async fn outgoing(
    worker: &Rc<Worker>,
    connected: &Connected,
    guards: &Guards,
    action: Option<&Action>,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let gateway = connected.side == Side::Gateway;
    let held = held(guards, action, gateway);
    let mapped = mapped_by(&held, action, parts);
    let service = match action.map(|action| action.backends.as_slice()) {
        Some([Backend::Service(only)]) => only.service.name.as_str(),
        _ => "",
    };
    let scope = Scope {
        guards: &held,
        trust_domain: &guards.trust_domain,
        deny_by_default: gateway && guards.deny_by_default,
    };
    let identity = &*connected.peer;
    let asks_for_policy = false;
    let place = Place { scope, guards, connected, identity, service, mapped, asks_for_policy };
    pass(worker, &place, parts, call).await
}

/// What guards a request before it is sent on: its rule's own, then the gateway's.
fn held<'a>(guards: &'a Guards, action: Option<&'a Action>, gateway: bool) -> Vec<&'a Guard> {
    let route = action.and_then(|action| action.guard.as_deref());
    route.into_iter().chain(gateway.then_some(&guards.gateway)).collect()
}

/// The gRPC methods that a JSON request may become, by the rule's backends, if one
/// of these asks for it.
fn mapped_by(held: &[&Guard], action: Option<&Action>, parts: &request::Parts) -> Vec<String> {
    let is_http = !is_grpc(&parts.headers) && grpc_web::Encoding::of(&parts.headers).is_none();
    match action {
        Some(action) if is_http && held.iter().any(|guard| guard.asks_grpc) => {
            mapped(action, parts)
        }
        _ => Vec::new(),
    }
}

/// Asks about a request to `service` by the policies that are attached to it.
/// `identity` is who sends it.
///
/// # Errors
/// [`RouterError::Unauthenticated`], [`RouterError::Denied`].
pub async fn incoming(
    worker: &Rc<Worker>,
    connected: &Connected,
    guards: &Guards,
    service: &str,
    identity: &str,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let held = [guards.of_service(service)];
    let scope = Scope {
        guards: &held,
        trust_domain: &guards.trust_domain,
        deny_by_default: guards.deny_by_default,
    };
    let asks_for_policy = guards.asks_for_policy(service, parts.uri.path());
    let mapped = Vec::new();
    let place = Place { scope, guards, connected, identity, service, mapped, asks_for_policy };
    pass(worker, &place, parts, call).await
}

/// The guards of a service some of whose instances no router stands before: their
/// caller's router asks in their place, with its own identity, which theirs would
/// have seen.
#[must_use]
pub fn in_place_of<'a>(table: &'a Table, service: &ServiceEntry) -> Option<&'a Guards> {
    let guards = table.guards.as_deref()?;
    guards.has_plain(&service.name).then_some(guards)
}

/// Asks in place of a service's routers: see [`in_place_of`].
///
/// # Errors
/// As [`incoming`].
pub async fn stand_in(
    worker: &Rc<Worker>,
    connected: &Connected,
    guards: &Guards,
    service: &ServiceEntry,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let own = own_identity(worker);
    incoming(worker, connected, guards, service.name.as_str(), &own, parts, call).await
}

/// Asks about a connection of bytes to a service, of which only is known who makes
/// it.
///
/// # Errors
/// Which policy denies it, and whom.
pub fn connection(
    worker: &Rc<Worker>,
    table: &Table,
    service: &str,
    identity: &str,
) -> Result<(), String> {
    let Some(guards) = table.guards.as_deref() else { return Ok(()) };
    let decision = guards.decide_tcp(identity, service);
    let tell = |finding: &Finding, mode| {
        denied(worker, service, finding, mode);
        Denial::by_policy(finding, identity, false).full
    };
    if let Some(finding) = &decision.audited {
        tracing::info!("audit: {}", tell(finding, Mode::Audit));
    }
    if !decision.allowed {
        return Err(tell(&decision.finding(), Mode::Enforce));
    }
    if guards.must_ask_elsewhere(service) {
        return Err("an AuthorizationPolicy asks elsewhere about requests to this service, and \
                    nobody can be asked about bytes; attach it to routes instead"
            .to_owned());
    }
    Ok(())
}

/// Who this router is: what the routers of others would see.
#[must_use]
pub fn own_identity(worker: &Worker) -> String {
    let own = worker.shared.identity.current();
    own.map(|(svid, _)| svid.id().to_string()).unwrap_or_default()
}

/// Tokens first, then policies, then those who decide elsewhere.
async fn pass(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    parts: &mut request::Parts,
    call: &mut Call,
) -> Result<(), RouterError> {
    let authentication = place.scope.guards.iter().find_map(|guard| guard.authentication.as_ref());
    let claims = match authentication {
        None => parts.extensions.get::<VerifiedClaims>().cloned(),
        Some(authentication) => {
            for name in authentication.policy.headers() {
                parts.headers.remove(name);
            }
            let required = authentication.policy.required && !place.asks_for_policy;
            let verified = token::check(worker, authentication, required, parts, call).await;
            verified.inspect_err(|error| count(worker, place, &authentication.name, error))?
        }
    };
    let mut host = Cow::Borrowed(target::host_of(&parts.uri, &parts.headers).unwrap_or_default());
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        host = Cow::Owned(host.to_ascii_lowercase());
    }
    let subject = Subject {
        identity: place.identity,
        host: &host,
        path: parts.uri.path(),
        grpc: parts.uri.path(),
        method: &parts.method,
        headers: &parts.headers,
        claims: claims.as_ref().map(|claims| &*claims.0),
    };
    let decision = decide_all(&place.scope, &subject, &place.mapped);
    if let Some(finding) = &decision.audited {
        audit(worker, place, finding, call);
    }
    if !decision.allowed {
        let finding = decision.finding();
        denied(worker, place.service, &finding, Mode::Enforce);
        call.explain("weir.authorization.policy", finding.policy_name());
        return Err(Denial::by_policy(&finding, place.identity, place.guards.hide_policies).into());
    }
    for external in place.scope.externals(&subject) {
        // Who decides is not asked about being asked.
        if place.asks_for_policy && external.1.service.as_str() == place.service {
            continue;
        }
        external::ask(worker, place, &external, parts, call).await?;
    }
    if let Some(claims) = claims {
        parts.extensions.insert(claims);
    }
    Ok(())
}

/// What is decided of a request that may become any of these gRPC methods: none of
/// them may be denied.
fn decide_all(scope: &Scope<'_>, subject: &Subject<'_>, mapped: &[String]) -> Decision {
    let each = |method: &String| decide(scope, &Subject { grpc: method, ..*subject });
    let decided = mapped.iter().map(each);
    let worst = decided.min_by_key(|decision| (decision.allowed, decision.audited.is_none()));
    worst.unwrap_or_else(|| decide(scope, subject))
}

fn audit(worker: &Rc<Worker>, place: &Place<'_>, finding: &Finding, call: &mut Call) {
    denied(worker, place.service, finding, Mode::Audit);
    call.audited(format!("would be denied: {finding}; it is {}", who(place.identity)));
}

fn who(identity: &str) -> &str {
    if identity.is_empty() { "without an identity" } else { identity }
}

/// Counts a denial. There are as many counters as policies and services.
fn denied(worker: &Rc<Worker>, service: &str, finding: &Finding, mode: Mode) {
    let mode = match mode {
        Mode::Enforce => "enforce",
        Mode::Audit => "audit",
    };
    let policy = finding.policy_name();
    let labels = [("weir_policy", &*policy), ("mode", mode), ("weir_service", service)];
    let help = "Requests that an AuthorizationPolicy denied, or would deny (audit).";
    let registry = worker.shared.metrics.registry();
    registry.counter("weir.router.authorization.denied", help, "", &labels).inc();
}

fn count(worker: &Rc<Worker>, place: &Place<'_>, policy: &str, error: &RouterError) {
    let why = match error {
        RouterError::Unauthenticated(refused) => refused.reason,
        _ => "other",
    };
    let labels = [("weir_policy", policy), ("reason", why), ("weir_service", place.service)];
    let help = "Requests that an AuthenticationPolicy refused.";
    let registry = worker.shared.metrics.registry();
    registry.counter("weir.router.authentication.refused", help, "", &labels).inc();
}

/// The same, each once: of the request as the rule's filters leave it.
fn mapped(action: &Action, parts: &request::Parts) -> Vec<String> {
    let mut methods = Vec::new();
    for backend in &action.backends {
        let Backend::Service(target) = backend else { continue };
        let Some(transcoder) = &target.service.transcoder else { continue };
        let mut parts = parts.clone();
        filters::request(action.filters.as_deref(), &mut parts);
        filters::request(target.filters.as_deref(), &mut parts);
        if let Found::Call(call) = transcoder.find(&parts.method, parts.uri.path()) {
            let method = call.grpc_path().to_owned();
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
    }
    methods
}
