//! Routes -> matchers and actions.

use std::collections::HashMap;
use std::sync::Arc;

use weir_mesh::model::{
    BackendRef, Fraction, Invalid, Parent, PathMatch, Route, RouteFilter, RouteRule, ServiceName,
    SessionKind, SessionPersistence, VersionName,
};
use weir_mesh::policy::{Attached, PolicyKind};

use super::build::Gateways;
use crate::auth::Guard;

use super::{
    Action, Backend, Builder, Filters, Matcher, Mirror, Origin, Rare, ServiceEntry, Session,
    Splitter, Target, point,
};

type Services = HashMap<ServiceName, Arc<ServiceEntry>>;

/// Rules of routes whose parents are services.
#[derive(Default)]
pub(super) struct Parents {
    everybody: HashMap<ServiceName, Matcher>,
    /// For callers in the router's own namespace.
    consumers: HashMap<ServiceName, Matcher>,
}

impl Parents {
    pub(super) fn seal(&mut self) {
        self.everybody.values_mut().chain(self.consumers.values_mut()).for_each(Matcher::seal);
    }

    /// Those of a service: what its callers' namespace says of it comes in the place
    /// of what its own does.
    pub(super) fn take(&mut self, name: &ServiceName) -> Matcher {
        let everybody = self.everybody.remove(name);
        self.consumers.remove(name).or(everybody).unwrap_or_default()
    }
}

/// One rule, and the name that it is known by.
struct Rule<'a> {
    services: &'a Services,
    /// `routes[NAME].rules[INDEX]`.
    at: String,
    /// `route/NAME/INDEX`.
    split: String,
    /// Bytes that its prefix takes.
    prefix: usize,
}

impl Builder {
    pub(super) fn route(
        &mut self,
        route: &Route,
        services: &Services,
        attached: &Attached<'_>,
        gateway: &mut Gateways,
        mesh: &mut Parents,
    ) -> Result<(), Invalid> {
        for (i, rule) in route.rules.iter().enumerate() {
            let action = Arc::new(self.action(route, i, rule, services, attached)?);
            let origin = Origin { route: &route.name, kind: route.kind, rule: i };
            for parent in &route.parents {
                // Host names of a route do not matter to a Service parent (GEP-1294).
                let (matcher, hosts) = match parent {
                    Parent::Gateway => (&mut gateway.default, route.hostnames.as_slice()),
                    Parent::Listener(id) => {
                        let matcher = gateway.listeners.entry(id.clone()).or_default();
                        (matcher, route.hostnames.as_slice())
                    }
                    Parent::Service(name) => {
                        (mesh.everybody.entry(name.clone()).or_default(), &[][..])
                    }
                    Parent::Consumer { service, namespace } if self.is_in(namespace) => {
                        (mesh.consumers.entry(service.clone()).or_default(), &[][..])
                    }
                    Parent::Consumer { .. } => continue,
                };
                for wants in &rule.matches {
                    matcher.add(hosts, wants, origin, &action);
                }
            }
        }
        Ok(())
    }

    fn is_in(&self, namespace: &str) -> bool {
        self.pod.as_ref().is_some_and(|pod| *pod.namespace == *namespace)
    }

    fn action(
        &mut self,
        route: &Route,
        index: usize,
        rule: &RouteRule,
        services: &Services,
        attached: &Attached<'_>,
    ) -> Result<Action, Invalid> {
        let prefix = match rule.matches.as_slice() {
            [one] => match &one.path {
                PathMatch::Prefix(prefix) => prefix.len(),
                _ => 0,
            },
            _ => 0,
        };
        let of = Rule {
            services,
            at: format!("routes[{}].rules[{index}]", route.name),
            split: format!("route/{}/{index}", route.name),
            prefix,
        };
        let mut limits = self.everywhere(attached);
        for policy in attached.of_rule(route.kind, &route.name, &rule.name, PolicyKind::RateLimit) {
            self.limits.attach(policy, false, &mut limits);
        }
        let names: Vec<_> = rule
            .filters
            .iter()
            .filter_map(|filter| match filter {
                RouteFilter::Extension { name, .. } => Some(name.clone()),
                _ => None,
            })
            .collect();
        let label: Arc<str> = format!("{}/{index}", route.name).into();
        let mut backends = Vec::new();
        for (i, backend) in rule.backends.iter().enumerate() {
            backends.push(self.backend(&of, i, backend)?);
        }
        let weights: Vec<u32> = rule.backends.iter().map(|b| b.weight.get()).collect();
        let cors = rule.filters.iter().find_map(|filter| match filter {
            RouteFilter::Cors(cors) => Some(cors.clone()),
            _ => None,
        });
        let rare = Rare {
            cors,
            session: rule.session.as_ref().map(|session| self::session(session, &label)),
            force: route.force_version.clone(),
            pin: route.pin_versions,
        };
        let plain =
            rare.cors.is_none() && rare.session.is_none() && rare.force.is_none() && !rare.pin;
        Ok(Action {
            label,
            backends,
            splitter: Splitter::new(self.splits.number(&of.split), weights),
            timeout: rule.timeout,
            backend_timeout: rule.backend_timeout,
            retry: rule.retry.clone(),
            filters: self.filters(&of, "", &rule.filters)?,
            guard: Guard::of_rule(route.kind, &route.name, rule, attached, &mut self.auth),
            limits,
            extensions: self.extensions.of_rule(route, rule, &names, attached),
            rare: (!plain).then(|| Box::new(rare)),
        })
    }

