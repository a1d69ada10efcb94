//! The decision: pure, so that it can be explained without a request.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use weir_mesh::policy::authorization::{
    ClaimMatch, External, HeaderMatch, Mode, PathPattern, Rule, To,
};

use super::claims;
use super::guard::{Guard, Held};

/// What policies are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Who sends it, by certificate: a SPIFFE id, or empty.
    pub identity: &'a str,
    /// Lower-case, without port.
    pub host: &'a str,
    /// In canonical form.
    pub path: &'a str,
    /// The gRPC method: the path, or what JSON at that path becomes.
    pub grpc: &'a str,
    /// Method.
    pub method: &'a Method,
    /// Headers.
    pub headers: &'a HeaderMap,
    /// Of a verified token.
    pub claims: Option<&'a Map<String, Value>>,
}

/// By what is decided.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// All that applies.
    pub guards: &'a [&'a Guard],
    /// The mesh's.
    pub trust_domain: &'a str,
    /// What nobody decides is denied.
    pub deny_by_default: bool,
}

/// Why it was decided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A rule of an Allow took it.
    Allowed,
    /// A rule of a Deny took it.
    Denied,
    /// There is an Allow, and no rule of one took it.
    NotAllowed,
    /// Nothing takes it: the mesh's default.
    Default,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may go on.
    pub allowed: bool,
    /// The policy that decided; of several Allows that took nothing, the first.
    pub policy: Option<Arc<str>>,
    /// The rule that decided.
    pub rule: Option<Arc<str>>,
    /// Why.
    pub why: Why,
    /// What would have been denied if policies in audit mode were carried out.
    pub audited: Option<Finding>,
}

/// A denial, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    policy: Option<Arc<str>>,
    rule: Option<Arc<str>>,
    why: Why,
}

impl Finding {
    /// `default` when no policy decided.
    pub fn policy_name(&self) -> String {
        self.policy.as_deref().unwrap_or("default").to_owned()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = self.policy.as_deref().unwrap_or_default();
        match (self.why, &self.rule) {
            (Why::Denied, Some(rule)) => write!(f, "AuthorizationPolicy {policy}, rule {rule}"),
            (Why::NotAllowed, _) => write!(f, "no rule of AuthorizationPolicy {policy} allows it"),
            (Why::Allowed, Some(rule)) => write!(f, "AuthorizationPolicy {policy}, rule {rule}"),
            _ => f.write_str("no AuthorizationPolicy allows it, and the mesh denies by default"),
        }
    }
}

impl Decision {
    /// What decided.
    #[must_use]
    pub fn finding(&self) -> Finding {
        Finding { policy: self.policy.clone(), rule: self.rule.clone(), why: self.why }
    }
}

/// Whether a request may go on: any Deny that takes it denies it; if there is an
/// Allow, one must take it; else the default decides.
#[must_use]
pub fn decide(scope: &Scope<'_>, subject: &Subject<'_>) -> Decision {
    decide_by(scope, &|held, rule| takes(rule, subject, scope.trust_domain, held == Effect::Deny))
}

