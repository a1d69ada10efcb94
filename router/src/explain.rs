//! What the router would do with a request, and why, told without sending one.
//!
//! [`Compiled::explain`] is a pure function of a snapshot and a request. Which
//! rule takes the request is asked of the very matcher that serves requests;
//! why the others did not is worked out beside it ([`mod@order`] and
//! [`mod@wants`]), so that requests pay nothing for it. That both agree is held
//! by a law in the tests.

mod act;
mod audience;
mod doing;
mod order;
mod story;
mod tell;
mod upstream;
mod verdict;
mod wants;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{Method, Request};
use serde_json::{Map, Value};
use weir_mesh::identity::SpiffeId;
use weir_mesh::model::{Invalid, Parent, Route, RouteRule, Service, ServiceName, Snapshot};

use crate::connection::{Connected, Side};
use crate::error::RouterError;
use crate::request::{canonical, cors, headers, target};
use crate::table::{Action, Builder, Table};
use crate::tcp;

pub use doing::{
    CorsTold, Doing, ExtensionTold, ForceTold, LimitTold, MirrorTold, RetryTold, SessionTold,
};
pub use order::Candidate;
use order::Place;
pub use tell::{
    Answer, AudienceTold, BackendTold, Explanation, GetsTold, InstanceTold, Matched, OwnMirrorTold,
    PolicyTold, Redirected, StickyTold, Tried, Upstream, VersionTold,
};
pub use verdict::{TokensVerdict, Verdict};

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

/// Whose request it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    /// Where it comes from.
    pub caller: Caller,
    /// Who the caller's certificate says it is; none: the caller.
    pub peer: Option<SpiffeId>,
    /// Claims of a token that was verified; none: they are not known.
    pub claims: Option<Map<String, Value>>,
}

impl From<Caller> for Asking {
    fn from(caller: Caller) -> Self {
        Self { caller, peer: None, claims: None }
    }
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

/// What takes a request.
enum Found {
    /// A rule, or a service without routes.
    Action(Arc<Action>),
    /// CORS answers a preflight, by this rule or the mesh's options.
    Preflight(Option<Arc<Action>>),
    /// Egress decides: it leaves the mesh.
    Outside,
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
        target::destination(&self.table, host, None).is_some()
    }

    /// Whether what is no service may be outside of the mesh.
    #[must_use]
    pub fn has_egress(&self) -> bool {
        self.table.options.egress.is_some()
    }