    fn backend(
        &mut self,
        of: &Rule<'_>,
        index: usize,
        backend: &BackendRef,
    ) -> Result<Backend, Invalid> {
        if let Some(why) = &backend.invalid {
            return Ok(Backend::Invalid(why.clone()));
        }
        let at = format!("backendRefs[{index}]");
        let version = backend.version.as_ref();
        let (service, version) = of.target(&backend.service, version, &at)?;
        let filters = self.filters(of, &at, &backend.filters)?;
        Ok(Backend::Service(Target { service, version, filters }))
    }

    /// `at` is where they are within the rule.
    fn filters(
        &mut self,
        of: &Rule<'_>,
        at: &str,
        filters: &[RouteFilter],
    ) -> Result<Option<Box<Filters>>, Invalid> {
        if filters.iter().all(|filter| matches!(filter, RouteFilter::Cors(_))) {
            return Ok(None);
        }
        let mut built = Filters { prefix: of.prefix, ..Filters::default() };
        for (i, filter) in filters.iter().enumerate() {
            match filter {
                RouteFilter::RequestHeaderModifier(m) => built.request_headers.push(m.clone()),
                RouteFilter::ResponseHeaderModifier(m) => built.response_headers.push(m.clone()),
                RouteFilter::RequestRedirect(redirect) => built.redirect = Some(redirect.clone()),
                RouteFilter::UrlRewrite(rewrite) => built.rewrite = Some(rewrite.clone()),
                RouteFilter::RequestMirror(mirror) => {
                    let at = format!("{at}.filters[{i}].requestMirror");
                    let at = at.trim_start_matches('.');
                    let (service, version) =
                        of.target(&mirror.service, mirror.version.as_ref(), at)?;
                    let part = |part| self.part(part, &format!("{}/{at}", of.split));
                    match mirror.fraction.map(part) {
                        Some(None) => {}
                        part => {
                            built.mirrors.push(Mirror { service, version, part: part.flatten() });
                        }
                    }
                }
                RouteFilter::Cors(_) => {}
                RouteFilter::Extension { kind, name } => {
                    built.extensions.push((kind.clone(), name.clone()));
                }
            }
        }
        Ok(Some(Box::new(built)))
    }

    /// None when nothing is copied.
    fn part(&mut self, fraction: Fraction, split: &str) -> Option<Splitter> {
        let Fraction { numerator, denominator } = fraction;
        let weights = vec![numerator, denominator - numerator];
        (numerator > 0).then(|| Splitter::new(self.splits.number(&split.to_owned()), weights))
    }
}

impl Rule<'_> {
    fn target(
        &self,
        service: &ServiceName,
        version: Option<&VersionName>,
        at: &str,
    ) -> Result<(Arc<ServiceEntry>, Option<usize>), Invalid> {
        let error = |why: String| Invalid::one(format!("{}.{at}", self.at), why);
        let service =
            self.services.get(service).ok_or_else(|| error(format!("no service {service}")))?;
        let version = match version {
            None => None,
            Some(name) => Some(
                service
                    .version(name)
                    .ok_or_else(|| error(format!("{} has no version {name}", service.name)))?,
            ),
        };
        Ok((service.clone(), version))
    }
}

fn session(session: &SessionPersistence, label: &str) -> Session {
    // Two rules without names must not take each other's cookies.
    let own = || format!("weir-session-{:08x}", point(label.as_bytes()) >> 32).into();
    let name: Arc<str> = session.name.clone().unwrap_or_else(own);
    let header = match session.kind {
        SessionKind::Header => name.parse().ok(),
        SessionKind::Cookie | SessionKind::PermanentCookie => None,
    };
    Session {
        name,
        header,
        kind: session.kind,
        absolute_timeout: session.absolute_timeout,
        idle_timeout: session.idle_timeout,
    }
}
