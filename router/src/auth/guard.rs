//! Policies, compiled: each request reads those of its own target, and no others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;
use weir_mesh::model::{Instance, RouteKind, RouteRule, ServiceName, Snapshot, Transport};
use weir_mesh::policy::authentication::{Authentication, Keys};
use weir_mesh::policy::authorization::{Action, Authorization, External, Mode};
use weir_mesh::policy::{Attached, Policy, PolicyKind, PolicySpec};

use super::active::{self, Active};
use super::decide::{Decision, Scope, decide_tcp};
use super::external;
use super::keys::{self, Cached};
use crate::table::Map;

/// A policy of one target.
#[derive(Debug)]
pub struct Held {
    pub(super) name: Arc<str>,
    pub(super) policy: Arc<Authorization>,
}

/// An AuthenticationPolicy, with what it remembers.
pub struct Tokens {
    pub(super) name: Arc<str>,
    pub(super) policy: Arc<Authentication>,
    /// Of each issuer, where its keys are not in the policy.
    pub(super) keys: Vec<Option<Arc<Cached>>>,
    pub(super) active: Option<Arc<Active>>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("name", &self.name).finish_non_exhaustive()
    }
}

/// All that is asked about requests to one target.
#[derive(Debug, Default)]
pub struct Guard {
    pub(super) deny: Vec<Held>,
    pub(super) allow: Vec<Held>,
    pub(super) external: Vec<(Held, External)>,
    pub(super) authentication: Option<Tokens>,
    /// Whether one of them only reports.
    pub(super) audits: bool,
    /// Whether one of them asks for a gRPC method.
    pub(super) asks_grpc: bool,
}

/// All guards of a table.
#[derive(Debug)]
pub struct Guards {
    pub(super) trust_domain: Arc<str>,
    pub(super) deny_by_default: bool,
    pub(super) hide_policies: bool,
    /// Of the gateway and the mesh, for what enters by the gateway.
    pub(super) gateway: Guard,
    /// Of the mesh, for services that have no guard of their own.
    mesh: Guard,
    /// Of the service and the mesh.
    services: Map<ServiceName, Guard>,
    /// Headers that only verified claims set, wherever it is: the gateway takes
    /// none of them from outside.
    pub claim_headers: Vec<HeaderName>,
    /// Services that have instances without a router, and something to be asked.
    plain: Vec<ServiceName>,
    /// What routers call themselves for the policies: services and gRPC paths.
    asked: Vec<(ServiceName, &'static str)>,
}

/// What outlives tables: keys that were fetched, and who was active.
#[derive(Default)]
pub struct Memory {
    keys: HashMap<String, Arc<Cached>>,
    active: HashMap<ServiceName, Arc<Active>>,
}

/// What policies have routers ask of services.
fn asked(snapshot: &Snapshot) -> Vec<(ServiceName, &'static str)> {
    let mut asked = Vec::new();
    for policy in &snapshot.policies {
        match &policy.spec {
            PolicySpec::Authorization(policy) => {
                if let Action::External(external) = &policy.action {
                    asked.push((external.service.clone(), external::PATH));
                }
            }
            PolicySpec::Authentication(policy) => {
                for issuer in &policy.issuers {
                    if let Keys::Service(service) = &issuer.keys {
                        asked.push((service.clone(), keys::PATH));
                    }
                }
                asked.extend(policy.active_user.iter().map(|a| (a.service.clone(), active::PATH)));
            }
            _ => {}
        }
    }
    asked
}

impl Guards {
    /// Of a snapshot; none when nothing is to be asked about any request. What is sent
    /// to an address that is the router's own comes to no other router.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        attached: &Attached<'_>,
        is_own: &dyn Fn(IpAddr) -> bool,
        memory: &mut Memory,
    ) -> Option<Arc<Self>> {
        let is_ours = |policy: &Policy| {
            matches!(policy.kind, PolicyKind::Authorization | PolicyKind::Authentication)
        };
        if !snapshot.options.deny_by_default && !snapshot.policies.iter().any(is_ours) {
            *memory = Memory::default();
            return None;
        }
        memory.sweep(snapshot);
        let (who_may, tokens) = (PolicyKind::Authorization, PolicyKind::Authentication);
        let mut services = Map::default();
        for name in snapshot.services.keys() {
            let own = attached.of_service(name, who_may);
            let own_tokens = attached.of_service(name, tokens);
            if !own.is_empty() || !own_tokens.is_empty() {
                let all = own.into_iter().chain(attached.of_mesh(who_may));
                let first = own_tokens.into_iter().chain(attached.of_mesh(tokens)).next();
                services.insert(name.clone(), Guard::new(all, first, memory));
            }
        }
        let gateway = attached.of_gateway(who_may).chain(attached.of_mesh(who_may));
        let gateway_tokens = attached.of_gateway(tokens).chain(attached.of_mesh(tokens)).next();
        let claim_headers = snapshot.policies.iter().filter_map(|policy| match &policy.spec {
            PolicySpec::Authentication(policy) => Some(policy.headers().cloned()),
            _ => None,
        });
        let mut claim_headers: Vec<HeaderName> = claim_headers.flatten().collect();
        claim_headers.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        claim_headers.dedup();
        let mut guards = Self {
            trust_domain: snapshot.trust_domain.clone(),
            deny_by_default: snapshot.options.deny_by_default,
            hide_policies: snapshot.options.hide_policies,
            gateway: Guard::new(gateway, gateway_tokens, memory),
            mesh: Guard::new(attached.of_mesh(who_may), attached.of_mesh(tokens).next(), memory),
            services,
            claim_headers,
            plain: Vec::new(),
            asked: asked(snapshot),
        };
        let is_plain = |i: &&Instance| i.transport == Transport::Plain || is_own(i.address.ip());
        let plain = snapshot.instances.iter().filter(is_plain);
        let mut plain: Vec<_> = plain.map(|instance| instance.service.clone()).collect();
        plain.sort_unstable();
        plain.dedup();
        plain.retain(|name| guards.asks_of(name.as_str()));
        guards.plain = plain;
        Some(Arc::new(guards))
    }