/// Whether a connection of bytes may go on. Only identities are known then: an
/// Allow that asks for more takes nothing, and a Deny that asks for more takes
/// what its identities say.
#[must_use]
pub fn decide_tcp(scope: &Scope<'_>, identity: &str) -> Decision {
    decide_by(scope, &|effect, rule| {
        (effect == Effect::Deny || rule.is_identity_only())
            && from_fits(rule, identity, scope.trust_domain)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

type Takes<'a> = &'a dyn Fn(Effect, &Rule) -> bool;

fn decide_by(scope: &Scope<'_>, takes: Takes<'_>) -> Decision {
    let (allowed, finding) = verdict(scope, takes, false);
    let audited = (allowed && scope.guards.iter().any(|guard| guard.audits))
        .then(|| verdict(scope, takes, true))
        .and_then(|(allowed, finding)| (!allowed).then_some(finding));
    let Finding { policy, rule, why } = finding;
    Decision { allowed, policy, rule, why, audited }
}

fn verdict(scope: &Scope<'_>, takes: Takes<'_>, audit: bool) -> (bool, Finding) {
    let counts = |held: &&Held| audit || held.policy.mode == Mode::Enforce;
    let by = |held: &Held, rule: &Rule, why| Finding {
        policy: Some(held.name.clone()),
        rule: Some(rule.name.clone()),
        why,
    };
    let denies = scope.guards.iter().flat_map(|guard| &guard.deny).filter(counts);
    for held in denies {
        if let Some(rule) = held.policy.rules.iter().find(|rule| takes(Effect::Deny, rule)) {
            return (false, by(held, rule, Why::Denied));
        }
    }
    let mut first = None;
    let allows = scope.guards.iter().flat_map(|guard| &guard.allow).filter(counts);
    for held in allows {
        if let Some(rule) = held.policy.rules.iter().find(|rule| takes(Effect::Allow, rule)) {
            return (true, by(held, rule, Why::Allowed));
        }
        first.get_or_insert_with(|| held.name.clone());
    }
    match first {
        Some(policy) => (false, Finding { policy: Some(policy), rule: None, why: Why::NotAllowed }),
        None => (!scope.deny_by_default, Finding { policy: None, rule: None, why: Why::Default }),
    }
}

impl<'a> Scope<'a> {
    /// Who else must be asked about a request, and by which policy and mode.
    pub(super) fn externals(&self, subject: &Subject<'_>) -> Vec<(Arc<str>, External, Mode)> {
        let held = self.guards.iter().flat_map(|guard| &guard.external);
        held.filter_map(|(held, external)| {
            let takes = |rule: &Rule| takes(rule, subject, self.trust_domain, true);
            let asked = held.policy.rules.iter().any(takes);
            asked.then(|| (held.name.clone(), external.clone(), held.policy.mode))
        })
        .collect()
    }
}

impl Scope<'_> {
    /// Claims that rules ask for which would take a request otherwise, each once.
    pub(super) fn claims(&self, subject: &Subject<'_>) -> Vec<Arc<str>> {
        let effects = self.guards.iter().flat_map(|guard| {
            let allow = guard.allow.iter().map(|held| (held, false));
            allow.chain(guard.deny.iter().map(|held| (held, true)))
        });
        let mut names: Vec<Arc<str>> = Vec::new();
        for (held, denies) in effects {
            for rule in &held.policy.rules {
                let near = takes_but_for_claims(rule, subject, self.trust_domain, denies);
                let asked = rule.when.claims.iter().filter(|_| near).map(|claim| &claim.name);
                names.extend(asked.cloned());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Whether a rule takes a request. Of headers that are there several times, one
/// value is enough to deny, and all are needed to allow.
fn takes(rule: &Rule, subject: &Subject<'_>, trust_domain: &str, denies: bool) -> bool {
    takes_but_for_claims(rule, subject, trust_domain, denies)
        && rule.when.claims.iter().all(|wanted| claim_fits(wanted, subject.claims))
}

fn takes_but_for_claims(
    rule: &Rule,
    subject: &Subject<'_>,
    trust_domain: &str,
    denies: bool,
) -> bool {
    from_fits(rule, subject.identity, trust_domain)
        && to_fits(&rule.to, subject)
        && rule.when.headers.iter().all(|wanted| header_fits(wanted, subject.headers, denies))
}

fn from_fits(rule: &Rule, identity: &str, trust_domain: &str) -> bool {
    let from = &rule.from;
    from.peers.as_ref().is_none_or(|peers| peers.has(identity, trust_domain))
        && !from.not_peers.has(identity, trust_domain)
}

fn to_fits(to: &To, subject: &Subject<'_>) -> bool {
    let any = |patterns: &[PathPattern], path| patterns.iter().any(|p| p.matches(path));
    (to.methods.is_empty() || to.methods.contains(subject.method))
        && !to.not_methods.contains(subject.method)
        && (to.paths.is_empty() || any(&to.paths, subject.path))
        && !any(&to.not_paths, subject.path)
        && (to.hosts.is_empty() || to.hosts.iter().any(|host| host.matches(subject.host)))
        && (to.grpc.is_empty() || any(&to.grpc, subject.grpc))
}

/// Whether the claims of a verified token have what is wanted.
#[must_use]
pub fn claim_fits(wanted: &ClaimMatch, claims: Option<&Map<String, Value>>) -> bool {
    let Some(value) = claims.and_then(|claims| claims::find(claims, &wanted.name)) else {
        return false;
    };
    let fits = |value: &Value| {
        claims::text(value).is_some_and(|text| wanted.values.iter().any(|v| **v == *text))
    };
    match value {
        _ if wanted.values.is_empty() => !value.is_null(),
        Value::Array(list) => list.iter().any(fits),
        value => fits(value),
    }
}

fn header_fits(wanted: &HeaderMatch, headers: &HeaderMap, denies: bool) -> bool {
    let mut values = headers.get_all(&wanted.name).iter().peekable();
    if values.peek().is_none() {
        return false;
    }
    if wanted.values.is_empty() {
        return true;
    }
    let mut fits =
        values.map(|value| wanted.values.iter().any(|w| w.as_bytes() == value.as_bytes()));
    if denies { fits.any(|fits| fits) } else { fits.all(|fits| fits) }
}
