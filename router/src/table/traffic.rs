//! What a BackendTrafficPolicy becomes: rules, and the counters that they need.
//! The counters outlive tables; all workers share them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use weir_mesh::model::ServiceName;
use weir_mesh::policy::traffic::{AdaptiveConcurrency, Limits, Method};
use weir_mesh::policy::{Attached, BackendTraffic, PolicyKind, PolicySpec};

use super::{Endpoint, VersionEntry};
use crate::clock;
use crate::upstream::{Deciding, Gradient, Hashed, Host, Limiter, Outliers, RetryBudget};

/// How requests go to one service.
pub struct Traffic {
    /// The rules.
    pub policy: Arc<BackendTraffic>,
    /// True when there are none but the retry budget's: then requests take the
    /// short way.
    pub plain: bool,
    /// Bounds retries and hedges.
    pub budget: Arc<RetryBudget>,
    /// Bounds requests in flight.
    pub limiter: Option<Arc<Limiter>>,
    /// Finds the limit of `limiter`.
    pub gradient: Option<Arc<Gradient>>,
    /// Bounds connections.
    pub connections: Option<Arc<Limiter>>,
    /// Leaves instances out.
    pub outliers: Option<Outliers>,
    /// By version; empty unless the balancer hashes.
    hashed: Vec<Arc<Hashed>>,
}

impl Traffic {
    /// The ring or table of a version, when the balancer hashes.
    #[must_use]
    pub fn hashed(&self, version: usize) -> Option<&Hashed> {
        self.hashed.get(version).map(|hashed| &**hashed)
    }
}

/// Makes [`Traffic`], and remembers what must stay the same from one table to
/// the next.
#[derive(Default)]
pub struct TrafficBuilder {
    hosts: HashMap<u32, Arc<Host>>,
    seen: HashSet<u32>,
    services: HashMap<ServiceName, Kept>,
}

#[derive(Default)]
struct Kept {
    budget: Option<Arc<RetryBudget>>,
    limits: Option<(Limits, Option<AdaptiveConcurrency>, Held)>,
    deciding: Deciding,
    hashed: Vec<(Method, Vec<Arc<str>>, Arc<Hashed>)>,
}

#[derive(Clone, Default)]
struct Held {
    limiter: Option<Arc<Limiter>>,
    gradient: Option<Arc<Gradient>>,
    connections: Option<Arc<Limiter>>,
}

impl TrafficBuilder {
    /// Before the services of a table.
    pub fn begin(&mut self) {
        self.seen.clear();
    }

    /// After them: forgets what is gone.
    pub fn sweep(&mut self, is_there: impl Fn(&ServiceName) -> bool) {
        self.hosts.retain(|index, _| self.seen.contains(index));
        self.services.retain(|name, _| is_there(name));
    }

    /// How requests go to a service. Its endpoints are told where their state is.
    pub fn service(
        &mut self,
        name: &ServiceName,
        versions: &mut [VersionEntry],
        attached: &Attached<'_>,
    ) -> Arc<Traffic> {
        let policies = attached.of_service(name, PolicyKind::BackendTraffic);
        let policy = policies.into_iter().find_map(|policy| match &policy.spec {
            PolicySpec::BackendTraffic(traffic) => Some(traffic.clone()),
            _ => None,
        });
        let policy = policy.unwrap_or_default();
        let plain = BackendTraffic {
            retry_constraint: policy.retry_constraint,
            ..BackendTraffic::default()
        } == *policy;
        let mut hosts = Vec::new();
        if !plain {
            for endpoint in versions.iter_mut().flat_map(|version| &mut version.endpoints) {
                hosts.push(self.host(endpoint));
            }
        }
        let kept = self.services.entry(name.clone()).or_default();
        let held = kept.held(policy.limits, policy.adaptive_concurrency);
        let outliers = policy.outlier_detection;
        Arc::new(Traffic {
            plain,
            budget: kept.budget(&policy),
            limiter: held.limiter,
            gradient: held.gradient,
            connections: held.connections,
            outliers: outliers.map(|config| Outliers::new(config, hosts, kept.deciding.clone())),
            hashed: kept.hashed(policy.load_balancer.method, versions),
            policy,
        })
    }

    fn host(&mut self, endpoint: &mut Endpoint) -> Arc<Host> {
        self.seen.insert(endpoint.index);
        let host = self.hosts.entry(endpoint.index);
        let host = host.or_insert_with(|| Arc::new(Host::new(clock::now()))).clone();
        endpoint.host = Some(host.clone());
        host
    }
}

impl Kept {
    fn budget(&mut self, policy: &BackendTraffic) -> Arc<RetryBudget> {
        let constraint = policy.retry_constraint;
        let kept = self.budget.take().filter(|budget| budget.constraint() == constraint);
        let budget = kept.unwrap_or_else(|| Arc::new(RetryBudget::new(constraint)));
        self.budget = Some(budget.clone());
        budget
    }

    /// What is in flight is counted anew when limits change.
    fn held(&mut self, limits: Limits, adaptive: Option<AdaptiveConcurrency>) -> Held {
        if let Some((l, a, held)) = &self.limits
            && (*l, *a) == (limits, adaptive)
        {
            return held.clone();
        }
        let gradient = adaptive.map(|a| Arc::new(Gradient::new(a, limits.max_requests)));
        let held = Held {
            limiter: match &gradient {
                Some(gradient) => Some(gradient.limiter().clone()),
                None => limits.max_requests.map(Limiter::new),
            },
            gradient,
            connections: limits.max_connections.map(Limiter::new),
        };
        self.limits = Some((limits, adaptive, held.clone()));
        held
    }

    fn hashed(&mut self, method: Method, versions: &[VersionEntry]) -> Vec<Arc<Hashed>> {
        if !matches!(method, Method::RingHash | Method::Maglev) {
            self.hashed.clear();
            return Vec::new();
        }
        let of = |version: &VersionEntry| {
            let ids: Vec<_> = version.endpoints.iter().map(|e| e.id.clone()).collect();
            // A Maglev table takes its time: made once for the same instances.
            let known = self.hashed.iter().find(|(m, i, _)| *m == method && *i == ids);
            let hashed = known.map(|(.., hashed)| hashed.clone()).unwrap_or_else(|| {
                let ids = ids.iter().map(|id| &**id);
                Arc::new(match method {
                    Method::Maglev => Hashed::maglev(ids),
                    _ => Hashed::ring(ids),
                })
            });
            (method, ids, hashed)
        };
        self.hashed = versions.iter().map(of).collect();
        self.hashed.iter().map(|(.., hashed)| hashed.clone()).collect()
    }
}