    /// Whether anything is asked of what enters by the gateway, whatever its route.
    pub(super) fn ask_at_gateway(&self) -> bool {
        self.deny_by_default || !self.claim_headers.is_empty() || !self.gateway.is_empty()
    }

    /// Whether anything is asked of requests to a service.
    #[must_use]
    pub fn asks_of(&self, service: &str) -> bool {
        self.deny_by_default || !self.of_service(service).is_empty()
    }

    pub(super) fn has_plain(&self, service: &ServiceName) -> bool {
        self.plain.binary_search(service).is_ok()
    }

    /// Whether a connection of bytes to a service may be made, by the identity of
    /// who makes it.
    #[must_use]
    pub fn decide_tcp(&self, identity: &str, service: &str) -> Decision {
        let held = [self.of_service(service)];
        let scope = Scope {
            guards: &held,
            trust_domain: &self.trust_domain,
            deny_by_default: self.deny_by_default,
        };
        decide_tcp(&scope, identity)
    }

    /// Whether somebody else must be asked about requests to a service: of a
    /// connection of bytes there is nothing to ask about.
    #[must_use]
    pub(super) fn must_ask_elsewhere(&self, service: &str) -> bool {
        let external = &self.of_service(service).external;
        external.iter().any(|(held, ext)| held.policy.mode == Mode::Enforce && !ext.fail_open)
    }

    /// Whether each request to a service must show who its user is.
    #[must_use]
    pub fn wants_tokens(&self, service: &str) -> bool {
        self.of_service(service).authentication.is_some()
    }

    /// Whether routers themselves call this, for what a policy says: keys, whether
    /// a user is active, a decision.
    #[must_use]
    pub(super) fn asks_for_policy(&self, service: &str, path: &str) -> bool {
        self.asked.iter().any(|(asked, method)| asked.as_str() == service && *method == path)
    }

