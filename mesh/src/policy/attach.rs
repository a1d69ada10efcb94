//! Which policies hold where.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Filter, Policy, PolicyKind, PolicySpec, Target, TargetKind};
use crate::model::{RouteKind, ServiceName};

/// Policies by what they are attached to, each list in the order of names.
#[derive(Debug, Default)]
pub struct Attached<'a> {
    by_target: HashMap<Target, Vec<&'a Policy>>,
    filters: HashMap<&'a str, &'a Arc<Filter>>,
}

impl<'a> Attached<'a> {
    /// Sorts policies by their targets.
    #[must_use]
    pub fn new(policies: &'a [Policy]) -> Self {
        let mut attached = Self::default();
        for policy in policies {
            if let PolicySpec::Filter(filter) = &policy.spec {
                attached.filters.insert(&policy.name, filter);
            }
            for target in &policy.targets {
                attached.by_target.entry(target.clone()).or_default().push(policy);
            }
        }
        for list in attached.by_target.values_mut() {
            list.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        }
        attached
    }

    /// Of one kind, for a target itself: not for what is around it.
    pub fn of(&self, target: &Target, kind: PolicyKind) -> impl Iterator<Item = &'a Policy> + '_ {
        self.by_target.get(target).into_iter().flatten().copied().filter(move |p| p.kind == kind)
    }

    /// Of one kind, for the whole mesh.
    pub fn of_mesh(&self, kind: PolicyKind) -> impl Iterator<Item = &'a Policy> + '_ {
        self.of(&Target::Mesh, kind)
    }

    /// Of one kind, for what enters by the gateway.
    pub fn of_gateway(&self, kind: PolicyKind) -> impl Iterator<Item = &'a Policy> + '_ {
        self.of(&Target::Gateway, kind)
    }

    /// Of one kind, for a service.
    #[must_use]
    pub fn of_service(&self, service: &ServiceName, kind: PolicyKind) -> Vec<&'a Policy> {
        self.of(&Target::Service(service.clone()), kind).collect()
    }

    /// Of one kind, for a rule of a route: its own first, then the whole route's.
    #[must_use]
    pub fn of_rule(
        &self,
        route_kind: RouteKind,
        route: &Arc<str>,
        rule: &Arc<str>,
        kind: PolicyKind,
    ) -> Vec<&'a Policy> {
        let target = |rule: Option<Arc<str>>| Target::Route {
            kind: match route_kind {
                RouteKind::Http => TargetKind::HttpRoute,
                RouteKind::Grpc => TargetKind::GrpcRoute,
            },
            name: route.clone(),
            rule,
        };
        let mut found = Vec::new();
        if self.by_target.is_empty() {
            return found;
        }
        if !rule.is_empty() {
            found.extend(self.of(&target(Some(rule.clone())), kind));
        }
        found.extend(self.of(&target(None), kind));
        found
    }

    /// The filter that an ExtensionRef names.
    #[must_use]
    pub fn filter(&self, name: &str) -> Option<&'a Arc<Filter>> {
        self.filters.get(name).copied()
    }
}