    /// A route by its name.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Route> {
        self.snapshot.routes.iter().find(|route| &*route.name == name)
    }

    /// What would happen to a request. Its URI is absolute; the host in it is what
    /// the client asks for.
    #[must_use]
    pub fn explain(&self, asking: &Asking, request: &Request<()>) -> Explanation {
        let mut told = Explanation::of(&asking.caller, request);
        let canonical = match self.canonical(request) {
            Ok(request) => request,
            Err(error) => {
                told.answer = Some(Answer::of(&error));
                return told;
            }
        };
        told.canonical_path = Some(canonical.uri().path().to_owned());
        let request = &canonical;
        let connected = self.connected(asking);
        let parent = self.parent(&asking.caller, request);
        told.parent = parent.as_ref().map(tell::parent);
        let found = self.find(&connected, request);
        let label = match &found {
            Ok(Found::Action(action) | Found::Preflight(Some(action))) => Some(&*action.label),
            _ => None,
        };
        if let (Some(parent), false) = (&parent, matches!(found, Ok(Found::Preflight(None)))) {
            // A preflight takes the rule of the call to come.
            let is_preflight = matches!(found, Ok(Found::Preflight(_)));
            let asked = if is_preflight { to_come(request) } else { request.clone() };
            let places = self.places(parent);
            let routes = &self.snapshot.routes;
            let candidates: Vec<_> = places.iter().filter_map(|place| place.of(routes)).collect();
            told.tell_candidates(&candidates, &asked, label);
        }
        match found {
            Ok(Found::Action(action)) => self.act(&mut told, &connected, asking, request, &action),
            Ok(Found::Preflight(action)) => {
                self.preflight(&mut told, &connected, request, action.as_deref());
            }
            Ok(Found::Outside) => told.outside = true,
            Err(error) => told.answer = Some(Answer::of(&error)),
        }
        let rule = told.matched.as_ref().and_then(|matched| self.rule_of(matched));
        told.policies = verdict::policies(&self.snapshot, parent.as_ref(), rule, &told.backends);
        told
    }

    /// Where a request would go.
    #[must_use]
    pub fn routed(&self, caller: &Caller, request: &Request<()>) -> Routed {
        let connected = self.connected(&caller.clone().into());
        let found = self.canonical(request).and_then(|request| self.find(&connected, &request));
        let itself = |route: String| Routed {
            route: route.into(),
            backends: String::new(),
            rule: String::new(),
        };
        match found {
            Ok(Found::Action(action)) => Routed {
                route: action.label.clone(),
                backends: act::summary(&action),
                rule: self.rule(&action).map(wants::beside_matches).unwrap_or_default(),
            },
            Ok(Found::Preflight(action)) => itself(match action {
                Some(action) => format!("CORS preflight of {}", action.label),
                None => "CORS preflight of the mesh".to_owned(),
            }),
            Ok(Found::Outside) => itself("outside of the mesh".to_owned()),
            Err(error) => itself(error.to_string()),
        }
    }

    /// Whether what was not recorded of a request could send it elsewhere: some
    /// match that goes before the one that takes it differs only in headers or
    /// query.
    #[must_use]
    pub fn hinges_on_more(&self, caller: &Caller, request: &Request<()>) -> bool {
        let Ok(request) = &self.canonical(request) else { return false };
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

    /// The same request with its path in canonical form, if it is taken at all.
    fn canonical(&self, request: &Request<()>) -> Result<Request<()>, RouterError> {
        headers::check(request.headers())?;
        if request.method() == Method::CONNECT {
            return Err(RouterError::Unsupported("CONNECT is not supported"));
        }
        let options = request.method() == Method::OPTIONS;
        let slashes = self.table.options.escaped_slashes;
        let mut request = request.clone();
        if let Some(uri) = canonical::of(request.uri(), options, slashes)? {
            *request.uri_mut() = uri;
        }
        Ok(request)
    }

    fn find(&self, connected: &Connected, request: &Request<()>) -> Result<Found, RouterError> {
        if let Some((action, _)) = cors::preflight_of(connected, &self.table, request) {
            return Ok(Found::Preflight(action));
        }
        match target::find(&self.table, connected, request) {
            Err(RouterError::NoService(_)) if tcp::is_outside(&self.table, connected, request) => {
                Ok(Found::Outside)
            }
            found => found.map(Found::Action),
        }
    }

    /// The candidates of a parent, in order of precedence.
    fn places(&self, parent: &Parent) -> Rc<[Place]> {
        let key = parent.service().cloned();
        let mut orders = self.orders.borrow_mut();
        let made = || order::places(&self.snapshot.routes, parent).into();
        orders.entry(key).or_insert_with(made).clone()
    }

    /// A connection by which such a request would come.
    fn connected(&self, asking: &Asking) -> Connected {
        let address = SocketAddr::from(([192, 0, 2, 1], 0));
        match &asking.caller {
            Caller::Gateway => Connected::imagined(Side::Gateway, address, "".into()),
            Caller::Service(name) => {
                let own = || {
                    let name = name.as_ref()?.as_str();
                    SpiffeId::of_service(&self.snapshot.trust_domain, name).ok()
                };
                let id = asking.peer.clone().or_else(own);
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
                let port = target::port_of(request.uri(), request.headers());
                let found = target::destination(&self.table, host, port)?;
                Some(Parent::Service(found.service.name.clone()))
            }
        }
    }

    /// The rule behind an action; none: it is a service without routes.
    fn rule(&self, action: &Action) -> Option<&RouteRule> {
        let (name, rule) = action.label.rsplit_once('/')?;
        self.route(name)?.rules.get(rule.parse::<usize>().ok()?)
    }

    fn rule_of(&self, matched: &Matched) -> Option<(&Route, usize)> {
        Some((self.route(&matched.route)?, matched.rule))
    }
}

/// The call that a preflight asks about, as far as it is known.
fn to_come(request: &Request<()>) -> Request<()> {
    let mut request = request.clone();
    let method = request.headers().get(http::header::ACCESS_CONTROL_REQUEST_METHOD);
    if let Some(method) = method.and_then(|m| Method::from_bytes(m.as_bytes()).ok()) {
        *request.method_mut() = method;
    }
    request
}

#[cfg(test)]
mod tests;
