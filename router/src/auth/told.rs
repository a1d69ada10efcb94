//! What policies would say of a request that nobody sent: for explanations.

use std::sync::Arc;

use http::{HeaderName, header, request};
use serde_json::{Map, Value};

use super::decide::{Decision, Scope, Subject};
use super::denial::{Denial, Unauthenticated};
use super::guard::{Guard, Guards, Tokens};
use super::{concerned, decide_all, held, mapped_by};
use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::{choose, target};
use crate::table::{Action, Table};

/// What would be said at one place.
pub struct Told {
    /// Whom the request would come from: a SPIFFE id, or empty.
    pub identity: String,
    /// What is decided.
    pub decision: Decision,
    /// What it would be answered; none: it may go on.
    pub refusal: Option<RouterError>,
    /// Claims that rules ask for which would take the request otherwise: empty
    /// when claims were given, or when they change nothing.
    pub claims: Vec<Arc<str>>,
    /// The policy that says whose tokens are believed there.
    pub tokens: Option<TokensTold>,
    /// Policies by which another service is asked.
    pub external: Vec<Arc<str>>,
}

/// An AuthenticationPolicy.
pub struct TokensTold {
    /// Its name.
    pub policy: Arc<str>,
    /// Whether there must be a token.
    pub required: bool,
    /// Whose tokens.
    pub issuers: Vec<Arc<str>>,
    /// What is set from claims.
    pub headers: Vec<HeaderName>,
    /// Whether each issuer's token is passed on.
    pub forward: bool,
}

/// At the gateway, or where a route of the mesh begins; none: nobody is asked.
/// `parts` is the request as it would be then; headers that only claims set are
/// taken away from it.
pub fn outgoing(
    table: &Table,
    connected: &Connected,
    action: &Action,
    parts: &mut request::Parts,
    claims: Option<&Map<String, Value>>,
) -> Option<Told> {
    let guards = concerned(table, connected, Some(action))?;
    let gateway = connected.side == Side::Gateway;
    let guard_list = held(guards, Some(action), gateway);
    let mapped = mapped_by(&guard_list, Some(action), parts);
    let scope = Scope {
        guards: &guard_list,
        trust_domain: &guards.trust_domain,
        deny_by_default: gateway && guards.deny_by_default,
    };
    Some(told(&scope, &connected.peer, &mapped, parts, claims))
}

/// At the router of a service.
pub fn incoming(
    guards: &Guards,
    service: &str,
    identity: &str,
    parts: &request::Parts,
    claims: Option<&Map<String, Value>>,
) -> Told {
    let guard_list = [guards.of_service(service)];
    let scope = Scope {
        guards: &guard_list,
        trust_domain: &guards.trust_domain,
        deny_by_default: guards.deny_by_default,
    };
    // Without a policy about tokens nothing there knows of claims.
    let knows = guard_list[0].authentication.is_some();
    told(&scope, identity, &[], parts, claims.filter(|_| knows))
}

fn told(
    scope: &Scope<'_>,
    identity: &str,
    mapped: &[String],
    parts: &request::Parts,
    claims: Option<&Map<String, Value>>,
) -> Told {
    let host = target::host_of(&parts.uri, &parts.headers).unwrap_or_default().to_ascii_lowercase();
    let subject = Subject {
        identity,
        host: &host,
        path: parts.uri.path(),
        grpc: parts.uri.path(),
        method: &parts.method,
        headers: &parts.headers,
        claims,
    };
    let tokens = scope.guards.iter().find_map(|guard: &&Guard| guard.authentication.as_ref());
    let unknown = claims.is_none() && tokens.is_some();
    let decision = decide_all(scope, &subject, mapped);
    let missing = claims.is_none()
        && tokens.is_some_and(|tokens| tokens.policy.required && !has_token(tokens, parts));
    let refusal = match decision.allowed {
        _ if missing => {
            let text = "no token: send Authorization: Bearer TOKEN".to_owned();
            Some(Unauthenticated { reason: "missing", text, sent: false }.into())
        }
        true => None,
        // Whoever asks here may know what a client may not.
        false => Some(Denial::by_policy(&decision.finding(), identity, false).into()),
    };
    Told {
        identity: identity.to_owned(),
        decision,
        refusal,
        claims: if unknown { scope.claims(&subject) } else { Vec::new() },
        tokens: tokens.map(of_tokens),
        external: scope.externals(&subject).into_iter().map(|(name, ..)| name).collect(),
    }
}

/// Whether a request seems to have a token; it is not looked at.
fn has_token(tokens: &Tokens, parts: &request::Parts) -> bool {
    let cookie = tokens.policy.cookie.as_deref();
    parts.headers.contains_key(header::AUTHORIZATION)
        || cookie.is_some_and(|name| choose::cookie(&parts.headers, name).is_some())
}

fn of_tokens(tokens: &Tokens) -> TokensTold {
    let policy = &tokens.policy;
    TokensTold {
        policy: tokens.name.clone(),
        required: policy.required,
        issuers: policy.issuers.iter().map(|issuer| issuer.rules.issuer.clone()).collect(),
        headers: policy.headers().cloned().collect(),
        forward: policy.issuers.iter().all(|issuer| issuer.forward),
    }
}