    /// Of what is asked of a service, at its own router.
    #[must_use]
    pub fn of_service(&self, name: &str) -> &Guard {
        self.services.get(name).unwrap_or(&self.mesh)
    }
}

impl Guard {
    fn is_empty(&self) -> bool {
        self.deny.is_empty()
            && self.allow.is_empty()
            && self.external.is_empty()
            && self.authentication.is_none()
    }

    /// Of a rule of a route, if anything is attached to it.
    #[must_use]
    pub fn of_rule(
        kind: RouteKind,
        route: &Arc<str>,
        rule: &RouteRule,
        attached: &Attached<'_>,
        memory: &mut Memory,
    ) -> Option<Arc<Self>> {
        let of = |policies| attached.of_rule(kind, route, &rule.name, policies);
        let who_may = of(PolicyKind::Authorization);
        let tokens = of(PolicyKind::Authentication);
        if who_may.is_empty() && tokens.is_empty() {
            return None;
        }
        Some(Arc::new(Self::new(who_may.into_iter(), tokens.first().copied(), memory)))
    }

    fn new<'a>(
        policies: impl Iterator<Item = &'a Policy>,
        tokens: Option<&Policy>,
        memory: &mut Memory,
    ) -> Self {
        let mut guard = Self::default();
        for policy in policies {
            let PolicySpec::Authorization(spec) = &policy.spec else { continue };
            guard.audits |= spec.mode == Mode::Audit;
            guard.asks_grpc |= spec.rules.iter().any(|rule| rule.to.is_grpc());
            let held = Held { name: policy.name.clone(), policy: spec.clone() };
            match &spec.action {
                Action::Allow => guard.allow.push(held),
                Action::Deny => guard.deny.push(held),
                Action::External(external) => guard.external.push((held, external.clone())),
            }
        }
        guard.authentication = tokens.and_then(|policy| match &policy.spec {
            PolicySpec::Authentication(spec) => Some(memory.tokens(&policy.name, spec)),
            _ => None,
        });
        guard
    }
}

impl Memory {
    fn tokens(&mut self, name: &Arc<str>, policy: &Arc<Authentication>) -> Tokens {
        let keys = policy.issuers.iter().map(|issuer| self.keys(&issuer.keys)).collect();
        let active = policy.active_user.as_ref().map(|asked| {
            let active = self.active.entry(asked.service.clone());
            active.or_insert_with(|| Arc::new(Active::new(asked.service.clone()))).clone()
        });
        Tokens { name: name.clone(), policy: policy.clone(), keys, active }
    }

    fn keys(&mut self, keys: &Keys) -> Option<Arc<Cached>> {
        let place = place(keys)?;
        let cached = self.keys.entry(place);
        Some(cached.or_insert_with(|| Arc::new(Cached::new(keys.clone()))).clone())
    }

    /// Forgets what no policy names any more.
    fn sweep(&mut self, snapshot: &Snapshot) {
        let policies = || {
            snapshot.policies.iter().filter_map(|policy| match &policy.spec {
                PolicySpec::Authentication(policy) => Some(policy),
                _ => None,
            })
        };
        let named = |at: &String| {
            let mut issuers = policies().flat_map(|policy| &policy.issuers);
            issuers.any(|issuer| place(&issuer.keys).as_ref() == Some(at))
        };
        self.keys.retain(|at, _| named(at));
        let asked = |name: &ServiceName| {
            policies().any(|p| p.active_user.as_ref().is_some_and(|asked| asked.service == *name))
        };
        self.active.retain(|name, _| asked(name));
    }
}

/// Where keys are fetched from; none: they are in the policy.
fn place(keys: &Keys) -> Option<String> {
    match keys {
        Keys::Inline(_) => None,
        Keys::Uri(uri) => Some(uri.to_string()),
        Keys::Service(name) => Some(format!("service {name}")),
    }
}
