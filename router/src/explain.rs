//! What the router would do with a request, and why, told without sending one.
//!
//! [`Compiled::explain`] is a pure function of a snapshot and a request. Which
//! rule takes the request is asked of the very matcher that serves requests;
//! why the others did not is worked out beside it ([`mod@order`] and
//! [`mod@wants`]), so that requests pay nothing for it. That both agree is held
//! by a law in the tests.

mod act;
mod order;
mod tell;
mod verdict;
mod wants;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, Version};
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Invalid, Parent, Route, Service, ServiceName, Snapshot};

use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::{headers, target};
use crate::table::{Action, Builder, Table};

pub use order::Candidate;
use order::Place;
pub use tell::{
    Answer, BackendTold, Explanation, InstanceTold, Matched, PolicyTold, StickyTold, Tried,
    Upstream, VersionTold,
};
pub use verdict::Verdict;

/// Candidates that an explanation tells at most; the rest is counted.
const TOLD: usize = 50;

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The outside, by the gateway.
    Gateway,
    /// An application of the mesh, by its router; none: any.
    Service(Option<ServiceName>),
}

/// A snapshot that can be asked.
pub struct Compiled {
    snapshot: Snapshot,
    table: Table,
    /// Candidates by parent, worked out when first asked for.
    orders: RefCell<HashMap<Option<ServiceName>, Rc<[Place]>>>,
}

/// Where a request would go, in short: what a replay compares.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Routed {
    /// `route/rule`, the service's name without a route, or the error's text.
    pub route: Arc<str>,
    /// Services and versions with their weights; empty when the router answers
    /// itself.
    pub backends: String,
    /// All else that the rule does: two requests that differ in this alone are
    /// treated differently by filters, timeouts or the like.
    pub rule: String,
}

impl Compiled {
    /// Compiles a snapshot as a router does.
    ///
    /// # Errors
    /// What a router would refuse it for.
    pub fn new(snapshot: Snapshot) -> Result<Self, Invalid> {
        let table = Builder::default().build(&snapshot)?;
        Ok(Self { snapshot, table, orders: RefCell::default() })
    }

    /// The services of the mesh.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.snapshot.services.values()
    }

    /// Whether a host means a service of the mesh.
    #[must_use]
    pub fn names_service(&self, host: &str) -> bool {
        target::destination(&self.table, host).is_some()
    }

    /// A route by its name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.snapshot.routes.iter().find(|route| &*route.name == name)
    }

    /// What would happen to a request. Its URI is absolute; the host in it is what
    /// the client asks for.
    #[must_use]
    pub fn explain(&self, caller: &Caller, request: &Request<()>) -> Explanation {
        let connected = self.connected(caller);
        let mut told = Explanation::of(caller, request);
        let parent = self.parent(caller, request);
        told.parent = parent.as_ref().map(tell::parent);
        let found = self.find(&connected, request);
        let label = found.as_ref().ok().map(|action| action.label.clone());
        if let Some(parent) = &parent {
            let places = self.places(parent);
            let routes = &self.snapshot.routes;
            let candidates: Vec<_> = places.iter().filter_map(|place| place.of(routes)).collect();
            told.tell_candidates(&candidates, request, label.as_deref());
        }
        match found {
            Ok(action) => self.act(&mut told, &connected, request, &action),
            Err(error) => told.answer = Some(Answer::of(&error)),
        }
        let rule = told.matched.as_ref().and_then(|matched| self.rule_of(matched));
        told.policies = verdict::policies(&self.snapshot, parent.as_ref(), rule, &told.backends);
        told.verdict = verdict::verdict(&self.snapshot, caller, request, &told);
        told
    }

    /// Where a request would go.
    #[must_use]
    pub fn routed(&self, caller: &Caller, request: &Request<()>) -> Routed {
        match self.find(&self.connected(caller), request) {
            Ok(action) => {
                let rule = self.route_of(&action.label).and_then(|(route, i)| route.rules.get(i));
                Routed {
                    route: action.label.clone(),
                    backends: act::summary(&action),
                    rule: rule.map(wants::beside_matches).unwrap_or_default(),
                }
            }
            Err(error) => Routed {
                route: error.to_string().into(),
                backends: String::new(),
                rule: String::new(),
            },
        }
    }

    /// Whether what was not recorded of a request could send it elsewhere: some
    /// match that goes before the one that takes it differs only in headers or
    /// query.
    #[must_use]
    pub fn hinges_on_more(&self, caller: &Caller, request: &Request<()>) -> bool {
        let Some(parent) = self.parent(caller, request) else { return false };
        let host = target::host(request).unwrap_or_default().to_ascii_lowercase();
        let places = self.places(&parent);
        for candidate in places.iter().filter_map(|place| place.of(&self.snapshot.routes)) {
            match candidate.why_not(&host, request) {
                None => return false,
                Some(why) if why.is_of_more() => return true,
                Some(_) => {}
            }
        }
        false
    }

    fn find(
        &self,
        connected: &Connected,
        request: &Request<()>,
    ) -> Result<Arc<Action>, RouterError> {
        headers::check_size(request.headers())?;
        if request.method() == http::Method::CONNECT {
            return Err(RouterError::Unsupported("CONNECT is not supported"));
        }
        target::find(&self.table, connected, request)
    }

    /// The candidates of a parent, in order of precedence.
    fn places(&self, parent: &Parent) -> Rc<[Place]> {
        let key = match parent {
            Parent::Gateway => None,
            Parent::Service(name) => Some(name.clone()),
        };
        let mut orders = self.orders.borrow_mut();
        let made = || order::places(&self.snapshot.routes, parent).into();
        orders.entry(key).or_insert_with(made).clone()
    }

    /// A connection by which such a request would come.
    fn connected(&self, caller: &Caller) -> Connected {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        match caller {
            Caller::Gateway => Connected::imagined(Side::Gateway, address, "".into()),
            Caller::Service(name) => {
                let id = name.as_ref().and_then(|name| {
                    SpiffeId::new(&self.snapshot.trust_domain, "default", name.as_str()).ok()
                });
                let peer = id.map(|id| id.to_string()).unwrap_or_default();
                Connected::imagined(Side::Outbound, address, peer.into())
            }
        }
    }

    /// Whose routes are asked.
    fn parent(&self, caller: &Caller, request: &Request<()>) -> Option<Parent> {
        match caller {
            Caller::Gateway => Some(Parent::Gateway),
            Caller::Service(_) => {
                let host = target::host(request)?;
                let found = target::destination(&self.table, host)?;
                Some(Parent::Service(found.service.name.clone()))
            }
        }
    }

    fn act(
        &self,
        told: &mut Explanation,
        connected: &Connected,
        request: &Request<()>,
        action: &Arc<Action>,
    ) {
        told.label = action.label.to_string();
        told.timeout_ms = act::timeout(action, request);
        let (mut parts, ()) = request.clone().into_parts();
        parts.version = Version::HTTP_2;
        told.backends = act::backends(action, &self.snapshot, &parts.headers);
        act::upstream(told, connected, action, parts);
    }

    fn route_of(&self, label: &str) -> Option<(&Route, usize)> {
        let (name, rule) = label.rsplit_once('/')?;
        Some((self.route(name)?, rule.parse().ok()?))
    }

    fn rule_of(&self, matched: &Matched) -> Option<(&Route, usize)> {
        Some((self.route(&matched.route)?, matched.rule))
    }
}

#[cfg(test)]
mod tests;
